//! The parts of Go's `fmt` and `strconv` that Docker's output goes through.

/// `%.Ng`: `precision` significant digits without trailing zeros, an exponent of at least two digits when it is below -4
/// or not below `precision`.
#[must_use]
pub fn general(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return nonfinite(value);
    }
    let precision = precision.max(1);
    shape(
        &format!("{value:.*e}", precision - 1),
        i32::try_from(precision).unwrap_or(i32::MAX),
    )
}

/// `%v` of a float64: the shortest digits that read back, with an exponent from 21 on.
#[must_use]
pub fn float(value: f64) -> String {
    if value.is_finite() {
        shape(&format!("{value:e}"), 21)
    } else {
        nonfinite(value)
    }
}

fn nonfinite(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        value if value > 0.0 => "+Inf".into(),
        _ => "-Inf".into(),
    }
}

/// From Rust's `d.ddde-N` to C's `%g`.
fn shape(scientific: &str, limit: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    if exponent < -4 || exponent >= limit {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{dot}{rest}e{direction}{:02}", exponent.unsigned_abs());
    }
    let Ok(point) = usize::try_from(exponent) else {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    };
    if digits.len() <= point + 1 {
        return format!("{sign}{digits}{}", "0".repeat(point + 1 - digits.len()));
    }
    let (whole, fraction) = digits.split_at(point + 1);
    format!("{sign}{whole}.{fraction}")
}

/// `strconv.Quote`.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || c == '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Cuts the text to at most `characters`, on a character boundary.
#[must_use]
pub fn prefix(text: &str, characters: usize) -> &str {
    text.char_indices()
        .nth(characters)
        .map_or(text, |(index, _)| &text[..index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123_456.789, "123456.789"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float(value), text);
        }
        assert_eq!(general(0.012_345, 3), "0.0123");
        assert_eq!(general(99.96, 3), "100");
        assert_eq!(general(999.96, 3), "1e+03");
    }

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        assert_eq!(quote("a\"b\\\n\x01é\u{2028}"), "\"a\\\"b\\\\\\n\\x01é\\u2028\"");
    }
}
