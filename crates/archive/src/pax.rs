//! PAX extended headers (POSIX.1-2001 pax, "pax Header Block"): records of the form `"%d key=value\n"`.

use crate::{Error, Limits, Result, Time};

/// The records that matter, of one header. An empty value means "as in the ustar header" and is left out.
#[derive(Debug, Default)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Sparse,
}

/// GNU's sparse files, format 0.0, 0.1 or 1.0 (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Default)]
pub struct Sparse {
    pub major: Option<Vec<u8>>,
    pub minor: Option<Vec<u8>>,
    pub name: Option<Vec<u8>>,
    pub size: Option<i64>,
    /// Offset, length, offset, length, …; an odd count is malformed.
    pub map: Vec<i64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

pub fn parse(mut bytes: &[u8], offset: u64, limits: &Limits) -> Result<Records> {
    let malformed = |what| Error::Malformed { offset, what };
    let mut records = Records::default();
    while !bytes.is_empty() {
        let (key, value, rest) = record(bytes).ok_or(malformed("a PAX record that does not parse"))?;
        bytes = rest;
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() || name.contains(&0) {
                return Err(malformed("an extended attribute with a bad name"));
            }
            if value.len() > limits.xattr_bytes {
                return Err(Error::TooLarge {
                    what: "bytes of extended attribute",
                    limit: limits.xattr_bytes as u64,
                });
            }
            records.xattrs.push((name.to_vec(), value.to_vec()));
            if records.xattrs.len() > limits.xattrs {
                return Err(Error::TooLarge {
                    what: "extended attributes",
                    limit: limits.xattrs as u64,
                });
            }
            continue;
        }
        let bad = || malformed("a PAX record with a bad value");
        let known = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name");
        if known && value.contains(&0) {
            return Err(bad());
        }
        if value.is_empty() {
            continue;
        }
        match key {
            b"path" => records.path = Some(value.to_vec()),
            b"linkpath" => records.link = Some(value.to_vec()),
            b"size" => records.size = Some(decimal(value).ok_or_else(bad)?),
            b"uid" => records.uid = Some(decimal(value).ok_or_else(bad)?),
            b"gid" => records.gid = Some(decimal(value).ok_or_else(bad)?),
            b"mtime" => records.mtime = Some(time(value).ok_or_else(bad)?),
            b"GNU.sparse.major" => records.sparse.major = Some(value.to_vec()),
            b"GNU.sparse.minor" => records.sparse.minor = Some(value.to_vec()),
            b"GNU.sparse.name" => records.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                records.sparse.size = Some(decimal(value).ok_or_else(bad)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // Format 0.0: one pair after the other, offset first.
                if (key == b"GNU.sparse.offset") != (records.sparse.map.len() % 2 == 0) {
                    return Err(bad());
                }
                records.sparse.map.push(decimal(value).ok_or_else(bad)?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal);
                records.sparse.map = numbers.collect::<Option<_>>().ok_or_else(bad)?;
            }
            _ => {}
        }
    }
    Ok(records)
}

/// Takes one record off the front: key, value and the rest.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    if length <= blank + 1 || length > bytes.len() {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let (&end, pair) = record[blank + 1..].split_last()?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let valid = end == b'\n' && equals > 0;
    valid.then(|| (&pair[..equals], &pair[equals + 1..], rest))
}

/// Digits with an optional minus: no blanks, no plus, no other notation.
pub fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, to the nanosecond; further digits are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let secs = decimal(whole)?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if nanos != 0 && whole.starts_with(b"-") {
        return Some(Time {
            secs: secs.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Time { secs, nanos })
}

/// Appends one record, whose length counts its own digits.
pub fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Records> {
        super::parse(bytes, 0, &Limits::default())
    }

    #[test]
    fn times_keep_their_nanoseconds_before_1970_too() {
        for (text, secs, nanos) in [
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1700000000", 1_700_000_000, 0),
            ("1.5", 1, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("-0.5", -1, 500_000_000),
            ("2.0000000009", 2, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { secs, nanos }), "{text}");
        }
        for text in ["", ".5", "1.x", "1e9", "+1", "--1", "99999999999999999999"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn records_with_lengths_that_lie_are_refused() {
        for bytes in [
            "6 a=b",
            "99 path=x\n",
            "0 a=b\n",
            "5 a=b\n",
            "-6 a=b\n",
            "6 a=bc\n",
            "6 =ab\n",
            "99999999999999999999999 a=b\n",
        ] {
            assert!(parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn attribute_values_may_hold_anything() {
        let mut bytes = Vec::new();
        push(&mut bytes, b"SCHILY.xattr.user.x", b"a\nb\0=c");
        push(&mut bytes, b"path", b"\xff\xfe\n");
        let records = parse(&bytes).unwrap();
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), b"a\nb\0=c".to_vec())]);
        assert_eq!(records.path.unwrap(), b"\xff\xfe\n");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_pushed_is_parsed(value in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let mut bytes = Vec::new();
            push(&mut bytes, b"SCHILY.xattr.user.x", &value);
            prop_assert_eq!(&parse(&bytes).unwrap().xattrs[0].1, &value);
        }
    }
}
