//! Where messages go: the file of `--log` in the format of `--log-format`, and the standard error.

use std::fs::File;
use std::io::Write;

use jiff::Timestamp;
use serde_json::json;

use crate::error::{During as _, Error, Result};

/// As logrus writes them, which is what callers parse.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Warning,
    Error,
}

impl Log {
    pub fn open(path: Option<&str>, format: Option<&str>, debug: bool) -> Result<Self> {
        let json = match format.unwrap_or("text") {
            "text" | "" => false,
            "json" => true,
            other => return Err(Error::Invalid(format!("invalid log-format: {other}"))),
        };
        let file = match path {
            None | Some("" | "/dev/stderr") => None,
            Some(path) => {
                let mut options = std::fs::OpenOptions::new();
                let file = options.create(true).append(true).open(path);
                Some(file.during(|| format!("open {path}"))?)
            }
        };
        Ok(Self { file, json, debug })
    }

    pub fn warn(&mut self, message: &str) {
        self.write(Level::Warning, message);
    }

    pub fn debug(&mut self, message: &str) {
        if self.debug {
            self.write(Level::Debug, message);
        }
    }

    /// The last word of a command that failed; on standard error too, bare, when it goes to a file.
    pub fn error(&mut self, message: &str) {
        self.write(Level::Error, message);
        if self.file.is_some() {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    fn write(&mut self, level: Level, message: &str) {
        let time = Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_else(|_| Timestamp::now());
        let level = match level {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let line = if self.json {
            json!({ "level": level, "msg": message, "time": time.to_string() }).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={message:?}")
        };
        // Nobody can be told that telling failed.
        let _ = match &mut self.file {
            Some(file) => writeln!(file, "{line}"),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }
}
