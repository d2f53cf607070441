//! Manifests from upstream.

use crate::backend::{Backend, Intent, Stored};
use crate::failure::{Answer, Code, Failure};
use crate::http::Registry;
use crate::manifest::Manifest;
use crate::name::{Name, Reference, Tag};
use crate::upstream::Trouble;

use super::Remote;

/// A manifest, and whether the upstream could not be asked about it.
#[derive(Clone, Debug)]
pub struct Found {
    pub stored: Stored,
    pub stale: bool,
}

impl<B: Backend> Registry<B> {
    /// `name` is the repository's in storage.
    pub(crate) async fn manifest_through(
        &self,
        name: &Name,
        reference: &Reference,
        remote: &Remote,
    ) -> Answer<Option<Found>> {
        let through = &self.0.through;
        let here = self.0.backend.manifest(name, reference, Intent::Pull).await?;
        let key = key(name, reference);
        let stale = match reference {
            Reference::Digest(_) => Some(false),
            Reference::Tag(_) => through.known(&key).map(|checked| checked.stale),
        };
        if let (Some(stored), Some(stale)) = (here, stale) {
            self.0.backend.used(name, &stored.digest);
            return Ok(Some(Found { stored, stale }));
        }
        let (registry, name, reference, remote) = (self.clone(), name.clone(), reference.clone(), remote.clone());
        let flight = through.manifests.join(&key, |landing| async move {
            let found = registry.ask(&name, &reference, &remote).await;
            drop(landing);
            found
        });
        flight.await.unwrap_or_else(|| Err(lost()))
    }

    async fn ask(&self, name: &Name, reference: &Reference, remote: &Remote) -> Answer<Option<Found>> {
        // Perhaps it has just come.
        let here = self.0.backend.manifest(name, reference, Intent::Pull).await?;
        match (reference, here) {
            (Reference::Digest(_), Some(stored)) => Ok(Some(Found { stored, stale: false })),
            (Reference::Tag(tag), Some(stored)) => self.ask_again(name, (tag, reference), stored, remote).await,
            (_, None) => match remote.upstream.manifest(&remote.name, reference).await? {
                Some(fetched) => self.keep(name, reference, fetched).await.map(Some),
                None => Ok(None),
            },
        }
    }

    /// A tag that is here.
    async fn ask_again(
        &self,
        name: &Name,
        (tag, reference): (&Tag, &Reference),
        stored: Stored,
        remote: &Remote,
    ) -> Answer<Option<Found>> {
        let fetched = match remote.upstream.digest(&remote.name, tag).await {
            Ok(Some(digest)) if digest == stored.digest => {
                self.0.backend.used(name, &digest);
                self.0.through.note(key(name, reference), false);
                return Ok(Some(Found { stored, stale: false }));
            }
            Ok(Some(_)) => remote.upstream.manifest(&remote.name, reference).await,
            Ok(None) => Ok(None),
            Err(trouble) => Err(trouble),
        };
        match fetched {
            Ok(Some(fetched)) => self.keep(name, reference, fetched).await.map(Some),
            Ok(None) => {
                self.0.backend.delete_tag(name, tag).await?;
                Ok(None)
            }
            Err(trouble) if trouble.passes() => Ok(Some(self.stale(name, reference, stored, &trouble))),
            Err(trouble) => Err(trouble.into()),
        }
    }

    fn stale(&self, name: &Name, reference: &Reference, stored: Stored, trouble: &Trouble) -> Found {
        tracing::warn!(repository = %name, %reference, cause = %trouble, "what is here is given, and may be old");
        self.0.metrics.stale.inc();
        self.0.backend.used(name, &stored.digest);
        self.0.through.note(key(name, reference), true);
        Found { stored, stale: true }
    }

    async fn keep(&self, name: &Name, reference: &Reference, fetched: crate::upstream::Fetched) -> Answer<Found> {
        let (tag, expected) = match reference {
            Reference::Tag(tag) => (Some(tag), None),
            Reference::Digest(digest) => (None, Some(digest)),
        };
        let manifest = Manifest::parse(fetched.content, Some(&fetched.media_type), expected).map_err(|error| {
            let message = format!("the upstream's manifest {reference} of {name} is not taken: {error}");
            Failure::new(Code::Unknown, message).status(http::StatusCode::BAD_GATEWAY)
        })?;
        let stored = Stored {
            digest: manifest.digest.clone(),
            media_type: manifest.media_type.as_str().into(),
            content: manifest.content.clone(),
        };
        self.0.metrics.fetched(stored.content.len());
        match self.0.backend.keep_manifest(name, tag, manifest).await {
            Ok(()) => {
                self.0.through.note(key(name, reference), false);
                self.grown(u64::try_from(stored.content.len()).unwrap_or(0));
            }
            // Whoever asked can have it nevertheless.
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(repository = %name, %reference, %error, cause, "a manifest is passed on and not kept");
            }
        }
        Ok(Found { stored, stale: false })
    }
}

fn key(name: &Name, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{name}:{tag}"),
        Reference::Digest(digest) => format!("{name}@{digest}"),
    }
}

pub fn lost() -> Box<Failure> {
    Failure::new(
        Code::Unknown,
        "the registry could not ask its upstream: its log says why",
    )
}
