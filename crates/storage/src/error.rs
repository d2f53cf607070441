use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("another engine is using {}", root.display())]
    InUse { root: PathBuf },
    /// Written by a newer Ferry: nothing was changed.
    #[error(
        "{what} was written by a newer Ferry (version {found}, this one knows {supported}): \
         install that version again, or use another data root"
    )]
    Newer { what: String, found: u32, supported: u32 },
    #[error("no space left on device for {}", path.display())]
    NoSpace { path: PathBuf, source: io::Error },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the database {} failed", path.display())]
    Database {
        path: PathBuf,
        source: Box<rusqlite::Error>,
    },
    /// The engine is shutting down, or the database thread has died.
    #[error("the database is closed")]
    Closed,
    /// Docker's words, with the reference as Docker shows it.
    #[error("No such image: {reference}")]
    NotFound { reference: String },
    /// Docker's words; the HTTP status is 404.
    #[error("no suitable export target found for platform {wanted}")]
    OtherPlatform { wanted: String },
    #[error("image ID prefix {prefix:?} is ambiguous")]
    Ambiguous { prefix: String },
    /// Docker's words; the HTTP status is 409.
    #[error("conflict: {0}")]
    Conflict(String),
    /// What somebody gave us is wrong: an archive, a configuration, a change instruction. The HTTP status is 400.
    #[error("{0}")]
    Invalid(String),
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("{what} cannot be read")]
    Archive { what: String, source: ferry_archive::Error },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        let path = path.to_owned();
        if full.contains(&source.raw_os_error()) {
            return Self::NoSpace { path, source };
        }
        Self::Io { action, path, source }
    }

    /// `path` is where the archive was being unpacked to.
    pub(crate) fn archive(what: &str, path: &Path, source: ferry_archive::Error) -> Self {
        match source {
            full if full.is_no_space() => {
                let source = match full {
                    ferry_archive::Error::Write { source, .. } | ferry_archive::Error::Read { source } => source,
                    _ => Errno::NOSPC.into(),
                };
                Self::NoSpace {
                    path: path.to_owned(),
                    source,
                }
            }
            source => Self::Archive {
                what: what.to_owned(),
                source,
            },
        }
    }

    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

/// Attaches what was being done, and to which path, to an I/O error.
pub(crate) trait Context<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source.into()))
    }
}
