//! Starting shims and finding them again.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_sys::{exe, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open};
use tokio::sync::{Notify, mpsc, watch};

use crate::error::Error;
use crate::files::{Files, FilesRequest};
use crate::launch::{Launch, Resolver};
use crate::shim::socket_address;
use crate::task::{Attach, Event, Task, attach_request};
use crate::wire::{Reply, Request, State};

/// How long a shim that is adopted may take to say where things stand before the daemon goes on without.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts shims from the daemon's own binary, through a read-only mount of it.
#[derive(Debug, Clone)]
pub struct Supervisor {
    exe: Arc<OwnedFd>,
    /// A shim that waits for the next container, so that no start waits for a program to be loaded.
    spare: Arc<Mutex<Option<Shim>>>,
}

/// A shim without a container; dropped, it ends.
#[derive(Debug)]
pub struct Shim {
    pub(crate) socket: OwnedFd,
    pub(crate) process: Spawned,
    /// How many files it may open.
    files: Rlimit,
    resolver: Option<Resolver>,
}

/// A process that was spawned, and is reaped whenever it ends.
#[derive(Debug)]
pub(crate) struct Spawned {
    kill: Arc<Notify>,
    ended: watch::Receiver<()>,
    kill_on_drop: bool,
}

impl Spawned {
    fn new(mut child: tokio::process::Child) -> Self {
        let kill = Arc::new(Notify::new());
        let killed = Arc::clone(&kill);
        let (sender, ended) = watch::channel(());
        // A daemon that is gone by then leaves the reaping to init.
        tokio::spawn(async move {
            let _ended = sender;
            tokio::select! {
                _ = child.wait() => return,
                () = killed.notified() => {}
            }
            // Fails only if it is gone already.
            let _ = child.kill().await;
        });
        Self {
            kill,
            ended,
            kill_on_drop: false,
        }
    }

    /// Its life is this handle's from now on. Returns what ends it sooner.
    pub(crate) fn kill_on_drop(&mut self) -> Arc<Notify> {
        self.kill_on_drop = true;
        Arc::clone(&self.kill)
    }

    fn is_alive(&self) -> bool {
        // An error means that it has been reaped.
        self.ended.has_changed().is_ok()
    }

    /// Waits for its end.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        // An error means that nobody will send: it has been reaped.
        async move { while ended.changed().await.is_ok() {} }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.kill_on_drop {
            self.kill.notify_one();
        }
    }
}

impl Shim {
    /// Its container, if it has a network namespace made ahead, will have a resolver from its first instruction on. With one
    /// that is made with the container, [`Task::resolver`] does after the launch: questions wait in the sockets meanwhile.
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self {
            resolver: Some(resolver),
            ..self
        }
    }

    /// Starts a container. `network` is its namespace if one was made ahead; `configure` is called with the namespace that
    /// is made with a user namespace. `clients` see the container from its first byte. What happens to it later arrives
    /// on `events`.
    ///
    /// Returns when the container's program runs, with the cgroup's warnings.
    pub async fn launch(
        self,
        mut launch: Launch,
        network: Option<OwnedFd>,
        clients: Vec<(Attach, OwnedFd)>,
        configure: impl AsyncFnOnce(OwnedFd) -> Result<(), String>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Task, Vec<String>), Error> {
        let (task, mut networks) = Task::connect(self.socket, events)?;
        let (attaches, connections): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
        launch.clients = attaches
            .into_iter()
            .map(|attach| attach_request(attach, None))
            .collect();
        let sockets = match self.resolver {
            Some(resolver) => {
                launch.resolver = Some(resolver.settings);
                vec![resolver.udp, resolver.tcp]
            }
            None => Vec::new(),
        };
        let fds = network.iter().chain(&connections).chain(&sockets);
        let fds: Vec<_> = fds.map(OwnedFd::as_fd).collect();
        let request = Request::Launch(Box::new(launch));
        let reply = task.call(&request, &fds);
        let configured = async {
            if let Some(namespace) = networks.recv().await {
                let result = configure(namespace).await;
                task.tell(&Request::NetworkReady(result)).await;
            }
            std::future::pending::<()>().await;
        };
        let reply = tokio::select! {
            reply = reply => reply?,
            () = configured => return Err(Error::Lost),
        };
        match reply {
            Reply::Started { pid, warnings } => {
                task.started(pid);
                Ok((task, warnings))
            }
            _ => Err(Error::Lost),
        }
    }
}

/// An adopted shim, and what it says of its container.
pub(crate) type Adopted = (Task, Option<State>);

impl Supervisor {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            exe: Arc::new(exe::protected()?),
            spare: Arc::default(),
        })
    }

    /// Starts a shim that waits for its container: the part of a start that needs nothing known of it.
    pub async fn shim(&self) -> Result<Shim, Error> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Somebody may have killed it meanwhile, or changed the daemon's limit, which shims and containers inherit.
        let is_good = |spare: &Shim| spare.process.is_alive() && spare.files == getrlimit(Resource::Nofile);
        if let Some(spare) = spare.filter(is_good) {
            return Ok(spare);
        }
        let supervisor = self.clone();
        supervisor.blocking(Self::spawn).await
    }

    /// Has a shim ready for the next start. It ends with the daemon if it gets no container.
    pub fn prepare(&self) {
        let supervisor = self.clone();
        tokio::spawn(supervisor.blocking(|supervisor| {
            let spare = || supervisor.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare().is_none() {
                let ready = supervisor.spawn()?;
                spare().get_or_insert(ready);
            }
            Ok(())
        }));
    }

    /// Copies files of a container. `fds`: the container's first process if it runs, then the archive's pipe if the operation
    /// has one. The process that does it is killed when `until` is ready; `guard` is dropped when it has ended.
    pub async fn files(
        &self,
        request: FilesRequest,
        fds: Vec<OwnedFd>,
        until: impl Future<Output = ()> + Send + 'static,
        guard: impl Send + 'static,
    ) -> Result<Files, Error> {
        let files = Files::start(self.shim().await?, request, fds, until, guard).await;
        self.prepare();
        files
    }

    /// Loading a program takes a millisecond that no other container shall wait for.
    async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let _runtime = runtime.enter();
            work(&self)
        });
        done.await.map_err(io::Error::other)?
    }

    /// Connects to the shim of a container that an earlier daemon started. [`Error::Lost`] if there is none.
    ///
    /// Of a shim that does not answer soon, because it is stopped or makes its container only now, nothing is known: where
    /// things stand comes as [`Event::Found`] when it does.
    pub async fn adopt(&self, run_dir: &Path, events: mpsc::UnboundedSender<Event>) -> Result<Adopted, Error> {
        let socket = connect(run_dir).map_err(|_| Error::Lost)?;
        let (task, _) = Task::connect(socket, events.clone())?;
        let mut asking = tokio::spawn(ask(task.clone()));
        if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut asking).await {
            return Ok((task, Some(answer.map_err(io::Error::other)??)));
        }
        tokio::spawn(async move {
            if let Ok(Ok(state)) = asking.await {
                // Nobody listens any more: there is a newer connection, or the daemon ends.
                let _ = events.send(Event::Found(Box::new(state)));
            }
        });
        Ok((task, None))
    }

    /// Whether a shim has taken this run directory. It listens there, or is about to.
    pub fn is_taken(run_dir: &Path) -> io::Result<bool> {
        lock(run_dir).map(|lock| matches!(lock, Lock::Taken))
    }

    /// Removes the run directory of a container that has no shim, so that none can take it any more. False if one has.
    pub fn clear(run_dir: &Path) -> io::Result<bool> {
        match lock(run_dir)? {
            Lock::Taken => Ok(false),
            Lock::Absent => Ok(true),
            Lock::Ours(lock) => {
                std::fs::remove_dir_all(run_dir)?;
                drop(lock);
                Ok(true)
            }
        }
    }

    fn spawn(&self) -> Result<Shim, Error> {
        let (ours, theirs) = packet::pair()?;
        // Nothing that keeps the standard library from posix_spawn(3): to fork is to copy the daemon's page tables, and to have
        // it copy every page that it writes until the shim's execve. Its working directory, the shim leaves by itself.
        let mut command = tokio::process::Command::new(exe::path_of(&self.exe));
        command.arg0("ferry").arg("shim").env_clear();
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(false);
        let files = getrlimit(Resource::Nofile);
        let process = Spawned::new(command.spawn()?);
        rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
        Ok(Shim {
            socket: ours,
            process,
            files,
            resolver: None,
        })
    }
}

async fn ask(task: Task) -> Result<State, Error> {
    match task.call(&Request::State, &[]).await? {
        Reply::State(state) => {
            task.started(state.pid);
            task.speaks(state.version);
            Ok(state)
        }
        _ => Err(Error::Lost),
    }
}

/// The lock that a shim has on its run directory.
enum Lock {
    Taken,
    Ours(OwnedFd),
    /// There is no directory.
    Absent,
}

fn lock(run_dir: &Path) -> io::Result<Lock> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(run_dir, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Lock::Absent),
        opened => opened?,
    };
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(Lock::Taken),
        locked => Ok(locked.map(|()| Lock::Ours(dir))?),
    }
}

fn connect(run_dir: &Path) -> io::Result<OwnedFd> {
    let (address, _directory) = socket_address(run_dir)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    match has_ended(rustix::net::sockopt::socket_peercred(&socket)?.pid) {
        true => Err(io::ErrorKind::ConnectionRefused.into()),
        false => Ok(socket),
    }
}

/// Whether a process has ended. A child that it was about to make a container of may hold its socket still, and answers nobody.
fn has_ended(pid: Pid) -> bool {
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Readable when it has ended (pidfd_open(2)).
        Ok(process) => {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default())).is_ok_and(|count| count > 0)
        }
        Err(error) => error == Errno::SRCH,
    }
}
