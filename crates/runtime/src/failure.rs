//! Why a process did not come to run, in words a user can act on.

use std::io;

use serde::{Deserialize, Serialize};

/// What kind of failure it is: it decides the exit code of `run` and `exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The program is not there: 127.
    NotFound,
    /// The program is there and cannot be invoked: 126.
    NotExecutable,
    /// Anything else, ours or the kernel's: 125.
    Setup,
}

/// Why a process did not come to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    /// The whole story: what was tried, on what, and what the kernel said.
    pub message: String,
}

impl Failure {
    pub fn setup(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self {
            kind: Kind::Setup,
            message: format!("{what}: {}", reason(error)),
        }
    }

    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// As it travels from the child: the kind's letter, then the message.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let letter = match self.kind {
            Kind::NotFound => b'n',
            Kind::NotExecutable => b'x',
            Kind::Setup => b's',
        };
        let mut bytes = vec![letter];
        // One packet; a longer message would be refused whole.
        bytes.extend(self.message.bytes().take(4000));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (kind, message) = match bytes {
            [b'n', rest @ ..] => (Kind::NotFound, rest),
            [b'x', rest @ ..] => (Kind::NotExecutable, rest),
            [b's', rest @ ..] => (Kind::Setup, rest),
            other => (Kind::Setup, other),
        };
        Self {
            kind,
            message: String::from_utf8_lossy(message).into_owned(),
        }
    }
}

impl From<ferry_cgroup::Error> for Failure {
    fn from(error: ferry_cgroup::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        match source {
            Some(source) => Self::setup(&error, source),
            None => Self::new(Kind::Setup, error.to_string()),
        }
    }
}

/// The kernel's words without std's "(os error N)", as every Unix tool prints them: lower case, as Go's errors are.
pub fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else {
        return error.to_string();
    };
    let text = io::Error::from_raw_os_error(code).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    text.to_lowercase()
}

/// Gives an error its context: `.during(|| format!("mount {target}"))`.
pub trait During<T> {
    fn during<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T> During<T> for io::Result<T> {
    fn during<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| Failure::setup(what(), &error))
    }
}

impl<T> During<T> for Result<T, rustix::io::Errno> {
    fn during<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| Failure::setup(what(), &error.into()))
    }
}
