//! What can go wrong with a control group.

use std::io;
use std::path::PathBuf;

/// Display is one lowercase clause; the kernel's own words are in the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/proc/self/mountinfo` could not be read.
    #[error("cannot read the mount table to find the control groups")]
    Mounts(#[source] io::Error),

    /// Neither a v1 controller nor a v2 hierarchy is mounted.
    #[error("no control group hierarchy is mounted")]
    NotMounted,

    /// A cgroup path with `..`, an empty component, a NUL, or nothing in it.
    #[error("invalid control group path {0:?}")]
    InvalidPath(String),

    /// The cgroup is not there (any more).
    #[error("control group {0} does not exist")]
    NotFound(PathBuf),

    /// A value that no kernel takes; nothing was written for it.
    #[error("invalid {limit} {value:?}: {meaning}")]
    Invalid {
        limit: String,
        value: String,
        meaning: String,
    },

    /// The kernel refused a limit.
    #[error("the kernel refused {value:?} for {file}: {meaning}")]
    Refused {
        file: PathBuf,
        value: String,
        meaning: String,
        #[source]
        source: io::Error,
    },

    /// An update failed halfway, and what it had changed until then could not be undone.
    #[error("{because}; and {file}, which was changed already, could not be set back to {value:?}: set it by hand")]
    NotPutBack {
        because: String,
        file: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },

    /// The eBPF program that holds the device rules (v2); a program the kernel refuses comes with the verifier's words.
    #[error("cannot {action} of control group {path}")]
    Devices {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    /// A control file or directory could not be made, read or written.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    /// A control file holds something this crate does not understand.
    #[error("unexpected content in {file}: {content:?}")]
    Unexpected { file: PathBuf, content: String },

    /// The freezer did not reach the state asked for; the group was thawed again.
    #[error("control group {path} could not be frozen (state {state})")]
    Freeze { path: PathBuf, state: String },

    /// Processes outlived a kill, or children a removal, longer than the deadline.
    #[error("control group {path} is still in use after {seconds} s ({processes} processes)")]
    Busy {
        path: PathBuf,
        seconds: u64,
        processes: usize,
    },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
