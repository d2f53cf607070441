//! Values as Go's `fmt` prints them.

use std::fmt::Write;

use serde_json::Value;

use super::Options;
use crate::gofmt;

/// The largest width or precision of a verb, as in Go.
const WIDTH: usize = 1_000_000;

/// What Go calls the type of a value that came from JSON.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%v`.
pub(super) fn plain(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_f64() => out.push_str(&gofmt::float(number.as_f64().unwrap_or(0.0))),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                plain(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push_str("map[");
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                plain(out, item);
            }
            out.push(']');
        }
    }
}

/// `%v` of a struct, of a list of them, or of a map to them: objects inside are structs, too, unless their key is a map's.
pub(super) fn structure(out: &mut String, value: &Value, is_map: bool, options: &Options<'_>) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                structure(out, item, false, options);
            }
            out.push(']');
        }
        Value::Object(entries) if is_map => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                structure(out, item, false, options);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, item)) in fields.iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                // A log's configuration is a map, unlike a container's.
                let of_log = key == "Config" && fields.contains_key("Type");
                let is_map = of_log || options.maps.contains(&key.as_str());
                match item {
                    Value::Null if is_map => out.push_str("map[]"),
                    Value::Null if options.pointers.contains(&key.as_str()) => out.push_str("<nil>"),
                    Value::Null => out.push_str("[]"),
                    item => structure(out, item, is_map, options),
                }
            }
            out.push('}');
        }
        other => plain(out, other),
    }
}

pub(super) fn sprint(value: &Value) -> String {
    let mut out = String::new();
    plain(&mut out, value);
    out
}

/// `fmt.Sprint`: a space between two operands when neither is a string.
pub(super) fn sprint_all<'v>(values: impl Iterator<Item = &'v Value>) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for value in values {
        if !after_text && !value.is_string() {
            out.push(' ');
        }
        after_text = value.is_string();
        plain(&mut out, value);
    }
    out
}

pub(super) fn sprintln<'v>(values: impl Iterator<Item = &'v Value>) -> String {
    let mut out = values.map(sprint).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

/// docker's `json`: as encoding/json writes it, with or without escaping HTML.
pub(super) fn json(value: &Value, escape_html: bool) -> String {
    let text = value.to_string();
    let escaped = |c: char| matches!(c, '\u{2028}' | '\u{2029}') || escape_html && matches!(c, '<' | '>' | '&');
    if !text.contains(escaped) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        if escaped(c) {
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
        out
    })
}

#[derive(Debug, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Flags {
    fn pad(&self, out: &mut String, text: &str, zeros: bool) {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.minus {
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if self.zero && zeros {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(text);
        }
    }
}

/// `fmt.Sprintf`, for the values JSON has; no explicit argument indexes.
pub(super) fn sprintf(format: &str, arguments: &[&Value]) -> String {
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    let mut next = arguments.iter();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = rest.peek() {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            rest.next();
        }
        let mut number = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if rest.next_if_eq(&'*').is_some() {
                return next.next().and_then(|value| value.as_i64()).map(|value| {
                    (
                        value < 0,
                        usize::try_from(value.unsigned_abs()).unwrap_or(WIDTH).min(WIDTH),
                    )
                });
            }
            let mut value = None;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                value = Some((value.unwrap_or(0) * 10 + digit as usize).min(WIDTH));
                rest.next();
            }
            value.map(|value| (false, value))
        };
        if let Some((negative, width)) = number(&mut rest) {
            flags.minus |= negative;
            flags.width = Some(width);
        }
        if rest.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut rest).map_or(0, |(_, precision)| precision));
        }
        match rest.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match next.next() {
                None => {
                    let _ = write!(out, "%!{verb}(MISSING)");
                }
                Some(value) => formatted(&mut out, verb, &flags, value),
            },
        }
    }
    let extra: Vec<String> = next
        .map(|value| {
            if value.is_null() {
                "<nil>".into()
            } else {
                format!("{}={}", type_name(value), sprint(value))
            }
        })
        .collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

fn formatted(out: &mut String, verb: char, flags: &Flags, value: &Value) {
    let mut bad = || {
        let _ = match value {
            Value::Null => write!(out, "%!{verb}(<nil>)"),
            value => write!(out, "%!{verb}({}={})", type_name(value), sprint(value)),
        };
    };
    match (verb, value) {
        ('v', Value::String(text)) if flags.sharp => flags.pad(out, &gofmt::quote(text), false),
        ('T', value) => flags.pad(out, type_name(value), false),
        ('s' | 'v', Value::String(text)) => {
            let text = flags
                .precision
                .map_or(text.as_str(), |precision| gofmt::prefix(text, precision));
            flags.pad(out, text, true);
        }
        ('q', Value::String(text)) => {
            let text = flags
                .precision
                .map_or(text.as_str(), |precision| gofmt::prefix(text, precision));
            flags.pad(out, &gofmt::quote(text), false);
        }
        ('x' | 'X', Value::String(text)) => {
            let hex = text.bytes().fold(String::new(), |mut hex, byte| {
                let _ = if verb == 'x' {
                    write!(hex, "{byte:02x}")
                } else {
                    write!(hex, "{byte:02X}")
                };
                hex
            });
            flags.pad(out, &hex, false);
        }
        ('t' | 'v', Value::Bool(value)) => flags.pad(out, if *value { "true" } else { "false" }, false),
        ('f' | 'F' | 'e' | 'g' | 'v', Value::Number(number)) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(0.0);
            let text = match (verb, flags.precision) {
                ('f' | 'F', precision) => format!("{float:.*}", precision.unwrap_or(6).min(1000)),
                ('e', precision) => {
                    let text = format!("{float:.*e}", precision.unwrap_or(6).min(1000));
                    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                    let exponent: i32 = exponent.parse().unwrap_or(0);
                    format!(
                        "{mantissa}e{}{:02}",
                        if exponent < 0 { '-' } else { '+' },
                        exponent.unsigned_abs()
                    )
                }
                (_, Some(precision)) => gofmt::general(float, precision.min(1000)),
                (_, None) => gofmt::float(float),
            };
            flags.pad(out, &text, true);
        }
        (verb, Value::Number(number)) if !number.is_f64() => {
            let integer = number
                .as_i64()
                .map_or_else(|| i128::from(number.as_u64().unwrap_or(0)), i128::from);
            let (sign, magnitude) = (if integer < 0 { "-" } else { "" }, integer.unsigned_abs());
            let digits = match verb {
                'd' | 'v' => magnitude.to_string(),
                'x' => format!("{magnitude:x}"),
                'X' => format!("{magnitude:X}"),
                'o' => format!("{magnitude:o}"),
                'b' => format!("{magnitude:b}"),
                'c' => {
                    let c = u32::try_from(magnitude)
                        .ok()
                        .and_then(char::from_u32)
                        .unwrap_or('\u{fffd}');
                    return flags.pad(out, &c.to_string(), false);
                }
                _ => return bad(),
            };
            let sign = match sign {
                "" if flags.plus => "+",
                "" if flags.space => " ",
                sign => sign,
            };
            let prefix = match verb {
                'x' | 'X' if flags.sharp => "0x",
                'o' if flags.sharp => "0",
                _ => "",
            };
            flags.pad(out, &format!("{sign}{prefix}{digits}"), true);
        }
        ('v' | 's', Value::Array(_) | Value::Object(_)) => flags.pad(out, &sprint(value), false),
        ('v', Value::Null) => flags.pad(out, "<nil>", false),
        _ => bad(),
    }
}
