//! The daemon's handle on a running container.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_runtime::plan::Process;
use ferry_sys::packet;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::exit::Exit;
use crate::health::Health;
use crate::launch::{Relay, Resolver};
use crate::wire::{self, AttachRequest, Call, ExecRequest, Message, Refusal, Reply, Request, State};

/// What a shim reports of its own accord.
#[derive(Debug)]
pub enum Event {
    /// The container ended; answer with [`Task::noted`].
    Exited(Exit),
    /// An exec ended; answer with [`Task::noted`].
    ExecExited { exec: String, code: i32 },
    /// The kernel killed a process of the container for memory.
    Oom,
    /// A check of its health begins, by this exec.
    ProbeStarted { exec: String },
    /// A check is over: its exec, if it had one, with the exit code, if it came to run; and what became of the health.
    Probed {
        exec: Option<(String, Option<i32>)>,
        health: Health,
    },
    /// A client typed the detach keys.
    Detached { exec: Option<String> },
    /// Where things stand, of a shim that did not answer when it was adopted.
    Found(Box<State>),
    /// The shim is gone, or has given up on a daemon that did not listen.
    Lost,
}

/// An additional process.
#[derive(Debug)]
pub struct Exec {
    pub id: String,
    pub process: Process,
    /// A compiled filter, an array of `struct sock_filter`; empty for none.
    pub seccomp: Vec<u8>,
    /// Its input stays open for a client.
    pub stdin: bool,
    /// The client that sees it from its first byte.
    pub client: Option<(Attach, OwnedFd)>,
}

/// What a client's connection carries.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With Docker's headers or without; `None`: without for a terminal.
    pub framed: Option<bool>,
    /// Empty for none.
    pub detach_keys: Vec<u8>,
    /// What the client sent together with its request.
    pub already_read: Vec<u8>,
}

/// A running container. Clones are handles on the same one; the last one dropped closes the connection, not the container.
#[derive(Debug, Clone)]
pub struct Task {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// A `SOCK_SEQPACKET` socket: tokio has no type of that name, and waits for readiness alone here.
    socket: UnixDatagram,
    pid: AtomicI32,
    /// The protocol of the shim.
    version: AtomicU32,
    next: AtomicU64,
    /// `None` when the shim is gone.
    waiting: Mutex<Option<Waiting>>,
}

/// Callers by the number of their call.
type Waiting = HashMap<u64, oneshot::Sender<Result<Reply, Refusal>>>;

impl Task {
    /// Speaks to a shim over `socket`, which must not block. Also gives the network namespaces that ask to be set up.
    pub(crate) fn connect(
        socket: OwnedFd,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<(Self, mpsc::Receiver<OwnedFd>)> {
        let inner = Arc::new(Inner {
            socket: UnixDatagram::from_std(socket.into())?,
            pid: AtomicI32::new(0),
            version: AtomicU32::new(wire::VERSION),
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let (sender, networks) = mpsc::channel(1);
        tokio::spawn(read(Arc::clone(&inner), events, sender));
        Ok((Self { inner }, networks))
    }

    pub(crate) fn started(&self, pid: i32) {
        self.inner.pid.store(pid, Ordering::Relaxed);
    }

    /// The shim was started by another daemon, perhaps an older one.
    pub(crate) fn speaks(&self, version: u32) {
        self.inner.version.store(version, Ordering::Relaxed);
    }

    /// The container's first process in the host's PID namespace; 0 before it is started.
    pub fn pid(&self) -> i32 {
        self.inner.pid.load(Ordering::Relaxed)
    }

    /// The shim has closed its end: it is gone, or gave up on an engine that heard nothing for long. [`Event::Lost`] comes
    /// behind what it had said.
    pub fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(&self.inner.socket, PollFlags::empty())];
        let done = rustix::event::poll(&mut polled, Some(&Timespec::default()));
        done.is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Sends a signal to the first process, or to an exec.
    pub async fn kill(&self, exec: Option<&str>, signal: i32) -> Result<(), Error> {
        self.done(
            &Request::Kill {
                exec: exec.map(str::to_owned),
                signal,
            },
            &[],
        )
        .await
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, exec: Option<&str>, rows: u16, columns: u16) -> Result<(), Error> {
        self.done(
            &Request::Resize {
                exec: exec.map(str::to_owned),
                rows,
                columns,
            },
            &[],
        )
        .await
    }

    /// Has the shim answer the container's questions about names, in the place of the resolver it may have.
    pub async fn resolver(&self, resolver: Resolver) -> Result<(), Error> {
        if self.inner.version.load(Ordering::Relaxed) < 2 {
            return Err(Error::Refused(
                "the container was started by a version of Ferry whose containers have no resolver; restart it".into(),
            ));
        }
        let fds = [resolver.udp.as_fd(), resolver.tcp.as_fd()];
        let settings = resolver.settings;
        self.done(&Request::Resolver { settings }, &fds).await
    }

    /// Has the shim listen at these ports of the host's, and at no others. On failure it listens where it did.
    pub async fn relay(&self, relays: Vec<Relay>) -> Result<(), Error> {
        if self.inner.version.load(Ordering::Relaxed) < 3 {
            return match relays.is_empty() {
                true => Ok(()),
                false => Err(Error::Refused(
                    "the container was started by a version of Ferry that cannot serve ports of IPv6 addresses for it; \
                     restart it"
                        .into(),
                )),
            };
        }
        self.done(&Request::Relay(relays), &[]).await
    }

    /// Has the shim look after the container's health, or not while it is paused. An older shim never does.
    pub async fn check_health(&self, check: bool) -> Result<(), Error> {
        if self.inner.version.load(Ordering::Relaxed) < 4 {
            return Ok(());
        }
        self.done(&Request::CheckHealth(check), &[]).await
    }

    /// Hands a client's connection to the shim, which closes it after the last byte.
    pub async fn attach(&self, exec: Option<&str>, attach: Attach, connection: OwnedFd) -> Result<(), Error> {
        let request = Request::Attach(attach_request(attach, exec.map(str::to_owned)));
        self.done(&request, &[connection.as_fd()]).await
    }

    /// Runs another process; returns its number in the host's PID namespace when its program runs.
    pub async fn exec(&self, exec: Exec) -> Result<i32, Error> {
        let (attach, connection) = exec.client.unzip();
        let request = Request::Exec(Box::new(ExecRequest {
            attach: attach.map(|attach| attach_request(attach, Some(exec.id.clone()))),
            id: exec.id,
            process: exec.process,
            seccomp: exec.seccomp,
            stdin: exec.stdin,
        }));
        let fds: Vec<_> = connection.iter().map(OwnedFd::as_fd).collect();
        match self.call(&request, &fds).await? {
            Reply::Started { pid, .. } => Ok(pid),
            _ => Err(Error::Lost),
        }
    }

    /// Tells the shim that an exit is recorded, so that it may end the streams. Waits for nothing.
    pub async fn noted(&self, exec: Option<String>) {
        self.tell(&Request::Noted { exec }).await;
    }

    async fn done(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.call(request, fds).await.map(drop)
    }

    /// Sends a request whose answer matters to nobody.
    pub(crate) async fn tell(&self, request: &Request) {
        // A shim that is gone is reported as `Event::Lost`.
        let _ = self.send(&call(0, request), &[]).await;
    }

    pub(crate) async fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, Error> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self
            .inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(Error::Lost),
        };
        self.send(&call(id, request), fds).await?;
        match receiver.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(Refusal::Start(failure))) => Err(Error::Start(failure)),
            Ok(Err(Refusal::Gone)) => Err(Error::Gone),
            Ok(Err(Refusal::Files(error))) => Err(Error::Refused(error.to_string())),
            Ok(Err(Refusal::Other(reason))) => Err(Error::Refused(reason)),
            Err(_) => Err(Error::Lost),
        }
    }

    async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let socket = &self.inner.socket;
        match socket
            .async_io(Interest::WRITABLE, || wire::send(socket, message, fds))
            .await
        {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Lost),
            done => Ok(done?),
        }
    }
}

/// A [`Call`] that borrows its request.
#[derive(Serialize)]
struct BorrowedCall<'a> {
    id: u64,
    request: &'a Request,
}

fn call(id: u64, request: &Request) -> BorrowedCall<'_> {
    // The shape of what is sent is that of `Call`, which the shim reads.
    const _: fn(Call) -> (u64, Request) = |Call { id, request }| (id, request);
    BorrowedCall { id, request }
}

pub(crate) fn attach_request(attach: Attach, exec: Option<String>) -> AttachRequest {
    AttachRequest {
        exec,
        stdin: attach.stdin,
        stdout: attach.stdout,
        stderr: attach.stderr,
        detach_keys: attach.detach_keys,
        framed: attach.framed,
        already_read: attach.already_read,
    }
}

/// Passes on what the shim says until it is gone. Nothing waits for who listens to events: that may be the one who waits for the
/// answer behind them. Holds the connection no longer than the last [`Task`] does.
async fn read(inner: Arc<Inner>, events: mpsc::UnboundedSender<Event>, networks: mpsc::Sender<OwnedFd>) {
    let mut buffer = vec![0; packet::MAX];
    while let Ok(Some((message, mut fds))) = receive(&inner.socket, &mut buffer).await {
        let event = match message {
            Message::Reply { id, result } => {
                let waiting = inner
                    .waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .as_mut()
                    .and_then(|map| map.remove(&id));
                // Nobody waits for the answer to what was only told.
                if let Some(waiting) = waiting {
                    let _ = waiting.send(result);
                }
                continue;
            }
            Message::Network => {
                if let Some(namespace) = fds.pop() {
                    let _ = networks.send(namespace).await;
                }
                continue;
            }
            Message::Exited(exit) => Event::Exited(exit),
            Message::ExecExited { exec, code } => Event::ExecExited { exec, code },
            Message::Oom => Event::Oom,
            Message::ProbeStarted { exec } => Event::ProbeStarted { exec },
            Message::Probed { exec, health } => Event::Probed { exec, health },
            Message::Detached { exec } => Event::Detached { exec },
        };
        if events.send(event).is_err() {
            break;
        }
    }
    // Whoever waits for an answer gets `Error::Lost`.
    inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = events.send(Event::Lost);
}

async fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    socket
        .async_io(Interest::READABLE, || wire::receive(socket, buffer))
        .await
}
