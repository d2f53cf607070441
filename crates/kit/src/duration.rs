//! Go's `time.ParseDuration` and `Duration.String`.

use jiff::SignedDuration;

use crate::{Error, Result, gofmt};

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads `1h2m3.5s`; the sum has to fit 63 bits of nanoseconds (292 years), as in Go.
pub fn parse_go(text: &str) -> Result<SignedDuration> {
    let invalid = || Error::InvalidDuration(format!("time: invalid duration {}", gofmt::quote(text)));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(
            after
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(after.len()),
        );
        if unit.is_empty() {
            return Err(Error::InvalidDuration(format!(
                "time: missing unit in duration {}",
                gofmt::quote(text)
            )));
        }
        let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let message = format!(
                "time: unknown unit {} in duration {}",
                gofmt::quote(unit),
                gofmt::quote(text)
            );
            return Err(Error::InvalidDuration(message));
        };
        let whole: i64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        total += i128::from(whole) * scale;
        total += fraction_of(fraction, scale);
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    let nanoseconds = i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())?;
    Ok(SignedDuration::from_nanos(nanoseconds))
}

/// In floating point, as Go does it, so that a third of an hour is 20 minutes.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the rounding is Go's"
)]
fn fraction_of(digits: &str, scale: i128) -> i128 {
    let (mut value, mut power) = (0_i64, 1.0_f64);
    for digit in digits.bytes() {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
        else {
            break;
        };
        value = next;
        power *= 10.0;
    }
    (value as f64 * (scale as f64 / power)) as i128
}

/// `Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
#[must_use]
pub fn format(duration: SignedDuration) -> String {
    let nanoseconds = duration.as_nanos();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let magnitude = nanoseconds.unsigned_abs();
    if magnitude == 0 {
        return "0s".into();
    }
    for (unit, scale, limit) in [
        ("ns", 1, 1_000),
        ("µs", 1_000, 1_000_000),
        ("ms", 1_000_000, 1_000_000_000),
    ] {
        if magnitude < limit {
            return format!("{sign}{}{unit}", decimal(magnitude, scale));
        }
    }
    let (minutes, rest) = (magnitude / 60_000_000_000, magnitude % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let whole = value / scale;
    if value.is_multiple_of(scale) {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let fraction = format!("{:0width$}", value % scale);
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        const S: i64 = 1_000_000_000;
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("-0", 0),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600_000_000),
            ("5.s", 5 * S),
            (".5s", 500_000_000),
            ("1.004s", S + 4_000_000),
            ("100.00100s", 100 * S + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13_000_000),
            ("3h30m", 12_600 * S),
            ("10.5s4m", 250 * S + 500_000_000),
            ("-2m3.4s", -(123 * S + 400_000_000)),
            ("1h2m3s4ms5us6ns", 3723 * S + 4_005_006),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200 * S),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            match parse_go(text) {
                Ok(duration) => assert_eq!(duration.as_nanos(), i128::from(nanoseconds), "{text}"),
                Err(error) => assert_eq!(text, "-9223372036854775808ns", "{error}"),
            }
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_go_words() {
        for (text, message) in [
            ("", "time: invalid duration \"\""),
            ("3", "time: missing unit in duration \"3\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".", "time: invalid duration \".\""),
            (".s", "time: invalid duration \".s\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
        ] {
            assert_eq!(parse_go(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format(SignedDuration::from_nanos(nanoseconds)), text);
        }
    }
}
