//! Sizes and ages as github.com/docker/go-units prints and reads them.

use crate::{Error, Result, gofmt};

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `units.HumanSize`: powers of 1000, four significant digits: `1.049MB`.
#[must_use]
pub fn human_size(bytes: f64) -> String {
    human_size_with_precision(bytes, 4)
}

/// `units.HumanSizeWithPrecision`: `precision` significant digits.
#[must_use]
pub fn human_size_with_precision(bytes: f64, precision: usize) -> String {
    scaled(bytes, 1000.0, &DECIMAL, precision)
}

/// `units.BytesSize`: powers of 1024, four significant digits: `3.42GiB`.
#[must_use]
pub fn bytes_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(mut size: f64, base: f64, units: &[&str], precision: usize) -> String {
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    gofmt::general(size, precision) + units[unit]
}

/// `units.FromHumanSize`: bytes of `10m`, `1.5 GB`, with powers of 1000.
pub fn parse_size(text: &str) -> Result<i64> {
    parse(text, 1000.0)
}

/// `units.RAMInBytes`: bytes of `512m`, `1GiB`, with powers of 1024.
pub fn ram_in_bytes(text: &str) -> Result<i64> {
    parse(text, 1024.0)
}

fn parse(text: &str, base: f64) -> Result<i64> {
    let invalid = |what: &str, text: &str| Err(Error::InvalidSize(format!("invalid {what}: '{text}'")));
    let Some(separator) = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ') else {
        return invalid("size", text);
    };
    let number = text[..=separator].strip_suffix(' ').unwrap_or(&text[..=separator]);
    let suffix = text[separator + 1..].to_lowercase();
    let size = match number.parse::<f64>() {
        Ok(size) if size.is_nan() || size < 0.0 => return invalid("size", text),
        Ok(size) => size,
        Err(_) => {
            let message = format!("strconv.ParseFloat: parsing {}: invalid syntax", gofmt::quote(number));
            return Err(Error::InvalidSize(message));
        }
    };
    let power = match suffix.as_bytes() {
        [] | [b'b'] => 0,
        [prefix] | [prefix, b'b'] | [prefix, b'i', b'b'] => match b"kmgtp".iter().position(|known| known == prefix) {
            Some(index) => index + 1,
            None => return invalid("suffix", &suffix),
        },
        _ => return invalid("suffix", &suffix),
    };
    let bytes = (0..power).fold(size, |size, _| size * base);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Go truncates here too; Rust's cast saturates"
    )]
    Ok(bytes as i64)
}

/// `units.HumanDuration` of a number of seconds: `About a minute`, `3 hours`, `2 weeks`.
#[must_use]
pub fn human_duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole units are what is printed; the cast saturates"
    )]
    let whole = |value: f64| value as i64;
    let hours = whole(seconds / 3600.0 + 0.5);
    match (whole(seconds), whole(seconds / 60.0), hours) {
        (..=0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (seconds @ ..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".into(),
        (.., hours @ ..48) => format!("{hours} hours"),
        (.., hours @ ..336) => format!("{} days", hours / 24),
        (.., hours @ ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., hours @ ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", whole(seconds / 3600.0) / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: f64 = 1024.0;

    #[test]
    fn binary_sizes_print_as_go_units_prints_them() {
        for (bytes, text) in [
            (0.0, "0B"),
            (1.0, "1B"),
            (1023.0, "1023B"),
            (KIB, "1KiB"),
            (KIB * KIB, "1MiB"),
            (2.0 * KIB * KIB, "2MiB"),
            (3.42 * KIB.powi(3), "3.42GiB"),
            (5.372 * KIB.powi(4), "5.372TiB"),
            (2.22 * KIB.powi(5), "2.22PiB"),
            (KIB.powi(10), "1.049e+06YiB"),
        ] {
            assert_eq!(bytes_size(bytes), text);
        }
    }

    #[test]
    fn decimal_sizes_print_as_go_units_prints_them() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1024.0, "1.024kB"),
            (1e6, "1MB"),
            (1_048_576.0, "1.049MB"),
            (2e6, "2MB"),
            (3.42e9, "3.42GB"),
            (5.372e12, "5.372TB"),
            (2.22e15, "2.22PB"),
            (1e28, "1e+04YB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size_with_precision(4_261_502.0, 3), "4.26MB");
        assert_eq!(human_size_with_precision(999_999.0, 3), "1e+03kB");
    }

    #[test]
    fn sizes_read_as_go_units_reads_them() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32_000),
            ("32Kb", 32_000),
            ("32Mb", 32_000_000),
            ("32Pb", 32_000_000_000_000_000),
            ("32.5kB", 32_500),
            ("32.5 kB", 32_500),
            ("32.5 B", 32),
            ("0.3 K", 300),
            (".3kB", 300),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for (text, bytes) in [
            ("32", 32),
            ("32k", 32 << 10),
            ("32Kib", 32 << 10),
            ("32KIB", 32 << 10),
            ("32Gb", 32 << 30),
            ("32P", 32 << 50),
            ("32.3", 32),
            ("32. m", 32 << 20),
            ("0.3MB", 314_572),
        ] {
            assert_eq!(ram_in_bytes(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_in_go_units_words() {
        for (text, message) in [
            ("", "invalid size: ''"),
            ("hello", "invalid size: 'hello'"),
            ("-32", "invalid size: '-32'"),
            ("32bm", "invalid suffix: 'bm'"),
            ("32xb", "invalid suffix: 'xb'"),
            ("32kbb", "invalid suffix: 'kbb'"),
            (" 32 ", "strconv.ParseFloat: parsing \" 32\": invalid syntax"),
            ("32m b", "strconv.ParseFloat: parsing \"32m\": invalid syntax"),
            ("abc1", "strconv.ParseFloat: parsing \"abc1\": invalid syntax"),
        ] {
            assert_eq!(ram_in_bytes(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn ages_print_as_go_units_prints_them() {
        const HOUR: f64 = 3600.0;
        const DAY: f64 = 24.0 * HOUR;
        for (seconds, text) in [
            (0.45, "Less than a second"),
            (-5.0, "Less than a second"),
            (1.0, "1 second"),
            (45.0, "45 seconds"),
            (60.0, "About a minute"),
            (119.0, "About a minute"),
            (180.0, "3 minutes"),
            (59.0 * 60.0 + 59.0, "59 minutes"),
            (HOUR, "About an hour"),
            (1.49 * HOUR, "About an hour"),
            (1.5 * HOUR, "2 hours"),
            (24.0 * HOUR, "24 hours"),
            (36.0 * HOUR, "36 hours"),
            (2.0 * DAY, "2 days"),
            (13.0 * DAY, "13 days"),
            (14.0 * DAY, "2 weeks"),
            (30.0 * DAY, "4 weeks"),
            (60.0 * DAY, "2 months"),
            (365.0 * DAY, "12 months"),
            (729.0 * DAY, "24 months"),
            (730.0 * DAY, "2 years"),
            (1095.0 * DAY, "3 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
