//! The message streams that pull, push, load and import answer with, drawn as Docker draws them (moby `jsonmessage`). A terminal
//! sees the rate and the time left beside each bar, and a summary at the end.

mod pace;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use ferry_api::image::{Aux, Message, Progress};
use ferry_client::Lines;
use ferry_kit::units;

use crate::failure::{Failure, Result};
use crate::ui::{Channel, Ui};
use pace::Pace;

/// Columns from which on there is room for a bar.
const BARS_FROM: usize = 111;
/// Columns of the longest line besides its bar, and from which on there is room for the rate.
const REST: usize = 80;
/// What Docker takes for the width of what is no terminal.
const NO_TERMINAL: usize = 200;

/// Prints a stream to its end. On a terminal the lines with an id are drawn in place; elsewhere bars are left out. An error
/// in the stream is the command's.
pub async fn show(ui: &mut Ui, channel: Channel, lines: Lines) -> Result<u8> {
    watch(ui, channel, lines, |_| {}).await
}

/// As [`show`]; `result` gets what is meant for programs.
pub async fn watch(ui: &mut Ui, channel: Channel, mut lines: Lines, mut result: impl FnMut(&Aux)) -> Result<u8> {
    let mut screen = Screen::new(ui, channel);
    while let Some(message) = lines.json::<Message>().await? {
        if let Some(error) = &message.error {
            return Err(Failure::new(match error.code {
                401 => "authentication is required",
                _ => &error.message,
            }));
        }
        if !message.error_message.is_empty() {
            return Err(Failure::new(message.error_message));
        }
        message.aux.iter().for_each(&mut result);
        screen.width = ui.size_of(channel).map_or(screen.width, |(_, columns)| columns.into());
        let text = screen.draw(&message);
        ui.write(channel, &text);
    }
    if let Some(summary) = screen.pace.summary(Instant::now()).filter(|_| screen.terminal) {
        ui.write(channel, &format!("{summary}\n"));
    }
    Ok(0)
}

/// Reads a stream to its end and shows nothing but its error: `--quiet`.
pub async fn hide(mut lines: Lines, mut result: impl FnMut(&Aux)) -> Result<u8> {
    while let Some(message) = lines.json::<Message>().await? {
        message.aux.iter().for_each(&mut result);
        if let Some(error) = message.error {
            return Err(Failure::new(error.message));
        }
    }
    Ok(0)
}

#[derive(Debug)]
struct Screen {
    terminal: bool,
    width: usize,
    /// The lines that can still be reached, by id, from the top.
    lines: HashMap<String, usize>,
    pace: Pace,
}

impl Screen {
    fn new(ui: &Ui, channel: Channel) -> Self {
        Self {
            terminal: ui.is_terminal(channel),
            width: NO_TERMINAL,
            lines: HashMap::new(),
            pace: Pace::default(),
        }
    }

    fn draw(&mut self, message: &Message) -> String {
        let mut text = String::new();
        let mut up = 0;
        if !message.id.is_empty() && (message.progress.is_some() || !message.progress_message.is_empty()) {
            let next = self.lines.len();
            let line = *self.lines.entry(message.id.clone()).or_insert(next);
            if self.terminal {
                if line == next {
                    text.push('\n');
                }
                up = self.lines.len() - line;
                let _ = write!(text, "\x1b[{up}A");
            }
        } else {
            self.lines.clear();
        }
        self.line(message, &mut text);
        if up > 0 {
            let _ = write!(text, "\x1b[{up}B");
        }
        text
    }

    fn line(&mut self, message: &Message, text: &mut String) {
        let pace = self.pace.note(message, Instant::now());
        let pace = pace.filter(|_| self.width >= REST).map(|pace| format!("  {pace}"));
        let bar = message.progress.as_ref().map(|progress| bar(progress, self.width));
        let in_place = self.terminal && message.stream.is_empty() && bar.is_some();
        if in_place {
            text.push_str("\x1b[2K\r");
        } else if bar.as_ref().is_some_and(|bar| !bar.is_empty()) {
            return;
        }
        if !message.id.is_empty() {
            let _ = write!(text, "{}: ", message.id);
        }
        let end = if in_place { "\r" } else { "" };
        let _ = match (bar, self.terminal) {
            (Some(bar), true) => write!(text, "{} {bar}{}{end}", message.status, pace.unwrap_or_default()),
            _ if !message.progress_message.is_empty() => {
                write!(text, "{} {}{end}", message.status, message.progress_message)
            }
            _ if !message.stream.is_empty() => write!(text, "{}{end}", message.stream),
            // A result for programs says nothing to people.
            _ if message.aux.is_some() && message.status.is_empty() => Ok(()),
            _ => writeln!(text, "{}{end}", message.status),
        };
    }
}

/// `[==>   ]  1.2MB/3.4MB`; empty when nothing is known yet.
fn bar(progress: &Progress, width: usize) -> String {
    let (current, total) = (progress.current, progress.total);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let size = |count: i64| match progress.units.as_str() {
        "" => units::human_size(count as f64),
        _ => count.to_string(),
    };
    if total <= 0 {
        return match progress.units.as_str() {
            "" => format!("{:>8}", size(current)),
            units => format!("{current} {units}"),
        };
    }
    let cells = 50.min(width.saturating_sub(REST));
    let done = usize::try_from(i128::from(current) * cells as i128 / i128::from(total))
        .unwrap_or(0)
        .min(cells);
    let drawn = match width >= BARS_FROM {
        true => format!("[{}>{}] ", "=".repeat(done), " ".repeat(cells - done)),
        false => String::new(),
    };
    if progress.hide_counts {
        return drawn;
    }
    match (progress.units.as_str(), current > total) {
        ("", true) => format!("{drawn}{:>8}", size(current)),
        ("", false) => format!("{drawn}{:>8}/{}", size(current), size(total)),
        (units, true) => format!("{drawn}{current} {units}"),
        (units, false) => format!("{drawn}{current}/{total} {units}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(terminal: bool, width: usize) -> Screen {
        Screen {
            terminal,
            width,
            lines: HashMap::new(),
            pace: Pace::default(),
        }
    }

    fn message(id: &str, status: &str, counts: Option<(i64, i64)>) -> Message {
        Message {
            id: id.to_owned(),
            status: status.to_owned(),
            progress: counts.map(|(current, total)| Progress {
                current,
                total,
                ..Progress::default()
            }),
            ..Message::default()
        }
    }

    #[test]
    fn a_terminal_sees_each_layer_in_its_own_line() {
        let mut screen = screen(true, 80);
        assert_eq!(
            screen.draw(&message("1", "Pulling from a/b", None)),
            "1: Pulling from a/b\n"
        );
        let waiting = Some((0, 0));
        assert_eq!(
            screen.draw(&message("aa", "Pulling fs layer", waiting)),
            "\n\x1b[1A\x1b[2K\raa: Pulling fs layer \r\x1b[1B"
        );
        assert_eq!(
            screen.draw(&message("bb", "Pulling fs layer", waiting)),
            "\n\x1b[1A\x1b[2K\rbb: Pulling fs layer \r\x1b[1B"
        );
        assert_eq!(
            screen.draw(&message("aa", "Downloading", Some((50, 100)))),
            "\x1b[2A\x1b[2K\raa: Downloading      50B/100B\r\x1b[2B"
        );
        screen.width = 130;
        assert!(
            screen
                .draw(&message("aa", "Downloading", Some((50, 100))))
                .contains(&format!("[{}>{}]", "=".repeat(25), " ".repeat(25)))
        );
        assert_eq!(screen.draw(&message("", "Digest: x", None)), "Digest: x\n");
    }

    #[test]
    fn a_file_gets_the_steps_and_no_bars() {
        let mut screen = screen(false, 200);
        assert_eq!(
            screen.draw(&message("aa", "Pulling fs layer", Some((0, 0)))),
            "aa: Pulling fs layer\n"
        );
        assert_eq!(screen.draw(&message("aa", "Downloading", Some((5, 10)))), "");
        let mut loading = message("aa", "Loading layer", Some((5, 10)));
        loading.progress_message = "[=>  ]".to_owned();
        assert_eq!(screen.draw(&loading), "");
        assert_eq!(
            screen.draw(&message("aa", "Pull complete", Some((0, 0)))),
            "aa: Pull complete\n"
        );
        let aux = Message {
            progress: Some(Progress::default()),
            aux: Some(ferry_api::image::Aux::Built { id: "x".to_owned() }),
            ..Message::default()
        };
        assert_eq!(screen.draw(&aux), "");
    }
}
