//! The cache of other registries: what is asked for and not here comes from its upstream, once, and stays.
//!
//! ```text
//! request ─▶ place: is the name an upstream's? ─▶ here? ─▶ answered from storage
//!                                                  │ no
//!                             flight: one for all who ask ─▶ upstream ─▶ storage ─▶ all who ask
//! ```
//!
//! * Blobs, and manifests by digest, never change: once here, the upstream is not asked again. A tag is asked for again when that
//!   was longer ago than [`Caching::ttl`]; if the upstream then does not answer, what is here is given, with a `Warning`. One that
//!   says that the tag is gone, or that we may not, is believed.
//! * A manifest is kept when it was fetched, its blobs when they are: in a repository of an upstream, what a manifest names may
//!   be only there.
//! * A fetch belongs to nobody: who asks first starts it, all others join, and it goes on to its end when they have gone. The
//!   bytes were paid for, and the next one to ask finds them.
//! * With a [`Caching::size`], what was not asked for longest goes when more is here ([`room`]).
//! * The bytes of a blob are passed on while they come, all but the last [`HELD`]; those follow when the digest was right and the
//!   blob is durable. So a lie ends as a cut connection, never as a whole blob, and is not stored.

mod blobs;
mod flights;
mod manifests;
mod place;
mod referrers;
mod room;
mod tags;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::Semaphore;

use crate::failure::{Answer, Code, Failure};
use crate::name::Name;
use crate::upstream::{Trouble, Upstream, Why};

pub(crate) use self::blobs::{Found, body};
use self::flights::Flights;
pub use self::place::Places;
pub(crate) use self::place::Remote;
use self::room::Room;

/// Held back of a blob until it is verified. A smaller one is answered when it is.
const HELD: u64 = 64 << 10;
/// An upstream that did not answer is not asked again for so long, where something can be given instead.
const PAUSE: Duration = Duration::from_secs(10);
/// Tags of which it is known when they were asked for.
const TAGS: usize = 50_000;

/// Which registries this one is a cache of.
#[derive(Debug)]
pub struct Caching {
    pub places: Places,
    /// For how long a tag is believed.
    pub ttl: Duration,
    /// Blobs that are fetched at the same time; more are asked to come later.
    pub fetches: usize,
    /// Bytes of what came from upstreams and is kept; the last blobs to come may exceed it for a moment.
    pub size: Option<u64>,
}

impl Default for Caching {
    fn default() -> Self {
        Self {
            places: Places::default(),
            ttl: Duration::from_secs(60),
            fetches: 128,
            size: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) places: Places,
    ttl: Duration,
    checked: Mutex<HashMap<String, Checked>>,
    manifests: Arc<Flights<Answer<Option<manifests::Found>>>>,
    blobs: Arc<Flights<Answer<Option<Found>>>>,
    turns: Arc<Semaphore>,
    room: Room,
}

/// A tag that was asked for.
#[derive(Clone, Copy, Debug)]
struct Checked {
    until: Instant,
    /// There was no answer.
    stale: bool,
}

impl Through {
    pub(crate) fn new(caching: Caching) -> Self {
        Self {
            places: caching.places,
            ttl: caching.ttl,
            checked: Mutex::default(),
            manifests: Arc::default(),
            blobs: Arc::default(),
            turns: Arc::new(Semaphore::new(caching.fetches)),
            room: Room::new(caching.size),
        }
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<String, Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when it is time to ask.
    fn known(&self, key: &str) -> Option<Checked> {
        let checked = self.checked().get(key).copied();
        checked.filter(|checked| checked.until > Instant::now())
    }

    fn note(&self, key: String, stale: bool) {
        let time = if stale { self.ttl.min(PAUSE) } else { self.ttl };
        let until = Instant::now() + time;
        let mut checked = self.checked();
        if checked.len() >= TAGS {
            checked.clear();
        }
        checked.insert(key, Checked { until, stale });
    }
}

/// Says that what is answered may not be what the upstream has now (RFC 7234, section 5.5.2).
pub(crate) fn warn(headers: &mut HeaderMap, upstream: &dyn Upstream) {
    let text = format!("111 - \"Revalidation Failed: {} does not answer\"", upstream.shown());
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(http::header::WARNING, value);
    }
}

/// That nothing can be pushed here.
pub(crate) fn no_push(name: &Name, remote: &Remote) -> Box<Failure> {
    let message = format!(
        "repository {name} is a cache of {}: push {} there",
        remote.upstream.shown(),
        remote.name
    );
    Failure::new(Code::Unsupported, message)
}

impl From<Trouble> for Box<Failure> {
    fn from(trouble: Trouble) -> Self {
        tracing::warn!(cause = %trouble, "an upstream gave nothing");
        match trouble.why {
            Why::Down => Failure::new(Code::Unknown, trouble.message).status(StatusCode::BAD_GATEWAY),
            Why::Wrong => Failure::new(Code::Unknown, trouble.message).status(StatusCode::BAD_GATEWAY),
            Why::Denied => Failure::new(Code::Denied, trouble.message),
            Why::Busy(after) => {
                let failure = Failure::new(Code::TooManyRequests, trouble.message);
                match after {
                    Some(after) => failure.header(RETRY_AFTER, after.as_secs().max(1)),
                    None => failure,
                }
            }
        }
    }
}
