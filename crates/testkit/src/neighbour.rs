//! Another host on a wire to the daemon's.

use std::path::PathBuf;

use crate::command::Run;
use crate::daemon::TestDaemon;
use crate::namespace::{Kinds, Namespace};

/// A network namespace beside the daemon's, joined to it by a veth pair: `NET.1` is the daemon's side, `NET.2` the neighbour's.
/// Dropped before the daemon, it takes the wire away.
#[derive(Debug)]
pub struct Neighbour {
    namespace: Namespace,
    host: PathBuf,
    link: String,
    net: String,
}

impl Neighbour {
    /// `link` is the name of the daemon's side and `net` the first three numbers of the wire's addresses, `198.51.100` say.
    #[track_caller]
    pub fn new(daemon: &TestDaemon, link: &str, net: &str) -> Self {
        let dir = daemon.dir().join(link);
        std::fs::create_dir_all(&dir).unwrap();
        let neighbour = Self {
            namespace: Namespace::new(&dir, Kinds::default(), ""),
            host: daemon.network(),
            link: link.to_owned(),
            net: net.to_owned(),
        };
        let id = neighbour.namespace.id();
        neighbour
            .on_the_host(&format!(
                "ip link add {link} type veth peer name wire netns {id}; ip addr add {net}.1/24 dev {link}; ip link set {link} up"
            ))
            .ok();
        neighbour
            .run(&format!("ip addr add {net}.2/24 dev wire; ip link set wire up"))
            .ok();
        neighbour
    }

    /// Its address, and the daemon's on this wire.
    pub fn address(&self) -> String {
        format!("{}.2", self.net)
    }

    pub fn host_address(&self) -> String {
        format!("{}.1", self.net)
    }

    /// A shell command there.
    #[track_caller]
    pub fn run(&self, script: &str) -> Run {
        let enter = self.namespace.enter();
        Run::new(&enter[0]).args(&enter[1..]).args(["sh", "-ec", script])
    }

    fn on_the_host(&self, script: &str) -> Run {
        let net = format!("--net={}", self.host.display());
        Run::new("nsenter").args([&net, "--", "sh", "-ec", script])
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // The daemon's namespace may be gone before it, and the wire with that.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.on_the_host(&format!("ip link del {}", self.link)).output()
        }));
    }
}
