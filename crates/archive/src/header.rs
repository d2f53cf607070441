//! One 512-byte header block (POSIX.1-1988 ustar, GNU, star and V7 layouts; tar(5)).

/// Size of a block: headers are one, contents are padded to a multiple.
pub const BLOCK: usize = 512;

#[derive(Clone)]
pub struct Block(pub [u8; BLOCK]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Block {
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// The stored checksum equals the sum of all bytes with the field as blanks, signed or unsigned as writers differ.
    pub fn checksum_holds(&self) -> bool {
        let Some(stored) = octal(&self.0[148..156]) else {
            return false;
        };
        let field = 148..156;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, &byte) in self.0.iter().enumerate() {
            let byte = if field.contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        stored == unsigned || stored == signed
    }

    pub fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            magic if &magic[..6] == b"ustar\0" && &self.0[508..512] == b"tar\0" => Format::Star,
            magic if &magic[..6] == b"ustar\0" => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix where the format has one.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    pub fn device(&self) -> Option<(i64, i64)> {
        if self.format() == Format::V7 {
            return Some((0, 0));
        }
        Some((number(&self.0[329..337])?, number(&self.0[337..345])?))
    }
}

/// A field up to its first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal or, where the first bit is set, in base 256 (big endian, two's complement).
pub fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let negative = first & 0x40 != 0;
    let fill = if negative { 0xff_u8 } else { 0 };
    let mut value = if negative { -1_i64 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = if at == 0 { (byte & 0x7f) | (fill & 0x80) } else { byte };
        // What is shifted out must be nothing but sign.
        if value >> 55 != value >> 63 {
            return None;
        }
        value = (value << 8) | i64::from(byte);
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = text(&field[start..]);
    let digits = &digits[..digits.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1)];
    let mut value = 0_i64;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_with_blanks_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"12345678", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\xbc\x61\x4e", Some(12_345_678)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x02\0\0\0\0\0\0\0", Some(0x0200_0000_0000_0000)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
