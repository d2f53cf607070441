//! Statements as the kernel's expressions, which pass values on in registers.

use super::check;
use super::value::{self, encode_value, masked, verdict_data};
use crate::nft::Family;
use crate::nft::expression::{Field, NatTarget, Operator, PortOf, Reject, Statement, Value};
use crate::wire::Writer;
use crate::{Error, Result};

const ELEMENT: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
/// The first 16-byte register, and by its other name the first of sixteen 4-byte ones: nft uses the one for single
/// values and the others for concatenations, and so must we, for `nft list` to recognise them.
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`
const PROTO_SPECIFIED: u32 = 2;
const SLOT: u32 = 8;
const SLOTS: u32 = 16;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`
const TRANSPORT: u32 = 2;
/// `NFT_FIB_RESULT_*`
const LINK: u32 = 1;
const ADDRESS_TYPE: u32 = 3;
/// `NFTA_FIB_F_*`
const SOURCE: u32 = 1;
const DESTINATION: u32 = 1 << 1;
const INCOMING: u32 = 1 << 3;
const PRESENT: u32 = 1 << 5;

/// The expressions of one rule.
pub struct Body<'a> {
    pub w: &'a mut Writer,
    pub family: Family,
    /// Whether the checks that fields need are there already.
    pub nfproto: bool,
    pub l4proto: bool,
}

impl Body<'_> {
    pub fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Match { field, operator, value } => {
                self.require(*field);
                self.load(*field, REGISTER);
                self.compare(*operator, value)?;
            }
            Statement::Lookup { fields, negated, set } => {
                let register = self.load_all(fields)?;
                check(set)?;
                self.expression("lookup", |w| {
                    w.text(1, set);
                    w.be32(2, register);
                    w.be32(5, u32::from(*negated));
                });
            }
            Statement::VerdictMap { fields, map } => self.map(fields, map, VERDICT_REGISTER)?,
            Statement::Verdict(verdict) => self.expression("immediate", |w| {
                w.be32(1, VERDICT_REGISTER);
                w.nest(2, |w| verdict_data(w, verdict));
            }),
            Statement::Counter => self.expression("counter", |_| {}),
            Statement::SetMark(mark) => {
                self.immediate(REGISTER, &mark.to_ne_bytes());
                self.expression("meta", |w| {
                    w.be32(2, 3);
                    w.be32(3, REGISTER);
                });
            }
            Statement::SetPort { which, port } => self.set_port(*which, *port),
            Statement::Masquerade => self.expression("masq", |_| {}),
            Statement::Nat { kind, target } => self.nat(*kind as u32, target)?,
            Statement::Redirect { port } => {
                if let Some(port) = port {
                    self.immediate(REGISTER, &port.to_be_bytes());
                }
                self.expression("redir", |w| {
                    if port.is_some() {
                        w.be32(1, REGISTER);
                        w.be32(3, PROTO_SPECIFIED);
                    }
                });
            }
            Statement::NoTrack => self.expression("notrack", |_| {}),
            Statement::Reject(reject) => {
                // NFT_REJECT_ICMPX_UNREACH: one code for both families, as `inet` needs.
                let (kind, code) = match reject {
                    Reject::PortUnreachable => (2, 1),
                    Reject::AdminProhibited => (2, 3),
                    Reject::TcpReset => (1, 0),
                };
                self.expression("reject", |w| {
                    w.be32(1, kind);
                    w.attribute(2, &[code]);
                });
            }
        }
        Ok(())
    }

    fn compare(&mut self, operator: Operator, value: &Value) -> Result<()> {
        let equal = operator == Operator::Equal;
        match value {
            Value::CtState(_) | Value::CtStatus(_) => {
                // Bits: any of them set is not equal to zero.
                let mask = encode_value(value)?;
                self.bitwise(&mask);
                self.cmp(!equal, &[0; 4]);
            }
            Value::Prefix(address, prefix) => {
                let (network, mask) = masked(*address, *prefix);
                self.bitwise(&mask);
                self.cmp(equal, &network);
            }
            Value::Ports(low, high) => self.expression("range", |w| {
                w.be32(1, REGISTER);
                w.be32(2, u32::from(!equal));
                w.nest(3, |w| w.attribute(1, &low.to_be_bytes()));
                w.nest(4, |w| w.attribute(1, &high.to_be_bytes()));
            }),
            // Compared as far as it goes, without the NUL that ends a whole name.
            Value::InterfacePrefix(prefix) => self.cmp(equal, value::prefix(prefix)?),
            single => self.cmp(equal, &encode_value(single)?),
        }
        Ok(())
    }

    fn cmp(&mut self, equal: bool, bytes: &[u8]) {
        self.expression("cmp", |w| {
            w.be32(1, REGISTER);
            w.be32(2, u32::from(!equal));
            w.nest(3, |w| w.attribute(1, bytes));
        });
    }

    fn bitwise(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        self.expression("bitwise", |w| {
            w.be32(1, REGISTER);
            w.be32(2, REGISTER);
            w.be32(3, length);
            w.nest(4, |w| w.attribute(1, mask));
            w.nest(5, |w| w.attribute(1, &vec![0; mask.len()]));
        });
    }

    fn immediate(&mut self, register: u32, bytes: &[u8]) {
        self.expression("immediate", |w| {
            w.be32(1, register);
            w.nest(2, |w| w.attribute(1, bytes));
        });
    }

    fn map(&mut self, fields: &[Field], map: &str, into: u32) -> Result<()> {
        let register = self.load_all(fields)?;
        check(map)?;
        self.expression("lookup", |w| {
            w.text(1, map);
            w.be32(2, register);
            w.be32(3, into);
        });
        Ok(())
    }

    fn nat(&mut self, kind: u32, target: &NatTarget) -> Result<()> {
        let (family, port) = match target {
            NatTarget::Address { address, port } => {
                self.immediate(REGISTER, &encode_value(&Value::Address(*address))?);
                if let Some(port) = port {
                    self.immediate(SECOND_REGISTER, &port.to_be_bytes());
                }
                let family = if address.is_ipv4() { Family::Ip } else { Family::Ip6 };
                (family, port.map(|_| SECOND_REGISTER))
            }
            NatTarget::Map {
                fields,
                map,
                family,
                port,
            } => {
                self.map(fields, map, REGISTER)?;
                let address = if *family == Family::Ip6 { 4 } else { 1 };
                (*family, port.then_some(SLOT + address))
            }
        };
        self.expression("nat", |w| {
            w.be32(1, kind);
            w.be32(2, u32::from(family as u8));
            w.be32(3, REGISTER);
            if let Some(register) = port {
                w.be32(5, register);
                w.be32(7, PROTO_SPECIFIED);
            }
        });
        Ok(())
    }

    /// Loads the fields side by side and returns the register they start at.
    fn load_all(&mut self, fields: &[Field]) -> Result<u32> {
        fields.iter().for_each(|field| self.require(*field));
        if let [field] = fields {
            self.load(*field, REGISTER);
            return Ok(REGISTER);
        }
        let mut slot = 0;
        for field in fields {
            let slots = length(*field).div_ceil(4);
            if slot + slots > SLOTS {
                return Err(Error::TooLong("a concatenation of more than 64 bytes".to_owned()));
            }
            self.load(*field, SLOT + slot);
            slot += slots;
        }
        Ok(SLOT)
    }

    /// The checks without which the field might be read from a packet of another kind.
    fn require(&mut self, field: Field) {
        let nfproto = match field {
            Field::IpSaddr | Field::IpDaddr => Some(Family::Ip),
            Field::Ip6Saddr | Field::Ip6Daddr => Some(Family::Ip6),
            _ => None,
        };
        if let Some(family) = nfproto
            && self.family == Family::Inet
            && !self.nfproto
        {
            self.nfproto = true;
            self.load(Field::NfProto, REGISTER);
            self.cmp(true, &[family as u8]);
        }
        let l4proto = match field {
            Field::TcpSport | Field::TcpDport => Some(6),
            Field::UdpSport | Field::UdpDport => Some(17),
            _ => None,
        };
        if let Some(protocol) = l4proto
            && !self.l4proto
        {
            self.l4proto = true;
            self.load(Field::L4Proto, REGISTER);
            self.cmp(true, &[protocol]);
        }
    }

    fn load(&mut self, field: Field, register: u32) {
        match field {
            Field::Mark => self.meta(3, register),
            Field::IifName => self.meta(6, register),
            Field::OifName => self.meta(7, register),
            Field::NfProto => self.meta(15, register),
            Field::L4Proto => self.meta(16, register),
            Field::IpSaddr => self.payload(1, 12, 4, register),
            Field::IpDaddr => self.payload(1, 16, 4, register),
            Field::Ip6Saddr => self.payload(1, 8, 16, register),
            Field::Ip6Daddr => self.payload(1, 24, 16, register),
            Field::TcpSport | Field::UdpSport | Field::ThSport => self.payload(2, 0, 2, register),
            Field::TcpDport | Field::UdpDport | Field::ThDport => self.payload(2, 2, 2, register),
            Field::CtState => self.ct(0, register),
            Field::CtStatus => self.ct(2, register),
            Field::CtMark => self.ct(3, register),
            Field::FibSaddrType => self.fib(ADDRESS_TYPE, SOURCE, register),
            Field::FibDaddrType => self.fib(ADDRESS_TYPE, DESTINATION, register),
            Field::FibSaddrIif => self.fib(LINK, SOURCE | INCOMING | PRESENT, register),
        }
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |w| {
            w.be32(1, register);
            w.be32(2, key);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |w| {
            w.be32(1, register);
            w.be32(2, base);
            w.be32(3, offset);
            w.be32(4, length);
        });
    }

    fn set_port(&mut self, which: PortOf, port: u16) {
        /// `NFT_PAYLOAD_CSUM_INET`
        const INTERNET: u32 = 1;
        let (offset, checksum) = match which {
            PortOf::TcpSource => (0, 16),
            PortOf::TcpDestination => (2, 16),
            PortOf::UdpSource => (0, 6),
            PortOf::UdpDestination => (2, 6),
        };
        self.require(which.field());
        self.immediate(REGISTER, &port.to_be_bytes());
        self.expression("payload", |w| {
            w.be32(5, REGISTER);
            w.be32(2, TRANSPORT);
            w.be32(3, offset);
            w.be32(4, 2);
            w.be32(6, INTERNET);
            w.be32(7, checksum);
        });
    }

    fn ct(&mut self, key: u32, register: u32) {
        self.expression("ct", |w| {
            w.be32(1, register);
            w.be32(2, key);
        });
    }

    fn fib(&mut self, result: u32, flags: u32, register: u32) {
        self.expression("fib", |w| {
            w.be32(1, register);
            w.be32(2, result);
            w.be32(3, flags);
        });
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        self.w.nest(ELEMENT, |w| {
            w.text(1, name);
            w.nest(2, data);
        });
    }
}

fn length(field: Field) -> u32 {
    match field {
        Field::IifName | Field::OifName | Field::Ip6Saddr | Field::Ip6Daddr => 16,
        Field::TcpSport | Field::TcpDport | Field::UdpSport | Field::UdpDport | Field::ThSport | Field::ThDport => 2,
        Field::NfProto | Field::L4Proto => 1,
        _ => 4,
    }
}
