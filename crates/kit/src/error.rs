use std::{io, path::PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not 64 lower-case hexadecimal digits.
    #[error("invalid id {0:?}")]
    InvalidId(String),
    /// Worded as github.com/docker/go-units words it.
    #[error("{0}")]
    InvalidSize(String),
    /// Worded as Go's `time.ParseDuration` words it.
    #[error("{0}")]
    InvalidDuration(String),
    /// `template: :LINE: what`, as Go's text/template words it. Docker prefixes it with `template parsing error: `.
    #[error("{0}")]
    TemplateSyntax(String),
    /// `template: :LINE:COLUMN: executing "" at <node>: what`.
    #[error("{0}")]
    TemplateExecution(String),
    #[error("cannot {verb} {}", path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What the system says, as every other program says it: `no space left on device`, without Rust's number behind.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().collect::<String>() + characters.as_str()
    })
}

/// An error with all its causes, outermost first: `cannot write /x: no space left on device`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        match error.downcast_ref::<io::Error>() {
            Some(error) => text.push_str(&io_text(error)),
            None => text.push_str(&error.to_string()),
        }
        next = error.source();
    }
    text
}
