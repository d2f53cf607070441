//! What builds fetch by themselves: files by HTTP, and repositories.

use std::sync::Arc;

use ferry_build::frontend::Sent;
use ferry_build::graph::{Git, Http};
use ferry_build::workspace::Fetched;
use ferry_build::{Error, Result, Session};

use super::workshop::Workshop;

pub(super) async fn context(_shop: &Workshop, url: &str, _session: &Arc<dyn Session>) -> Result<Sent> {
    Err(not_yet(url))
}

pub(super) async fn file(_shop: &Workshop, http: &Http, _session: &Arc<dyn Session>) -> Result<Fetched<Workshop>> {
    Err(not_yet(&http.url))
}

pub(super) async fn git(_shop: &Workshop, git: &Git, _session: &Arc<dyn Session>) -> Result<Fetched<Workshop>> {
    Err(not_yet(&git.remote))
}

fn not_yet(url: &str) -> Error {
    Error::invalid(format!(
        "{url}: fetching is not there yet: fetch it yourself, and put it into the context"
    ))
}
