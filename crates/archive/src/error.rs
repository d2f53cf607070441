use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with an archive, or with the place it is unpacked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream itself failed: the socket, the disk, or the decompressor.
    #[error("the archive cannot be read")]
    Read { source: io::Error },
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// `offset` is the position of the offending header in the uncompressed stream, in bytes.
    #[error("malformed archive at byte {offset}: {what}")]
    Malformed { offset: u64, what: &'static str },
    #[error("{} cannot be unpacked: {what}", path.display())]
    Unsupported { path: PathBuf, what: String },
    /// One of [`Limits`](crate::Limits).
    #[error("the archive exceeds the limit of {limit} {what}")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("{} is outside of the directory to unpack to", path.display())]
    Escapes { path: PathBuf },
    #[error("{} is a hard link to {}, which does not exist", path.display(), target.display())]
    MissingTarget { path: PathBuf, target: PathBuf },
    /// What was unpacked from an archive is not what it was: the archive cannot be made of it again.
    #[error("{} is not what was unpacked", path.display())]
    Changed { path: PathBuf, source: io::Error },
    #[error("cannot {action} {}", path.display())]
    Write {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
}

impl Error {
    /// Whether the disk (or the quota) is full.
    pub fn is_no_space(&self) -> bool {
        let (Self::Write { source, .. } | Self::Read { source }) = self else {
            return false;
        };
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        full.contains(&source.raw_os_error())
    }
}
