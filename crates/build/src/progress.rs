//! What happens in a build, as it happens. The shapes are those of BuildKit's StatusResponse, which clients show.

use bytes::Bytes;
use ferry_dockerfile::Range;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// Where events go. Nobody waits for who reads them; a reader that is gone is no error.
#[derive(Debug, Clone)]
pub struct Events(mpsc::UnboundedSender<Event>);

#[derive(Debug, Clone)]
pub enum Event {
    /// A step that is new, or whose state changed.
    Vertex(Vertex),
    /// Part of a step that takes time of its own: a transfer, an export.
    Status(Status),
    Log(Log),
    Warning(Warning),
}

/// A step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vertex {
    /// `sha256:…`, of what it does and what it depends on; unique in a build.
    pub id: String,
    pub inputs: Vec<String>,
    /// `[build 2/5] RUN make`
    pub name: String,
    pub started: Option<Timestamp>,
    pub completed: Option<Timestamp>,
    /// Its result was there.
    pub cached: bool,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub vertex: String,
    /// What it is about: `sha256:…`, `transferring context:`, `exporting layers`. One of a vertex.
    pub id: String,
    /// Bytes, where it is about bytes; a total of 0 is not known.
    pub current: u64,
    pub total: u64,
    pub started: Option<Timestamp>,
    pub completed: Option<Timestamp>,
}

/// A piece of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub vertex: String,
    /// 1 or 2.
    pub stream: u8,
    pub data: Bytes,
    pub at: Timestamp,
}

/// What one of the checks found, or the builder itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warning {
    pub vertex: String,
    /// `StageNameCasing: Stage name 'A' should be lowercase`
    pub short: String,
    pub detail: Vec<String>,
    pub url: String,
    pub ranges: Vec<Range>,
}

impl Events {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    pub fn log(&self, vertex: &str, stream: u8, data: impl Into<Bytes>) {
        self.send(Event::Log(Log {
            vertex: vertex.to_owned(),
            stream,
            data: data.into(),
            at: Timestamp::now(),
        }));
    }
}
