//! Signals by name, and detach keys.

use ferry_api::container::Config;

use crate::error::{Error, Result};

/// The kernel's names on Linux, without `SIG`.
const NAMES: [(&str, i32); 35] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", 34),
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A number or a name, with or without `SIG`, in any case; `RTMIN+n` and `RTMAX-n` too.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| text.parse::<i32>().ok();
    let number = if let Some(rest) = name.strip_prefix("RTMIN+") {
        offset(rest).map(|offset| RTMIN + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX-") {
        offset(rest).map(|offset| RTMAX - offset)
    } else if name == "RTMAX" {
        Some(RTMAX)
    } else {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    };
    number.filter(|number| (1..=RTMAX).contains(number)).ok_or_else(invalid)
}

/// What stops a container.
pub(crate) fn of_container(config: &Config) -> i32 {
    parse(&config.stop_signal).unwrap_or(libc::SIGTERM)
}

/// `ctrl-p,ctrl-q` as the bytes a terminal sends (moby/term `ToBytes`).
pub(crate) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(vec![16, 17]);
    };
    let unknown = |key: &str| {
        Error::invalid(format!(
            "Invalid escape keys ({text}) provided: Unknown character: '{key}'"
        ))
    };
    text.split(',')
        .map(|key| match key.as_bytes() {
            [byte] => Ok(*byte),
            _ => match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
                Some(b"@") => Ok(0),
                Some([b'[']) => Ok(27),
                Some([b'\\']) => Ok(28),
                Some([b']']) => Ok(29),
                Some([b'^']) => Ok(30),
                Some([b'_']) => Ok(31),
                _ if key == "DEL" => Ok(127),
                _ => Err(unknown(key)),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["0", "65", "SIG", "FOO", "RTMIN+99", "-9", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn detach_keys_are_bytes() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,b")).unwrap(), [1, b'b']);
        assert!(detach_keys(Some("ctrl-,x")).is_err());
    }
}
