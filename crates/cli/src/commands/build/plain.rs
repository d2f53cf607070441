//! Lines, as BuildKit prints them where there is no terminal.

use std::collections::BTreeMap;

use ferry_build::progress::{Event, Status, Vertex};
use jiff::Timestamp;

use crate::ui::{Channel, Ui};

#[derive(Default)]
pub struct Plain {
    steps: BTreeMap<String, Step>,
    numbers: usize,
    /// The step whose lines came last.
    current: String,
    warnings: Vec<(String, Vec<String>, String)>,
}

#[derive(Default)]
struct Step {
    number: usize,
    name: String,
    started: Option<Timestamp>,
    is_over: bool,
    rest: String,
    /// Parts that were told to be done.
    done: Vec<String>,
    begun: Vec<String>,
}

impl Plain {
    pub fn event(&mut self, ui: &mut Ui, event: &Event) {
        match event {
            Event::Vertex(vertex) => self.vertex(ui, vertex),
            Event::Status(status) => self.status(ui, status),
            Event::Log(log) => {
                let text = String::from_utf8_lossy(&log.data).into_owned();
                self.log(ui, &log.vertex, log.at, &text);
            }
            Event::Warning(warning) => {
                self.warnings
                    .push((warning.short.clone(), warning.detail.clone(), warning.url.clone()));
            }
            Event::Explained(_) => {}
        }
    }

    /// The number of a step, after its name if its lines did not come last.
    fn turn(&mut self, ui: &mut Ui, id: &str) -> usize {
        let is_new = self.steps.get(id).is_none_or(|step| step.number == 0);
        if is_new {
            self.numbers += 1;
        }
        let numbers = self.numbers;
        let step = self.steps.entry(id.to_owned()).or_default();
        if is_new {
            step.number = numbers;
        }
        let (number, name) = (step.number, step.name.clone());
        if self.current != id {
            if !self.current.is_empty() {
                line(ui, "");
            }
            self.current = id.to_owned();
            line(ui, &format!("#{number} {name}"));
        }
        number
    }

    fn vertex(&mut self, ui: &mut Ui, vertex: &Vertex) {
        let step = self.steps.entry(vertex.id.clone()).or_default();
        step.name.clone_from(&vertex.name);
        step.started = vertex.started.or(step.started);
        if vertex.started.is_none() || step.is_over {
            return;
        }
        let Some(completed) = vertex.completed else {
            self.turn(ui, &vertex.id);
            return;
        };
        self.flush(ui, &vertex.id);
        let number = self.turn(ui, &vertex.id);
        let step = self.steps.entry(vertex.id.clone()).or_default();
        step.is_over = true;
        let took = step
            .started
            .map_or(0.0, |started| completed.duration_since(started).as_secs_f64());
        let last = match (&vertex.error, vertex.cached) {
            (Some(error), _) if error == "CANCELED" => format!("#{number} CANCELED"),
            (Some(error), _) => format!("#{number} ERROR: {error}"),
            (None, true) => format!("#{number} CACHED"),
            (None, false) => format!("#{number} DONE {took:.1}s"),
        };
        line(ui, &last);
    }

    fn status(&mut self, ui: &mut Ui, status: &Status) {
        let number = self.turn(ui, &status.vertex);
        let step = self.steps.entry(status.vertex.clone()).or_default();
        let took = match (status.started, status.completed) {
            (Some(started), Some(completed)) => completed.duration_since(started).as_secs_f64(),
            _ => {
                if !step.begun.contains(&status.id) {
                    step.begun.push(status.id.clone());
                    line(ui, &format!("#{number} {}", status.id));
                }
                return;
            }
        };
        if step.done.contains(&status.id) {
            return;
        }
        step.done.push(status.id.clone());
        let time = if took >= 0.05 {
            format!(" {took:.1}s")
        } else {
            String::new()
        };
        line(ui, &format!("#{number} {}{time} done", status.id));
    }

    fn log(&mut self, ui: &mut Ui, id: &str, at: Timestamp, text: &str) {
        let number = self.turn(ui, id);
        let step = self.steps.entry(id.to_owned()).or_default();
        let since = step
            .started
            .map_or(0.0, |started| at.duration_since(started).as_secs_f64());
        step.rest.push_str(text);
        while let Some((whole, rest)) = step.rest.split_once('\n') {
            let whole = whole.trim_end_matches('\r');
            let shown = whole.rsplit('\r').next().unwrap_or_default();
            line(ui, &format!("#{number} {since:.3} {shown}"));
            step.rest = rest.to_owned();
        }
    }

    /// A last line without an end.
    fn flush(&mut self, ui: &mut Ui, id: &str) {
        let has_rest = self.steps.get(id).is_some_and(|step| !step.rest.is_empty());
        if has_rest {
            self.log(ui, id, Timestamp::now(), "\n");
        }
    }

    pub fn end(&mut self, ui: &mut Ui) {
        warnings(ui, &std::mem::take(&mut self.warnings));
    }
}

/// What the checks found, at the end.
pub fn warnings(ui: &mut Ui, warnings: &[(String, Vec<String>, String)]) {
    if warnings.is_empty() {
        return;
    }
    let plural = if warnings.len() == 1 { "warning" } else { "warnings" };
    line(ui, "");
    line(
        ui,
        &format!(" {} {plural} found (use --debug to expand):", warnings.len()),
    );
    for (short, _, _) in warnings {
        line(ui, &format!(" - {short}"));
    }
}

fn line(ui: &mut Ui, text: &str) {
    ui.write(Channel::Stderr, &format!("{text}\n"));
}
