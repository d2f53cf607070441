//! API versions and the range Ferry speaks.
//!
//! Every path but `/_ping`, `/grpc` and `/session` starts with `/v` and a version; without one the newest is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u16,
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest version served. Docker 28.5.2 itself goes down to 1.24.
    pub const MIN: Self = Self::new(1, 40);
    /// The version these types describe.
    pub const MAX: Self = Self::new(1, 51);

    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// What stands after `/v` in a request's path, checked against the range served. Missing parts are 0 and further
    /// parts count (`1.51.1` is newer than 1.51), as in Docker.
    pub fn gate(requested: &str) -> Result<Self> {
        let parts = parts(requested)?;
        let bounds = |version: Self| [u64::from(version.major), u64::from(version.minor)];
        if compare(&parts, &bounds(Self::MIN)).is_lt() {
            return Err(Error::VersionTooOld {
                requested: requested.to_owned(),
                minimum: Self::MIN,
            });
        }
        if compare(&parts, &bounds(Self::MAX)).is_gt() {
            return Err(Error::VersionTooNew {
                requested: requested.to_owned(),
                maximum: Self::MAX,
            });
        }
        Ok(truncated(&parts))
    }
}

/// Docker's route pattern is `v{version:[0-9.]+}`; an empty part is 0.
fn parts(text: &str) -> Result<Vec<u64>> {
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Error::MalformedVersion);
    }
    Ok(text
        .split('.')
        .map(|part| {
            if part.is_empty() {
                0
            } else {
                part.parse().unwrap_or(u64::MAX)
            }
        })
        .collect())
}

fn compare(a: &[u64], b: &[u64]) -> std::cmp::Ordering {
    let padded = |v: &[u64], i: usize| v.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|i| padded(a, i).cmp(&padded(b, i)))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

fn truncated(parts: &[u64]) -> ApiVersion {
    let part = |i: usize| parts.get(i).map_or(0, |&p| u16::try_from(p).unwrap_or(u16::MAX));
    ApiVersion {
        major: part(0),
        minor: part(1),
    }
}

impl FromStr for ApiVersion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        parts(text).map(|parts| truncated(&parts))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for ApiVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_compare_as_numbers() {
        assert!(ApiVersion::new(1, 9) < ApiVersion::new(1, 40));
        assert_eq!("1.51".parse(), Ok(ApiVersion::MAX));
        assert_eq!(ApiVersion::MIN.to_string(), "1.40");
    }

    #[test]
    fn the_gate_speaks_as_docker_does() {
        let refused = |text| ApiVersion::gate(text).unwrap_err().to_string();
        assert_eq!(ApiVersion::gate("1.45"), Ok(ApiVersion::new(1, 45)));
        assert_eq!(ApiVersion::gate("1.51.0"), Ok(ApiVersion::MAX));
        assert_eq!(
            refused("1.30"),
            "client version 1.30 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
        );
        assert_eq!(
            refused("1.52"),
            "client version 1.52 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            refused("2"),
            "client version 2 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            refused("1.99999999999999999999999"),
            "client version 1.99999999999999999999999 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            refused("1.51.1"),
            "client version 1.51.1 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(refused("1.x"), "page not found");
        assert_eq!(refused(""), "page not found");
    }
}
