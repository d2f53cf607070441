//! The shim: one thread, one `poll(2)` loop, no tokio. Small, because there is one for every container.
//!
//! ```text
//!            Launch               first process runs            it ends              noted, streams flushed
//! Starting ───────────▶ (failure: reply, exit)  Running ─────────────▶ Ended ──────────────────────────▶ exit
//! ```
//!
//! The descriptors to wait for are computed anew for every `poll` from the state, so no registration can be stale. A shim
//! has a handful of them; an attached client or a running exec adds one to four.
//!
//! Order at an end, for the container and for an exec alike: drain the output into log and clients, write the exit record,
//! tell the daemon, wait until it has noted it (or is not there), end the clients' streams.

mod client;
mod detach;
mod errands;
mod exec;
mod files;
mod foreign;
mod health;
mod log;
mod probing;
mod process;
mod relay;
mod resolver;
mod setup;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_cgroup::Cgroup;
use ferry_runtime::start::{Start, start};
use ferry_runtime::{Failure, Kind};
use ferry_sys::{Child, SingleThreaded, packet};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::SocketFlags;

use self::client::Client;
use self::errands::Errand;
use self::foreign::Foreign;
use self::health::Monitor;
use self::log::Log;
use self::process::{Ended, Process, Streams, ends_of};
use self::relay::Relays;
use self::resolver::{Ready, Resolver};
pub(crate) use self::setup::socket_address;
use self::setup::{claim, hand_over_network, listen, mount_root};
use crate::exit::Exit;
use crate::launch::{Launch, Network, Relay, Stdin};
use crate::wire::{self, AttachRequest, Call, Message, Refusal, Reply, Request, State};

/// The name of the shim's socket in the container's run directory.
pub const SOCKET: &str = "shim.sock";
/// How long a shim waits for the daemon to note an exit, and for slow clients to take the rest.
const LINGER: Duration = Duration::from_secs(10);
/// One read of output: what a pipe holds is 64 KiB.
const CHUNK: usize = 32 * 1024;

/// Runs a shim on the connection that is its standard input, to its end.
pub fn run() -> io::Result<()> {
    let proof = SingleThreaded::check()?;
    rustix::process::chdir("/")?;
    let daemon = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    // Its only descriptor: a shim that gives up on the daemon closes the connection. The output is /dev/null.
    rustix::stdio::dup2_stdin(io::stdout())?;
    // A group of its own, so that a terminal's Ctrl-C at the daemon does not reach it.
    rustix::process::setsid()?;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE] {
        ferry_sys::exec::ignore_signal(signal);
    }
    // It was started by a path in /proc, whose last component is a number.
    rustix::thread::set_name(c"ferry-shim")?;
    // What it forks enters containers; until execve nobody in there may look into it (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let mut buffer = vec![0; packet::MAX];
    let Some((call, fds)) = wire::receive::<Call>(&daemon, &mut buffer)? else {
        return Ok(());
    };
    let launch = match call.request {
        Request::Launch(launch) => launch,
        Request::Files(request) => return files::run(&proof, &daemon, call.id, *request, fds),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the first request must be a launch",
            ));
        }
    };
    let exe = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match Shim::launch(proof, &daemon, *launch, fds, exe) {
        Ok((mut shim, reply)) => {
            let reply = Message::Reply {
                id: call.id,
                result: Ok(reply),
            };
            // A daemon that died meanwhile takes no container with it: the next one finds this shim by its socket.
            let told = wire::send(&daemon, &reply, &[]).and_then(|()| Ok(rustix::io::ioctl_fionbio(&daemon, true)?));
            shim.daemon = told.is_ok().then_some(daemon);
            shim.serve(&mut buffer)
        }
        Err(failure) => wire::send(
            &daemon,
            &Message::Reply {
                id: call.id,
                result: Err(Refusal::Start(failure)),
            },
            &[],
        ),
    }
}

/// Answers questions about names as a shim does for its container, and does nothing else, until `until` can be read.
pub fn answer_names(resolver: crate::Resolver, until: BorrowedFd<'_>) -> io::Result<()> {
    let mut resolver = Resolver::new(&resolver.settings, resolver.udp, resolver.tcp)?;
    let mut buffer = vec![0; packet::MAX];
    loop {
        let mut sources = vec![None];
        let mut fds = vec![PollFd::from_borrowed_fd(until, PollFlags::IN)];
        resolver.wait_for(|ready, fd, flags| {
            sources.push(Some(ready));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        });
        let timeout = resolver.due().and_then(|due| due.try_into().ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        for (source, flags) in sources.into_iter().zip(ready) {
            match source {
                _ if flags.is_empty() => {}
                Some(ready) => resolver.handle(ready, flags, &mut buffer),
                None => return Ok(()),
            }
        }
        resolver.expire();
    }
}

struct Shim {
    proof: SingleThreaded,
    launch: Launch,
    cgroup: Cgroup,
    /// The run directory, locked: as long as it is, the container has a shim.
    _place: OwnedFd,
    listener: OwnedFd,
    daemon: Option<OwnedFd>,
    /// Ready when the kernel has killed for memory.
    oom: Option<OwnedFd>,
    /// The container's first process, then its execs.
    processes: Vec<Process>,
    /// Told or to be told, and not noted yet: told again to the next daemon.
    untold: Vec<Message>,
    /// Calls of the kernel's OOM killer seen so far.
    oom_kills: u64,
    started_at: Timestamp,
    resolver: Option<Resolver>,
    relays: Option<Relays>,
    /// Looks after the health of a container that has a check.
    monitor: Option<Box<Monitor>>,
    /// Makes the container's processes, if it is not this one that does.
    foreign: Option<Box<Foreign>>,
    /// What it is doing.
    errands: Vec<Errand>,
}

/// What a ready descriptor belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Daemon,
    Oom,
    Child(usize),
    Output(usize, usize),
    Input(usize),
    Client(usize, usize),
    Resolver(Ready),
    Relays,
    Health,
    /// A server of logs takes more.
    Log,
    Errand,
}

impl Shim {
    fn launch(
        proof: SingleThreaded,
        daemon: &OwnedFd,
        mut launch: Launch,
        mut fds: Vec<OwnedFd>,
        exe: OwnedFd,
    ) -> Result<(Self, Reply), Failure> {
        let setup = |what: &str, error: io::Error| Failure::setup(what, &error);
        let place = claim(&launch.run_dir, daemon)?;
        // From here on a new daemon finds this container.
        let listener = listen(&launch.run_dir).map_err(|error| setup("listen for the daemon", error))?;
        let network = match launch.network {
            Network::Given if fds.is_empty() => {
                return Err(Failure::new(Kind::Setup, "no network namespace came with the launch"));
            }
            Network::Given => Some(fds.remove(0)),
            Network::Host | Network::New => None,
        };
        let resolver = match &launch.resolver {
            Some(settings) => {
                Some(take_resolver(settings, &mut fds).map_err(|error| setup("start the resolver", error))?)
            }
            None => None,
        };
        let relays = match launch.relays.as_slice() {
            [] => None,
            relays => Some(start_relays(relays).map_err(|error| Failure::new(Kind::Setup, error))?),
        };
        let log = match &launch.log {
            Some(logging) => {
                Some(Log::open(logging).map_err(|error| setup("failed to initialize logging driver", error))?)
            }
            None => None,
        };
        let (cgroup, warnings) = launch.hierarchy.create(&launch.cgroup, &launch.resources)?;
        let cleanup = RemoveOnFailure(Some(&cgroup));
        let (root, _) = mount_root(&proof, &launch.rootfs)?;
        let (io, stdin, outputs) = ends_of(launch.plan.process.terminal, launch.stdin != Stdin::Closed)?;
        let mut attach_network = |child: &Child| hand_over_network(daemon, child);
        let (foreign, started) = match launch.runtime.as_deref() {
            Some(runtime) => {
                let (foreign, started) = Foreign::start(&proof, &launch, runtime, &root, network.as_ref(), &exe, &io)?;
                // Its ends are the container's alone.
                drop(io);
                (Some(Box::new(foreign)), started)
            }
            None => {
                let plan = Start {
                    plan: &launch.plan,
                    root,
                    network,
                    cgroup: Some(&cgroup),
                    io,
                    seccomp: (!launch.seccomp.is_empty()).then(|| launch.seccomp.clone()),
                    init: launch.plan.process.init.then_some(exe),
                    gate: None,
                };
                let network: Option<ferry_runtime::start::Ready<'_>> = match launch.network {
                    Network::New => Some(&mut attach_network),
                    Network::Given | Network::Host => None,
                };
                (None, start(&proof, plan, network)?)
            }
        };
        let mut streams = match started.terminal {
            Some(master) => Streams::of_terminal(master, launch.stdin != Stdin::Closed, log)
                .map_err(|error| setup("set up the terminal", error.into()))?,
            None => Streams::of_pipes(stdin, outputs, launch.stdin == Stdin::Once, log),
        };
        for (request, connection) in launch.clients.iter().zip(fds) {
            // A client that is gone already is no reason not to run.
            let _ = add_client(&mut streams, connection, request);
        }
        // What could fail is done: from here on the container's end is what removes its cgroup.
        std::mem::forget(cleanup);
        let pid = started.child.pid.as_raw_nonzero().get();
        let first = Process {
            exec: None,
            child: started.child,
            streams,
            exit: None,
        };
        let oom = cgroup.oom_watch().ok();
        let started_at = Timestamp::now();
        let check = launch.health.take();
        let monitor = check.map(|check| Box::new(Monitor::new(*check, started_at)));
        let shim = Self {
            proof,
            launch,
            cgroup,
            _place: place,
            listener,
            daemon: None,
            oom,
            processes: vec![first],
            untold: Vec::new(),
            oom_kills: 0,
            started_at,
            resolver,
            relays,
            monitor,
            foreign,
            errands: Vec::new(),
        };
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok((shim, Reply::Started { pid, warnings }))
    }

    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let (sources, ready) = self.wait()?;
            for (source, flags) in sources.into_iter().zip(ready) {
                if !flags.is_empty() {
                    self.handle(source, flags, buffer);
                }
            }
            if let Some(resolver) = &mut self.resolver {
                resolver.expire();
            }
            if let Some(relays) = &mut self.relays {
                relays.expire();
            }
            for process in &mut self.processes {
                process.streams.sweep();
            }
            self.end_errands();
            self.reap();
            self.look_after_health();
            if self.retire() {
                break;
            }
        }
        self.finish();
        Ok(())
    }

    /// Waits until something is ready: what, and how.
    fn wait<'s>(&'s self) -> io::Result<(Vec<Source>, Vec<PollFlags>)> {
        let mut sources = Vec::with_capacity(8);
        let mut fds: Vec<PollFd<'s>> = Vec::with_capacity(8);
        let mut add = |source: Source, fd: BorrowedFd<'s>, flags: PollFlags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        add(Source::Listener, self.listener.as_fd(), PollFlags::IN);
        if let Some(daemon) = &self.daemon {
            add(Source::Daemon, daemon.as_fd(), PollFlags::IN);
        }
        if let Some(oom) = &self.oom {
            add(Source::Oom, oom.as_fd(), PollFlags::IN);
        }
        let (mut held, mut again) = (false, false);
        for (index, process) in self.processes.iter().enumerate() {
            let streams = &process.streams;
            if process.exit.is_none() {
                add(Source::Child(index), process.child.pidfd.as_fd(), PollFlags::IN);
            }
            for (stream, output) in streams.outputs.iter().enumerate() {
                if let (Some(output), false) = (output, streams.is_blocked()) {
                    add(Source::Output(index, stream), output.as_fd(), PollFlags::IN);
                }
            }
            if let (Some(stdin), false) = (&streams.stdin, streams.input.is_empty()) {
                add(Source::Input(index), stdin.as_fd(), PollFlags::OUT);
            }
            for waits in streams.log.iter().flat_map(Log::waits) {
                match waits {
                    Some((server, flags)) => add(Source::Log, server, flags),
                    None => again = true,
                }
            }
            for (number, client) in streams.clients.iter().enumerate() {
                let mut flags = PollFlags::empty();
                if client.reading && streams.takes_input() {
                    flags |= PollFlags::IN;
                }
                if client.is_held() {
                    held = true;
                } else if client.is_behind() {
                    flags |= PollFlags::OUT;
                }
                add(Source::Client(index, number), client.as_fd(), flags);
            }
        }
        let mut timeout = self
            .processes
            .iter()
            .any(|process| process.exit.is_some())
            .then_some(Duration::from_secs(1));
        if again {
            timeout = Some(log::AGAIN);
        }
        if held {
            timeout = Some(client::LOOK);
        }
        if let Some(resolver) = &self.resolver {
            resolver.wait_for(|ready, fd, flags| add(Source::Resolver(ready), fd, flags));
            if let Some(due) = resolver.due() {
                timeout = Some(timeout.unwrap_or(due).min(due));
            }
        }
        if let Some(relays) = &self.relays {
            add(Source::Relays, relays.as_fd(), PollFlags::IN);
            if let Some(due) = relays.due() {
                timeout = Some(timeout.unwrap_or(due).min(due));
            }
        }
        if let Some(monitor) = &self.monitor {
            if let Some((socket, flags)) = monitor.socket() {
                add(Source::Health, socket, flags);
            }
            if let Some(due) = monitor.due_in() {
                timeout = Some(timeout.unwrap_or(due).min(due));
            }
        }
        for errand in &self.errands {
            add(Source::Errand, errand.ready(), PollFlags::IN);
            if let Some(terminal) = errand.terminal() {
                add(Source::Errand, terminal, PollFlags::IN);
            }
        }
        if self.foreign.is_some() {
            timeout = Some(timeout.unwrap_or(errands::LOOK).min(errands::LOOK));
        }
        // What is too long for the kernel is no time-out.
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().map(PollFd::revents).collect();
        Ok((sources, ready))
    }

    fn handle(&mut self, source: Source, flags: PollFlags, buffer: &mut [u8]) {
        match source {
            Source::Listener => self.accept(),
            Source::Daemon => self.hear(buffer),
            Source::Oom => self.note_oom(),
            Source::Child(index) => self.note_exit(index, buffer),
            Source::Output(index, stream) => {
                self.processes[index].streams.pump(stream, &mut buffer[..CHUNK]);
            }
            Source::Input(index) => self.processes[index].streams.feed(),
            Source::Client(index, number) => self.handle_client(index, number, flags, buffer),
            Source::Resolver(ready) => {
                if let Some(resolver) = &mut self.resolver {
                    resolver.handle(ready, flags, buffer);
                }
            }
            Source::Relays => {
                if let Some(relays) = &mut self.relays {
                    relays.handle(buffer);
                }
            }
            // The loop does it.
            Source::Log | Source::Errand => {}
            Source::Health => self.hear_probe(&mut buffer[..CHUNK]),
        }
    }

    fn handle_client(&mut self, index: usize, number: usize, flags: PollFlags, buffer: &mut [u8]) {
        let streams = &mut self.processes[index].streams;
        let Some(client) = streams.clients.get_mut(number) else {
            return;
        };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.intersects(PollFlags::ERR) || (flags.contains(PollFlags::HUP) && !client.reading) {
            client.gone = true;
        } else if flags.intersects(PollFlags::IN | PollFlags::HUP)
            && client.reading
            && streams.read_client(number, &mut buffer[..CHUNK])
        {
            let exec = self.processes[index].exec.clone();
            self.tell(Message::Detached { exec });
        }
    }

    /// A new daemon; the one before is gone or about to be.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(connection) = rustix::net::accept_with(&self.listener, flags) {
            self.daemon = Some(connection);
            self.errands.iter_mut().for_each(Errand::forget_call);
        }
    }

    fn hear(&mut self, buffer: &mut [u8]) {
        let Some(daemon) = &self.daemon else { return };
        match wire::receive::<Call>(daemon, buffer) {
            Ok(Some((call, fds))) => {
                let Some((request, fds)) = self.delegate(call.id, call.request, fds) else {
                    return;
                };
                let result = self.answer(request, fds);
                let tell_again = matches!(result, Ok(Reply::State(_)));
                self.tell(Message::Reply { id: call.id, result });
                if tell_again {
                    for message in std::mem::take(&mut self.untold) {
                        self.tell(message);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Gone, or not speaking this protocol: either way there is no daemon on this connection.
            Ok(None) | Err(_) => self.daemon = None,
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, Refusal> {
        match request {
            Request::State => Ok(Reply::State(self.state())),
            Request::Exec(request) => self.exec(&request, fds),
            Request::Attach(request) => self.attach(&request, fds),
            Request::Kill { exec, signal } => {
                let process = self.process(exec.as_deref()).filter(|process| process.exit.is_none());
                process.ok_or(Refusal::Gone)?.signal(signal)
            }
            Request::Resize { exec, rows, columns } => {
                let process = self.process(exec.as_deref()).ok_or(Refusal::Gone)?;
                match process.streams.resize(rows, columns) {
                    Ok(()) => Ok(Reply::Done),
                    Err(error) => Err(Refusal::Other(error.to_string())),
                }
            }
            Request::Resolver { settings } => {
                let mut fds = fds;
                let resolver = take_resolver(&settings, &mut fds).map_err(|error| Refusal::Other(error.to_string()))?;
                if self.processes.first().is_none_or(|first| first.exit.is_some()) {
                    return Err(Refusal::Gone);
                }
                self.resolver = Some(resolver);
                Ok(Reply::Done)
            }
            Request::Relay(wanted) => {
                if self.processes.first().is_none_or(|first| first.exit.is_some()) {
                    return Err(Refusal::Gone);
                }
                match &mut self.relays {
                    Some(relays) => relays.set(&wanted).map_err(Refusal::Other)?,
                    None if wanted.is_empty() => {}
                    None => self.relays = Some(start_relays(&wanted).map_err(Refusal::Other)?),
                }
                if wanted.is_empty() {
                    self.relays = None;
                }
                Ok(Reply::Done)
            }
            Request::CheckHealth(check) => {
                self.check_health(check);
                Ok(Reply::Done)
            }
            Request::Noted { exec } => {
                self.untold.retain(|message| match (message, &exec) {
                    (Message::Exited(_), None) => false,
                    (Message::ExecExited { exec: told, .. }, Some(noted)) => told != noted,
                    _ => true,
                });
                if let Some(end) = self.process(exec.as_deref()).and_then(|process| process.exit.as_mut()) {
                    end.noted = true;
                }
                Ok(Reply::Done)
            }
            Request::Launch(_) | Request::Files(_) | Request::NetworkReady(_) => {
                Err(Refusal::Other("the container runs already".into()))
            }
        }
    }

    fn state(&self) -> State {
        let number = |process: &Process| process.child.pid.as_raw_nonzero().get();
        let exit = self.untold.iter().find_map(|message| match message {
            Message::Exited(exit) => Some(exit.clone()),
            _ => None,
        });
        let running = self.processes.iter().filter(|process| process.exit.is_none());
        State {
            version: wire::VERSION,
            pid: self.processes.first().map_or(0, number),
            started_at: Some(self.started_at),
            resolver: self.resolver.is_some(),
            exit,
            execs: running
                .filter_map(|process| Some((process.exec.clone()?, number(process))))
                .collect(),
            health: self.monitor.as_ref().map(|monitor| monitor.health.clone()),
        }
    }

    fn process(&mut self, exec: Option<&str>) -> Option<&mut Process> {
        self.processes
            .iter_mut()
            .find(|process| process.exec.as_deref() == exec)
    }

    fn attach(&mut self, request: &AttachRequest, mut fds: Vec<OwnedFd>) -> Result<Reply, Refusal> {
        let fd = fds
            .pop()
            .ok_or_else(|| Refusal::Other("no connection came with the request".into()))?;
        let exec = request.exec.clone();
        let process = self.process(exec.as_deref()).ok_or(Refusal::Gone)?;
        let detached = add_client(&mut process.streams, fd, request)?;
        if detached {
            self.tell(Message::Detached { exec });
        }
        Ok(Reply::Done)
    }

    fn note_oom(&mut self) {
        if let Some(oom) = &self.oom {
            // Both kinds of watch are emptied by reading.
            let _ = rustix::io::read(oom, &mut [0; 512]);
        }
        let kills = self.cgroup.oom_kills().unwrap_or(0);
        if kills > self.oom_kills {
            self.oom_kills = kills;
            self.tell(Message::Oom);
        }
    }

    fn note_exit(&mut self, index: usize, buffer: &mut [u8]) {
        let process = &mut self.processes[index];
        let code = match process.child.wait(false) {
            Ok(Some(exit)) => exit.code(),
            Ok(None) => return,
            // Nobody else reaps our children; if it is gone all the same, it did not end well.
            Err(_) => 255,
        };
        process.streams.drain(&mut buffer[..CHUNK]);
        if self.note_probe_exit(index, code) {
            return;
        }
        let process = &mut self.processes[index];
        process.exit = Some(Ended {
            since: Instant::now(),
            noted: false,
        });
        let message = match process.exec.clone() {
            Some(exec) => Message::ExecExited { exec, code },
            None => {
                // Nobody is left to ask, and its sockets keep the namespace.
                self.resolver = None;
                // Nor to visit, and the next run wants the ports.
                self.relays = None;
                self.monitor = None;
                let kills = self.cgroup.oom_kills().unwrap_or(0);
                if kills > self.oom_kills {
                    self.oom_kills = kills;
                    self.tell(Message::Oom);
                }
                let exit = Exit {
                    code,
                    oom_killed: kills > 0,
                    at: Timestamp::now(),
                    reason: None,
                };
                // A disk that takes no record must not keep the daemon from hearing of the exit.
                let _ = exit.write(&self.launch.exit_file);
                Message::Exited(exit)
            }
        };
        self.tell(message);
    }

    /// Drops processes that are done with; true when the container itself is.
    fn retire(&mut self) -> bool {
        let daemon = self.daemon.is_some();
        let done = |process: &Process| {
            process.exit.as_ref().is_some_and(|end| {
                let overdue = end.since.elapsed() > LINGER;
                (end.noted || !daemon || overdue) && (!process.streams.is_blocked() || overdue)
            })
        };
        if self.processes.first().is_none_or(done) {
            return true;
        }
        self.processes
            .retain(|process| process.exec.is_none() || !done(process));
        false
    }

    /// The container is over: nothing of it is left.
    fn finish(&mut self) {
        // Only a container that shares a PID namespace can have processes left.
        let _ = self.cgroup.kill(libc::SIGKILL);
        self.drop_errands();
        if let Some(mut foreign) = self.foreign.take() {
            foreign.delete(&self.proof);
        }
        self.processes.clear();
        let _ = self.cgroup.remove();
        let _ = std::fs::remove_file(self.launch.run_dir.join(SOCKET));
    }

    fn tell(&mut self, message: Message) {
        let kept = matches!(message, Message::Exited(_) | Message::ExecExited { .. });
        if let Some(daemon) = &self.daemon {
            match wire::send(daemon, &message, &[]) {
                Ok(()) => {}
                // A daemon that does not read its socket is as good as none; the next one is told what matters.
                Err(_) => self.daemon = None,
            }
        }
        if kept {
            self.untold.push(message);
        }
    }
}

fn start_relays(wanted: &[Relay]) -> Result<Relays, String> {
    let mut relays = Relays::new().map_err(|error| format!("serve ports of the host's: {error}"))?;
    relays.set(wanted)?;
    Ok(relays)
}

/// Makes a resolver of the last two descriptors.
fn take_resolver(settings: &Path, fds: &mut Vec<OwnedFd>) -> io::Result<Resolver> {
    match (fds.pop(), fds.pop()) {
        (Some(tcp), Some(udp)) => Resolver::new(settings, udp, tcp),
        _ => Err(io::Error::other("its sockets did not come with the request")),
    }
}

fn add_client(streams: &mut Streams, fd: OwnedFd, request: &AttachRequest) -> Result<bool, Refusal> {
    let mut client = Client::new(fd, request, streams.terminal).map_err(|error| Refusal::Other(error.to_string()))?;
    if !request.stdin {
        client.reading = false;
    }
    streams.clients.push(client);
    if request.stdin && !request.already_read.is_empty() {
        return Ok(streams.give_client(streams.clients.len() - 1, &request.already_read));
    }
    Ok(false)
}

/// Removes a cgroup whose container did not come to run.
struct RemoveOnFailure<'a>(Option<&'a Cgroup>);

impl Drop for RemoveOnFailure<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0 {
            // A container that runs already, and cannot be served, goes too.
            let _ = cgroup.kill(libc::SIGKILL);
            let _ = cgroup.remove();
        }
    }
}
