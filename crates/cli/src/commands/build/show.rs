//! How a build is shown: as lines, as a live tree, as JSON, or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_build::progress::{Event, Explained};
use ferry_build::wire::Failure as Why;
use serde_json::json;

use super::live::Live;
use super::plain::Plain;
use super::request::Wanted;
use crate::commands::Call;
use crate::failure::{Failure, Result};
use crate::ui::{Channel, Ui};

/// The last lines of a step that failed.
const LAST: usize = 20;

pub struct Show {
    how: How,
    quiet: bool,
    /// The last output of each step, and its name.
    steps: BTreeMap<String, Step>,
    /// What was done, and why, in its order.
    explained: Vec<Explained>,
}

#[derive(Default)]
struct Step {
    name: String,
    started: Option<jiff::Timestamp>,
    /// Whole lines, with their times in seconds since the step's start.
    lines: std::collections::VecDeque<(f64, String)>,
    rest: String,
}

enum How {
    Plain(Plain),
    Live(Live),
    Json,
    Nothing,
}

impl Show {
    pub fn new(call: &Call<'_>, wanted: &Wanted) -> Result<Self> {
        let mut quiet = call.matches.switch("quiet");
        let given = call
            .matches
            .get("progress")
            .or_else(|| call.env.variable("BUILDKIT_PROGRESS"));
        let is_terminal = call.ui.is_terminal(Channel::Stderr);
        let how = match given.unwrap_or("auto") {
            _ if quiet || wanted.request.call.is_some() => How::Nothing,
            "" | "auto" if is_terminal => How::Live(Live::default()),
            "tty" if is_terminal => How::Live(Live::default()),
            "tty" => return Err(Failure::new("failed to get console: provided file is not a console")),
            "" | "auto" | "plain" => How::Plain(Plain::default()),
            "rawjson" => How::Json,
            "quiet" => {
                quiet = true;
                How::Nothing
            }
            "none" => How::Nothing,
            other => {
                return Err(Failure::new(format!(
                    "invalid progress mode {other}: there are auto, none, plain, quiet, rawjson and tty"
                )));
            }
        };
        Ok(Self {
            how,
            quiet,
            steps: BTreeMap::new(),
            explained: Vec::new(),
        })
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn event(&mut self, ui: &mut Ui, event: Event) {
        self.note(&event);
        match &mut self.how {
            How::Plain(plain) => plain.event(ui, &event),
            How::Live(live) => live.event(event),
            How::Json => ui.error_line(&raw(&event)),
            How::Nothing => {}
        }
    }

    pub fn tick(&mut self, ui: &mut Ui) {
        if let How::Live(live) = &mut self.how {
            live.draw(ui);
        }
    }

    /// Draws for the last time.
    pub fn end(&mut self, ui: &mut Ui) {
        match &mut self.how {
            How::Live(live) => live.end(ui),
            How::Plain(plain) => plain.end(ui),
            How::Json | How::Nothing => {}
        }
        for Explained { name, why, .. } in self.explained.drain(..) {
            ui.error_line(&format!("not cached: {name}\n    {why}"));
        }
    }

    /// Remembers what a step said last, for when it fails.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Vertex(vertex) => {
                let step = self.steps.entry(vertex.id.clone()).or_default();
                step.name.clone_from(&vertex.name);
                step.started = vertex.started.or(step.started);
            }
            Event::Log(log) => {
                let step = self.steps.entry(log.vertex.clone()).or_default();
                let since = step
                    .started
                    .map_or(0.0, |started| log.at.duration_since(started).as_secs_f64());
                step.rest.push_str(&String::from_utf8_lossy(&log.data));
                while let Some((line, rest)) = step.rest.split_once('\n') {
                    step.lines.push_back((since, line.to_owned()));
                    step.rest = rest.to_owned();
                    if step.lines.len() > LAST {
                        step.lines.pop_front();
                    }
                }
            }
            Event::Explained(explained) if !matches!(self.how, How::Json) => self.explained.push(explained.clone()),
            Event::Status(_) | Event::Warning(_) | Event::Explained(_) => {}
        }
    }

    /// What a build's failure shows, and the failure.
    pub fn explain(&mut self, ui: &mut Ui, why: Why) -> Failure {
        if let Some(step) = self.steps.get_mut(&why.vertex).filter(|_| !why.vertex.is_empty()) {
            if !step.rest.is_empty() {
                let rest = std::mem::take(&mut step.rest);
                step.lines.push_back((0.0, rest));
            }
            ui.error_line("------");
            ui.error_line(&format!(" > {}:", step.name));
            for (since, line) in &step.lines {
                ui.error_line(&format!("{since:.3} {line}"));
            }
            ui.error_line("------");
        }
        if !why.excerpt.is_empty() {
            ui.write(Channel::Stderr, &why.excerpt);
        }
        let message = match why.canceled {
            true => "Canceled: context canceled".to_owned(),
            false => why.message,
        };
        Failure::new(format!("ERROR: failed to build: failed to solve: {message}"))
    }
}

/// One line as BuildKit's `rawjson` has it.
fn raw(event: &Event) -> String {
    let json = match event {
        Event::Vertex(vertex) => json!({"vertexes": [{
            "digest": vertex.id, "inputs": vertex.inputs, "name": vertex.name, "started": vertex.started,
            "completed": vertex.completed, "cached": vertex.cached, "error": vertex.error,
        }]}),
        Event::Status(status) => json!({"statuses": [{
            "id": status.id, "vertex": status.vertex, "current": status.current, "total": status.total,
            "started": status.started, "completed": status.completed,
        }]}),
        Event::Log(log) => json!({"logs": [{
            "vertex": log.vertex, "stream": log.stream, "data": STANDARD.encode(&log.data), "timestamp": log.at,
        }]}),
        Event::Explained(explained) => json!({"explained": [{
            "vertex": explained.vertex, "name": explained.name, "why": explained.why,
        }]}),
        Event::Warning(warning) => json!({"warnings": [{
            "vertex": warning.vertex, "short": STANDARD.encode(&warning.short), "url": warning.url,
        }]}),
    };
    json.to_string()
}
