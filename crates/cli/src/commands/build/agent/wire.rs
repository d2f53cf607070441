//! Strings and numbers as SSH has them ([RFC 4251](https://www.rfc-editor.org/rfc/rfc4251#section-5)).

/// Appends what is no longer than a message.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

/// Appends a number that is not negative.
pub fn number(out: &mut Vec<u8>, bytes: &[u8]) {
    let digits = digits(bytes);
    let sign: &[u8] = match digits.first() {
        Some(0x80..) => &[0],
        _ => &[],
    };
    string(out, &[sign, digits].concat());
}

/// A number without zeros in front.
pub fn digits(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// Takes a string from the beginning.
pub fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_count(rest)?;
    let (text, after) = rest.split_at_checked(length as usize)?;
    *rest = after;
    Some(text)
}

pub fn take_count(rest: &mut &[u8]) -> Option<u32> {
    let (count, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*count))
}
