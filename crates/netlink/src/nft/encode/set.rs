//! Sets and their elements.

use super::value::{self, INTERFACE, concatenate, encode_value, masked, verdict_data};
use crate::nft::expression::Value;
use crate::nft::set::{Data, Element, ElementData, Key, Set, Type};
use crate::wire::Writer;
use crate::{Error, Result};

const ELEMENT: u16 = 1;

pub fn add_set(w: &mut Writer, table: &str, set: &Set) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCATENATION: u32 = 0x80;
    const VERDICT: u32 = 0xffff_ff00;
    let many = set.key.len() > 1;
    let mut flags = 0;
    flags |= if set.interval { INTERVAL } else { 0 };
    flags |= if set.data.is_some() { MAP } else { 0 };
    flags |= if set.interval && many { CONCATENATION } else { 0 };
    w.text(1, table);
    w.text(2, &set.name);
    w.be32(3, flags);
    w.be32(4, kind_of(&set.key));
    w.be32(5, length_of(&set.key));
    match &set.data {
        None => {}
        Some(Data::Verdict) => w.be32(6, VERDICT),
        Some(Data::Values(types)) => {
            w.be32(6, kind_of(types));
            w.be32(7, length_of(types));
        }
    }
    if let [Type::Interface | Type::Mark] = set.key.as_slice() {
        // For nft alone, which would print them reversed: type 0 (key byte order), length, 1 (the host's).
        let [a, b, c, d] = 1_u32.to_ne_bytes();
        w.attribute(13, &[0, 4, a, b, c, d]);
    }
    // Any number names the set within the batch; rules find it by its name.
    w.be32(10, 1);
    if set.interval && many {
        w.nest(9, |w| {
            w.nest(2, |w| {
                set.key
                    .iter()
                    .for_each(|key| w.nest(ELEMENT, |w| w.be32(1, key.length())));
            });
        });
    }
}

/// nft's number for a concatenation: six bits each, the first one highest.
fn kind_of(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, kind| number << 6 | *kind as u32)
}

fn length_of(types: &[Type]) -> u32 {
    match types {
        [one] => one.length(),
        many => many.iter().map(|kind| kind.length().next_multiple_of(4)).sum(),
    }
}

/// An element, or for an interval of single values its start and, unless it is the highest value, what comes after its
/// end; for an interval of concatenations both ends in one.
pub fn element(w: &mut Writer, element: &Element, interval: bool) -> Result<()> {
    const INTERVAL_END: u32 = 1;
    let mut ends = Vec::with_capacity(element.key.len());
    for key in &element.key {
        ends.push(bounds(key)?);
    }
    let data = |w: &mut Writer| match &element.data {
        None => Ok(()),
        Some(ElementData::Verdict(verdict)) => {
            w.nest(2, |w| verdict_data(w, verdict));
            Ok(())
        }
        Some(ElementData::Values(values)) => {
            let values: Result<Vec<_>> = values.iter().map(encode_value).collect();
            let bytes = concatenate(values?);
            w.nest(2, |w| w.attribute(1, &bytes));
            Ok(())
        }
    };
    let single = ends.len() == 1;
    let (low, high): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let (low, high) = (concatenate(low), concatenate(high));
    if !interval && low != high {
        return Err(Error::TooLong("a range in a set without intervals".to_owned()));
    }
    let mut written = Ok(());
    w.nest(ELEMENT, |w| {
        w.nest(1, |w| w.attribute(1, &low));
        if interval && !single {
            w.nest(10, |w| w.attribute(1, &high));
        }
        written = data(w);
    });
    if interval
        && single
        && let Some(after) = successor(&high)
    {
        w.nest(ELEMENT, |w| {
            w.nest(1, |w| w.attribute(1, &after));
            w.be32(3, INTERVAL_END);
        });
    }
    written
}

/// Lowest and highest value of a key, both included.
fn bounds(key: &Key) -> Result<(Vec<u8>, Vec<u8>)> {
    match key {
        // Names are compared byte by byte, like numbers whose first byte is the highest.
        Key::One(Value::InterfacePrefix(prefix)) => {
            let prefix = value::prefix(prefix)?;
            let filled = |fill| {
                let mut bytes = prefix.to_vec();
                bytes.resize(INTERFACE, fill);
                bytes
            };
            Ok((filled(0), filled(u8::MAX)))
        }
        Key::One(value) => encode_value(value).map(|bytes| (bytes.clone(), bytes)),
        Key::Range(low, high) => Ok((encode_value(low)?, encode_value(high)?)),
        Key::Prefix(address, prefix) => {
            let (address, mask) = masked(*address, *prefix);
            let high = address.iter().zip(&mask).map(|(byte, mask)| byte | !mask).collect();
            Ok((address, high))
        }
    }
}

fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(bytes);
        }
    }
    None
}
