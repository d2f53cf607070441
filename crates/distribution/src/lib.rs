//! The registry client: images come from other registries and go to them, over networks that break and from servers that lie.
//!
//! ```text
//! Client ─ repository(reference, credentials) ─▶ Repository ─┬─ resolve ▸ manifest ▸ config       (small: whole and verified)
//!   connections, tokens,                                    ├─ blob, ranges ─▶ BlobStream        (async, mends itself)
//!   which mirror works                                      │    └─ reader ─▶ BlobReader: Read   (for a blocking thread)
//!                                                           └─ push_blob, push_manifest, tags, referrers, delete
//! config: Docker's config.json and its credential helpers   login: what POST /auth does
//! ```
//!
//! * A [`Repository`] knows where its content may be: mirrors in their order, then the registry. What cannot be had from one is
//!   asked of the next; what does not answer at all is left out for a minute. Pushes go to the registry itself.
//! * A pull takes [`Repository::resolve`], [`Repository::manifest`] for the platform's manifest of an index,
//!   [`Repository::small_blob`] for the configuration, and a [`Repository::reader`] a layer, whose `open(offset)` is what
//!   `ferry_storage`'s `Pull::layer` wants: bytes from an offset on, a few MiB in flight, nothing left behind when it is dropped.
//! * Manifests and configurations are verified here. A stream of a blob has exactly the bytes its descriptor promises, but not
//!   yet the right ones: whoever reads it hashes it anyway, or takes [`Verified`].
//! * A stream whose connection breaks goes on where it was, by `Range`; a server that does not know ranges is read from the
//!   beginning again, and what is known is skipped. It gives up after [`Limits::attempts`] failures without progress.
//! * Nothing is believed for its length: manifests, lists, tokens and errors have limits, redirects and attempts a number, and
//!   every wait has an end.
//! * Credentials are shown to the registry they are for and to the token server it names. Redirects to other hosts are followed
//!   without them, and never from https to http.
//! * `urls` of foreign layers are not followed, as in Docker on Linux.
//!
//! Errors name registry, repository and cause; those that scripts look for have Docker's words ([`Error`]).

mod auth;
mod blob;
pub mod config;
mod credentials;
mod descriptor;
mod download;
mod endpoint;
mod error;
mod login;
mod manifest;
mod options;
mod proxy;
mod publish;
mod push;
mod ranges;
mod reader;
mod repository;
mod retry;
mod search;
mod tls;
mod transport;
mod verified;

use std::sync::Arc;

use ferry_image::Reference;
use futures_util::future::BoxFuture;

pub use blob::BlobStream;
pub use credentials::Credentials;
pub use descriptor::{Descriptor, Platform};
pub use download::Downloaded;
pub use error::{Answer, Error, Result};
pub use login::LoggedIn;
pub use manifest::{Content, Manifest};
pub use options::{Limits, Mirror, Options, Roots, TokenServers};
pub use proxy::Proxies;
pub use publish::Published;
pub use push::{Pushed, Source};
pub use ranges::RangeStream;
pub use reader::BlobReader;
pub use repository::Repository;
pub use search::SearchResult;
pub use verified::Verified;

use crate::repository::Shared;

/// Speaks with registries. Cheap to clone; clones share connections and tokens. One for a process is right.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Fails on options that make no sense. Opens no connection and no file.
    pub fn new(options: Options) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared::new(options)?),
        })
    }

    /// The repository of a reference, with what is to be shown to its registry. Asks nobody.
    pub fn repository(&self, reference: &Reference, credentials: &Credentials) -> Result<Repository> {
        Repository::new(Arc::clone(&self.shared), reference, credentials)
    }

    /// The manifest or index a reference names.
    pub fn resolve<'a>(
        &'a self,
        reference: &'a Reference,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Manifest>> {
        Box::pin(async move { self.repository(reference, credentials)?.resolve(reference).await })
    }

    /// Forgets tokens and what registries have asked for: after a login or logout.
    pub fn forget(&self) {
        self.shared.authorizer.forget();
    }
}
