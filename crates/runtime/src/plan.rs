//! What a container's first process needs, decided before anything is done.
//!
//! A [`Plan`] is plain data: it travels to the shim as JSON and prints as text. It names host objects by path (bind
//! sources, namespaces to join); descriptors come in beside it, in [`crate::start::Start`].

pub mod devices;
mod options;
mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use options::{Mode, parse as parse_options};

use ferry_sys::mount::Attributes;

use crate::hooks::{self, Hook};

/// Everything that [`crate::init`] does, in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub namespaces: Namespaces,
    /// Inside a new UTS namespace only.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Hidden: a directory under an empty read-only tmpfs, a file under /dev/null.
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub readonly_root: bool,
    /// What the root becomes when it is `/`; without it private.
    pub root_propagation: Option<Propagation>,
    /// `net.ipv4.ip_forward` style keys.
    pub sysctls: Vec<(String, String)>,
    pub process: Process,
    /// What only the OCI runtime's command line asks for.
    #[serde(default)]
    pub lifecycle: Lifecycle,
}

/// The parts of a start that Ferry's own engine has no use for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Run in the container's namespaces before the root changes, by paths of the host.
    pub create_container: Vec<Hook>,
    /// Run in the container just before the program, by paths of the container.
    pub start_container: Vec<Hook>,
    /// The environment of those hooks that have none of their own: that of the runtime's caller.
    #[serde(default)]
    pub hook_env: Vec<String>,
    /// What those hooks read.
    pub creating: hooks::State,
    pub created: hooks::State,
    /// Keep the caller's session keyring instead of a new one.
    #[serde(default)]
    pub keep_keyring: bool,
    /// Where the root is on the host. In the container's mount namespace it is mounted there until it becomes `/`, for hooks
    /// and for bind mounts whose source an earlier mount has made. Without it nobody sees it before.
    #[serde(default)]
    pub root_path: Option<PathBuf>,
    /// The container has no mount namespace of its own: its root is attached on the host already, and only chroot(2) is left.
    #[serde(default)]
    pub shares_mounts: bool,
    /// What the host's mounts are to this container: of a bind mount that names no propagation, and of what is mounted in the
    /// root on the host. Without it private.
    #[serde(default)]
    pub host_propagation: Option<Propagation>,
    /// Move the root over the host's and chroot(2), for hosts that run from a ramdisk (rootfs), where pivot_root fails.
    pub no_pivot: bool,
    /// Make the devices in the image's own /dev when no mount covers it.
    pub own_dev: bool,
    /// The SELinux context of the container's own file systems.
    #[serde(default)]
    pub mount_label: Option<String>,
}

/// How mounts and unmounts spread between copies of a mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`.
    pub mode: u64,
    /// Of one mount only, not of those below it.
    pub top: bool,
}

/// Which namespaces are made and which are joined.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `CLONE_NEW*` flags for `clone3`; without `CLONE_NEWCGROUP`, see `cgroup`.
    pub create: u64,
    /// Unshared after the process is in its cgroup, so that this becomes the namespace's root.
    pub cgroup: bool,
    /// Joined before anything else: the flag and the path of the namespace file.
    pub join: Vec<(u64, PathBuf)>,
    /// For a new user namespace: (inside, outside, count).
    pub uids: Vec<(u32, u32, u32)>,
    pub gids: Vec<(u32, u32, u32)>,
    /// For a new time namespace: the clock's name, seconds, nanoseconds.
    #[serde(default)]
    pub time_offsets: Vec<(String, i64, u32)>,
}

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub target: PathBuf,
    pub source: Source,
    #[serde(with = "attributes")]
    pub attributes: Attributes,
    /// Of a bind mount, what of its attributes was asked for against the source's: those cleared by name, and `ATIME` where an
    /// access time was chosen.
    #[serde(default)]
    pub explicit: u64,
    /// Of the mount and what is mounted below, `MS_*`; 0 for what [`Lifecycle::host_propagation`] says.
    pub propagation: u64,
    /// Only of the mount itself.
    #[serde(default)]
    pub propagation_top: bool,
    /// Copy what the image has at the target into a new tmpfs.
    pub copy_up: bool,
    /// Attributes of this mount and of all below it (`rro`, `rnosuid`, …), set after `attributes`.
    #[serde(default, with = "attributes")]
    pub below: Attributes,
    /// Shows a bind mount's files with other owners (Linux 5.12).
    #[serde(default)]
    pub idmap: Option<IdMap>,
    /// What of a bind mount's path is mounted: resolved below it, and no link leads out of there.
    #[serde(default)]
    pub subpath: PathBuf,
}

/// Which owners an id-mapped mount shows: (inside, outside, count), as in a user namespace. Without any: those of the user
/// namespace that the container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub uids: Vec<(u32, u32, u32)>,
    pub gids: Vec<(u32, u32, u32)>,
    /// What is mounted below, too (`ridmap`).
    pub recursive: bool,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A new instance of a file system.
    New {
        kind: String,
        options: Vec<(String, String)>,
    },
    /// A host path, with what is mounted below it if `recursive`; opened by the shim with the host's credentials.
    Bind { path: PathBuf, recursive: bool },
    /// Layers of an image, top first; laid over each other by the shim with the host's credentials.
    Layers {
        layers: Vec<PathBuf>,
        /// Where what is written goes; without it, nothing can be.
        #[serde(default)]
        upper: Option<Upper>,
    },
    /// The container's own cgroups, laid out as this machine's hierarchy is.
    Cgroup,
}

/// A writable layer and its work directory, on one file system. Nobody else mounts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    pub dir: PathBuf,
    pub work: PathBuf,
}

/// A device node in the container's /dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The program and who it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    /// Make `cwd` if it is not there (Docker does, the OCI specification does not).
    pub make_cwd: bool,
    pub user: User,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub umask: Option<u32>,
    /// Standard streams are a pseudo-terminal of the container's own devpts.
    pub terminal: bool,
    /// Rows and columns the terminal starts with.
    pub size: Option<(u16, u16)>,
    /// PID 1 is Ferry's own init, which reaps and forwards signals; the program is its child.
    pub init: bool,
    #[serde(default)]
    pub kernel: Attached,
}

/// What the kernel keeps with a process, and few containers set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub scheduler: Option<Scheduler>,
    /// Class (`IOPRIO_CLASS_*`) and priority, 0 to 7.
    pub io_priority: Option<(u32, u32)>,
    /// `PER_*`.
    pub personality: Option<u64>,
    /// `MPOL_*` with its flags, and the nodes as a bit mask.
    #[serde(default)]
    pub memory_policy: Option<(u32, Vec<u64>)>,
    /// The CPUs it may run on, once it is in the container.
    pub cpus: Vec<u32>,
    /// Profile that `execve` changes to.
    pub apparmor: Option<String>,
    /// Label that `execve` changes to.
    pub selinux: Option<String>,
}

/// As sched_setattr(2) takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// The credentials of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    Ids {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// `user[:group]` as Docker takes it, names or numbers, looked up in the container's own /etc/passwd and /etc/group.
    Named {
        user: String,
        groups: Vec<String>,
    },
}

impl Default for User {
    fn default() -> Self {
        Self::Ids {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }
}

/// Masks by capability number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// A resource limit; `u64::MAX` is "unlimited".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, … without `RLIMIT_`, lower case.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

mod attributes {
    use super::Attributes;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(value: &Attributes, serializer: S) -> Result<S::Ok, S::Error> {
        (value.set, value.clear, value.propagation, value.recursive).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Attributes, D::Error> {
        let (set, clear, propagation, recursive) = <(u64, u64, u64, bool)>::deserialize(deserializer)?;
        Ok(Attributes {
            set,
            clear,
            propagation,
            recursive,
        })
    }
}
