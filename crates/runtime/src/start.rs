//! The parent's side of a start: open what only the host may open, clone once, hear how it went.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_cgroup::{Birth, Cgroup};
use ferry_sys::clone::{self, Options};
use ferry_sys::mount::Mount;
use ferry_sys::{Child, SingleThreaded, packet};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use crate::birth;
use crate::failure::{During as _, Failure, Kind};
use crate::init::{self, FAILURE, LISTENER, MOUNTED, OFFSETS, READY, SOURCE, TERMINAL};
use crate::namespace::{self, CLONE_NEWTIME, CLONE_NEWUSER};
use crate::plan::{self, Namespaces, Plan, Source};
use crate::source;

/// The standard streams of a new process.
#[derive(Debug)]
pub enum Io {
    Streams {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's devpts; its master comes back in [`Started`].
    Terminal {
        /// It makes no carriage returns (`ONLCR`): whoever copies it has a terminal that does.
        plain: bool,
    },
}

/// What goes into a container beside its plan.
#[derive(Debug)]
pub struct Start<'a> {
    pub plan: &'a Plan,
    /// What becomes `/`: a detached mount.
    pub root: Mount,
    /// The network namespace to join, if one was made ahead.
    pub network: Option<OwnedFd>,
    pub cgroup: Option<&'a Cgroup>,
    pub io: Io,
    /// A compiled seccomp filter, an array of `struct sock_filter`.
    pub seccomp: Option<Vec<u8>>,
    /// Ferry's own binary, for `--init`.
    pub init: Option<OwnedFd>,
    /// Start in two steps, as an OCI runtime does: [`start()`] then returns when everything is ready but the program.
    pub gate: Option<Gate<'a>>,
}

/// The second step of a start, [`open`](crate::gate::open)ed by another process later.
pub struct Gate<'a> {
    /// A listening `SOCK_SEQPACKET` socket on which the first process waits.
    pub listener: OwnedFd,
    /// Runs when the container's mounts are made and its root is not yet `/`: where the host's hooks belong.
    pub mounted: Option<Ready<'a>>,
    /// Takes the descriptor for seccomp notifications, where the filter has any.
    pub notify: Option<Notify<'a>>,
    /// Descriptors from 3 on that the program keeps.
    pub keep_fds: u32,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub seccomp_flags: u32,
}

impl std::fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// A container's running first process.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
}

/// The descriptors the child starts with; all of them close on exec.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub root: Option<Mount>,
    /// One a step of [`Plan::mounts`]; only bind mounts have one.
    pub sources: Vec<Option<Mount>>,
    pub cgroup: CgroupView,
    /// cgroup v1: the `tasks` file of each hierarchy.
    pub cgroup_tasks: Vec<OwnedFd>,
    pub network: Option<OwnedFd>,
    pub join: Vec<(&'static str, OwnedFd)>,
    pub io: Io,
    pub seccomp: Option<Vec<u8>>,
    pub init: Option<OwnedFd>,
    /// The child waits for a word of the parent before it goes on.
    pub wait: bool,
    /// It waits for another one when its mounts are made.
    pub wait_mounted: bool,
    pub gate: Option<Waiting>,
}

/// The child's part of a [`Gate`].
#[derive(Debug)]
pub(crate) struct Waiting {
    pub listener: OwnedFd,
    pub keep_fds: u32,
    pub seccomp_flags: u32,
}

/// What the container sees at /sys/fs/cgroup.
#[derive(Debug)]
pub(crate) enum CgroupView {
    None,
    /// cgroup v2 in a cgroup namespace.
    Unified,
    /// The whole hierarchy of cgroup v2, as the host sees it.
    Host(Mount),
    /// One bind mount a controller, by the name of its directory.
    Controllers(Vec<(String, Mount)>),
}

/// What the parent does while the child waits.
pub type Ready<'a> = &'a mut dyn FnMut(&Child) -> Result<(), Failure>;

/// Starts the container. `ready` runs when the child exists and, in a new user namespace, is mapped; the child goes on
/// when it returns. Without `ready` and without a user namespace nobody waits for anybody.
///
/// Returns when the program runs. On failure the child is dead and reaped.
pub fn start(proof: &SingleThreaded, start: Start<'_>, ready: Option<Ready<'_>>) -> Result<Started, Failure> {
    let plan = start.plan;
    let spaces = &plan.namespaces;
    let (ours, theirs) = packet::pair().during(|| "make a socket pair")?;
    let needs_mapping = !spaces.uids.is_empty() && spaces.create & CLONE_NEWUSER != 0;
    let Birth { into, tasks } = start.cgroup.map_or_else(|| Ok(Birth::default()), Cgroup::birth)?;
    let (gate, mut mounted, mut notify) = match start.gate {
        Some(gate) => {
            let waiting = Waiting {
                listener: gate.listener,
                keep_fds: gate.keep_fds,
                seccomp_flags: gate.seccomp_flags,
            };
            (Some(waiting), gate.mounted, gate.notify)
        }
        None => (None, None, None),
    };
    let mut prepared = Prepared {
        root: Some(start.root),
        sources: open_sources(proof, plan)?,
        cgroup: cgroup_view(plan, start.cgroup)?,
        cgroup_tasks: tasks,
        network: start.network,
        join: open_namespaces(spaces)?,
        io: start.io,
        seccomp: start.seccomp,
        init: start.init,
        wait: needs_mapping || ready.is_some(),
        wait_mounted: mounted.is_some(),
        gate,
    };
    let (wait, waits) = (prepared.wait, prepared.gate.is_some());
    let options = Options {
        namespaces: spaces.create & !CLONE_NEWTIME,
        cgroup: into.as_ref().map(AsFd::as_fd),
        sibling: false,
    };
    let Some(child) = birth::child(proof, &mut prepared, &options)? else {
        drop(ours);
        let mut channel = Channel::new(&theirs);
        let failure = init::run(proof, plan, prepared, &mut channel);
        report(channel.fd(), &failure);
        clone::exit_now(1);
    };
    drop((prepared, theirs));
    let guard = Guard(Some(child));
    let child = guard.child()?;
    if let Some(adjustment) = plan.process.oom_score_adj {
        adjust_oom_score(child, adjustment);
    }
    if needs_mapping {
        map_ids(child, spaces)?;
    }
    if let Some(ready) = ready {
        ready(child)?;
    }
    if wait {
        packet::send(&ours, b"g", &[]).during(|| "let the container go on")?;
    }
    let mut at_mounts = || match mounted.as_mut() {
        Some(mounted) => mounted(child),
        None => Ok(()),
    };
    let mut at_source = |index| open_inside(proof, child, plan, index);
    let mut at_offsets = || set_offsets(child, spaces);
    let answers = Answers {
        mounted: Some(&mut at_mounts),
        source: Some(&mut at_source),
        offsets: Some(&mut at_offsets),
        notify: answering(notify.as_mut(), child),
    };
    let (terminal, ready) = outcome(ours.as_fd(), answers)?;
    if waits && !ready {
        return Err(Failure::new(
            Kind::Setup,
            "the container's process died before it was ready",
        ));
    }
    Ok(Started {
        child: guard.release()?,
        terminal,
    })
}

/// Kills and reaps the child unless it is released.
struct Guard(Option<Child>);

impl Guard {
    fn child(&self) -> Result<&Child, Failure> {
        self.0
            .as_ref()
            .ok_or_else(|| Failure::new(Kind::Setup, "the child is gone"))
    }

    fn release(mut self) -> Result<Child, Failure> {
        self.0
            .take()
            .ok_or_else(|| Failure::new(Kind::Setup, "the child is gone"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // Both fail only if the child is gone already, which is what they are for.
            let _ = child.signal(libc::SIGKILL);
            let _ = child.wait(true);
        }
    }
}

/// Whom the child tells how it goes: its parent, and from the start on whoever asked for that.
pub(crate) struct Channel<'a> {
    parent: &'a OwnedFd,
    starter: Option<OwnedFd>,
}

impl<'a> Channel<'a> {
    pub fn new(parent: &'a OwnedFd) -> Self {
        Self { parent, starter: None }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.starter.as_ref().unwrap_or(self.parent).as_fd()
    }

    /// From here on the parent may be gone.
    pub fn hand_over(&mut self, starter: OwnedFd) {
        self.starter = Some(starter);
    }
}

/// Tells the parent why there will be no program.
pub(crate) fn report(to: BorrowedFd<'_>, failure: &Failure) {
    let mut bytes = vec![FAILURE];
    bytes.extend(failure.to_bytes());
    // A parent that is gone cannot be told.
    let _ = packet::send(to, &bytes, &[]);
}

/// Hands on the descriptor by which notified system calls of process `pid` are answered.
pub type Notify<'a> = &'a mut dyn FnMut(Pid, OwnedFd) -> Result<(), Failure>;

/// What the child may ask for on its way.
#[derive(Default)]
pub(crate) struct Answers<'a> {
    /// Its mounts are made.
    pub mounted: Option<&'a mut dyn FnMut() -> Result<(), Failure>>,
    /// The source of the mount of that number.
    pub source: Option<&'a mut dyn FnMut(usize) -> Result<Mount, Failure>>,
    /// The offsets of its time namespace.
    pub offsets: Option<&'a mut dyn FnMut() -> Result<(), Failure>>,
    /// Somebody to answer seccomp notifications; with the child's pidfd.
    pub notify: Option<(BorrowedFd<'a>, Notify<'a>)>,
}

/// Who answers the notifications of `child`.
pub(crate) fn answering<'a>(
    notify: Option<&'a mut Notify<'_>>,
    child: &'a Child,
) -> Option<(BorrowedFd<'a>, Notify<'a>)> {
    notify.map(|notify| (child.pidfd.as_fd(), &mut **notify as Notify<'a>))
}

/// Waits until `execve` closes the child's end, or it waits at its gate (true), or a failure arrives.
pub(crate) fn outcome(sync: BorrowedFd<'_>, mut answers: Answers<'_>) -> Result<(Option<OwnedFd>, bool), Failure> {
    let unexpected = || Failure::new(Kind::Setup, "the container's process asked for something unexpected");
    let mut terminal = None;
    let mut buffer = [0; 4096];
    loop {
        let (length, mut fds) = packet::receive(sync, &mut buffer).during(|| "hear from the container's process")?;
        match &buffer[..length] {
            [] => return Ok((terminal, false)),
            [READY, ..] => return Ok((terminal, true)),
            [TERMINAL, ..] => terminal = fds.pop(),
            [MOUNTED, ..] => {
                answers.mounted.as_mut().ok_or_else(unexpected)?()?;
                packet::send(sync, b"g", &[]).during(|| "let the container go on")?;
            }
            [OFFSETS, ..] => {
                answers.offsets.as_mut().ok_or_else(unexpected)?()?;
                packet::send(sync, b"g", &[]).during(|| "let the container go on")?;
            }
            [SOURCE, number @ ..] => {
                let number = <[u8; 4]>::try_from(number).map_err(|_| unexpected())?;
                let index = usize::try_from(u32::from_ne_bytes(number)).map_err(|_| unexpected())?;
                let source = answers.source.as_mut().ok_or_else(unexpected)?(index)?;
                packet::send(sync, b"g", &[source.as_fd()]).during(|| "hand over the source of a mount")?;
            }
            [LISTENER, number @ ..] => {
                let what = || "take over the seccomp listener";
                let number = <[u8; 4]>::try_from(number).map_or(-1, i32::from_ne_bytes);
                let Some((pidfd, notify)) = answers.notify.as_mut() else {
                    return Err(Failure::new(Kind::Setup, "nobody expects a seccomp listener"));
                };
                let flags = rustix::process::PidfdGetfdFlags::empty();
                let listener = rustix::process::pidfd_getfd(*pidfd, number, flags).during(what)?;
                notify(birth::number(*pidfd).during(what)?, listener)?;
                packet::send(sync, b"g", &[]).during(what)?;
            }
            [FAILURE, rest @ ..] => return Err(Failure::from_bytes(rest)),
            _ => {
                return Err(Failure::new(
                    Kind::Setup,
                    "the container's process sent something unknown",
                ));
            }
        }
    }
}

fn open_sources(proof: &SingleThreaded, plan: &Plan) -> Result<Vec<Option<Mount>>, Failure> {
    let inside = |path: &Path| {
        plan.lifecycle
            .root_path
            .as_ref()
            .is_some_and(|root| path.starts_with(root))
    };
    let open = |step: &plan::Mount| match &step.source {
        // What earlier mounts make of it is seen by the child alone, which asks for it in its turn.
        Source::Bind { path, .. } if inside(path) => Ok(None),
        _ => open_source(proof, plan, step),
    };
    plan.mounts.iter().map(open).collect()
}

/// What a step shows of the host's, complete and attached nowhere; `None` for one that makes a file system of its own.
pub fn open_source(proof: &SingleThreaded, plan: &Plan, step: &plan::Mount) -> Result<Option<Mount>, Failure> {
    match &step.source {
        Source::Bind { .. } => open_bind(proof, plan, step).map(Some),
        Source::Layers { layers, upper } => open_layers(proof, step, layers, upper.as_ref()).map(Some),
        Source::New { .. } | Source::Cgroup => Ok(None),
    }
}

fn open_bind(proof: &SingleThreaded, plan: &Plan, step: &plan::Mount) -> Result<Mount, Failure> {
    let spaces = &plan.namespaces;
    let Source::Bind { path, recursive } = &step.source else {
        return Err(Failure::new(Kind::Setup, "only bind mounts have a source"));
    };
    let joins_user = spaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWUSER);
    let in_user_namespace = joins_user || spaces.create & CLONE_NEWUSER != 0;
    let host = plan.lifecycle.host_propagation;
    let mount = source::open(step, path, *recursive, host, in_user_namespace)?;
    if let Some(map) = &step.idmap {
        let what = || format!("map the owners of {}", step.target.display());
        let joined = spaces.join.iter().find(|(flag, _)| *flag == CLONE_NEWUSER);
        let namespace = match joined.filter(|_| map.uids.is_empty()) {
            Some((_, path)) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during(what)?,
            None => birth::user_namespace(proof, &map.uids, &map.gids)?,
        };
        mount.idmap(namespace.as_fd(), map.recursive).during(what)?;
    }
    Ok(mount)
}

/// The layers of an image as one mount, with the owners that its id map shows.
fn open_layers(
    proof: &SingleThreaded,
    step: &plan::Mount,
    layers: &[PathBuf],
    upper: Option<&plan::Upper>,
) -> Result<Mount, Failure> {
    let user = step
        .idmap
        .as_ref()
        .map(|map| birth::user_namespace(proof, &map.uids, &map.gids))
        .transpose()?;
    source::layers(proof, step, layers, upper, user.as_ref().map(AsFd::as_fd))
}

/// Opens the source of a bind mount as it is in the child's mount namespace, with the host's credentials.
fn open_inside(proof: &SingleThreaded, child: &Child, plan: &Plan, index: usize) -> Result<Mount, Failure> {
    let step = plan
        .mounts
        .get(index)
        .ok_or_else(|| Failure::new(Kind::Setup, "there is no mount of that number"))?;
    let enter = || {
        rustix::thread::move_into_thread_name_spaces(child.pidfd.as_fd(), ThreadNameSpaceType::MOUNT)
            .during(|| "look into the container's mount namespace")
    };
    source::in_other_mounts(proof, enter, || open_bind(proof, plan, step))
}

/// Of the time namespace that the child has made and nobody is in yet. Not by the child, to whom its own file may not
/// belong.
fn set_offsets(child: &Child, spaces: &Namespaces) -> Result<(), Failure> {
    let lines: Vec<String> = spaces
        .time_offsets
        .iter()
        .map(|(clock, seconds, nanoseconds)| format!("{clock} {seconds} {nanoseconds}\n"))
        .collect();
    write_proc(child, "timens_offsets", &lines.concat()).during(|| "set the time namespace's offsets")
}

/// Lets the calling process run on every CPU its cgroup has, whatever whoever started it was bound to.
pub(crate) fn use_any_cpu() {
    let mut all = rustix::thread::CpuSet::new();
    for cpu in 0..rustix::thread::CpuSet::MAX_CPU {
        all.set(cpu);
    }
    // Refused where a filter or a security module says so: then it stays as it is.
    let _ = rustix::thread::sched_setaffinity(None, &all);
}

fn cgroup_view(plan: &Plan, cgroup: Option<&Cgroup>) -> Result<CgroupView, Failure> {
    let (Some(cgroup), true) = (cgroup, plan.mounts.iter().any(|step| step.source == Source::Cgroup)) else {
        return Ok(CgroupView::None);
    };
    if let Some(hierarchy) = cgroup.v2_root() {
        if plan.namespaces.cgroup {
            return Ok(CgroupView::Unified);
        }
        // A clone and not a mount of its own, which a user namespace may not make of the host's cgroup namespace.
        let mount = Mount::clone_of(hierarchy, Path::new(""), false).during(|| "show the container the cgroups")?;
        return Ok(CgroupView::Host(mount));
    }
    let mut controllers = Vec::new();
    for (name, directory) in cgroup.directories()? {
        let mount = Mount::clone_of(directory.as_fd(), Path::new(""), false)
            .during(|| format!("show the container its {name} cgroup"))?;
        controllers.push((name, mount));
    }
    Ok(CgroupView::Controllers(controllers))
}

/// Checked to be of their kind, which setns(2) without a flag would not.
fn open_namespaces(spaces: &Namespaces) -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let open = |(flag, path): &(u64, std::path::PathBuf)| -> Result<_, Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).during(|| format!("open the namespace {}", path.display()))?;
        let kind = namespace::name(*flag);
        let found = ferry_sys::ns::kind(fd.as_fd()).during(|| format!("look at the namespace {}", path.display()))?;
        if found != Some(*flag) {
            let text = format!("{} is not a {kind} namespace", path.display());
            return Err(Failure::new(Kind::Setup, text));
        }
        Ok((kind, fd))
    };
    let mut namespaces = Vec::new();
    for join in &spaces.join {
        let (kind, fd) = open(join)?;
        namespaces.push((kind, fd));
    }
    Ok(namespaces)
}

/// Writes the id maps of a new user namespace; the host's root may map any range.
fn map_ids(child: &Child, spaces: &Namespaces) -> Result<(), Failure> {
    for (file, map) in [("uid_map", &spaces.uids), ("gid_map", &spaces.gids)] {
        write_proc(child, file, &map_text(map)).during(|| format!("write the container's {file}"))?;
    }
    Ok(())
}

pub(crate) fn map_text(map: &[(u32, u32, u32)]) -> String {
    let lines: Vec<String> = map
        .iter()
        .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"))
        .collect();
    lines.concat()
}

/// Lowering the score takes CAP_SYS_RESOURCE: an engine without it leaves the score, and says so in `info`.
fn adjust_oom_score(child: &Child, adjustment: i32) {
    let _ = write_proc(child, "oom_score_adj", &adjustment.to_string());
}

/// The child is not reaped while its handle lives, so its number cannot mean another process.
pub(crate) fn write_proc(child: &Child, file: &str, text: &str) -> io::Result<()> {
    let path = format!("/proc/{}/{file}", child.pid.as_raw_nonzero());
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, text.as_bytes())?;
    Ok(())
}
