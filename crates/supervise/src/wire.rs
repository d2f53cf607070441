//! What daemon and shim say to each other: one JSON message a packet, descriptors beside it.
//!
//! A message larger than a packet travels in a memory file: the packet is then empty JSON (`{}`) and its last descriptor is
//! that file. The version is that of the whole protocol; a daemon adopts shims of an older one.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use ferry_runtime::Failure;
use ferry_runtime::plan::Process;
use ferry_sys::packet;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::files::{FileStat, FilesError, FilesRequest};
use crate::health::Health;
use crate::launch::{Launch, Relay};

/// Raised when a message changes its meaning; adding an optional field does not.
/// Version 2 has [`Request::Resolver`], and version 3 [`Request::Relay`], which an older shim does not know.
/// Version 4 looks after its container's health.
pub const VERSION: u32 = 4;

/// A request of the daemon's; every call is answered by one [`Message::Reply`] with its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// The first request of a shim's life. Descriptors: the network namespace, if given, the clients' connections, the
    /// resolver's sockets.
    Launch(Box<Launch>),
    /// Instead of a launch: the process copies files and ends. Descriptors: see [`FilesRequest`].
    Files(Box<FilesRequest>),
    /// The answer to [`Message::Network`].
    NetworkReady(Result<(), String>),
    /// Where things stand; the first request of a new daemon.
    State,
    Exec(Box<ExecRequest>),
    /// Descriptor: the client's connection.
    Attach(AttachRequest),
    Kill {
        /// `None`: the container's first process.
        exec: Option<String>,
        signal: i32,
    },
    Resize {
        exec: Option<String>,
        rows: u16,
        columns: u16,
    },
    /// Answers the container's questions about names from now on, in the place of the resolver there was. Descriptors: a UDP
    /// socket and a TCP listener.
    Resolver {
        settings: PathBuf,
    },
    /// Listens at these ports of the host's from now on, and at no others.
    Relay(Vec<Relay>),
    /// Looks after the container's health, or not while it is paused. When not is answered, no check is under way.
    CheckHealth(bool),
    /// The daemon has noted the exit of the container (`None`) or an exec; its streams may end.
    Noted {
        exec: Option<String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    pub id: String,
    pub process: Process,
    pub seccomp: Vec<u8>,
    /// Keep the process's input open for a client.
    pub stdin: bool,
    /// A client is attached from the first byte; its connection is the request's descriptor.
    pub attach: Option<AttachRequest>,
}

/// A client's connection and what it is to carry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AttachRequest {
    pub exec: Option<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With Docker's headers or without; `None`: without for a terminal.
    #[serde(default)]
    pub framed: Option<bool>,
    /// The key sequence that detaches; empty for none.
    pub detach_keys: Vec<u8>,
    /// What the client sent together with its request.
    pub already_read: Vec<u8>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    Reply {
        id: u64,
        result: Result<Reply, Refusal>,
    },
    /// Descriptor: the new network namespace. Answered by [`Request::NetworkReady`].
    Network,
    Exited(Exit),
    ExecExited {
        exec: String,
        code: i32,
    },
    Oom,
    /// A check of the container's health begins, by this exec.
    ProbeStarted {
        exec: String,
    },
    /// A check is over. `exec`: its exec, if it had one, and that one's exit code, if it came to run. Not told again: a
    /// new daemon is told of the health as it is.
    Probed {
        exec: Option<(String, Option<i32>)>,
        health: Health,
    },
    Detached {
        exec: Option<String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// A process runs: its number in the host's PID namespace, and warnings of the cgroup.
    Started {
        pid: i32,
        warnings: Vec<String>,
    },
    State(State),
    File(FileStat),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    pub pid: i32,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    pub exit: Option<Exit>,
    /// It has a resolver.
    #[serde(default)]
    pub resolver: bool,
    /// Running execs: id and process number.
    pub execs: Vec<(String, i32)>,
    /// Of a container whose health is looked after.
    #[serde(default)]
    pub health: Option<Health>,
}

/// Why a call was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Refusal {
    Start(Failure),
    /// There is no such process.
    Gone,
    Files(FilesError),
    Other(String),
}

/// Sends one message.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() <= packet::MAX {
        return packet::send(socket, &bytes, fds);
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ferry-message", flags)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes)?;
    file.rewind()?;
    let fds: Vec<_> = fds.iter().copied().chain([file.as_fd()]).collect();
    packet::send(socket, b"{}", &fds)
}

/// Receives one message; `None` at the end of the connection. `buffer` is scratch space of [`packet::MAX`] bytes.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (length, mut fds) = packet::receive(socket, buffer)?;
    match &buffer[..length] {
        [] => Ok(None),
        b"{}" => {
            let file = fds
                .pop()
                .ok_or_else(|| io::Error::other("a message without its memory file"))?;
            let mut bytes = Vec::new();
            std::fs::File::from(file).read_to_end(&mut bytes)?;
            Ok(Some((serde_json::from_slice(&bytes)?, fds)))
        }
        bytes => Ok(Some((serde_json::from_slice(bytes)?, fds))),
    }
}
