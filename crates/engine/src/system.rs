//! The machine and the engine as `info` and `version` show them.

mod check;
mod disk;
mod info;

use std::net::IpAddr;
use std::sync::Arc;

use ferry_api::system::{Info, Version};

use crate::world::World;

/// Facts about this machine that do not change while the engine runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    /// Major and minor version.
    pub kernel: (u32, u32),
    pub kernel_release: String,
    pub hostname: String,
    pub os_name: String,
    pub os_version: String,
    /// When the engine's binary was made, as RFC 3339.
    pub build_time: String,
}

impl Host {
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok());
        let kernel = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(15));
        let info = rustix::system::sysinfo();
        #[expect(
            clippy::useless_conversion,
            reason = "the field's width differs between architectures"
        )]
        let memory = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory,
            kernel,
            kernel_release: release,
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os_name: os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            os_version: os_release("VERSION_ID").unwrap_or_default(),
            build_time: build_time().unwrap_or_default(),
        }
    }
}

fn build_time() -> Option<String> {
    let made = std::fs::metadata("/proc/self/exe")
        .and_then(|binary| binary.modified())
        .ok()?;
    jiff::Timestamp::try_from(made).ok().map(|at| at.to_string())
}

fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// The engine's own facts.
#[derive(Debug, Clone)]
pub struct System {
    world: Arc<World>,
}

impl System {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// What the engine and its machine are called: an id that stays, and the name of the host.
    pub fn names(&self) -> (&str, &str) {
        (self.world.networks.engine_id(), &self.world.host.hostname)
    }

    /// What `host-gateway` was set to stand for.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.world.config.host_gateways.first().copied()
    }

    pub fn version(&self) -> Version {
        info::version(&self.world)
    }

    pub fn info(&self) -> Info {
        info::info(&self.world)
    }
}
