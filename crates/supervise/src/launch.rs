//! What a shim needs to know to start its container.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ferry_cgroup::Hierarchy;
use ferry_runtime::Plan;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp};
use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::logging::Logging;
use crate::wire::AttachRequest;

/// Everything about one run of a container. Descriptors travel beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// 64 hex digits.
    pub id: String,
    /// The container's run directory: `shim.sock` lies in it.
    pub run_dir: PathBuf,
    /// Where the exit record goes.
    pub exit_file: PathBuf,
    pub plan: Plan,
    /// A compiled filter, an array of `struct sock_filter`; empty for none.
    pub seccomp: Vec<u8>,
    pub rootfs: Rootfs,
    pub hierarchy: Hierarchy,
    /// Below the hierarchy's root, for instance `ferry/<id>`.
    pub cgroup: String,
    pub resources: LinuxResources,
    pub stdin: Stdin,
    pub log: Option<Logging>,
    pub network: Network,
    /// Clients that see the container from its first byte. Their connections come after the network namespace.
    #[serde(default)]
    pub clients: Vec<AttachRequest>,
    /// The settings of its resolver, whose sockets are the last two descriptors; see [`Resolver`].
    #[serde(default)]
    pub resolver: Option<PathBuf>,
    /// Ports of the host's that the shim listens at from before the program runs.
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// How its health is looked after, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<HealthCheck>>,
    /// Who makes the container's processes, if it is not the shim itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Box<Runtime>>,
}

/// An OCI runtime other than Ferry's own: a program with runc's command line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Runtime {
    /// As the user calls it.
    pub name: String,
    pub path: PathBuf,
    /// Before those of each command.
    pub args: Vec<String>,
    /// Of the configuration, in the place of [`Launch::seccomp`].
    pub seccomp: Option<LinuxSeccomp>,
    pub annotations: BTreeMap<String, String>,
}

/// A port of the host's, served by the container's shim: what comes there goes on to a port of the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Relay {
    pub protocol: RelayProtocol,
    pub listen: SocketAddr,
    pub to: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelayProtocol {
    Tcp,
    Udp,
}

impl std::fmt::Display for RelayProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What a shim answers its container's questions about names with.
#[derive(Debug)]
pub struct Resolver {
    /// A file with [`ferry_dns::Settings`]. It and the zones it names are read again when they have changed, so they are
    /// replaced by renaming.
    pub settings: PathBuf,
    /// Bound in the container's network namespace.
    pub udp: OwnedFd,
    /// The same, listening.
    pub tcp: OwnedFd,
}

/// The layers of the container's root.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rootfs {
    /// Read-only, top first.
    pub layers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The writable layer goes with the container, so nothing of it need reach the disk.
    pub volatile: bool,
    /// Show the layers to the container's user namespace as its own.
    pub idmap: Option<IdMap>,
}

/// A range of host ids that a container's ids 0 to `count` - 1 are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub start: u32,
    pub count: u32,
}

/// What becomes of the container's standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// /dev/null.
    #[default]
    Closed,
    /// Open as long as the container runs.
    Open,
    /// Closed when the first attached client's input ends.
    Once,
}

/// Where the container's network namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's (or whatever the plan joins).
    Host,
    /// Made ahead; its descriptor comes with the launch.
    Given,
    /// Made with the container's user namespace and handed to the daemon, which sets it up before the container goes on.
    New,
}
