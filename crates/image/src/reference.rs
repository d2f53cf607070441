//! Image names: `[domain/]path[:tag][@digest]`, parsed and normalised exactly as github.com/distribution/reference 0.6
//! does.
//!
//! ```text
//! reference  = name [ ":" tag ] [ "@" digest ]        name = [ domain "/" ] path
//! domain     = host [ ":" port ]                      host = labels of letters, digits and inner "-", or "[" IPv6 "]"
//! path       = component { "/" component }            component = lower-case letters and digits, with ".", "_", "__" or "-"… inside
//! tag        = word { word | "." | "-" }, up to 128   digest = algorithm ":" hex
//! ```
//!
//! A first component is a domain when it holds a `.` or `:`, has an upper-case letter or is `localhost`; otherwise the
//! domain is
//! `docker.io`, where a single component stands below `library/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, Error, Result};

pub const DEFAULT_DOMAIN: &str = "docker.io";
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const PATH_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A normalised name with a tag, a digest, both or neither. Displayed in full; [`Reference::familiar`] is what people
/// see.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Empty only for a name whose first component looks like a domain and cannot be one (`foo__bar.com/x`).
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The name as written, without a tag when it has none. [`FromStr`] adds `:latest` to a name without tag and
    /// digest.
    pub fn parse_named(text: &str) -> Result<Self> {
        if is_identifier(text) {
            return Err(Error::NameIsId { name: text.to_owned() });
        }
        let (domain, remainder) = split_domain(text);
        let name = remainder.split(':').next().unwrap_or_default();
        if lowercase(name) != name {
            return Err(Error::ReferenceUppercase { name: name.to_owned() });
        }
        let full = format!("{domain}/{remainder}");
        match Parts::split(&full) {
            Some(parts) => parts.check(),
            None if Parts::split(&lowercase(&full)).is_some() => Err(Error::Uppercase),
            None => Err(Error::ReferenceFormat),
        }
    }

    /// With `:latest` when there is neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    pub fn with_tag(mut self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::Tag);
        }
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The repository alone.
    pub fn without_tag_and_digest(mut self) -> Self {
        (self.tag, self.digest) = (None, None);
        self
    }

    /// `docker.io`, `registry.example:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        if self.domain.is_empty() {
            self.path.clone()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// The name as short as it can be: `busybox`, `user/app`, `registry.example:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference with its familiar name: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// Adds `:latest` to a name without tag and digest, as commands that want one image do.
impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse_named(text).map(Self::tagged)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse_named(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What `docker inspect IMAGE` takes: a full image id, with or without its algorithm, or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyReference {
    Id(Digest),
    /// Without a default tag.
    Name(Reference),
}

impl FromStr for AnyReference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let id = if is_identifier(text) {
            format!("sha256:{text}").parse()
        } else {
            text.parse()
        };
        match id {
            Ok(digest) => Ok(Self::Id(digest)),
            Err(_) => Reference::parse_named(text).map(Self::Name),
        }
    }
}

/// The four parts of a reference that fits the grammar; the digest is not verified beyond it.
struct Parts<'a> {
    domain: &'a str,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last_component = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last_component..].split_once(':') {
            Some((component, tag)) => (&rest[..last_component + component.len()], Some(tag)),
            None => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((domain, path)) if is_domain(domain) => (domain, path),
            _ => ("", name),
        };
        let fits = path.split('/').all(is_component) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        fits.then_some(Self {
            domain,
            path,
            tag,
            digest,
        })
    }

    fn check(self) -> Result<Reference> {
        if self.path.len() > PATH_MAX {
            return Err(Error::NameTooLong);
        }
        Ok(Reference {
            domain: self.domain.to_owned(),
            path: self.path.to_owned(),
            tag: self.tag.map(str::to_owned),
            digest: self.digest.map(str::parse).transpose()?,
        })
    }
}

fn split_domain(text: &str) -> (&str, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("{OFFICIAL}{text}"));
    };
    let is_domain = first == "localhost" || first.contains(['.', ':']) || lowercase(first) != first;
    let (domain, remainder) = match first {
        LEGACY_DOMAIN => (DEFAULT_DOMAIN, rest),
        _ if is_domain => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain, format!("{OFFICIAL}{remainder}"));
    }
    (domain, remainder.to_owned())
}

/// Go's `strings.ToLower`: each character by itself.
fn lowercase(text: &str) -> String {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// 64 lower-case hexadecimal digits.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let fits = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if !fits {
                return false;
            }
            (None, port)
        }
        None => {
            let colon = text.find(':').unwrap_or(text.len());
            (Some(&text[..colon]), &text[colon..])
        }
    };
    let port_fits = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    port_fits && host.is_none_or(|host| host.split('.').all(is_label))
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().take_while(|b| is_plain(**b)).count();
        if plain == 0 {
            return false;
        }
        rest = &rest[plain..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|b| !is_plain(**b)).count();
        let (between, after) = rest.split_at(separator);
        if !matches!(between, b"." | b"_" | b"__") && !between.iter().all(|b| *b == b'-') {
            return false;
        }
        rest = after;
    }
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*[:][[:xdigit:]]{32,}`
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    let part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && encoded.len() >= 32
        && encoded.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised_and_shown_short() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            (
                "user/app:Tag_1.x-y",
                "docker.io/user/app:Tag_1.x-y",
                "user/app:Tag_1.x-y",
            ),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            (
                "example.com/a/b/c",
                "example.com/a/b/c:latest",
                "example.com/a/b/c:latest",
            ),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
            (
                "a--b/c__d/e.f",
                "docker.io/a--b/c__d/e.f:latest",
                "a--b/c__d/e.f:latest",
            ),
            ("foo__bar.com/x", "foo__bar.com/x:latest", "foo__bar.com/x:latest"),
            ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
            ("xn--7o8h.com/app", "xn--7o8h.com/app:latest", "xn--7o8h.com/app:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.familiar().as_str()),
                (full, familiar),
                "{text}"
            );
        }
    }

    #[test]
    fn a_digest_stands_beside_or_instead_of_a_tag() {
        let both: Reference = format!("busybox:1@{DIGEST}").parse().unwrap();
        assert_eq!(
            (both.tag(), both.digest().unwrap().to_string().as_str()),
            (Some("1"), DIGEST)
        );
        assert_eq!(both.familiar(), format!("busybox:1@{DIGEST}"));
        let digest_only: Reference = format!("busybox@{DIGEST}").parse().unwrap();
        assert_eq!(
            (digest_only.tag(), digest_only.familiar()),
            (None, format!("busybox@{DIGEST}"))
        );
        assert_eq!(
            digest_only.without_tag_and_digest().tagged().familiar(),
            "busybox:latest"
        );
    }

    #[test]
    fn a_name_as_written_keeps_its_missing_tag() {
        assert_eq!(
            Reference::parse_named("busybox").unwrap().to_string(),
            "docker.io/library/busybox"
        );
        assert_eq!(
            Reference::parse_named("busybox")
                .unwrap()
                .with_tag("x")
                .unwrap()
                .familiar(),
            "busybox:x"
        );
        assert_eq!(
            Reference::parse_named("busybox").unwrap().with_tag("-x"),
            Err(Error::Tag)
        );
    }

    #[test]
    fn what_is_no_reference_is_refused_in_dockers_words() {
        let long = |n: usize| "a".repeat(n);
        let refused = |text: &str| Reference::parse_named(text).unwrap_err().to_string();
        let invalid = "invalid reference format";
        for text in [
            "",
            ":x",
            "foo:",
            "foo:bar:baz",
            "a//b",
            "/foo",
            "foo/",
            "foo@",
            "@sha256:abc",
            "foo@sha256:abc",
            "-foo",
            "foo-",
            "a...b",
            "a___b",
            "a._b",
            "foo:-x",
            "ex_ample.com:5000/é",
            "[::g]/x",
            "[]/x",
            "example.com:port/x",
            "foo bar",
            "foo\n",
            "é",
        ] {
            assert_eq!(refused(text), invalid, "{text:?}");
        }
        assert_eq!(refused(&format!("foo:{}", long(129))), invalid);
        assert_eq!(
            refused("Foo"),
            "invalid reference format: repository name (library/Foo) must be lowercase"
        );
        assert_eq!(
            refused("EX.com/Foo:x"),
            "invalid reference format: repository name (Foo) must be lowercase"
        );
        assert_eq!(
            refused("user/Foo"),
            "invalid reference format: repository name (user/Foo) must be lowercase"
        );
        assert_eq!(
            refused(&long(300)),
            "repository name must not be more than 255 characters"
        );
        assert_eq!(
            refused(&long(64)),
            format!(
                "invalid repository name ({}), cannot specify 64-byte hexadecimal strings",
                long(64)
            )
        );
        assert_eq!(
            refused(&format!("foo@{}", DIGEST.replace("abc", "ABC"))),
            "invalid checksum digest format"
        );
        assert_eq!(
            refused(&DIGEST.replace("sha256", "foo@md5")),
            "unsupported digest algorithm"
        );
        assert_eq!(refused(&format!("foo@{DIGEST}ab")), "invalid checksum digest length");
    }

    #[test]
    fn lengths_count_the_path_alone() {
        assert!(Reference::parse_named(&format!("example.com/{}", "a".repeat(255))).is_ok());
        assert!(Reference::parse_named(&format!("foo:{}", "a".repeat(128))).is_ok());
        // With "library/" in front.
        assert!(Reference::parse_named(&"b".repeat(247)).is_ok());
        assert_eq!(Reference::parse_named(&"b".repeat(248)), Err(Error::NameTooLong));
    }

    #[test]
    fn an_id_may_stand_for_a_name() {
        let id = DIGEST.strip_prefix("sha256:").unwrap();
        assert_eq!(id.parse(), Ok(AnyReference::Id(DIGEST.parse().unwrap())));
        assert_eq!(DIGEST.parse(), Ok(AnyReference::Id(DIGEST.parse().unwrap())));
        assert_eq!(
            "busybox".parse(),
            Ok(AnyReference::Name(Reference::parse_named("busybox").unwrap()))
        );
        assert_eq!(
            "Foo".parse::<AnyReference>().unwrap_err().to_string(),
            Reference::parse_named("Foo").unwrap_err().to_string()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_reference_or_refused(text in ".*|([a-zA-Z0-9.:_-]{1,8}/){0,3}[a-zA-Z._-]{1,6}(:[a-zA-Z0-9._-]{0,5})?(@sha256:[0-9a-f]{64})?") {
            let _ = text.parse::<AnyReference>();
            if let Ok(reference) = Reference::parse_named(&text) {
                prop_assert_eq!(Reference::parse_named(&reference.to_string()), Ok(reference.clone()));
                prop_assert_eq!(serde_json::from_str::<Reference>(&serde_json::to_string(&reference).unwrap()).unwrap(), reference);
            }
        }

        #[test]
        fn what_is_shown_parses_to_the_same(
            text in "((localhost|[a-z]{1,4}\\.com|[A-Z][a-z]{0,3}|\\[::1\\])(:[0-9]{1,4})?/)?([a-z0-9]{1,3}([._]|__|-{1,3})?[a-z0-9]/){0,2}[a-z]{1,5}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,9})?",
        ) {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()), "full");
            prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference), "familiar");
        }
    }
}
