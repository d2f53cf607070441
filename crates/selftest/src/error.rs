//! What keeps the self-test itself from being done. How an attack went is an [`Outcome`](crate::Outcome).

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

/// Display is one clause without its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("only root can do this: it makes containers")]
    NotRoot,

    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },

    /// Then no row would say anything.
    #[error("{runtime} does not run a plain container here: {said}")]
    Useless { runtime: String, said: String },

    /// A container that has to run for this attack did not.
    #[error("it does not run this container: {said}")]
    NotRun { said: String },

    #[error("Docker's seccomp profile")]
    Seccomp(#[from] ferry_seccomp::Error),
}

impl Error {
    /// The whole story: this and what it comes from.
    pub fn text(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

pub(crate) trait During<T> {
    /// Says what was being done.
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::Io {
            what: what().into(),
            source: error.into(),
        })
    }
}
