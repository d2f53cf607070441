//! Where the attacks take place: namespaces of their own, with a file system in memory that goes with them.
//!
//! ```text
//! ferry self-test ── clone(mounts, pids, network, ipc, uts) ──▶ the lab, PID 1 of all containers
//!       │  waits; on a signal kills the lab, and with it everything in it        │
//!       └─ removes the mount point and the control groups                        └─ /run/ferry-self-test-PID: tmpfs
//! ```
//! What the attacks reach for are things of the lab (`host/`, its own network's parameters): even a runtime that lets every
//! attack through does no harm to the machine. Nothing is written through what an attack has got hold of; that it could be
//! is seen from opening it.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_sys::mount::{Attributes, Mount, PRIVATE, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::thread::CapabilitySet;

use crate::error::{During as _, Result};

/// In a file of the "host" that no container may ever see.
pub(crate) const CANARY: &str = "ferry-self-test-canary-of-the-host";
/// A supplementary group of whoever calls the runtime; no container may have it.
pub(crate) const GROUP: u32 = 54321;
/// Descriptors a careless caller of the runtime has open, all on the "host".
pub(crate) const LEAKED: std::ops::Range<i32> = 3..20;

/// The lab, seen from inside.
#[derive(Debug)]
pub(crate) struct Lab {
    pub dir: PathBuf,
    state: PathBuf,
    /// The runtime under attack, and what comes before its own arguments.
    pub runtime: Vec<OsString>,
    /// Containers are set up wrongly on purpose.
    pub wrong: bool,
    /// How long a race lasts.
    pub race: Duration,
    /// The name of this test's control groups.
    pub mark: String,
    count: Cell<u32>,
    /// Not close-on-exec: see [`LEAKED`].
    _leaked: Vec<OwnedFd>,
}

/// What the lab is made for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub dir: PathBuf,
    /// This binary.
    pub exe: PathBuf,
    /// Another runtime.
    pub runtime: Option<PathBuf>,
    pub wrong: bool,
    pub race: Duration,
    pub mark: String,
}

impl Lab {
    /// Sets the lab up, in namespaces that are already its own.
    pub fn enter(plan: &Plan) -> Result<Self> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(|| "open /")?;
        let private = Attributes {
            propagation: PRIVATE,
            recursive: true,
            ..Attributes::default()
        };
        set_attributes(root.as_fd(), private, None).during(|| "make the mounts private")?;
        attach(
            &Mount::new("proc", &[], 0).during(|| "mount a /proc")?,
            Path::new("/proc"),
        )?;
        let tmpfs = Mount::new("tmpfs", &[("mode", "755")], 0).during(|| "mount a tmpfs")?;
        attach(&tmpfs, &plan.dir)?;

        drop((root, tmpfs));
        // Copies: whatever an attack could do to the runtime's file it does to this one.
        let copy = |from: &Path, to: &Path| fs::copy(from, to).during(|| format!("copy {}", from.display()));
        let (probe, program) = (plan.dir.join("probe"), plan.dir.join("runtime"));
        copy(&plan.exe, &probe)?;
        let runtime = match &plan.runtime {
            Some(path) => {
                copy(path, &program)?;
                vec![program.into()]
            }
            None => {
                fs::hard_link(&probe, &program).during(|| "link the runtime")?;
                vec![program.into(), "runtime".into()]
            }
        };
        let host = plan.dir.join("host");
        fs::create_dir(&host).during(|| "make a directory")?;
        fs::write(host.join("canary"), CANARY).during(|| "write the canary")?;
        let state = plan.dir.join("runtime-state/state");
        let leaked = leak(&host)?;
        carry_too_much()?;
        Ok(Self {
            dir: plan.dir.clone(),
            state,
            runtime,
            wrong: plan.wrong,
            race: plan.race,
            mark: plan.mark.clone(),
            count: Cell::new(0),
            _leaked: leaked,
        })
    }

    /// A name that was not used yet.
    pub fn fresh(&self, what: &str) -> String {
        self.count.set(self.count.get() + 1);
        format!("{what}-{}", self.count.get())
    }

    /// Where the runtime keeps its state.
    pub fn state(&self) -> &std::ffi::OsStr {
        self.state.as_os_str()
    }

    /// A directory of the "host", with the canary in it.
    pub fn host(&self) -> PathBuf {
        self.dir.join("host")
    }

    /// A fresh directory, such as a volume would be.
    pub fn volume(&self) -> Result<PathBuf> {
        let path = self.dir.join(self.fresh("volume"));
        fs::create_dir(&path).during(|| "make a volume")?;
        Ok(path)
    }

    /// What is wrong with the "host", if anything is: it has to be as it was made.
    pub fn host_changed(&self) -> Result<Option<String>> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(self.host()).during(|| "list the host's directory")? {
            let name = entry.during(|| "list the host's directory")?.file_name();
            seen.push(name.to_string_lossy().into_owned());
        }
        let canary = fs::read(self.host().join("canary")).unwrap_or_default();
        if seen == ["canary"] && canary == CANARY.as_bytes() {
            return Ok(None);
        }
        // For the next attack it is as it was again.
        for name in &seen {
            let path = self.host().join(name);
            if fs::remove_file(&path).is_err() {
                let _ = fs::remove_dir_all(&path);
            }
        }
        fs::write(self.host().join("canary"), CANARY).during(|| "write the canary")?;
        seen.retain(|name| name != "canary");
        Ok(Some(match seen.as_slice() {
            [] => "a file of the host was changed".to_owned(),
            made => format!("made on the host: {}", made.join(", ")),
        }))
    }

    /// Calls `round` for the time of a race, at least three times, until it finds something.
    pub fn rounds(&self, round: &mut dyn FnMut() -> Result<Option<String>>) -> Result<Option<String>> {
        let end = Instant::now() + self.race;
        let mut count = 0;
        while count < 3 || Instant::now() < end {
            count += 1;
            if let Some(finding) = round()? {
                return Ok(Some(format!("in round {count}: {finding}")));
            }
        }
        Ok(None)
    }
}

/// Plays rounds while two names are exchanged as fast as that goes.
pub(crate) fn racing(
    lab: &Lab,
    one: &Path,
    other: &Path,
    round: &mut dyn FnMut() -> Result<Option<String>>,
) -> Result<Option<String>> {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(relaxed) {
                let _ = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
            }
        });
        let result = lab.rounds(round);
        stop.store(true, relaxed);
        result
    })
}

fn attach(mount: &Mount, path: &Path) -> Result<()> {
    let what = || format!("mount {}", path.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(path, flags, Mode::empty()).during(what)?;
    mount.attach(target.as_fd()).during(what)
}

/// Opens a directory of the host on descriptors that programs inherit.
fn leak(host: &Path) -> Result<Vec<OwnedFd>> {
    let what = || "open the host's directory";
    let directory = rustix::fs::open(
        host,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(what)?;
    let mut leaked = Vec::new();
    for number in LEAKED {
        if number == directory.as_raw_fd() {
            continue;
        }
        // The lowest free number from there on, and without close-on-exec.
        let fd = rustix::io::fcntl_dupfd_cloexec(&directory, number).during(what)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).during(what)?;
        leaked.push(fd);
    }
    rustix::io::fcntl_setfd(&directory, rustix::io::FdFlags::empty()).during(what)?;
    leaked.push(directory);
    Ok(leaked)
}

/// Takes on what a container must not inherit: a supplementary group, and inheritable capabilities.
fn carry_too_much() -> Result<()> {
    let group = rustix::fs::Gid::from_raw(GROUP);
    rustix::thread::set_thread_groups(&[group]).during(|| "take on a supplementary group")?;
    let what = || "make capabilities inheritable";
    let mut sets = rustix::thread::capabilities(None).during(what)?;
    sets.inheritable = sets.permitted & (CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_ADMIN);
    rustix::thread::set_capabilities(None, sets).during(what)
}
