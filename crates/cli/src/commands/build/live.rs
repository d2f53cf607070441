//! A tree that is drawn again and again, on a terminal.

use std::collections::{BTreeMap, VecDeque};

use ferry_build::progress::{Event, Vertex};
use jiff::Timestamp;

use super::plain;
use crate::ui::{Channel, Ui};

/// Lines of output below a step that runs.
const LINES: usize = 6;

#[derive(Default)]
pub struct Live {
    order: Vec<String>,
    steps: BTreeMap<String, Step>,
    warnings: Vec<(String, Vec<String>, String)>,
    begun: Option<Timestamp>,
    /// Lines that are on the screen.
    drawn: usize,
}

#[derive(Default)]
struct Step {
    vertex: Vertex,
    lines: VecDeque<String>,
    rest: String,
    part: String,
}

impl Live {
    pub fn event(&mut self, event: Event) {
        self.begun.get_or_insert_with(Timestamp::now);
        match event {
            Event::Vertex(vertex) => {
                if vertex.started.is_some() && !self.order.contains(&vertex.id) {
                    self.order.push(vertex.id.clone());
                }
                let step = self.steps.entry(vertex.id.clone()).or_default();
                let started = vertex.started.or(step.vertex.started);
                step.vertex = Vertex { started, ..vertex };
            }
            Event::Status(status) => {
                let step = self.steps.entry(status.vertex).or_default();
                step.part = match status.completed {
                    Some(_) => String::new(),
                    None if status.total > 0 => {
                        let size = |bytes: u64| ferry_kit::units::human_size(bytes as f64);
                        format!("{} {} / {}", status.id, size(status.current), size(status.total))
                    }
                    None => status.id,
                };
            }
            Event::Log(log) => {
                let step = self.steps.entry(log.vertex).or_default();
                step.rest.push_str(&String::from_utf8_lossy(&log.data));
                while let Some((line, rest)) = step.rest.split_once('\n') {
                    let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
                    step.lines.push_back(shown.to_owned());
                    step.rest = rest.to_owned();
                    if step.lines.len() > LINES {
                        step.lines.pop_front();
                    }
                }
            }
            Event::Warning(warning) => self.warnings.push((warning.short, warning.detail, warning.url)),
            Event::Explained(_) => {}
        }
    }

    pub fn draw(&mut self, ui: &mut Ui) {
        self.paint(ui, false);
    }

    fn paint(&mut self, ui: &mut Ui, is_last: bool) {
        let Some(begun) = self.begun else { return };
        let (rows, columns) = ui.size_of(Channel::Stderr).unwrap_or((24, 80));
        let (rows, columns) = (usize::from(rows).max(4), usize::from(columns).max(20));
        let now = Timestamp::now();
        let took = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        let done = self
            .order
            .iter()
            .filter(|id| self.steps[*id].vertex.completed.is_some())
            .count();
        let head = format!(
            "[+] Building {:.1}s ({done}/{}){}",
            took(begun, now),
            self.order.len(),
            if is_last { " FINISHED" } else { "" }
        );
        let mut lines = vec![head];
        for id in &self.order {
            let step = &self.steps[id];
            let vertex = &step.vertex;
            let (mark, time) = match (vertex.started, vertex.completed, &vertex.error) {
                (Some(_), Some(_), None) if vertex.cached => (" => CACHED ", 0.0),
                (Some(started), Some(completed), None) => (" => ", took(started, completed)),
                (Some(started), Some(completed), Some(error)) if error == "CANCELED" => {
                    (" => CANCELED ", took(started, completed))
                }
                (Some(started), Some(completed), Some(_)) => (" => ERROR ", took(started, completed)),
                (Some(started), None, _) => (" => ", took(started, now)),
                _ => continue,
            };
            let time = format!("{time:.1}s");
            let width = columns.saturating_sub(time.len() + 1);
            lines.push(format!(
                "{:<width$} {time}",
                cut(&format!("{mark}{}", vertex.name), width)
            ));
            if vertex.completed.is_none() {
                if !step.part.is_empty() {
                    lines.push(cut(&format!(" => => {}", step.part), columns));
                }
                lines.extend(step.lines.iter().map(|line| cut(&format!(" => => # {line}"), columns)));
            }
        }
        // What does not fit is what is over already.
        if !is_last && lines.len() > rows - 1 {
            let surplus = lines.len() - (rows - 1);
            lines.drain(1..=surplus);
        }
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        text.push_str("\x1b[?25l");
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        text.push_str("\x1b[J\x1b[?25h");
        ui.write(Channel::Stderr, &text);
        self.drawn = if is_last { 0 } else { lines.len() };
    }

    pub fn end(&mut self, ui: &mut Ui) {
        self.paint(ui, true);
        plain::warnings(ui, &std::mem::take(&mut self.warnings));
    }
}

/// Without what would move the cursor.
fn cut(text: &str, width: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(width).collect()
}
