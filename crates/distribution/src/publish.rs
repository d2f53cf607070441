//! Manifests pushed and deleted, and what a repository lists: tags and referrers.

use std::collections::BTreeSet;

use bytes::Bytes;
use ferry_image::media::{Kind, OCI_INDEX};
use ferry_image::{Digest, Reference};
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use crate::endpoint::Endpoint;
use crate::manifest::{Content, digest_of};
use crate::transport::{Body, Call};
use crate::{Descriptor, Error, Repository, Result};

/// Tags a page, as Docker's tools ask for.
const PAGE: &str = "1000";
const PAGES: usize = 10_000;

/// What the registry made of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub digest: Digest,
    /// The manifest has a subject and the registry keeps no referrers: they are in an index under this tag.
    pub referrers_tag: Option<String>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default, rename = "artifactType")]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Repository {
    /// Puts a manifest or index where `reference` says: under its tag, or, when it has none, under its digest. What it names
    /// must be there.
    pub fn push_manifest<'a>(
        &'a self,
        reference: &'a Reference,
        media_type: &'a str,
        bytes: &'a Bytes,
    ) -> BoxFuture<'a, Result<Published>> {
        Box::pin(async move {
            let name = match (reference.tag(), reference.digest()) {
                (Some(tag), _) => tag.to_owned(),
                (None, Some(digest)) => digest.to_string(),
                (None, None) => Digest::of(bytes).to_string(),
            };
            let (digest, takes_subject) = self.put(&name, media_type, bytes).await?;
            let subject: Option<Subject> = serde_json::from_slice(bytes).ok();
            let Some(Subject {
                subject: Some(subject),
                artifact_type,
                config,
                annotations,
            }) = subject
            else {
                return Ok(Published {
                    digest,
                    referrers_tag: None,
                });
            };
            if takes_subject {
                return Ok(Published {
                    digest,
                    referrers_tag: None,
                });
            }
            let mut entry = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
            entry.artifact_type = artifact_type.or_else(|| config.map(|config| config.media_type));
            entry.annotations = annotations.unwrap_or_default();
            let tag = self.list_referrer(&subject.digest, entry).await?;
            Ok(Published {
                digest,
                referrers_tag: Some(tag),
            })
        })
    }

    /// The digest, and whether the registry looked at the subject.
    async fn put(&self, name: &str, media_type: &str, bytes: &Bytes) -> Result<(Digest, bool)> {
        let mut tries = self.tries(self.own());
        loop {
            let endpoint = tries.next()?;
            if let Some(done) = tries.settle(&endpoint, self.put_at(&endpoint, name, media_type, bytes).await) {
                return done;
            }
        }
    }

    async fn put_at(&self, endpoint: &Endpoint, name: &str, media_type: &str, bytes: &Bytes) -> Result<(Digest, bool)> {
        let mut call = self
            .call(endpoint, Method::PUT, &format!("manifests/{name}"), &[])?
            .header(header::CONTENT_TYPE, media_type);
        call.body = Body::Bytes(bytes.clone());
        let response = self
            .ask(endpoint, &self.scope("pull,push"), &call, &[201, 200, 202])
            .await?;
        let takes_subject = response.headers().contains_key("oci-subject");
        let digest = Digest::of(bytes);
        match digest_of(response.headers()) {
            Some(Ok(stated)) if stated.algorithm() == digest.algorithm() && stated != digest => Err(Error::Digest {
                registry: endpoint.registry.clone(),
                subject: format!("the pushed manifest {}:{name}", self.path()),
                expected: digest,
                actual: stated,
            }),
            _ => Ok((digest, takes_subject)),
        }
    }

    /// Adds to the index under the subject's tag (OCI distribution-spec, "Referrers Tag Schema"). Two at once may lose one.
    async fn list_referrer(&self, subject: &Digest, entry: Descriptor) -> Result<String> {
        let tag = referrers_tag(subject);
        let reference = self.tag(&tag)?;
        let mut manifests = match self.resolve(&reference).await {
            Ok(found) => match found.content {
                Content::Index { manifests } => manifests,
                Content::Image { .. } => Vec::new(),
            },
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        if manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(tag);
        }
        manifests.push(entry);
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        self.put(&tag, OCI_INDEX, &index.to_string().into()).await?;
        Ok(tag)
    }

    /// What refers to a manifest, of one artifact type or all.
    pub fn referrers<'a>(
        &'a self,
        subject: &'a Digest,
        artifact_type: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        Box::pin(async move {
            let mut tries = self.tries(self.own());
            let listed = loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.referrers_at(&endpoint, subject, artifact_type).await)
                {
                    break done?;
                }
            };
            let mut found = match listed {
                Some(listed) => listed,
                None => match self.resolve(&self.tag(&referrers_tag(subject))?).await {
                    Ok(found) => match found.content {
                        Content::Index { manifests } => manifests,
                        Content::Image { .. } => Vec::new(),
                    },
                    Err(error) if error.is_not_found() => Vec::new(),
                    Err(error) => return Err(error),
                },
            };
            // A registry may ignore the filter.
            found.retain(|entry| artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted)));
            Ok(found)
        })
    }

    /// `None` when the registry does not know how.
    async fn referrers_at(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let query: Vec<_> = artifact_type
            .map(|wanted| ("artifactType", wanted))
            .into_iter()
            .collect();
        let call = self.call(endpoint, Method::GET, &format!("referrers/{subject}"), &query)?;
        let mut found = Vec::new();
        let mut pages = Pages::new(call);
        while let Some(response) = pages.next(self, endpoint, &[200, 404]).await? {
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let is_index = content_type
                .and_then(|value| value.to_str().ok())
                .is_some_and(|text| Kind::of(text) == Kind::Index);
            if response.status() == StatusCode::NOT_FOUND || !is_index {
                return Ok(None);
            }
            let bytes = pages.read(self, endpoint, response, "the list of referrers").await?;
            match Content::parse(&bytes, OCI_INDEX) {
                Ok((Content::Index { manifests }, _)) => found.extend(manifests),
                _ => return Err(self.wrong(endpoint, "its list of referrers is no index")),
            }
        }
        Ok(Some(found))
    }

    /// All tags, in the order of the mirror or registry that has them.
    pub fn tags(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            let mut tries = self.tries(self.sources());
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.tags_at(&endpoint).await) {
                    return done.map_err(|error| self.pull_error(error, self.name()));
                }
            }
        })
    }

    async fn tags_at(&self, endpoint: &Endpoint) -> Result<Vec<String>> {
        let mut pages = Pages::new(self.call(endpoint, Method::GET, "tags/list", &[("n", PAGE)])?);
        let mut tags = Vec::new();
        while let Some(response) = pages.next(self, endpoint, &[200]).await? {
            let bytes = pages.read(self, endpoint, response, "the list of tags").await?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|error| self.wrong(endpoint, &format!("its list of tags is none: {error}")))?;
            for tag in page.tags.unwrap_or_default() {
                if self.tag(&tag).is_err() {
                    let shown = crate::error::bounded(&tag, 128);
                    return Err(self.wrong(endpoint, &format!("it lists {shown:?}, which is no tag")));
                }
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    /// Deletes what `reference` names: a tag, or, with a digest, a manifest and all its tags. Not every registry lets one.
    pub fn delete_manifest<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let name = match (reference.digest(), reference.tag()) {
                (Some(digest), _) => digest.to_string(),
                (None, Some(tag)) => tag.to_owned(),
                (None, None) => return Err(Error::Options(format!("{reference} names no tag and no digest"))),
            };
            let deleted = self.delete(&format!("manifests/{name}")).await;
            deleted.map_err(|error| self.pull_error(error, reference))
        })
    }

    pub(crate) async fn delete(&self, rest: &str) -> Result<()> {
        let mut tries = self.tries(self.own());
        loop {
            let endpoint = tries.next()?;
            let outcome = async {
                let call = self.call(&endpoint, Method::DELETE, rest, &[])?;
                self.ask(&endpoint, &self.scope("delete,pull,push"), &call, &[200, 202, 204])
                    .await
            };
            let outcome = outcome.await;
            if let Some(done) = tries.settle(&endpoint, outcome) {
                return done.map(drop);
            }
        }
    }

    fn tag(&self, tag: &str) -> Result<Reference> {
        let named = self.name().clone().with_tag(tag);
        named.map_err(|error| Error::Options(format!("{tag:?}: {error}")))
    }
}

/// `sha256-<hex>`, within the grammar of tags.
fn referrers_tag(subject: &Digest) -> String {
    let text = format!("{}-{}", subject.algorithm().name(), subject.encoded());
    text.chars().take(128).collect()
}

/// Pages of a list, each of which may name the next: of the same registry only, no page twice, and not for ever.
struct Pages {
    next: Option<Call>,
    seen: BTreeSet<String>,
    /// Bytes of all pages.
    read: u64,
}

impl Pages {
    fn new(first: Call) -> Self {
        Self {
            next: Some(first),
            seen: BTreeSet::new(),
            read: 0,
        }
    }

    async fn next(&mut self, repository: &Repository, endpoint: &Endpoint, wanted: &[u16]) -> Result<Option<Response>> {
        let Some(call) = self.next.take() else { return Ok(None) };
        if !self.seen.insert(call.url.to_string()) || self.seen.len() > PAGES {
            return Err(repository.wrong(endpoint, "the pages of its list do not end"));
        }
        let response = repository
            .ask(endpoint, &repository.scope("pull"), &call, wanted)
            .await?;
        let link = response
            .headers()
            .get(header::LINK)
            .and_then(|value| value.to_str().ok())
            .and_then(next_link);
        if let Some(link) = link {
            let url: Option<Url> = call.url.join(link).ok().filter(|url| endpoint.is_own(url));
            let Some(url) = url else {
                return Err(repository.wrong(endpoint, "the next page of its list is on another host"));
            };
            self.next = Some(Call { url, ..call });
        }
        Ok(Some(response))
    }

    async fn read(
        &mut self,
        repository: &Repository,
        endpoint: &Endpoint,
        response: Response,
        subject: &str,
    ) -> Result<Bytes> {
        let limit = repository.limits().list.saturating_sub(self.read);
        let bytes = repository
            .shared
            .transport
            .read(response, endpoint, subject, limit)
            .await?;
        self.read += bytes.len() as u64;
        Ok(bytes)
    }
}

/// `<url>; rel="next"` (RFC 8288).
fn next_link(text: &str) -> Option<&str> {
    let (url, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split([';', ',']).any(|parameter| {
        let parameter = parameter.trim().replace('"', "");
        parameter.eq_ignore_ascii_case("rel=next")
    });
    is_next.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?n=1&last=b>; rel="next""#),
            Some("/v2/a/tags/list?n=1&last=b")
        );
        assert_eq!(next_link("<x>;rel=next"), Some("x"));
        for text in ["", "<x", "x; rel=next", r#"<x>; rel="prev""#] {
            assert_eq!(next_link(text), None, "{text}");
        }
    }
}
