//! Lines, words, variables and durations, as the Dockerfile parser reads them.

use crate::{Error, Result};

pub fn blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

/// Instructions without comments and empty lines, with continued lines joined.
pub fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.trim_start_matches(blank);
        if line.starts_with('#') || (line.is_empty() && open.is_empty()) {
            continue;
        }
        match line.trim_end_matches(blank).strip_suffix('\\') {
            Some(continued) => open += continued,
            None => {
                open += line;
                lines.push(std::mem::take(&mut open).trim().to_owned());
            }
        }
    }
    if !open.trim().is_empty() {
        lines.push(open.trim().to_owned());
    }
    lines
}

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                word.push(character);
                word.extend(characters.next());
                continue;
            }
            ('"' | '\'', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            (character, None) if blank(character) => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Flags with their values.
type Flags = Vec<(String, Option<String>)>;

/// Takes the `--name=value` words off the front.
pub fn flags(rest: &str) -> Result<(Flags, &str)> {
    let mut flags = Vec::new();
    let mut rest = rest;
    while let Some(after) = rest.strip_prefix("--") {
        let end = after.find(blank).unwrap_or(after.len());
        let (flag, remainder) = after.split_at(end);
        rest = remainder.trim_start_matches(blank);
        if flag.is_empty() {
            break;
        }
        flags.push(match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(expand(value, &[])?)),
            None => (flag.to_owned(), None),
        });
    }
    Ok((flags, rest))
}

/// Removes quotes and escapes and puts in variables: `$a`, `${a}`, `${a:-default}`, `${a:+other}`.
pub fn expand(word: &str, env: &[String]) -> Result<String> {
    let mut out = String::new();
    let mut quote = None;
    let mut rest = word;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match (character, quote) {
            ('\'', None) => quote = Some('\''),
            ('"', None) => quote = Some('"'),
            (character, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => {
                let Some(next) = rest.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &rest[next.len_utf8()..];
                if quote.is_some() && !matches!(next, '"' | '$' | '\\') {
                    out.push('\\');
                }
                out.push(next);
            }
            ('$', None | Some('"')) => {
                let (value, after) = variable(rest, env)?;
                out += &value;
                rest = after;
            }
            (character, _) => out.push(character),
        }
    }
    match quote {
        None => Ok(out),
        Some(quote) => Err(Error::Invalid(format!(
            "unexpected end of statement while looking for matching {}",
            if quote == '"' { "double-quote" } else { "single-quote" },
        ))),
    }
}

/// What stands after a `$`: its value and the rest.
fn variable<'a>(text: &'a str, env: &[String]) -> Result<(String, &'a str)> {
    let lookup = |name: &str| {
        let found = env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        found.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let Some(braced) = text.strip_prefix('{') else {
        let end = text.find(|character| !is_name(character)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return Ok(if name.is_empty() {
            ("$".to_owned(), text)
        } else {
            (lookup(name).unwrap_or_default(), rest)
        });
    };
    let bad = || Error::Invalid(format!("unsupported modifier in substitution: ${text}"));
    let end = braced
        .find('}')
        .ok_or_else(|| Error::Invalid("syntax error: missing '}'".to_owned()))?;
    let (inside, rest) = (&braced[..end], &braced[end + 1..]);
    let (name, modifier) = inside.split_at(inside.find(|character| !is_name(character)).unwrap_or(inside.len()));
    let value = lookup(name);
    let value = if modifier.is_empty() {
        value.unwrap_or_default()
    } else if let Some(default) = modifier.strip_prefix(":-").or(modifier.strip_prefix('-')) {
        value.map_or_else(|| expand(default, env), Ok)?
    } else if let Some(other) = modifier.strip_prefix(":+").or(modifier.strip_prefix('+')) {
        value.map_or_else(|| Ok(String::new()), |_| expand(other, env))?
    } else {
        return Err(bad());
    };
    Ok((value, rest))
}

/// Go's time.ParseDuration, in nanoseconds.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() || total == 0.0 {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
        if rest.is_empty() {
            break;
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "checked to be in range")]
    (total < 9.2e18).then_some((sign * total) as i64)
}
