//! `--since` and `--until`: points in time as people write them.

use crate::duration;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Seconds since the epoch as the API takes them (`1136073600.000000001`), of an age (`42m`), a time, or seconds.
pub fn parse(text: &str) -> Option<String> {
    if let Ok(age) = duration::parse_go(text)
        && text != "0"
    {
        return Timestamp::now()
            .checked_sub(age)
            .ok()
            .map(|at| at.as_second().to_string());
    }
    if text.contains('-') {
        return time(text).map(|at| format!("{}.{:09}", at.as_second(), at.subsec_nanosecond()));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    (number(seconds) && number(fraction)).then(|| text.to_owned())
}

/// RFC 3339, or the beginning of it; without an offset it is the machine's time.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let padded = match text.len() {
        10 => format!("{text}T00:00:00"),
        13 => format!("{text}:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let at: DateTime = padded.parse().ok()?;
    at.to_zoned(TimeZone::system()).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_docker_reads_them() {
        assert_eq!(parse("1").unwrap(), "1");
        assert_eq!(parse("1136073600.000000001").unwrap(), "1136073600.000000001");
        assert_eq!(parse("2013-01-02T13:23:37Z").unwrap(), "1357133017.000000000");
        assert_eq!(parse("2013-01-02T13:23:37.5+01:00").unwrap(), "1357129417.500000000");
        let age: i64 = parse("42m").unwrap().parse().unwrap();
        assert!((Timestamp::now().as_second() - age - 2520).abs() < 5);
        for text in ["x", "", "2013-13-01", "1.x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
