//! How fast layers travel, how long they will take, and what it came to in the end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ferry_api::image::Message;
use ferry_kit::units;

/// What is shorter says nothing of the rate.
const SHORTEST: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Pace {
    begun: Option<Instant>,
    layers: HashMap<String, Layer>,
}

/// A layer that moves, since it was seen first in its present step.
#[derive(Debug)]
struct Layer {
    step: String,
    since: Instant,
    from: i64,
    total: i64,
}

impl Pace {
    /// Takes a count in; gives `45.2MB/s 3s` once that can be said.
    pub fn note(&mut self, message: &Message, now: Instant) -> Option<String> {
        if matches!(&message.status[..], "Download complete" | "Pushed") && !message.id.is_empty() {
            // It may be too small for a count.
            self.layers.entry(message.id.clone()).or_insert_with(|| Layer {
                step: String::new(),
                since: now,
                from: 0,
                total: 0,
            });
        }
        let progress = message.progress.as_ref()?;
        if message.id.is_empty() || progress.total <= 0 || !progress.units.is_empty() {
            return None;
        }
        self.begun.get_or_insert(now);
        let fresh = || Layer {
            step: message.status.clone(),
            since: now,
            from: progress.current,
            total: progress.total,
        };
        let layer = self.layers.entry(message.id.clone()).or_insert_with(fresh);
        if layer.step != message.status || progress.current < layer.from {
            *layer = fresh();
        }
        let left = progress.total - progress.current;
        let rate = rate(progress.current - layer.from, now - layer.since).filter(|_| left > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let seconds = (left as f64 / rate).ceil();
        Some(format!("{}/s {}", units::human_size(rate), time(seconds)))
    }

    /// `3 layers, 357.2MB in 3.4s, 105MB/s`, of all that moved.
    pub fn summary(&self, now: Instant) -> Option<String> {
        let time = now - self.begun?;
        let total: i64 = self.layers.values().map(|layer| layer.total).sum();
        let rate = rate(total, time)?;
        let layers = match self.layers.len() {
            1 => "1 layer".to_owned(),
            count => format!("{count} layers"),
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let size = units::human_size(total as f64);
        let seconds = time.as_secs_f64();
        Some(format!(
            "{layers}, {size} in {seconds:.1}s, {}/s",
            units::human_size(rate)
        ))
    }
}

/// Bytes in a second.
fn rate(bytes: i64, time: Duration) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    (bytes > 0 && time >= SHORTEST).then(|| bytes as f64 / time.as_secs_f64())
}

fn time(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    match minutes >= 1.0 {
        true => format!("{minutes}m{:02}s", seconds - minutes * 60.0),
        false => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use ferry_api::image::Progress;

    use super::*;

    #[test]
    fn rate_and_time_are_of_the_present_step() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut note = |id: &str, status: &str, current, after| {
            let progress = Progress {
                current,
                total: 100_000_000,
                ..Progress::default()
            };
            let message = Message {
                id: id.to_owned(),
                status: status.to_owned(),
                progress: Some(progress),
                ..Message::default()
            };
            pace.note(&message, start + Duration::from_millis(after))
        };
        assert_eq!(note("a", "Downloading", 10_000_000, 0), None);
        assert_eq!(note("a", "Downloading", 20_000_000, 100), None);
        assert_eq!(note("a", "Downloading", 20_000_000, 1000).unwrap(), "10MB/s 8s");
        assert_eq!(note("b", "Downloading", 0, 1000), None);
        assert_eq!(note("b", "Downloading", 1_000_000, 2000).unwrap(), "1MB/s 1m39s");
        assert_eq!(note("a", "Extracting", 1_000_000, 2000), None);
        assert_eq!(note("a", "Extracting", 51_000_000, 2500).unwrap(), "100MB/s 1s");
        assert_eq!(note("a", "Extracting", 100_000_000, 3000), None);
        let small = Message {
            id: "c".to_owned(),
            status: "Download complete".to_owned(),
            ..Message::default()
        };
        assert_eq!(pace.note(&small, start), None);
        let summary = pace.summary(start + Duration::from_secs(4));
        assert_eq!(summary.unwrap(), "3 layers, 200MB in 4.0s, 50MB/s");
        assert_eq!(Pace::default().summary(start), None);
    }
}
