//! Strings and numbers as SSH has them ([RFC 4251](https://www.rfc-editor.org/rfc/rfc4251#section-5)), and messages of agents.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What OpenSSH's agent takes, and its client.
const MOST: usize = 256 << 10;

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

/// A message without its length; `None`: there are no more.
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let length = match from.read_u32().await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        length => usize::try_from(length?).unwrap_or(usize::MAX),
    };
    if length > MOST {
        let why = format!("a message of {length} bytes is none of an agent's");
        return Err(Error::new(ErrorKind::InvalidData, why));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub async fn send(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<()> {
    let length = u32::try_from(message.len()).map_err(Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    to.flush().await
}
