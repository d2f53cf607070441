//! What pull and push tell while they work.

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use ferry_distribution::Descriptor;
use ferry_image::{Digest, Platform};

/// How many steps may wait for somebody who reads slowly.
const WAITING: usize = 4096;
/// So many of them are for what happens once; the rest may be lost.
const RESERVED: usize = 3072;
/// How often a layer's count is told.
const EVERY: Duration = Duration::from_millis(100);

/// A step of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An image's turn has come. The repository is without its registry: `library/busybox`.
    Pulling {
        repository: String,
        tag: String,
    },
    Pushing {
        repository: String,
    },
    Layer {
        id: String,
        state: LayerState,
    },
    /// What was resolved.
    Digest(Digest),
    /// All is there that was asked for.
    Pulled {
        reference: String,
        newer: bool,
    },
    /// The index of the image cannot be complete there: only the manifest is sent.
    OnlyPlatform {
        index: Box<Descriptor>,
        selected: Box<Descriptor>,
    },
    Pushed {
        tag: String,
        digest: Digest,
        size: u64,
    },
    /// The image is for another platform than was asked for.
    OtherPlatform {
        reference: String,
        found: Platform,
        wanted: Platform,
    },
}

/// Of a layer, named by the first digits of its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It is to be fetched.
    Wanted,
    /// It is there.
    Exists,
    /// Bytes of its blob.
    Fetching {
        current: u64,
        total: u64,
    },
    Fetched,
    Unpacked,
    /// It is to be sent.
    Preparing,
    Sending {
        current: u64,
        total: u64,
    },
    Sent,
    /// The registry has it.
    Kept,
    /// The registry has it in another repository.
    Mounted {
        from: String,
    },
}

/// Who is told.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Step>);

/// Steps as they come; what comes is bounded, and counts are left out for who reads slowly.
pub type Steps = mpsc::Receiver<Step>;

impl Reporter {
    pub fn new() -> (Self, Steps) {
        let (sender, steps) = mpsc::channel(WAITING);
        (Self(sender), steps)
    }

    pub(super) fn tell(&self, step: Step) {
        let _ = self.0.try_send(step);
    }

    pub(super) fn layer(&self, digest: &Digest, state: LayerState) {
        let id = digest.short().to_owned();
        self.tell(Step::Layer { id, state });
    }

    /// For the bytes of one layer.
    pub(super) fn counter(&self, digest: &Digest, total: u64) -> Counter {
        Counter {
            reporter: self.clone(),
            id: digest.short().to_owned(),
            total,
            told: None,
        }
    }
}

/// Tells how far a layer is, now and then.
#[derive(Debug)]
pub(super) struct Counter {
    reporter: Reporter,
    id: String,
    total: u64,
    told: Option<Instant>,
}

impl Counter {
    pub fn count(&mut self, current: u64, state: impl FnOnce(u64, u64) -> LayerState) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < EVERY) || self.reporter.0.capacity() < RESERVED {
            return;
        }
        self.told = Some(now);
        self.reporter.tell(Step::Layer {
            id: self.id.clone(),
            state: state(current, self.total),
        });
    }
}
