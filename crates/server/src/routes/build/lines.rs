//! What happens, in the words of Docker's first builder.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_api::image::{Aux, Message, MessageError};
use ferry_build::progress::Event;
use ferry_build::request::NoCache;
use ferry_build::{Error, Request as BuildRequest};
use tokio::sync::{mpsc, oneshot};

use super::refusal;
use crate::body;
use crate::failure::Failure;

/// As [`ferry_build::progress::Log::stream`].
const STDERR: u8 = 2;

pub struct Lines {
    sender: mpsc::Sender<Bytes>,
    /// Where is waited for the begin of the answer, or for another one instead of it.
    begins: Option<oneshot::Sender<Option<Failure>>>,
    quiet: bool,
    /// No step is to be taken from a cache; a base that is there comes from none.
    no_cache: bool,
    /// Caches that are read. What they lack is no concern of who names an image.
    caches: BTreeSet<String>,
    /// Steps of stages: whether they were told.
    steps: BTreeMap<String, bool>,
    begun: usize,
}

impl Lines {
    pub fn new(
        sender: mpsc::Sender<Bytes>,
        begins: oneshot::Sender<Option<Failure>>,
        request: &BuildRequest,
        quiet: bool,
    ) -> Self {
        Self {
            sender,
            begins: Some(begins),
            quiet,
            no_cache: request.no_cache == NoCache::All,
            caches: BTreeSet::new(),
            steps: BTreeMap::new(),
            begun: 0,
        }
    }

    pub fn have_begun(&self) -> bool {
        self.begins.is_none()
    }

    pub fn begin(&mut self) {
        if let Some(begins) = self.begins.take() {
            let _ = begins.send(None);
        }
    }

    async fn tell(&mut self, message: &Message) {
        self.begin();
        // A client that has gone misses it.
        let _ = self.sender.send(body::line(message).into()).await;
    }

    async fn stream(&mut self, text: String) {
        if !self.quiet {
            self.tell(&Message {
                stream: text,
                ..Message::default()
            })
            .await;
        }
    }

    pub async fn event(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                if vertex.name.starts_with("importing cache") {
                    if let Some(error) = &vertex.error {
                        self.stream(format!("{}: {error}\n", vertex.name)).await;
                    }
                    self.caches.insert(vertex.id);
                    return;
                }
                let is_step = vertex.name.starts_with('[') && !vertex.name.starts_with("[internal]");
                if !is_step {
                    return;
                }
                let told = self.steps.entry(vertex.id.clone()).or_default();
                if vertex.started.is_none() || *told {
                    return;
                }
                *told = true;
                self.begun += 1;
                let (begun, all) = (self.begun, self.steps.len());
                let what = vertex.name.split_once("] ").map_or(&*vertex.name, |(_, what)| what);
                self.stream(format!("Step {begun}/{all} : {what}\n")).await;
                if vertex.cached && !self.no_cache {
                    self.stream(" ---> Using cache\n".to_owned()).await;
                }
            }
            Event::Log(log) if self.caches.contains(&log.vertex) => {}
            Event::Log(log) => {
                let text = String::from_utf8_lossy(&log.data).into_owned();
                // What a program complains of is red, for whoever prints it.
                let shown = match log.stream {
                    STDERR => format!("\x1b[91m{text}\x1b[0m"),
                    _ => text,
                };
                self.stream(shown).await;
            }
            Event::Status(_) | Event::Warning(_) | Event::Explained(_) => {}
        }
    }

    /// A build that failed before its answer began is refused instead.
    async fn fail(&mut self, error: Error, request: &BuildRequest) {
        if let Some(begins) = self.begins.take() {
            let _ = begins.send(Some(refusal::answer(error, request)));
            return;
        }
        let (code, text) = match &error {
            Error::Step(failed) => match failed.exit_code {
                Some(code) => (
                    i64::from(code),
                    format!("The command '{}' returned a non-zero code: {code}", failed.command),
                ),
                None => (0, failed.to_string()),
            },
            error => (0, error.to_string()),
        };
        self.tell(&Message {
            error: Some(MessageError {
                code,
                message: text.clone(),
            }),
            error_message: text,
            ..Message::default()
        })
        .await;
    }

    pub async fn end(
        &mut self,
        outcome: ferry_build::Result<BTreeMap<String, String>>,
        request: &BuildRequest,
        names: &[String],
    ) {
        let told = match outcome {
            Ok(told) => told,
            Err(error) => return self.fail(error, request).await,
        };
        let id = told.get("containerimage.config.digest").cloned().unwrap_or_default();
        self.tell(&Message {
            aux: Some(Aux::Built { id: id.clone() }),
            ..Message::default()
        })
        .await;
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        match self.quiet {
            true => {
                self.tell(&Message {
                    stream: format!("{id}\n"),
                    ..Message::default()
                })
                .await;
            }
            false => self.stream(format!("Successfully built {short}\n")).await,
        }
        for name in names {
            if let Ok(reference) = ferry_image::Reference::parse_named(name) {
                let name = reference.tagged().familiar();
                self.stream(format!("Successfully tagged {name}\n")).await;
            }
        }
    }
}
