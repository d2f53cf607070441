//! Signals by name, and detach keys.

use ferry_api::container::Config;

use crate::error::{Error, Result};

/// A number or a name, with or without `SIG`, in any case; `RTMIN+n` and `RTMAX-n` too.
pub(crate) fn parse(text: &str) -> Result<i32> {
    ferry_kit::signal::parse(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
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
