//! `# syntax=`, `# escape=` and `# check=` at the very top of a file.

use crate::range::Range;

/// One directive. Its name is in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub name: String,
    pub value: String,
    pub range: Range,
}

/// Which frontend a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// `docker/dockerfile:1`.
    pub reference: String,
    /// The whole value, with what follows a space.
    pub command_line: String,
    pub range: Range,
}

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// A comment's line that is a directive; `line` without its end.
pub(crate) fn parse(line: &str, comment: &str, number: u32) -> Option<Directive> {
    let (name, value) = line.strip_prefix(comment)?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim();
    if value.is_empty() || !NAMES.contains(&name.as_str()) {
        return None;
    }
    let columns = u32::try_from(line.chars().count()).unwrap_or(u32::MAX - 1);
    Some(Directive {
        name,
        value: value.to_owned(),
        range: Range::line(number, columns),
    })
}

/// The frontend a file names with `# syntax=`, `// syntax=` or `{"syntax": "…"}`, whatever its language. A first line
/// that begins with `#!` is passed over. A file in which a directive comes twice names what it named first.
pub fn syntax(bytes: &[u8]) -> Option<Syntax> {
    let (bytes, first) = without_first_line(bytes);
    let directive = |comment| find_behind(bytes, comment, first, "syntax");
    match directive("#").or_else(|| directive("//")) {
        Some(directive) => Some(named(&directive.value, directive.range)),
        None => from_json(bytes, first),
    }
}

/// A directive of a file that may be wrong otherwise.
pub(crate) fn find(bytes: &[u8], name: &str) -> Option<Directive> {
    let (bytes, first) = without_first_line(bytes);
    find_behind(bytes, "#", first, name)
}

fn find_behind(bytes: &[u8], comment: &str, first: u32, name: &str) -> Option<Directive> {
    let mut seen = Vec::new();
    for (line, number) in bytes.split(|b| *b == b'\n').zip(first..) {
        // The first line that is none ends the search.
        if !line.starts_with(comment.as_bytes()) {
            return None;
        }
        let line = String::from_utf8_lossy(line);
        let directive = parse(line.trim_end_matches('\r'), comment, number)?;
        if seen.contains(&directive.name) {
            return None;
        }
        if directive.name == name {
            return Some(directive);
        }
        seen.push(directive.name);
    }
    None
}

/// Without the mark of UTF-8 and a line that begins with `#!`; and the number of the first line there is.
fn without_first_line(bytes: &[u8]) -> (&[u8], u32) {
    let bytes = bytes.strip_prefix(super::lines::BOM).unwrap_or(bytes);
    if bytes.starts_with(b"#!") {
        (bytes.splitn(2, |b| *b == b'\n').nth(1).unwrap_or_default(), 2)
    } else {
        (bytes, 1)
    }
}

fn from_json(bytes: &[u8], first: u32) -> Option<Syntax> {
    let value: serde_json::Map<String, serde_json::Value> = match bytes.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(bytes).ok()?,
        _ => return None,
    };
    Some(named(value.get("syntax")?.as_str()?, Range::line(first, 0)))
}

fn named(value: &str, range: Range) -> Syntax {
    Syntax {
        reference: value.split(' ').next().unwrap_or_default().to_owned(),
        command_line: value.to_owned(),
        range,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_found_in_every_language() {
        for (text, reference, line) in [
            ("# syntax=docker/dockerfile:1\nFROM x", Some("docker/dockerfile:1"), 1),
            ("#syntax = a b\n", Some("a"), 1),
            ("# SYNTAX=a\r\nFROM x\r\n", Some("a"), 1),
            ("# escape=`\n# syntax=a\n", Some("a"), 2),
            ("\u{feff}# syntax=a\n", Some("a"), 1),
            ("#!/bin/x\n# syntax=a\n", Some("a"), 2),
            ("// syntax=a\nx", Some("a"), 1),
            ("{\"syntax\": \"a\", \"b\": 1}", Some("a"), 1),
            ("\n# syntax=a\n", None, 0),
            ("# hello\n# syntax=a\n", None, 0),
            ("# escape=`\n# escape=`\n# syntax=a\n", None, 0),
            ("FROM x", None, 0),
            ("", None, 0),
            ("{\"syntax\": 1}", None, 0),
        ] {
            let found = syntax(text.as_bytes());
            assert_eq!(found.as_ref().map(|f| &*f.reference), reference, "{text:?}");
            assert!(found.is_none_or(|f| f.range.start.line == line), "{text:?}");
        }
        assert_eq!(syntax(b"# syntax=a b c\n").unwrap().command_line, "a b c");
    }
}
