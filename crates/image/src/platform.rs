//! Platforms: `os/architecture[/variant]`, in Go's words for both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What an image runs on. Values made here are normalised; values read from elsewhere may not be, so compare with
/// [`Platform::matches`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `386`, …
    pub architecture: String,
    /// `v7` of arm, `v2` of amd64; empty for the common one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant);
        Self {
            os: normal_os(os),
            architecture,
            variant,
        }
    }

    /// The one this binary runs on. Variants of amd64 are not looked for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    pub fn normalised(&self) -> Self {
        Self::new(&self.os, &self.architecture, &self.variant)
    }

    /// The same platform, however either is spelled.
    pub fn matches(&self, other: &Self) -> bool {
        self.normalised() == other.normalised()
    }

    /// Every platform whose images run on this one, best first (containerd's `platformVector`).
    pub fn runs(&self) -> Vec<Self> {
        let own = self.normalised();
        let with = |architecture: &str, variant: String| Self {
            os: own.os.clone(),
            architecture: architecture.to_owned(),
            variant,
        };
        let level = |variant: &str| variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok());
        let mut runs = vec![own.clone()];
        match own.architecture.as_str() {
            "amd64" => {
                runs.extend(
                    (1..level(&own.variant).unwrap_or(0))
                        .rev()
                        .map(|v| Self::new(&own.os, "amd64", &format!("v{v}"))),
                );
                runs.push(with("386", String::new()));
            }
            "arm" => runs.extend(
                (5..level(&own.variant).unwrap_or(0))
                    .rev()
                    .map(|v| with("arm", format!("v{v}"))),
            ),
            "arm64" => runs.extend((5..=8).rev().map(|v| with("arm", format!("v{v}")))),
            _ => {}
        }
        runs
    }

    /// The best of `offered` for this platform, by its place.
    pub fn choose<'a>(&self, offered: impl IntoIterator<Item = &'a Self>) -> Option<usize> {
        let runs = self.runs();
        let rank = |platform: &Self| {
            let platform = platform.normalised();
            runs.iter().position(|candidate| *candidate == platform)
        };
        let ranked = offered
            .into_iter()
            .enumerate()
            .filter_map(|(place, platform)| Some((rank(platform)?, place)));
        ranked.min().map(|(_, place)| place)
    }
}

/// `linux/arm64/v8`, `linux/amd64`, or one of `linux` and `arm64`, for which the host's stands in.
impl FromStr for Platform {
    type Err = Error;
    fn from_str(specifier: &str) -> Result<Self> {
        let refused = |reason: &str| Error::Platform {
            specifier: specifier.chars().take(128).collect(),
            reason: reason.to_owned(),
        };
        if specifier.contains('*') {
            return Err(refused("wildcards not yet supported"));
        }
        let parts: Vec<&str> = specifier.split('/').collect();
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if parts.iter().any(|part| part.is_empty() || !part.bytes().all(word)) {
            return Err(refused("platform specifier component must match \"^[A-Za-z0-9_.-]+$\""));
        }
        match parts[..] {
            [one] => {
                let platform = Self::new("linux", one, "");
                if KNOWN_OS.contains(&normal_os(one).as_str()) {
                    Ok(Self {
                        os: normal_os(one),
                        ..Self::host()
                    })
                } else if KNOWN_ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    Ok(Self {
                        os: Self::host().os,
                        ..platform
                    })
                } else {
                    Err(refused("unknown operating system or architecture"))
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(refused("cannot parse platform specifier")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        let variant = platform.variant().as_deref().unwrap_or_default();
        Self::new(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            variant,
        )
    }
}

const KNOWN_OS: [&str; 18] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: [&str; 17] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc", "ppc64", "ppc64le",
    "riscv", "riscv64", "s390x", "sparc64", "wasm",
];

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// containerd's `normalizeArch`.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        text.parse::<Platform>()
            .map_or_else(|error| error.to_string(), |platform| platform.to_string())
    }

    #[test]
    fn spellings_are_normalised() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/riscv64", "linux/riscv64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(read(text), normal, "{text}");
        }
        assert_eq!(read("linux"), Platform::host().to_string());
        assert_eq!(read("s390x"), format!("{}/s390x", std::env::consts::OS));
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        assert_eq!(
            read("linux/*"),
            "\"linux/*\": wildcards not yet supported: invalid argument"
        );
        assert_eq!(
            read("nope"),
            "\"nope\": unknown operating system or architecture: invalid argument"
        );
        assert_eq!(
            read("a/b/c/d"),
            "\"a/b/c/d\": cannot parse platform specifier: invalid argument"
        );
        for bad in ["", "/", "linux/", "linux/a b", "linux/é"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_platform_runs_what_came_before_it() {
        let runs = |text: &str| {
            text.parse::<Platform>()
                .unwrap()
                .runs()
                .iter()
                .map(Platform::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(runs("linux/amd64"), ["linux/amd64", "linux/386"]);
        assert_eq!(
            runs("linux/amd64/v3"),
            ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]
        );
        assert_eq!(runs("linux/arm/v7"), ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
        assert_eq!(
            runs("linux/arm64"),
            [
                "linux/arm64",
                "linux/arm/v8",
                "linux/arm/v7",
                "linux/arm/v6",
                "linux/arm/v5"
            ]
        );
        assert_eq!(runs("linux/amd64/v255").len(), 256);
    }

    #[test]
    fn the_best_offer_is_chosen() {
        let offers = ["linux/arm/v7", "linux/386", "linux/x86_64", "windows/amd64"].map(|text| {
            let (os, architecture) = text.split_once('/').unwrap();
            Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: String::new(),
            }
        });
        assert_eq!("linux/amd64".parse::<Platform>().unwrap().choose(&offers), Some(2));
        assert_eq!("linux/386".parse::<Platform>().unwrap().choose(&offers), Some(1));
        assert_eq!("linux/s390x".parse::<Platform>().unwrap().choose(&offers), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_platform_or_refused(text in ".*|[a-z0-9]{1,8}(/[a-z0-9]{1,6}){0,3}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>(), Ok(platform));
            }
        }
    }
}
