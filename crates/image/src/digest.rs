//! Content addresses: `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits (OCI image-spec,
//! descriptor.md, "Digests").

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Sha256, Sha512};

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Digits in the encoded form.
    pub const fn encoded_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A valid digest. `encoded` cannot hold a path separator or anything else than digits, so that it may name a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    encoded: Box<str>,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// From the encoded form alone.
    pub fn new(algorithm: Algorithm, encoded: &str) -> Result<Self> {
        if encoded.len() != algorithm.encoded_len() {
            return Err(Error::DigestLength);
        }
        if !encoded.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::DigestFormat);
        }
        Ok(Self {
            algorithm,
            encoded: encoded.into(),
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }

    /// The first twelve digits, as lists show them.
    pub fn short(&self) -> &str {
        &self.encoded[..12]
    }
}

/// As go-digest's `Parse`: what looks like a digest of another algorithm is unsupported, anything else malformed.
impl FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (algorithm, encoded) = text.split_once(':').ok_or(Error::DigestFormat)?;
        if algorithm.is_empty() || encoded.is_empty() {
            return Err(Error::DigestFormat);
        }
        match algorithm {
            "sha256" => Self::new(Algorithm::Sha256, encoded),
            "sha512" => Self::new(Algorithm::Sha512, encoded),
            other if is_algorithm(other) && encoded.bytes().all(is_encoded) => Err(Error::DigestAlgorithm),
            _ => Err(Error::DigestFormat),
        }
    }
}

/// `[a-z0-9]+(?:[.+_-][a-z0-9]+)*`
fn is_algorithm(text: &str) -> bool {
    text.split(['.', '+', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-')
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.encoded)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = Error;
    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self> {
        digest.to_string().parse()
    }
}

/// Hashes what passes by; as a writer it can stand in `io::copy`.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        use sha2::Digest as _;
        match algorithm {
            Algorithm::Sha256 => Self(State::Sha256(Sha256::new())),
            Algorithm::Sha512 => Self(State::Sha512(Sha512::new())),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        use sha2::Digest as _;
        match self.0 {
            State::Sha256(hash) => Digest {
                algorithm: Algorithm::Sha256,
                encoded: hex(&hash.finalize()),
            },
            State::Sha512(hash) => Digest {
                algorithm: Algorithm::Sha512,
                encoded: hex(&hash.finalize()),
            },
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::default())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Sha256(_) => "Hasher(sha256)",
            State::Sha512(_) => "Hasher(sha512)",
        })
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_are_sha2() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_string(), abc);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        io::copy(&mut &b"abc"[..], &mut hasher).unwrap();
        let digest = hasher.finish();
        assert!(digest.encoded().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(
            serde_json::from_str::<Digest>(&format!("\"{abc}\"")).unwrap().short(),
            "ba7816bf8f01"
        );
    }

    #[test]
    fn malformed_digests_are_refused_as_go_digest_does() {
        let hex = "0123456789abcdef".repeat(4);
        let refused = |text: &str| text.parse::<Digest>().unwrap_err();
        for text in [
            "",
            "sha256",
            ":",
            "sha256:",
            ":00",
            "SHA256:00",
            "sha256/:00",
            "md5:a/b",
            "-:00",
        ] {
            assert_eq!(refused(text), Error::DigestFormat, "{text}");
        }
        assert_eq!(refused(&format!("sha256:{}", hex.to_uppercase())), Error::DigestFormat);
        assert_eq!(refused(&format!("sha256:{}", "é".repeat(32))), Error::DigestFormat);
        assert_eq!(refused(&format!("sha256:{hex}0")), Error::DigestLength);
        assert_eq!(refused(&format!("sha512:{hex}")), Error::DigestLength);
        assert_eq!(refused("md5:00"), Error::DigestAlgorithm);
        assert_eq!(refused("tarsum.v1+sha256:00"), Error::DigestAlgorithm);
    }

    proptest! {
        #[test]
        fn any_text_is_a_digest_or_refused(text in ".*|sha(256|512):[0-9a-f]{0,130}|[a-z:0-9]{0,20}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn what_is_written_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let digest = Digest::of(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }
}
