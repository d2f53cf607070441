//! Netlink's framing: messages and attributes (type, length, value, padded to four bytes), out and in.
//!
//! Lengths are 16 bits in an attribute and 32 in a message. The writer notices what does not fit and reports it once
//! at the end; a length field that wraps is how CVE-2021-43784 let a message say something else than was meant.

use crate::{Error, Result};

pub const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = !(NESTED | 1 << 14);

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const ECHO: u16 = 0x8;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;
/// In an answer: only the header of the request is repeated.
pub const CAPPED: u16 = 0x100;
/// In an answer: attributes with an explanation follow.
pub const ACK_TLVS: u16 = 0x200;

pub const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// One buffer of messages, to be sent together.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    too_long: Option<&'static str>,
}

impl Writer {
    /// Appends one message: `struct nlmsghdr`, then whatever `body` writes.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.put(&[0; 4]);
        self.put(&kind.to_ne_bytes());
        self.put(&flags.to_ne_bytes());
        self.put(&sequence.to_ne_bytes());
        self.put(&[0; 4]);
        body(self);
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.too_long = Some("message"),
        }
        self.pad();
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest_raw(kind, |w| w.put(value));
    }

    /// A string attribute with its terminating NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.nest_raw(kind, |w| {
            w.put(value.as_bytes());
            w.put(&[0]);
        });
    }

    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A big-endian number, as nf_tables wants them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.nest_raw(kind | NESTED, body);
    }

    /// The same without the nested flag, for an attribute that starts with a struct (VETH_INFO_PEER).
    pub fn nest_raw(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.put(&[0; 2]);
        self.put(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.too_long = Some("attribute"),
        }
        self.pad();
    }

    /// The finished buffer, or [`Error::TooLong`] when any length did not fit.
    pub fn finish(self) -> Result<Vec<u8>> {
        match self.too_long {
            None => Ok(self.bytes),
            Some(what) => Err(Error::TooLong(what.to_owned())),
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The socket whose request this answers or, in a notification, which made the change; 0 for the kernel itself.
    pub port: u32,
    pub payload: &'a [u8],
}

/// The messages of one datagram. Ends at the first one that does not hold together.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes` as (type without flags, value). Ends at the first one that does not hold together.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at.checked_add(2)?)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_ne_bytes)
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at.checked_add(8)?)?
        .try_into()
        .ok()
        .map(u64::from_ne_bytes)
}

pub fn be16_at(bytes: &[u8], at: usize) -> Option<u16> {
    u16_at(bytes, at).map(u16::from_be)
}

pub fn be32_at(bytes: &[u8], at: usize) -> Option<u32> {
    u32_at(bytes, at).map(u32::from_be)
}

pub fn be64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at.checked_add(8)?)?
        .try_into()
        .ok()
        .map(u64::from_be_bytes)
}

/// A string attribute without its NUL; bytes that are not UTF-8 are replaced.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.message(16, REQUEST, 7, |w| {
            w.text(3, "lo");
            w.nest(18, |w| w.u32(1, 99));
        });
        let bytes = writer.finish().unwrap();
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.sequence), (16, 7));
        assert_eq!(text(attribute(message.payload, 3).unwrap()), "lo");
        let inner = attribute(message.payload, 18).unwrap();
        assert_eq!(u32_at(attribute(inner, 1).unwrap(), 0), Some(99));
    }

    #[test]
    fn an_attribute_that_does_not_fit_its_length_is_an_error() {
        let mut writer = Writer::default();
        writer.nest(1, |w| {
            for _ in 0..9000 {
                w.attribute(1, &[0; 4]);
            }
        });
        assert!(matches!(writer.finish(), Err(Error::TooLong(_))));
    }

    #[test]
    fn garbage_neither_panics_nor_loops() {
        for length in 0..64_usize {
            for fill in [0_u8, 1, 3, 4, 7, 0xff] {
                let bytes = vec![fill; length];
                assert!(messages(&bytes).count() <= length);
                assert!(attributes(&bytes).count() <= length);
            }
        }
    }
}
