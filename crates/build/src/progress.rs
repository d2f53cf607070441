//! What happens in a build, as it happens. The shapes are those of BuildKit's StatusResponse, which clients show.

use std::sync::Arc;

use bytes::Bytes;
use ferry_dockerfile::Range;
use ferry_kit::Id;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Failed, Result};

/// Where events go. Nobody waits for who reads them; a reader that is gone is no error.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::UnboundedSender<Event>,
    /// What makes steps that are not of the graph this build's own: clients show several builds at a time.
    build: Arc<str>,
    /// The Dockerfile was read and is one, and has the target.
    read: CancellationToken,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A step that is new, or whose state changed.
    Vertex(Vertex),
    /// Part of a step that takes time of its own: a transfer, an export.
    Status(Status),
    Log(Log),
    Warning(Warning),
    Explained(Explained),
}

/// A step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub vertex: String,
    /// 1 or 2.
    pub stream: u8,
    pub data: Bytes,
    pub at: Timestamp,
}

/// What one of the checks found, or the builder itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub vertex: String,
    /// `StageNameCasing: Stage name 'A' should be lowercase`
    pub short: String,
    pub detail: Vec<String>,
    pub url: String,
    pub ranges: Vec<Range>,
    /// What it is about. Ferry's own clients have it.
    #[serde(skip)]
    pub file: Option<SourceFile>,
}

/// A file that is not worth a copy for everybody who talks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub bytes: Bytes,
}

/// Why a step is done, to who asked for it ([`crate::Request::explain`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub vertex: String,
    pub name: String,
    /// `src/main.rs is not as it was`
    pub why: String,
}

impl Events {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let events = Self {
            sender,
            build: Id::random().to_string().into(),
            read: CancellationToken::new(),
        };
        (events, receiver)
    }

    pub(crate) fn note_read(&self) {
        self.read.cancel();
    }

    pub fn has_read(&self) -> bool {
        self.read.is_cancelled()
    }

    /// Returns when the Dockerfile was read: what fails before was wrong with the request, what fails later is the build.
    pub async fn read(&self) {
        self.read.cancelled().await;
    }

    pub fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }

    /// Begins a step that is not one of the graph's.
    pub fn start(&self, name: String, inputs: Vec<String>) -> Running {
        let id = ferry_image::Digest::of(format!("{}\0{name}\0{}", self.build, inputs.join("\0"))).to_string();
        self.start_as(Vertex {
            id,
            name,
            inputs,
            ..Vertex::default()
        })
    }

    /// Begins a step.
    pub fn start_as(&self, mut vertex: Vertex) -> Running {
        vertex.started = Some(Timestamp::now());
        self.send(Event::Vertex(vertex.clone()));
        Running {
            vertex,
            events: self.clone(),
            ended: false,
        }
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

/// A step that has begun. Dropped before its end, it was canceled.
#[derive(Debug)]
pub struct Running {
    vertex: Vertex,
    events: Events,
    ended: bool,
}

impl Running {
    pub fn id(&self) -> &str {
        &self.vertex.id
    }

    /// Ends it by how something came out.
    pub fn end<T, E: std::fmt::Display>(mut self, outcome: Result<T, E>) -> Result<T, E> {
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.tell(error);
        outcome
    }

    /// As [`Running::end`]; what is wrong with what was asked for is the step's failure.
    pub fn end_as_step<T>(self, outcome: Result<T>) -> Result<T> {
        let (vertex, name) = (self.vertex.id.clone(), self.vertex.name.clone());
        self.end(outcome).map_err(|error| match error {
            Error::Invalid(why) | Error::NotFound(why) => Error::Step(Box::new(Failed {
                vertex,
                name,
                why,
                ..Failed::default()
            })),
            other => other,
        })
    }

    fn tell(&mut self, error: Option<String>) {
        self.ended = true;
        self.vertex.completed = Some(Timestamp::now());
        self.vertex.error = error;
        self.events.send(Event::Vertex(self.vertex.clone()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Some("CANCELED".to_owned()));
        }
    }
}
