//! Manifests and indexes: fetched whole, verified, and looked at closely enough to say what they are.

use bytes::Bytes;
use ferry_image::media::{ACCEPT_MANIFESTS, Kind, OCI_INDEX, OCI_MANIFEST};
use ferry_image::{Digest, Hasher, Reference};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, header};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::endpoint::Endpoint;
use crate::error::bounded;
use crate::{Descriptor, Error, Repository, Result};

/// Objects and arrays inside each other. Real ones have five.
const DEPTH: usize = 64;
/// Layers, or manifests of an index.
const ENTRIES: usize = 10_000;

/// A manifest or an index, digest and size verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// With the media type that was found out.
    pub descriptor: Descriptor,
    /// As they came: the digest is theirs.
    pub bytes: Bytes,
    pub content: Content,
    /// The registry or mirror it came from.
    pub registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Image {
        config: Box<Descriptor>,
        layers: Vec<Descriptor>,
    },
    Index {
        manifests: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Content {
    /// What these bytes are, and their media type. Fails with the reason.
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<(Self, String), Unfit> {
        let stated = Kind::of(content_type);
        if stated == Kind::Obsolete {
            return Err(Unfit::Schema1);
        }
        if too_deep(bytes) {
            return Err(Unfit::Wrong(format!(
                "its JSON is nested more than {DEPTH} levels deep"
            )));
        }
        let body: Body = serde_json::from_slice(bytes).map_err(|error| {
            let content_type = bounded(content_type, 80);
            if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
                return Unfit::Wrong(format!("it is no manifest: {error}"));
            }
            let hint = if content_type.contains("html") {
                " (a page of a proxy, or of a login?)"
            } else {
                ""
            };
            Unfit::Wrong(format!("it is no JSON, of type {content_type:?}{hint}: {error}"))
        })?;
        if body.schema_version == Some(1) || body.fs_layers.is_some() {
            return Err(Unfit::Schema1);
        }
        let said = body.media_type.clone().filter(|said| !said.is_empty());
        let inside = Kind::of(said.as_deref().unwrap_or_default());
        let content = match (body.config, body.layers, body.manifests) {
            (config, layers, Some(manifests)) => {
                // One digest, two meanings: CVE-2021-41190.
                if config.is_some() || layers.is_some() {
                    return Err(Unfit::Wrong("it has both layers and manifests".to_owned()));
                }
                Self::Index { manifests }
            }
            (Some(config), layers, None) => Self::Image {
                config: Box::new(config),
                layers: layers.unwrap_or_default(),
            },
            _ => return Err(Unfit::Wrong("it has neither a config nor manifests".to_owned())),
        };
        let (kind, default) = match &content {
            Self::Image { .. } => (Kind::Manifest, OCI_MANIFEST),
            Self::Index { .. } => (Kind::Index, OCI_INDEX),
        };
        let known = |kind| matches!(kind, Kind::Manifest | Kind::Index);
        if (known(stated) && stated != kind) || (known(inside) && inside != kind) {
            let found = if kind == Kind::Index { "an index" } else { "a manifest" };
            let type_ = if known(stated) && stated != kind {
                content_type
            } else {
                said.as_deref().unwrap_or_default()
            };
            return Err(Unfit::Wrong(format!(
                "it says it is {}, and is {found}",
                bounded(type_, 100)
            )));
        }
        if content.descriptors().count() > ENTRIES {
            return Err(Unfit::Wrong(format!("it has more than {ENTRIES} entries")));
        }
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = match said {
            Some(said) if known(inside) => said,
            _ if known(stated) => essence.to_owned(),
            _ => default.to_owned(),
        };
        Ok((content, media_type))
    }

    /// What the bytes of a manifest or index are, whose media type is not known otherwise.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).map(|(content, _)| content)
    }

    /// With the media type that its bytes say, or that such a document has.
    pub fn read(bytes: &[u8]) -> Option<(Self, String)> {
        Self::parse(bytes, "").ok()
    }

    /// Everything it names.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match self {
            Self::Image { config, layers } => (Some(&**config), layers),
            Self::Index { manifests } => (None, manifests),
        };
        config.into_iter().chain(rest)
    }
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Schema1,
    Wrong(String),
}

/// Counts brackets outside of strings: parsers differ in what they skip without counting.
fn too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

impl Repository {
    /// The manifest or index that a reference to this repository names, by its digest if it has one, else by its tag.
    pub fn resolve<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Manifest>> {
        Box::pin(async move {
            let tagged = reference.clone().tagged();
            let found = match (tagged.digest(), tagged.tag()) {
                (Some(digest), _) => self.fetch(&digest.to_string(), Some(digest), None).await,
                (None, tag) => self.fetch(tag.unwrap_or(ferry_image::DEFAULT_TAG), None, None).await,
            };
            found.map_err(|error| self.pull_error(error, &tagged))
        })
    }

    /// Its descriptor alone, by HEAD: registries that count pulls do not count it. Not verified.
    pub fn head<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Descriptor>> {
        Box::pin(async move {
            let tagged = reference.clone().tagged();
            let name = match (tagged.digest(), tagged.tag()) {
                (Some(digest), _) => digest.to_string(),
                (None, tag) => tag.unwrap_or(ferry_image::DEFAULT_TAG).to_owned(),
            };
            let mut tries = self.tries(self.sources());
            let found = loop {
                let endpoint = tries.next().map_err(|error| self.pull_error(error, &tagged))?;
                if let Some(done) = tries.settle(&endpoint, self.head_at(&endpoint, &name, tagged.digest()).await) {
                    break done.map_err(|error| self.pull_error(error, &tagged))?;
                }
            };
            match found {
                Some(descriptor) => Ok(descriptor),
                // Some servers say nothing to HEAD.
                None => Ok(self.resolve(reference).await?.descriptor),
            }
        })
    }

    async fn head_at(&self, endpoint: &Endpoint, name: &str, asked: Option<&Digest>) -> Result<Option<Descriptor>> {
        let call = accepting(self.call(endpoint, Method::HEAD, &format!("manifests/{name}"), &[])?);
        let response = self.ask(endpoint, &self.scope("pull"), &call, &[200]).await?;
        let headers = response.headers();
        let size = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let (Some(Ok(digest)), Some(size)) = (digest_of(headers), size) else {
            return Ok(None);
        };
        let wrong = asked.is_some_and(|asked| *asked != digest);
        Ok((!wrong).then(|| Descriptor::new(content_type(headers), digest, size)))
    }

    /// Whether the registry itself has a manifest or index in this repository. Asks by HEAD.
    pub fn has_manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let mut tries = self.tries(self.own());
            loop {
                let endpoint = tries.next()?;
                let outcome = async {
                    let call = self.call(&endpoint, Method::HEAD, &format!("manifests/{digest}"), &[])?;
                    let scope = self.scope("pull,push");
                    self.ask(&endpoint, &scope, &accepting(call), &[200, 404]).await
                };
                let outcome = outcome.await;
                if let Some(done) = tries.settle(&endpoint, outcome) {
                    return Ok(done?.status() == http::StatusCode::OK);
                }
            }
        })
    }

    /// The manifest or index with this digest and size.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let found = self
            .fetch(
                &descriptor.digest.to_string(),
                Some(&descriptor.digest),
                Some(descriptor.size),
            )
            .await;
        found.map_err(|error| {
            let reference = self.name().clone().with_digest(descriptor.digest.clone());
            self.pull_error(error, &reference)
        })
    }

    fn fetch<'a>(
        &'a self,
        name: &'a str,
        expected: Option<&'a Digest>,
        size: Option<u64>,
    ) -> BoxFuture<'a, Result<Manifest>> {
        Box::pin(async move {
            let mut tries = self.tries(self.sources());
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.fetch_at(&endpoint, name, expected, size).await) {
                    return done;
                }
            }
        })
    }

    async fn fetch_at(
        &self,
        endpoint: &Endpoint,
        name: &str,
        expected: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<Manifest> {
        let subject = || {
            let separator = if expected.is_some() { '@' } else { ':' };
            format!("the manifest {}{separator}{name}", self.path())
        };
        let wrong = |reason: String| Error::Answer {
            registry: endpoint.registry.clone(),
            subject: subject(),
            reason,
        };
        let limit = self.limits().manifest;
        if size.is_some_and(|size| size > limit) {
            return Err(Error::TooLarge {
                registry: endpoint.registry.clone(),
                subject: subject(),
                limit,
            });
        }
        let call = accepting(self.get(endpoint, &format!("manifests/{name}"))?);
        let response = self.ask(endpoint, &self.scope("pull"), &call, &[200]).await?;
        let stated = match digest_of(response.headers()) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            Some(Err(text)) => return Err(wrong(format!("its Docker-Content-Digest is {text:?}"))),
        };
        let content_type = content_type(response.headers()).to_owned();
        let bytes = self
            .shared
            .transport
            .read(response, endpoint, &subject(), limit)
            .await?;
        let is_page = content_type.contains("html");
        let expected = expected.or(stated.as_ref().filter(|_| !is_page));
        let digest = match expected {
            None => Digest::of(&bytes),
            Some(expected) => {
                let mut hasher = Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                let actual = hasher.finish();
                if actual != *expected {
                    return Err(Error::Digest {
                        registry: endpoint.registry.clone(),
                        subject: subject(),
                        expected: expected.clone(),
                        actual,
                    });
                }
                actual
            }
        };
        if size.is_some_and(|size| size != bytes.len() as u64) {
            return Err(wrong(format!(
                "it has {} bytes, its descriptor says {}",
                bytes.len(),
                size.unwrap_or_default()
            )));
        }
        let (content, media_type) = Content::parse(&bytes, &content_type).map_err(|unfit| match unfit {
            Unfit::Schema1 => Error::Schema1 {
                registry: endpoint.registry.clone(),
                subject: subject(),
            },
            Unfit::Wrong(reason) => wrong(reason),
        })?;
        Ok(Manifest {
            descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64),
            bytes,
            content,
            registry: endpoint.registry.clone(),
        })
    }
}

fn accepting(mut call: crate::transport::Call) -> crate::transport::Call {
    for media_type in ACCEPT_MANIFESTS {
        call = call.header(header::ACCEPT, media_type);
    }
    call
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// What the server says the digest is; an error when that is none.
pub(crate) fn digest_of(headers: &HeaderMap) -> Option<Result<Digest, String>> {
    let value = headers.get("docker-content-digest")?;
    let text = String::from_utf8_lossy(value.as_bytes());
    Some(text.parse().map_err(|_| bounded(&text, 160)))
}

#[cfg(test)]
mod tests {
    use ferry_image::media::{DOCKER_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_V1_SIGNED};
    use proptest::prelude::*;

    use super::*;

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","size":2,"digest":"{}"}}"#, Digest::of("{}"))
    }

    fn refused(bytes: &str, content_type: &str) -> String {
        match Content::parse(bytes.as_bytes(), content_type).unwrap_err() {
            Unfit::Schema1 => "schema 1".to_owned(),
            Unfit::Wrong(reason) => reason,
        }
    }

    #[test]
    fn content_is_what_its_fields_say() {
        let d = descriptor();
        let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}],"annotations":null}}"#);
        for (content_type, media_type) in [
            (DOCKER_MANIFEST, DOCKER_MANIFEST),
            ("", OCI_MANIFEST),
            ("application/json; charset=utf-8", OCI_MANIFEST),
            ("text/plain", OCI_MANIFEST),
        ] {
            let (content, found) = Content::parse(image.as_bytes(), content_type).unwrap();
            assert_eq!((found.as_str(), content.descriptors().count()), (media_type, 2));
        }
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_INDEX}","manifests":[{d}]}}"#);
        assert_eq!(
            Content::parse(index.as_bytes(), "application/octet-stream").unwrap().1,
            DOCKER_INDEX
        );
    }

    #[test]
    fn confusion_is_refused() {
        let d = descriptor();
        let both = format!(r#"{{"config":{d},"layers":[{d}],"manifests":[{d}]}}"#);
        assert!(refused(&both, "").contains("both layers and manifests"));
        assert!(refused(&format!(r#"{{"manifests":[{d}]}}"#), OCI_MANIFEST).contains("is an index"));
        let lies = format!(r#"{{"mediaType":"{OCI_INDEX}","config":{d}}}"#);
        assert!(refused(&lies, OCI_MANIFEST).contains("is a manifest"));
        assert_eq!(refused("{}", DOCKER_MANIFEST_V1_SIGNED), "schema 1");
        assert_eq!(
            refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, "application/json"),
            "schema 1"
        );
        assert!(refused("<html></html>", "text/html").contains("no JSON"));
        assert!(refused("{}", "").contains("neither"));
        assert!(refused(r#"{"config":{"size":-1,"digest":"sha256:../../x"}}"#, "").contains("no manifest"));
        assert!(refused(&r#"{"a":"#.repeat(100_000), "").contains("nested"));
        assert!(refused(&format!(r#"{{"x":{}}}"#, "[".repeat(100_000)), "").contains("nested"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Content::parse(&bytes, "");
        }
    }
}
