//! Constants and verdicts as bytes.

use std::net::IpAddr;

use crate::nft::expression::{Value, Verdict};
use crate::wire::Writer;
use crate::{Error, Result};

/// `IFNAMSIZ`.
pub const INTERFACE: usize = 16;

/// The start of a link's name. It leaves room for at least the NUL.
pub fn prefix(text: &str) -> Result<&[u8]> {
    if text.is_empty() || text.len() >= INTERFACE || text.contains('\0') {
        return Err(Error::TooLong(format!("{text:?} as the start of a link's name")));
    }
    Ok(text.as_bytes())
}

/// One value as it is; several each padded to whole registers.
pub fn concatenate(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    if let [one] = parts.as_mut_slice() {
        return std::mem::take(one);
    }
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The address with the host bits cleared, and the mask.
pub fn masked(address: IpAddr, prefix: u8) -> (Vec<u8>, Vec<u8>) {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mask: Vec<u8> = (0..octets.len())
        .map(|index| {
            let bits = usize::from(prefix).saturating_sub(index * 8).min(8);
            u8::MAX.checked_shl(8 - u32::try_from(bits).unwrap_or(8)).unwrap_or(0)
        })
        .collect();
    (
        octets.iter().zip(&mask).map(|(octet, mask)| octet & mask).collect(),
        mask,
    )
}

pub fn encode_value(value: &Value) -> Result<Vec<u8>> {
    Ok(match value {
        Value::Interface(name) => {
            if name.is_empty() || name.len() > 15 {
                return Err(Error::TooLong(format!("{name:?} as a link's name")));
            }
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(INTERFACE, 0);
            bytes
        }
        Value::Address(IpAddr::V4(v4)) => v4.octets().to_vec(),
        Value::Address(IpAddr::V6(v6)) => v6.octets().to_vec(),
        Value::Port(port) => port.to_be_bytes().to_vec(),
        Value::Protocol(protocol) => vec![*protocol],
        Value::NfProto(family) => vec![*family as u8],
        Value::Mark(mark) => mark.to_ne_bytes().to_vec(),
        Value::CtState(states) => states
            .iter()
            .fold(0, |bits, state| bits | *state as u32)
            .to_ne_bytes()
            .to_vec(),
        Value::CtStatus(status) => (*status as u32).to_ne_bytes().to_vec(),
        Value::Present(present) => u32::from(*present).to_ne_bytes().to_vec(),
        Value::AddressType(kind) => (*kind as u32).to_ne_bytes().to_vec(),
        Value::Prefix(..) | Value::Ports(..) | Value::InterfacePrefix(_) => {
            return Err(Error::TooLong("a range as a single value".to_owned()));
        }
    })
}

pub fn verdict_data(w: &mut Writer, verdict: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Continue => (-1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    w.nest(2, |w| {
        w.be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            w.text(2, chain);
        }
    });
}
