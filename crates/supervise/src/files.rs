//! Copying files into and out of a container, by a process that lives for one request.
//!
//! ```text
//! daemon ── spawn, Request::Files ──▶ helper: moves into the container's view, drops its privileges
//!    │  ◀── Reply::File: what is there                 │
//!    └──◀── a pipe with the archive ──▶────────────────┘   then Reply::Done, or why not
//! ```
//!
//! The helper is a shim that gets no container (rule D3): it was loaded before the request, runs Ferry's own code only and
//! has no descriptor but the pipe and the connection. It ends with the daemon, as both are closed then.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use ferry_runtime::plan::{Mount, User};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::error::Error;
use crate::launch::Rootfs;
use crate::supervisor::{Shim, Spawned};
use crate::wire::{self, Call, Message, Refusal, Reply, Request};

/// What is done to a container's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilesRequest {
    pub view: FilesView,
    /// Absolute and clean.
    pub path: PathBuf,
    /// A final link is followed, and the path must be a directory: it was given with a slash or a dot at its end.
    pub directory: bool,
    pub operation: Operation,
}

/// Where the files are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FilesView {
    /// In a running container, whose first process is the request's first descriptor.
    Running { user_namespace: bool },
    Stopped {
        rootfs: Rootfs,
        /// Bind mounts.
        mounts: Vec<Mount>,
        readonly: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Operation {
    Stat,
    /// Looks a user up in the container's own /etc/passwd and /etc/group; one that is not there is [`FilesError::Invalid`].
    Lookup(User),
    /// Writes `path` and all below it to the request's last descriptor as a tar stream, in which it is called `name`.
    Read {
        name: PathBuf,
    },
    /// Unpacks a tar stream, which may be compressed, from the request's last descriptor into the directory `path`.
    Write {
        /// Refuse to replace a directory by something else and the other way round.
        keep_kinds: bool,
        /// Who everything belongs to, instead of what the archive says.
        owner: Option<User>,
    },
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// `st_mode`, type and permissions.
    pub mode: u32,
    pub mtime: Timestamp,
    /// Where a symbolic link leads in the end, as far as it can be followed; else empty.
    pub target: PathBuf,
}

/// Why files were not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FilesError {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotADirectory,
    #[error("read-only file system")]
    ReadOnly,
    /// The archive is at fault, or the name.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Other(String),
}

/// A helper at work. Dropped, it is killed.
#[derive(Debug)]
pub struct Files {
    socket: UnixDatagram,
    /// Held for its drop.
    _process: Spawned,
}

impl Files {
    pub(crate) async fn start(
        shim: Shim,
        request: FilesRequest,
        fds: Vec<OwnedFd>,
        until: impl Future<Output = ()> + Send + 'static,
        guard: impl Send + 'static,
    ) -> Result<Self, Error> {
        let Shim {
            socket, mut process, ..
        } = shim;
        let kill = process.kill_on_drop();
        let ended = process.ended();
        // What the guard protects is in use as long as the process lives, not only as long as somebody waits for it.
        tokio::spawn(async move {
            tokio::pin!(ended);
            tokio::select! {
                () = &mut ended => return drop(guard),
                () = until => kill.notify_one(),
            }
            ended.await;
            drop(guard);
        });
        let files = Self {
            socket: UnixDatagram::from_std(socket.into())?,
            _process: process,
        };
        let call = Call {
            id: 1,
            request: Request::Files(Box::new(request)),
        };
        let borrowed: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        let send = || wire::send(&files.socket, &call, &borrowed);
        match files.socket.async_io(Interest::WRITABLE, send).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Lost),
            done => Ok(done.map(|()| files)?),
        }
    }

    /// The next answer: [`Operation::Read`] has two, the others one. The outer error is the helper's own end.
    pub async fn answer(&mut self) -> Result<Result<Option<FileStat>, FilesError>, Error> {
        let mut buffer = vec![0; ferry_sys::packet::MAX];
        let receive = || wire::receive::<Message>(&self.socket, &mut buffer);
        let Ok(Some((Message::Reply { result, .. }, _))) = self.socket.async_io(Interest::READABLE, receive).await
        else {
            return Err(Error::Lost);
        };
        match result {
            Ok(Reply::File(stat)) => Ok(Ok(Some(stat))),
            Ok(Reply::Done) => Ok(Ok(None)),
            Ok(_) => Err(Error::Lost),
            Err(Refusal::Files(error)) => Ok(Err(error)),
            Err(Refusal::Start(failure)) => Ok(Err(FilesError::Other(failure.message))),
            Err(Refusal::Gone) => Err(Error::Gone),
            Err(Refusal::Other(reason)) => Err(Error::Refused(reason)),
        }
    }
}
