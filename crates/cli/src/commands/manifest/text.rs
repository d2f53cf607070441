//! JSON as Go writes it: other white space, the same order, and the characters that Go escapes.

/// Without white space, as `json.Marshal` writes what is JSON already. `None` for what is none.
pub fn compact(json: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(json).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if inside => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            ' ' | '\t' | '\r' | '\n' if !inside => {}
            c => out.push(c),
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ => {}
        }
    }
    Some(out)
}

/// Go's `json.Indent` of valid JSON, without a prefix.
pub fn indent(json: &str, step: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut inside, mut escaped, mut depth, mut opened) = (false, false, 0_usize, false);
    for c in json.chars() {
        if inside {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => inside = false,
                _ => {}
            }
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if opened && !closes {
            depth += 1;
            line(&mut out, step, depth);
        }
        if closes && !opened {
            depth = depth.saturating_sub(1);
            line(&mut out, step, depth);
        }
        opened = false;
        out.push(c);
        match c {
            '"' => inside = true,
            '{' | '[' => opened = true,
            ',' => line(&mut out, step, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

fn line(out: &mut String, step: &str, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(step, depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_gos() {
        let text = r#"{"b" : [ ] , "a":{"x":[1,{"y":"a \"<&, {"}], "z":{}}}"#;
        assert_eq!(
            compact(text.as_bytes()).unwrap(),
            r#"{"b":[],"a":{"x":[1,{"y":"a \"\u003c\u0026, {"}],"z":{}}}"#
        );
        assert_eq!(
            indent(text, "\t"),
            "{\n\t\"b\": [],\n\t\"a\": {\n\t\t\"x\": [\n\t\t\t1,\n\t\t\t{\n\t\t\t\t\"y\": \"a \\\"<&, {\"\n\t\t\t}\n\t\t],\n\t\t\"z\": {}\n\t}\n}"
        );
        assert_eq!(compact(b"{"), None);
    }
}
