//! A container whose processes another OCI runtime makes: the runtime's commands, as the shim gives them
//! ([ADR 12](../../../../docs/adr/0012-another-runtime-is-a-program-of-the-shim.md)).
//!
//! ```text
//! create ─▶ the first process waits, the runtime ends, and the process becomes the shim's child (PR_SET_CHILD_SUBREAPER)
//! start  ─▶ the program runs        exec, kill …        delete ─▶ the runtime forgets it
//! ```
//!
//! The bundle is in a tmpfs that only the shim and what it starts can see ([`bundle`]); the runtime's state is there too. So
//! nothing of a run outlives its shim, however that ends, but processes in the container's control group.

mod bundle;
mod report;

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ferry_runtime::errand::{self, Program};
use ferry_runtime::plan::Process;
use ferry_runtime::start::{Io, Started};
use ferry_runtime::{During as _, Failure, Kind, failure_text, spec};
use ferry_sys::{Child, Mount, Root, SingleThreaded, packet};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

use self::bundle::Directory;
use crate::launch::{Launch, Runtime};

/// How long making a container may take; runtimes that start virtual machines take seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the end of a container waits for `delete`.
const DELETE: Duration = Duration::from_secs(10);
/// The only variable a runtime gets: it may call programs of the host's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct Foreign {
    runtime: Runtime,
    id: String,
    directory: Directory,
    /// The same by its descriptor.
    place: OwnedFd,
    rootfs: Root,
    /// Commands so far: their files are told apart by it.
    count: u32,
}

/// A command that runs.
pub(super) struct Running {
    pub child: Child,
    what: &'static str,
    log: PathBuf,
}

/// What a process is to be started with, and where the runtime leaves what it has made.
pub(super) struct Birth {
    pid_file: PathBuf,
    /// What `exec` reads.
    description: Option<PathBuf>,
    /// Listens for the terminal's master.
    console: Option<Console>,
    size: Option<(u16, u16)>,
}

struct Console {
    listener: OwnedFd,
    path: PathBuf,
    connection: Option<OwnedFd>,
    master: Option<OwnedFd>,
}

impl Foreign {
    /// Makes the bundle, and the container up to its program's first instruction. `exe` is Ferry's own binary.
    pub fn start(
        proof: &SingleThreaded,
        launch: &Launch,
        runtime: &Runtime,
        root: &Mount,
        network: Option<&OwnedFd>,
        exe: &OwnedFd,
        io: &Io,
    ) -> Result<(Self, Started), Failure> {
        // What a runtime leaves behind when it ends is the shim's.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .during(|| "become the parent of the container's process")?;
        let bundle = bundle::make(proof, launch, runtime, root, network, exe)?;
        let mut foreign = Self {
            runtime: runtime.clone(),
            id: launch.id.clone(),
            directory: bundle.directory,
            place: bundle.place,
            rootfs: bundle.rootfs,
            count: 0,
        };
        match foreign.create(proof, launch.plan.process.size, io) {
            Ok(started) => Ok((foreign, started)),
            Err(failure) => {
                foreign.delete(proof);
                Err(failure)
            }
        }
    }

    fn create(&mut self, proof: &SingleThreaded, size: Option<(u16, u16)>, io: &Io) -> Result<Started, Failure> {
        let birth = self.birth(matches!(io, Io::Terminal { .. }), size)?;
        let mut line = words(&["create", "--bundle"]);
        line.push(self.directory.0.clone().into());
        line.extend(birth.words());
        let running = self.run(proof, "create", line, &[], io)?;
        running.end(LIMIT)?;
        let started = birth.end()?;
        let running = self.run(proof, "start", words(&["start"]), &[], &none()?)?;
        if let Err(failure) = running.end(LIMIT) {
            let _ = started.child.signal(libc::SIGKILL);
            return Err(failure);
        }
        Ok(started)
    }

    /// Begins `exec`; [`Birth::end`] when it has ended.
    pub fn exec(&mut self, proof: &SingleThreaded, process: &Process, io: &Io) -> Result<(Running, Birth), Failure> {
        let mut birth = self.birth(process.terminal, process.size)?;
        let description = self.directory.0.join(format!("process-{}.json", self.count));
        birth.description = Some(description.clone());
        let value = spec::process(process, &self.rootfs)?;
        std::fs::write(&description, value.to_string()).during(|| "write the process's description")?;
        let mut line = words(&["exec", "--detach", "--process"]);
        line.push(description.into());
        line.extend(birth.words());
        let running = self.run(proof, "exec", line, &[], io)?;
        Ok((running, birth))
    }

    /// Begins `kill`, which signals the container's first process.
    pub fn kill(&mut self, proof: &SingleThreaded, signal: i32) -> Result<Running, Failure> {
        self.run(proof, "kill", words(&["kill"]), &[signal.to_string()], &none()?)
    }

    /// Has the runtime forget a container that is over.
    pub fn delete(&mut self, proof: &SingleThreaded) {
        let words = words(&["delete", "--force"]);
        let running = none().and_then(|io| self.run(proof, "delete", words, &[], &io));
        // What it leaves goes with the bundle and the control group.
        let _ = running.and_then(|running| running.end(DELETE));
    }

    fn birth(&mut self, terminal: bool, size: Option<(u16, u16)>) -> Result<Birth, Failure> {
        self.count += 1;
        let number = self.count;
        Ok(Birth {
            pid_file: self.directory.0.join(format!("pid-{number}")),
            description: None,
            console: terminal
                .then(|| self.console(number))
                .transpose()
                .during(|| "listen for the terminal")?,
            size: size.filter(|_| terminal),
        })
    }

    /// The bundle as anybody reaches it, also after its directory was removed.
    fn by_descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.place.as_raw_fd()))
    }

    fn console(&self, number: u32) -> io::Result<Console> {
        // A socket's path is at most 107 bytes, and the bundle's is longer than that somewhere.
        let path = self.by_descriptor().join(format!("console-{number}"));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        rustix::net::listen(&listener, 1)?;
        Ok(Console {
            listener,
            path,
            connection: None,
            master: None,
        })
    }

    /// Begins a command on this container, whose id comes between `words` and `rest`.
    fn run(
        &mut self,
        proof: &SingleThreaded,
        what: &'static str,
        words: Vec<OsString>,
        rest: &[String],
        io: &Io,
    ) -> Result<Running, Failure> {
        self.count += 1;
        // The daemon may have removed the run directory of a container that is over, and nothing shall be made there again.
        let base = match what {
            "delete" => self.by_descriptor(),
            _ => self.directory.0.clone(),
        };
        let log = base.join(format!("log-{}.json", self.count));
        let mut line: Vec<OsString> = vec![self.runtime.path.clone().into()];
        line.extend(self.runtime.args.iter().map(OsString::from));
        line.extend(["--root".into(), base.join("state").into()]);
        line.extend(["--log".into(), log.clone().into(), "--log-format".into(), "json".into()]);
        line.extend(words);
        line.push(OsString::from(&self.id));
        line.extend(rest.iter().map(OsString::from));
        let args = line.into_iter().map(|word| CString::new(word.into_vec()));
        let args = args.collect::<Result<Vec<_>, _>>();
        let args = args.map_err(|_| Failure::new(Kind::Setup, "an argument of the runtime has a null byte in it"))?;
        let env = [CString::new(PATH).unwrap_or_default()];
        let program = Program {
            path: &args[0],
            args: &args,
            env: &env,
            directory: Some(&base),
        };
        let null;
        let streams = match io {
            Io::Streams { stdin, stdout, stderr } => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Io::Terminal { .. } => {
                null = dev_null()?;
                [null.as_fd(); 3]
            }
        };
        let child = errand::start(proof, program, streams).map_err(|error| {
            let (name, path) = (&self.runtime.name, self.runtime.path.display());
            let reason = failure_text(&error);
            Failure::new(
                Kind::Setup,
                format!("cannot run the runtime {name} ({path}): {reason}: see \"runtimes\" of daemon.json"),
            )
        })?;
        Ok(Running { child, what, log })
    }
}

impl Running {
    /// Waits for the command's end.
    pub fn end(self, limit: Duration) -> Result<(), Failure> {
        match errand::end(&self.child, Some(limit)).during(|| "wait for the runtime")? {
            Some(exit) => self.ended(exit.code()),
            None => Err(Failure::new(
                Kind::Setup,
                format!("OCI runtime {} did not end within {} s", self.what, limit.as_secs()),
            )),
        }
    }

    /// What its exit code means, with the runtime's own words.
    pub fn ended(self, code: i32) -> Result<(), Failure> {
        match code {
            0 => Ok(()),
            code => Err(report::failure(self.what, code, report::read(&self.log))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The next command has a file of its own.
        let _ = std::fs::remove_file(&self.log);
    }
}

impl Birth {
    fn words(&self) -> Vec<OsString> {
        let mut words = vec!["--pid-file".into(), self.pid_file.clone().into()];
        if let Some(console) = &self.console {
            words.extend(["--console-socket".into(), console.path.clone().into()]);
        }
        words
    }

    /// Ready when there is more of the terminal to take.
    pub fn waits(&self) -> Option<BorrowedFd<'_>> {
        let console = self.console.as_ref().filter(|console| console.master.is_none())?;
        Some(console.connection.as_ref().unwrap_or(&console.listener).as_fd())
    }

    /// Takes the terminal as soon as it is there, so that it has its size before the program looks.
    pub fn take_terminal(&mut self) -> io::Result<()> {
        match &mut self.console {
            Some(console) => console.receive(self.size),
            None => Ok(()),
        }
    }

    /// Takes over the process that the runtime has made: it is this process's child since the runtime ended.
    pub fn end(mut self) -> Result<Started, Failure> {
        let what = || "take over the process that the runtime made";
        let text = std::fs::read_to_string(&self.pid_file).during(what)?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Kind::Setup, format!("{}: {text:?} is no process", what())))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).during(what)?;
        let child = Child { pid, pidfd };
        if let Err(error) = self.take_terminal() {
            let _ = child.signal(libc::SIGKILL);
            return Err(Failure::setup("take the terminal that the runtime made", &error));
        }
        let terminal = self.console.as_mut().and_then(|console| console.master.take());
        Ok(Started { child, terminal })
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let console = self.console.as_ref().map(|console| &console.path);
        // The bundle is small, and a container may have very many processes.
        for path in std::iter::once(&self.pid_file).chain(&self.description).chain(console) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Console {
    /// The terminal's master, which the runtime sends before it ends.
    fn receive(&mut self, size: Option<(u16, u16)>) -> io::Result<()> {
        if self.master.is_some() {
            return Ok(());
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?,
        };
        let connection = self.connection.insert(connection);
        // With it comes its path, which nobody needs.
        let (_, mut fds) = packet::receive(connection, &mut [0; 4096])?;
        let master = fds.pop().ok_or_else(|| io::Error::other("no descriptor came"))?;
        if let Some((ws_row, ws_col)) = size {
            let size = rustix::termios::Winsize {
                ws_row,
                ws_col,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        self.master = Some(master);
        Ok(())
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn dev_null() -> Result<OwnedFd, Failure> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).during(|| "open /dev/null")
}

/// The streams of a command that makes no process.
fn none() -> Result<Io, Failure> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().during(|| "open /dev/null");
    let null = dev_null()?;
    Ok(Io::Streams {
        stdin: copy(null.as_fd())?,
        stdout: copy(null.as_fd())?,
        stderr: null,
    })
}
