//! Repository names, tags and upload ids: what a request may call things (OCI distribution-spec, "Pulling manifests").
//!
//! A value of these types names a file without harm: no component is empty, begins with a dot or an underscore, or holds
//! anything but letters, digits and `.`, `_`, `-`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ferry_image::Digest;

/// Longest name; every component of it then fits a directory entry.
pub const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// What is wrong with a name, a tag or an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "a repository name is lower-case components of letters and digits, joined by '.', '_', '__' or '-', between slashes, and at most 255 bytes"
    )]
    Name,
    #[error("a tag is at most 128 letters, digits, '.', '_' and '-', and begins with none of '.' and '-'")]
    Tag,
    #[error("an upload's id is 32 hexadecimal digits")]
    Upload,
    #[error("a digest is sha256: and 64, or sha512: and 128, lower-case hexadecimal digits")]
    Digest,
}

/// A repository: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() > NAME_MAX || !text.split('/').all(is_component) {
            return Err(Invalid::Name);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..].iter().take_while(|byte| plain(**byte)).count();
        if word == 0 {
            return false;
        }
        at += word;
        if at == bytes.len() {
            return true;
        }
        let joint = bytes[at..].iter().take_while(|byte| !plain(**byte)).count();
        match &bytes[at..at + joint] {
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        at += joint;
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= TAG_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        match valid {
            true => Ok(Self(text.into())),
            false => Err(Invalid::Tag),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.contains(':') {
            true => text.parse().map(Self::Digest).map_err(|_| Invalid::Digest),
            false => text.parse().map(Self::Tag),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An upload: 128 random bits, which nobody guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(u128);

impl UploadId {
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl FromStr for UploadId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match hex.then(|| u128::from_str_radix(text, 16)) {
            Some(Ok(id)) => Ok(Self(id)),
            _ => Err(Invalid::Upload),
        }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for name in [
            "a",
            "a/b",
            "a.b/c_d/e__f/g-h/i---j",
            "0/9",
            "a/".repeat(126).trim_end_matches('/'),
        ] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            ".a",
            "a.",
            "_a",
            "-a",
            "a-",
            "a._b",
            "..",
            "a/../b",
            "a%2fb",
            "..%2f",
            "a\0",
            "a b",
            "é",
            "a/_blobs",
            "a\\b",
            "a-_b",
            &"a".repeat(256),
        ] {
            assert_eq!(name.parse::<Name>(), Err(Invalid::Name), "{name:?}");
        }
    }

    #[test]
    fn tags_and_ids_follow_theirs() {
        for tag in ["latest", "_x", "1.0-rc.1", &"x".repeat(128)] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", ".", "..", ".x", "-x", "a/b", "a%", "a\n", &"x".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
        let id = UploadId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "..",
            "+0000000000000000000000000000001",
            "0000000000000000000000000000000G",
        ] {
            assert!(text.parse::<UploadId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_name_escapes_its_directory(text in "(\\PC|[a-z./_%-]){0,40}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
                prop_assert!(name.as_str().is_ascii() && !name.as_str().contains(['%', '\\', '\0']));
            }
        }
    }
}
