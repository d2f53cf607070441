//! Docker's json-file: one object a line, attributes between stream and time if there are any.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Line, Record, Step};

/// No line is longer: a line of output is cut long before, and each of its bytes takes six at most.
const LONGEST: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(default)]
    log: String,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: Timestamp,
}

pub(super) fn encode(out: &mut Vec<u8>, line: &Line<'_>, attributes: &str) {
    out.extend_from_slice(b"{\"log\":");
    push_string(out, line.bytes);
    out.extend_from_slice(match line.stderr {
        false => b",\"stream\":\"stdout\"",
        true => b",\"stream\":\"stderr\"",
    });
    if !attributes.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
    }
    // Writing into a Vec cannot fail.
    let _ = writeln!(out, ",\"time\":\"{}\"}}", line.at);
}

pub(super) fn parse(bytes: &[u8]) -> Step {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() > LONGEST {
            true => Step::Skip {
                used: bytes.len(),
                damaged: true,
            },
            false => Step::More,
        };
    };
    let used = end + 1;
    let text = &bytes[..end];
    // After a power cut there are zeros where something was to be.
    let zeros = text.iter().take_while(|&&byte| byte == 0).count();
    if zeros > 0 && zeros < text.len() {
        return Step::Skip {
            used: zeros,
            damaged: true,
        };
    }
    match serde_json::from_slice::<Object<'_>>(text) {
        Ok(object) => Step::Record {
            used,
            record: Record {
                stderr: object.stream == "stderr",
                at: object.time,
                line: object.log.into_bytes(),
                attributes: object.attrs,
            },
        },
        Err(_) => Step::Skip {
            used,
            damaged: !text.trim_ascii().is_empty(),
        },
    }
}

pub(super) fn start(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    (end + 1 < bytes.len()).then_some(end + 1)
}

/// A JSON string as Go's encoder for logs writes it: invalid UTF-8 becomes U+FFFD, `<`, `>` and `&` are escaped.
fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(character));
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\\ufffd".as_bytes());
        }
    }
    out.push(b'"');
}
