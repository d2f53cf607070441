//! Execs: made, started, looked at. Their processes are the container's actor's business.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ferry_api::exec::{Create, Created, Inspect, ProcessConfig, Start};
use ferry_kit::Id;
use ferry_supervise::Attach;
use futures_util::future::BoxFuture;

use super::actor::Command;
use super::archive;
use super::handle::Handle;
use super::state::Verb;
use crate::error::{Error, Result};
use crate::world::World;

/// How long the exit code of a finished exec can be asked for.
const MEMORY: Duration = Duration::from_secs(300);
/// And of how many at most: the latest ones. One is a kilobyte.
const REMEMBERED: usize = 4096;

/// All execs, by id.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, Arc<Entry>>,
    /// Those that have ended, in that order, and when they are forgotten.
    ended: VecDeque<(Instant, String)>,
}

/// One exec. What changes of it is behind a lock that is never held for long.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: String,
    pub container: Handle,
    pub request: Create,
    /// `ctrl-p,ctrl-q` and the like, as bytes.
    detach_keys: Vec<u8>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Made,
    /// Somebody has asked for its start; nobody else may.
    Starting,
    Running {
        pid: i32,
    },
    Ended {
        code: i32,
    },
}

impl Execs {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, entry: Arc<Entry>) {
        let mut kept = self.kept();
        let now = Instant::now();
        while let Some((expires, id)) = kept.ended.pop_front() {
            if expires > now && kept.ended.len() < REMEMBERED {
                kept.ended.push_front((expires, id));
                break;
            }
            kept.entries.remove(&id);
        }
        kept.entries.insert(entry.id.clone(), entry);
    }

    pub fn remove(&self, id: &str) {
        self.kept().entries.remove(id);
    }

    /// Forgets an exec that has ended after a while.
    pub fn expire(&self, id: &str) {
        let mut kept = self.kept();
        if kept.entries.contains_key(id) {
            kept.ended.push_back((Instant::now() + MEMORY, id.to_owned()));
        }
    }

    fn find(&self, id: &str) -> Result<Arc<Entry>> {
        let entry = self.kept().entries.get(id).cloned();
        entry.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }
}

impl Entry {
    pub fn command_line(&self) -> String {
        // As in Docker's events: the program, a space, the arguments.
        match self.request.cmd.as_deref() {
            Some([program, arguments @ ..]) => format!("{program} {}", arguments.join(" ")),
            _ => String::new(),
        }
    }

    pub fn started(&self, pid: i32) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended before its start was answered.
        if matches!(*progress, Progress::Starting) {
            *progress = Progress::Running { pid };
        }
    }

    pub fn ended(&self, code: i32) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Progress::Ended { code };
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn create(world: &Arc<World>, handle: &Handle, request: Create) -> Result<Created> {
    let record = &handle.snapshot().record;
    record.run.status.permit(Verb::Exec, &record.name, &record.id)?;
    if request.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    archive::check_user(world, handle, &request.user).await?;
    let keys = (!request.detach_keys.is_empty()).then_some(request.detach_keys.as_str());
    let detach_keys = crate::signal::detach_keys(keys)?;
    let id = Id::random().to_string();
    let entry = Entry {
        id: id.clone(),
        container: handle.clone(),
        request,
        detach_keys,
        progress: Mutex::new(Progress::Made),
    };
    let entry = Arc::new(entry);
    handle.ask(|reply| Command::AddExec { entry, reply }).await?;
    Ok(Created { id })
}

/// An exec that may be started, once.
#[derive(Debug)]
pub struct ExecStart {
    entry: Arc<Entry>,
    /// What the client says of it, which need not be true: then a terminal's output has headers.
    pub tty: bool,
    /// The client does not stay for the output.
    pub detach: bool,
    size: Option<(u16, u16)>,
}

impl ExecStart {
    /// Starts the process; `client` is the connection that sees it from its first byte.
    pub fn run(self, client: Option<(OwnedFd, Vec<u8>)>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let request = &self.entry.request;
            let client = client.map(|(connection, already_read)| {
                let attach = Attach {
                    stdin: request.attach_stdin,
                    stdout: request.attach_stdout,
                    stderr: request.attach_stderr,
                    framed: Some(!self.tty),
                    detach_keys: if request.tty {
                        self.entry.detach_keys.clone()
                    } else {
                        Vec::new()
                    },
                    already_read,
                };
                (attach, connection)
            });
            let (entry, size) = (Arc::clone(&self.entry), self.size);
            self.entry
                .container
                .ask(|reply| Command::RunExec {
                    entry,
                    size,
                    client,
                    reply,
                })
                .await
        })
    }
}

pub(super) fn start(world: &World, id: &str, request: &Start) -> Result<ExecStart> {
    let entry = world.execs.find(id)?;
    let record = &entry.container.snapshot().record;
    record.run.status.permit(Verb::Exec, &record.name, &record.id)?;
    let mut progress = entry.progress.lock().unwrap_or_else(PoisonError::into_inner);
    match *progress {
        Progress::Made => *progress = Progress::Starting,
        Progress::Starting | Progress::Running { .. } => {
            return Err(Error::conflict(format!("exec command {id} is already running")));
        }
        Progress::Ended { .. } => {
            return Err(Error::conflict(format!("exec command {id} has already run")));
        }
    }
    drop(progress);
    let size = request.console_size.or(entry.request.console_size);
    Ok(ExecStart {
        tty: request.tty,
        detach: request.detach,
        size: size.and_then(|[rows, columns]| Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))),
        entry,
    })
}

pub(super) fn inspect(world: &World, id: &str) -> Result<Inspect> {
    let entry = world.execs.find(id)?;
    let request = &entry.request;
    let (program, arguments) = match request.cmd.as_deref() {
        Some([program, arguments @ ..]) => (program.clone(), arguments.to_vec()),
        _ => (String::new(), Vec::new()),
    };
    let (running, exit_code, pid) = match entry.progress() {
        Progress::Made => (false, None, 0),
        Progress::Starting => (true, None, 0),
        Progress::Running { pid } => (true, None, pid),
        Progress::Ended { code } => (false, Some(i64::from(code)), 0),
    };
    Ok(Inspect {
        id: entry.id.clone(),
        running,
        exit_code,
        process_config: Some(ProcessConfig {
            tty: request.tty,
            entrypoint: program,
            arguments: Some(arguments),
            privileged: Some(request.privileged),
            user: request.user.clone(),
        }),
        open_stdin: request.attach_stdin,
        open_stderr: request.attach_stderr,
        open_stdout: request.attach_stdout,
        can_remove: !running && exit_code.is_some(),
        container_id: entry.container.id().to_owned(),
        detach_keys: Some(String::new()),
        pid: i64::from(pid),
    })
}

pub(super) async fn resize(world: &World, id: &str, rows: u16, columns: u16) -> Result<()> {
    let entry = world.execs.find(id)?;
    let exec = Some(entry.id.clone());
    entry
        .container
        .ask(|reply| Command::Resize {
            exec,
            rows,
            columns,
            reply,
        })
        .await
}
