//! JSON text exactly as Go's encoder writes it, and read as its decoder does ([`keys`]).
//!
//! `encoding/json` always escapes U+2028 and U+2029 and, unless told otherwise, `<`, `>` and `&`. Docker's plain
//! answers tell it
//! otherwise; its streams (`/events`, progress messages, `/containers/{id}/wait`) do not. Each value ends in a newline.

mod keys;
mod tree;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

pub use keys::{AnyCase, from_slice, is_duplicate};
pub use tree::Tree;

/// The body of a plain answer.
pub fn body<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    encode(value, false)
}

/// One message of a stream.
pub fn message<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    encode(value, true)
}

/// The body of a plain answer that is a list, of values that come one by one.
#[derive(Debug, Default)]
pub struct List {
    text: Vec<u8>,
    failure: Option<serde_json::Error>,
}

impl List {
    pub fn push<T: Serialize>(&mut self, value: &T) {
        self.text.push(if self.text.is_empty() { b'[' } else { b',' });
        if let Err(error) = write(value, false, &mut self.text) {
            self.failure = Some(error);
        }
    }

    /// The text, unless one of them could not be written.
    pub fn finish(mut self) -> serde_json::Result<Vec<u8>> {
        let end: &[u8] = if self.text.is_empty() { b"[]\n" } else { b"]\n" };
        self.text.extend_from_slice(end);
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.text),
        }
    }
}

fn encode<T: Serialize>(value: &T, html: bool) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(256);
    write(value, html, &mut text)?;
    text.push(b'\n');
    Ok(text)
}

fn write<T: Serialize>(value: &T, html: bool, text: &mut Vec<u8>) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(text, Go { html }))
}

struct Go {
    html: bool,
}

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // U+2028 and U+2029 begin with this byte.
        if !self.html && !fragment.as_bytes().contains(&0xE2) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|&(_, c)| self.escapes(c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(found))?;
            rest = &rest[at + found.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

impl Go {
    fn escapes(&self, c: char) -> bool {
        matches!(c, '\u{2028}' | '\u{2029}') || (self.html && matches!(c, '<' | '>' | '&'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_escape_html_and_bodies_do_not() {
        let text = "a<b>&\u{2028}\"é\n";
        assert_eq!(
            String::from_utf8(body(&text).unwrap()).unwrap(),
            "\"a<b>&\\u2028\\\"é\\n\"\n"
        );
        assert_eq!(
            String::from_utf8(message(&text).unwrap()).unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\u2028\\\"é\\n\"\n"
        );
    }

    #[test]
    fn a_list_is_written_as_a_vector_is() {
        for values in [&["a<", "\u{2028}", ""][..], &["€"], &[]] {
            let mut list = List::default();
            values.iter().for_each(|value| list.push(value));
            assert_eq!(list.finish().unwrap(), body(&values).unwrap());
        }
    }
}
