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
