//! Points in time as Go writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// An instant, written as RFC 3339 in UTC with up to nine digits of fraction and no trailing zeros (Go's
/// `RFC3339Nano`).
///
/// The default is Go's zero time, `0001-01-01T00:00:00Z`, which stands for "never" (`FinishedAt` of a running
/// container).
/// Another offset than UTC is read and not kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// Seconds from the Unix epoch back to 0001-01-01T00:00:00Z.
    const ZERO_SECONDS: i64 = -62_135_596_800;

    pub const ZERO: Self = Self(jiff::Timestamp::constant(Self::ZERO_SECONDS, 0));

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// A `since` or `until` parameter: `seconds[.fraction]` since the Unix epoch. The fraction is read as Docker reads
    /// it:
    /// `.5` is half a second, digits beyond the ninth are dropped.
    pub fn from_query(text: &str) -> Result<Self> {
        let malformed = || Error::MalformedTime {
            text: text.chars().take(64).collect(),
        };
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().map_err(|_| malformed())?;
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let nanoseconds = format!("{:0<9}", &fraction[..fraction.len().min(9)])
            .parse()
            .map_err(|_| malformed())?;
        jiff::Timestamp::new(seconds, nanoseconds)
            .map(Self)
            .map_err(|_| malformed())
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| Error::MalformedTime {
            text: text.chars().take(64).collect(),
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The empty string, which old engines send for "never", is the zero time.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::ZERO);
        }
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        for text in [
            "0001-01-01T00:00:00Z",
            "2026-11-22T04:48:18.00463672Z",
            "2026-11-22T04:48:18.123456789Z",
            "2026-11-22T04:48:18.1Z",
            "2026-11-22T04:48:18.000000001Z",
            "2026-11-22T04:48:18Z",
            "1969-12-31T23:59:59.5Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(
            "2026-11-22T06:48:18.10+02:00".parse::<Timestamp>().unwrap().to_string(),
            "2026-11-22T04:48:18.1Z"
        );
    }

    #[test]
    fn the_default_is_gos_zero_time() {
        assert_eq!(Timestamp::default().to_string(), "0001-01-01T00:00:00Z");
        assert!(serde_json::from_str::<Timestamp>(r#""""#).unwrap().is_zero());
    }

    #[test]
    fn queries_give_seconds_and_a_fraction() {
        let read = |text| Timestamp::from_query(text).map(|t| t.to_string());
        assert_eq!(read("0").unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(read("1.5").unwrap(), "1970-01-01T00:00:01.5Z");
        assert_eq!(read("1.000000001").unwrap(), "1970-01-01T00:00:01.000000001Z");
        assert_eq!(read("1.0000000019").unwrap(), "1970-01-01T00:00:01.000000001Z");
        for bad in ["", "x", "1.x", "1.-5", "9223372036854775807", "1.é"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
