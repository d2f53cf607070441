//! What happens, in the words of Docker's first builder.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferry_api::image::{Aux, Message, MessageError};
use ferry_build::Error;
use ferry_build::progress::Event;

use crate::body;

pub struct Lines {
    sender: tokio::sync::mpsc::Sender<Bytes>,
    quiet: bool,
    /// Steps of stages: whether they were told.
    steps: BTreeMap<String, bool>,
    begun: usize,
}

impl Lines {
    pub fn new(sender: tokio::sync::mpsc::Sender<Bytes>, quiet: bool) -> Self {
        Self {
            sender,
            quiet,
            steps: BTreeMap::new(),
            begun: 0,
        }
    }

    async fn tell(&self, message: &Message) {
        // A client that has gone misses it.
        let _ = self.sender.send(body::line(message).into()).await;
    }

    async fn stream(&self, text: String) {
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
                if let (true, Some(error)) = (vertex.name.starts_with("importing cache"), &vertex.error) {
                    return self.stream(format!("{}: {error}\n", vertex.name)).await;
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
                if vertex.cached {
                    self.stream(" ---> Using cache\n".to_owned()).await;
                }
            }
            Event::Log(log) => {
                self.stream(String::from_utf8_lossy(&log.data).into_owned()).await;
            }
            Event::Status(_) | Event::Warning(_) | Event::Explained(_) => {}
        }
    }

    pub async fn end(&self, outcome: ferry_build::Result<BTreeMap<String, String>>, names: &[String]) {
        let told = match outcome {
            Ok(told) => told,
            Err(error) => {
                let code = match &error {
                    Error::Step(failed) => failed.exit_code.map_or(0, i64::from),
                    _ => 0,
                };
                let text = error.to_string();
                return self
                    .tell(&Message {
                        error: Some(MessageError {
                            code,
                            message: text.clone(),
                        }),
                        error_message: text,
                        ..Message::default()
                    })
                    .await;
            }
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
