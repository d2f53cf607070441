//! What can go wrong, in runc's words where callers look for them.

use std::io;

/// Display is one clause; [`Error::text`] has the whole story.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("container does not exist")]
    NotFound,

    #[error("container with given ID already exists")]
    Exists,

    #[error("container id cannot be empty")]
    EmptyId,

    #[error("invalid container ID format")]
    InvalidId,

    /// The container is not in a state for this.
    #[error("{0}")]
    State(String),

    /// A field of a configuration, by its path, and what is wrong with it.
    #[error("{field}: {problem}")]
    Config { field: String, problem: String },

    /// A configuration or a command line as a whole.
    #[error("{0}")]
    Invalid(String),

    /// The recorded state of a container cannot be read.
    #[error("the state of container {id} is damaged: {problem}")]
    Damaged { id: String, problem: String },

    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },

    #[error("unable to apply cgroup configuration")]
    Cgroup(#[source] ferry_cgroup::Error),

    #[error("seccomp")]
    Seccomp(#[from] ferry_seccomp::Error),

    /// The container's first process, or the kernel on its behalf.
    #[error("unable to start container process: {0}")]
    Start(ferry_runtime::Failure),

    /// As runc: a prefix that says which command failed.
    #[error("{prefix} failed")]
    Command {
        prefix: &'static str,
        #[source]
        source: Box<Self>,
    },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The whole chain, a colon between each: what runc prints.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let clause = match error.downcast_ref::<io::Error>() {
                Some(error) => reason(error),
                None => error.to_string(),
            };
            text.push_str(": ");
            text.push_str(&clause);
            source = error.source();
        }
        text
    }

    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl From<ferry_cgroup::Error> for Error {
    fn from(error: ferry_cgroup::Error) -> Self {
        Self::Cgroup(error)
    }
}

/// The kernel's words, lower case and without std's "(os error N)", as Go prints them.
pub(crate) fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else {
        return error.to_string();
    };
    let text = io::Error::from_raw_os_error(code).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    text.to_lowercase()
}

/// Says what was tried: `.during(|| format!("open {path}"))`.
pub(crate) trait During<T> {
    fn during<D: Into<String>>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during<D: Into<String>>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what().into(),
            source,
        })
    }
}

impl<T> During<T> for Result<T, rustix::io::Errno> {
    fn during<D: Into<String>>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::Io {
            what: what().into(),
            source: error.into(),
        })
    }
}
