//! Builds: what the builder asks of the engine, and what the API asks of builds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_build::output::{Kept, Output, Prune};
use ferry_build::progress::Events;
use ferry_build::{Error, Request, Session};

use crate::world::World;

/// The builder of an engine. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Builds {
    #[allow(dead_code)]
    world: Arc<World>,
}

/// What a build came to. As long as a clone is held, its files stay, and other builds can name it
/// ([`ferry_build::request::Named::Result`]).
#[derive(Debug, Clone)]
pub struct Solved {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    config: Vec<u8>,
    answers: BTreeMap<String, Vec<u8>>,
}

impl Solved {
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The image's configuration as JSON, without what only an export adds (`rootfs`, `created` of the last layer); empty if nothing
    /// was built.
    pub fn config(&self) -> &[u8] {
        &self.inner.config
    }

    /// Of a call ([`ferry_build::request::Call`]): `result.json`, `result.txt`, `result.statuscode`, `version`.
    pub fn answers(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.inner.answers
    }
}

impl Builds {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Builds. Dropped, the build is canceled, and its processes end. What happens is told to `events`, the last event before this
    /// returns.
    pub async fn solve(&self, request: Request, session: Arc<dyn Session>, events: Events) -> Result<Solved, Error> {
        let _ = (request, session, events);
        Err(Error::Internal("the builder is not there yet".to_owned()))
    }

    /// Makes something of a result. Returns what clients are told: `containerimage.digest`, `containerimage.config.digest`, `image.name`, …
    pub async fn export(
        &self,
        solved: &Solved,
        outputs: &[Output],
        session: Arc<dyn Session>,
        events: Events,
    ) -> Result<BTreeMap<String, String>, Error> {
        let _ = (solved, outputs, session, events);
        Err(Error::Internal("the builder is not there yet".to_owned()))
    }

    /// What is kept of builds.
    pub async fn usage(&self) -> Result<Vec<Kept>, Error> {
        Ok(Vec::new())
    }

    /// Removes some of that; what went.
    pub async fn prune(&self, prune: Prune) -> Result<Vec<Kept>, Error> {
        let _ = prune;
        Ok(Vec::new())
    }
}
