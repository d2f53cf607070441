//! Files of a container as tar streams: `docker cp`.
//!
//! A process of its own does it inside the container's file system (rule D3). Of a running container that is the live view:
//! bind mounts and tmpfs included, /proc, /sys and /dev left out. Of one that does not run it is the writable layer on its
//! image with the bind mounts, mounted for the time being, and nobody else may mount it then.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_api::container::PathStat;
use ferry_runtime::plan::User;
use ferry_supervise::{FileStat, Files, FilesError, FilesRequest, FilesView, Operation, Task};
use futures_util::future::BoxFuture;
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::actor::Command;
use super::handle::{Handle, Snapshot};
use super::{Containers, files, plan};
use crate::error::{Error, Kind, Result, StartFailure};
use crate::volumes::Transfer;
use crate::world::World;

/// What the kernel lets a pipe hold (`/proc/sys/fs/pipe-max-size`, unless changed).
const PIPE: usize = 1 << 20;
/// One piece of an archive.
const CHUNK: usize = 256 * 1024;
/// How long the container's own /etc/passwd may take to be read.
const LOOK: Duration = Duration::from_secs(2);
/// How long a start waits for copies that are under way before it ends them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who uses a container's files: a copy shares them while it runs, and has them alone while it does not, as a start does.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilesGate {
    users: Arc<RwLock<()>>,
    /// Ends the copies under way.
    leave: Arc<Notify>,
}

/// Held while files are copied.
#[derive(Debug)]
enum Guard {
    Shared {
        _lock: OwnedRwLockReadGuard<()>,
    },
    Alone {
        _lock: OwnedRwLockWriteGuard<()>,
        /// Mounted as long.
        volumes: Vec<Transfer>,
    },
}

impl FilesGate {
    /// Waits until no copy is under way; one that a client has forgotten about does not keep a container from starting. Fails
    /// if it cannot be ended: the kernel holds it, on a file system that does not answer.
    pub async fn start(&self) -> Result<impl Drop + Send + use<>> {
        let alone = Arc::clone(&self.users).write_owned();
        tokio::pin!(alone);
        if let Ok(guard) = tokio::time::timeout(PATIENCE, &mut alone).await {
            return Ok(guard);
        }
        self.leave.notify_waiters();
        tokio::time::timeout(PATIENCE, alone).await.map_err(|_| {
            Error::new(
                Kind::Start(StartFailure::Setup),
                "files of the container are being copied, and the copy does not end: a file system it reads may hang",
            )
        })
    }
}

/// How an archive is unpacked in a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by something else and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to the container's user, not to whom the archive says.
    pub copy_uid_gid: bool,
}

/// An archive on its way out of a container. Dropped, the copy ends.
#[derive(Debug)]
pub struct Archive {
    pub stat: PathStat,
    files: Files,
    pipe: pipe::Receiver,
}

impl Archive {
    /// The next piece; `None` at the end. An error: the archive is not whole.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = Vec::with_capacity(CHUNK);
        if self.pipe.read_buf(&mut chunk).await? > 0 {
            return Ok(Some(chunk));
        }
        match self.files.answer().await {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// A path as a client gives it, and what its end says.
struct Wanted<'a> {
    given: &'a str,
    clean: PathBuf,
    /// It ends in a slash or a dot: a link there is followed, and a directory must be there.
    directory: bool,
    /// The last component, `.` if that is what was given.
    name: PathBuf,
}

impl<'a> Wanted<'a> {
    fn parse(given: &'a str) -> Result<Self> {
        if given.is_empty() {
            // Docker's very words.
            return Err(Error::invalid("bad parameter: pathcannot be empty"));
        }
        if given.contains('\0') {
            return Err(Error::invalid("bad parameter: path must not contain a NUL byte"));
        }
        let mut clean = PathBuf::from("/");
        for component in Path::new(given).components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        let last = given.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = match (last, clean.file_name()) {
            (".", _) => PathBuf::from("."),
            (_, Some(name)) => PathBuf::from(name),
            (_, None) => PathBuf::from("/"),
        };
        Ok(Self {
            given,
            directory: last == "." || given.ends_with('/'),
            clean,
            name,
        })
    }

    /// As moby names it in errors: clean, but for its end.
    fn shown(&self) -> String {
        let mut shown = self.clean.display().to_string();
        if self.directory && !shown.ends_with('/') {
            shown.push('/');
        }
        if self.name == Path::new(".") {
            shown.push('.');
        }
        shown
    }

    fn failed(&self, container: &str, error: FilesError) -> Error {
        match error {
            FilesError::NotFound => Error::not_found(format!(
                "Could not find the file {} in container {container}",
                self.given
            )),
            error => Error::new(Kind::Internal, format!("lstat {}: {error}", self.shown())),
        }
    }
}

impl Containers {
    pub fn path_stat<'a>(&'a self, container: &'a str, path: &'a str) -> BoxFuture<'a, Result<PathStat>> {
        Box::pin(async move {
            let wanted = Wanted::parse(path)?;
            let handle = self.find(container)?;
            let mut files = begin(&self.world, &handle, &wanted, Operation::Stat, None).await?;
            match files.answer().await? {
                Ok(Some(stat)) => Ok(shown(&wanted, &stat)),
                Ok(None) => Err(ferry_supervise::Error::Lost.into()),
                Err(error) => Err(wanted.failed(container, error)),
            }
        })
    }

    /// `path` and all below it.
    pub fn archive<'a>(&'a self, container: &'a str, path: &'a str) -> BoxFuture<'a, Result<Archive>> {
        Box::pin(async move {
            let wanted = Wanted::parse(path)?;
            let handle = self.find(container)?;
            let failed = |error: io::Error| Error::internal("make a pipe", &error);
            let (ours, theirs) = pipe_pair().map_err(failed)?;
            let pipe = pipe::Receiver::from_owned_fd(ours).map_err(failed)?;
            let name = wanted.name.clone();
            let mut files = begin(&self.world, &handle, &wanted, Operation::Read { name }, Some(theirs)).await?;
            match files.answer().await? {
                Ok(Some(stat)) => {
                    let stat = shown(&wanted, &stat);
                    let record = &handle.snapshot().record;
                    self.world.events.container(record, "archive-path", &[]);
                    Ok(Archive { stat, files, pipe })
                }
                Ok(None) => Err(ferry_supervise::Error::Lost.into()),
                Err(error) => Err(wanted.failed(container, error)),
            }
        })
    }

    /// Unpacks a tar stream into the directory `path`. What was unpacked stays there when this fails.
    pub fn put_archive<'a>(
        &'a self,
        container: &'a str,
        path: &'a str,
        options: PutOptions,
        archive: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let wanted = Wanted::parse(path)?;
            let handle = self.find(container)?;
            let user = handle.snapshot().record.config.user.clone();
            let owner = (options.copy_uid_gid && !user.is_empty()).then_some(User::Named {
                user,
                groups: Vec::new(),
            });
            let failed = |error: io::Error| Error::internal("make a pipe", &error);
            let (theirs, ours) = pipe_pair().map_err(failed)?;
            let mut pipe = pipe::Sender::from_owned_fd(ours).map_err(failed)?;
            let operation = Operation::Write {
                keep_kinds: options.no_overwrite_dir_non_dir,
                owner,
            };
            let mut files = begin(&self.world, &handle, &wanted, operation, Some(theirs)).await?;
            let mut buffer = vec![0; CHUNK];
            let sent = loop {
                match archive.read(&mut buffer).await {
                    Ok(0) => break Ok(()),
                    // It has no more use for what follows: its answer says why.
                    Ok(count) if pipe.write_all(&buffer[..count]).await.is_err() => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            };
            drop(pipe);
            // The client is told of what came first.
            let answer = files.answer().await?;
            if let Err(error) = sent {
                return Err(Error::invalid(format!("read the archive: {error}")));
            }
            match answer {
                Ok(_) => {
                    let record = &handle.snapshot().record;
                    self.world.events.container(record, "extract-to-dir", &[]);
                    Ok(())
                }
                Err(FilesError::NotADirectory) => Err(Error::invalid("extraction point is not a directory")),
                Err(FilesError::ReadOnly) => Err(Error::invalid(read_only(&handle.snapshot(), &wanted.clean))),
                Err(FilesError::Invalid(reason)) => Err(Error::invalid(reason)),
                Err(FilesError::Other(reason)) => Err(Error::new(Kind::Internal, reason)),
                Err(error @ FilesError::NotFound) => Err(wanted.failed(container, error)),
            }
        })
    }
}

/// Refuses a user that the container does not know. What cannot be found out in time is left to whoever runs as that user.
pub(super) async fn check_user(world: &Arc<World>, handle: &Handle, user: &str) -> Result<()> {
    // Numbers that are ids need no entry.
    let id = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<i32>().is_ok();
    if user.is_empty() || user.splitn(2, ':').all(id) {
        return Ok(());
    }
    let user = User::Named {
        user: user.to_owned(),
        groups: Vec::new(),
    };
    let root = Wanted::parse("/")?;
    let look = async {
        let mut files = begin(world, handle, &root, Operation::Lookup(user), None).await?;
        Ok(files.answer().await?)
    };
    match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(Err(FilesError::Invalid(reason)))) => Err(Error::invalid(reason)),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// In moby's words.
fn read_only(snapshot: &Snapshot, path: &Path) -> &'static str {
    let mounts = snapshot.record.mounts.iter();
    match mounts
        .filter(|point| !point.rw)
        .any(|point| path.starts_with(&point.destination))
    {
        true => "mounted volume is marked read-only",
        false => "container rootfs is marked read-only",
    }
}

async fn begin(
    world: &Arc<World>,
    handle: &Handle,
    wanted: &Wanted<'_>,
    operation: Operation,
    pipe: Option<OwnedFd>,
) -> Result<Files> {
    let (view, first, guard) = view(world, handle).await?;
    let request = FilesRequest {
        view,
        path: wanted.clean.clone(),
        directory: wanted.directory,
        operation,
    };
    let leave = Arc::clone(&handle.files().leave);
    let until = async move { leave.notified().await };
    let fds = first.into_iter().chain(pipe).collect();
    Ok(world.supervisor.files(request, fds, until, guard).await?)
}

/// Where the files are now. It stays true as long as the guard is held, but for the end of a container that runs.
async fn view(world: &Arc<World>, handle: &Handle) -> Result<(FilesView, Option<OwnedFd>, Guard)> {
    if handle.snapshot().task.as_ref().is_some_and(Task::is_closed) {
        handle.ask(|reply| Command::Settle { reply }).await?;
    }
    let users = &handle.files().users;
    let shared = Arc::clone(users).read_owned().await;
    if let Some((first, user_namespace)) = first_process(&handle.snapshot()).await? {
        let view = FilesView::Running { user_namespace };
        return Ok((view, Some(first), Guard::Shared { _lock: shared }));
    }
    drop(shared);
    let alone = Arc::clone(users).write_owned().await;
    let snapshot = handle.snapshot();
    let mut guard = Guard::Alone {
        _lock: alone,
        volumes: Vec::new(),
    };
    // Started and published while this waited.
    if let Some((first, user_namespace)) = first_process(&snapshot).await? {
        return Ok((FilesView::Running { user_namespace }, Some(first), guard));
    }
    if snapshot.removed {
        return Err(Error::not_found(format!("No such container: {}", handle.id())));
    }
    files::prepare(&snapshot.record, world)?;
    if let Guard::Alone { volumes, .. } = &mut guard {
        *volumes = Transfer::of_container(world, &snapshot.record).await?;
    }
    let view = FilesView::Stopped {
        rootfs: plan::rootfs(&snapshot.record, world)?,
        mounts: plan::binds(&snapshot.record, world)?,
        readonly: snapshot.record.host_config.readonly_rootfs,
    };
    Ok((view, None, guard))
}

/// The first process of a container that runs, and whether it has a user namespace of its own.
async fn first_process(snapshot: &Snapshot) -> Result<Option<(OwnedFd, bool)>> {
    let (true, Some(task)) = (snapshot.record.run.status.is_live(), &snapshot.task) else {
        return Ok(None);
    };
    let Some(pid) = Pid::from_raw(task.pid()) else {
        return Ok(None);
    };
    let Ok(first) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(None);
    };
    // The number is the container's as long as its shim has not reaped it, and that is asked after it was opened.
    match task.kill(None, 0).await {
        Ok(()) => Ok(Some((first, snapshot.record.ids.is_some()))),
        Err(ferry_supervise::Error::Gone | ferry_supervise::Error::Lost) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reading end first.
fn pipe_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    // Both ends block: the helper's side must, and tokio sees to the daemon's.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // A smaller one does as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
    Ok((read, write))
}

fn shown(wanted: &Wanted<'_>, stat: &FileStat) -> PathStat {
    PathStat {
        name: wanted.name.display().to_string(),
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: go_mode(stat.mode),
        mtime: stat.mtime.into(),
        link_target: stat.target.display().to_string(),
    }
}

/// `st_mode` as Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIR,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let bits = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    let special = bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go);
    special.fold(kind | (mode & 0o777), |mode, bit| mode | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_counts() {
        let parse = |given: &str| {
            let wanted = Wanted::parse(given).unwrap();
            (wanted.shown(), wanted.directory, wanted.name.display().to_string())
        };
        assert_eq!(parse("/data"), ("/data".into(), false, "data".into()));
        assert_eq!(parse("data/f"), ("/data/f".into(), false, "f".into()));
        assert_eq!(parse("/data/"), ("/data/".into(), true, "data".into()));
        assert_eq!(parse("/data/."), ("/data/.".into(), true, ".".into()));
        assert_eq!(parse("."), ("/.".into(), true, ".".into()));
        assert_eq!(parse("/"), ("/".into(), true, "/".into()));
        assert_eq!(parse("/../../etc/x/.."), ("/etc".into(), false, "etc".into()));
        assert!(Wanted::parse("").is_err());
    }

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(go_mode(0o040_755), 2_147_484_141);
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o100_644), 420);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
        assert_eq!(go_mode(0o020_666), (1 << 26) | (1 << 21) | 0o666);
    }
}
