//! The daemon's log on standard error, whose level may change.

use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// dockerd's `log-format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Format {
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("" | "text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => bail!("invalid log format: {other}"),
        }
    }
}

/// Changes the level of what is logged.
pub struct Level(Box<dyn Fn(LevelFilter) + Send + Sync>);

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Level")
    }
}

impl Level {
    pub fn set(&self, level: LevelFilter) {
        (self.0)(level);
    }
}

/// `raw`: without colours on a terminal too.
pub fn start(format: Format, level: LevelFilter, raw: bool) -> Level {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(!raw && std::io::stderr().is_terminal())
        .with_env_filter(only(level));
    // A log that is gone has no level to be set.
    match format {
        Format::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Level(Box::new(move |level| drop(handle.reload(only(level)))))
        }
        Format::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Level(Box::new(move |level| drop(handle.reload(only(level)))))
        }
    }
}

/// The one kind of filter that may be replaced; no variable is read.
fn only(level: LevelFilter) -> EnvFilter {
    EnvFilter::default().add_directive(level.into())
}

pub fn level(text: &str) -> Result<LevelFilter> {
    match text.to_lowercase().as_str() {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "error" | "fatal" | "panic" => Ok(LevelFilter::ERROR),
        _ => bail!("invalid logging level: {text}"),
    }
}
