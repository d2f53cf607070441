//! AppArmor: which profile confines a container's processes. Without another one, Docker's: `docker-default`, which the engine
//! has loaded when it starts, unless it is loaded already.
//!
//! As with Docker, a host has AppArmor if its kernel does and the compiler of profiles is installed (apparmor_parser(8)).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::sync::OnceCell;

use crate::container::Record;
use crate::error::{Error, Kind};

pub(crate) const DEFAULT: &str = "docker-default";
const UNCONFINED: &str = "unconfined";
const SOURCE: &str = include_str!("apparmor/docker-default");
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const COMPILER: &str = "/sbin/apparmor_parser";

/// What this host has of it.
#[derive(Debug)]
pub(crate) struct AppArmor {
    enabled: bool,
    /// Set once the profile for those that ask for none is loaded.
    default: OnceCell<()>,
}

impl AppArmor {
    pub fn detect() -> Self {
        // In a container of another engine's, profiles are not ours to load.
        let nested = std::env::var_os("container").is_some();
        let kernel = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'));
        Self {
            enabled: kernel && !nested && Path::new(LOADED).exists() && Path::new(COMPILER).exists(),
            default: OnceCell::new(),
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Loads the default profile, which takes the compiler a moment, before a container waits for it.
    pub async fn prepare(&self) {
        if self.enabled
            && let Err(why) = self.loaded().await
        {
            tracing::error!("AppArmor is enabled, and the profile {DEFAULT} could not be loaded: {why}");
        }
    }

    /// To be called before a start: a container that is to be confined does not run without.
    pub async fn ready(&self, record: &Record) -> crate::error::Result<()> {
        if self.of(record).as_deref() != Some(DEFAULT) {
            return Ok(());
        }
        self.loaded().await.map_err(|why| {
            Error::new(
                Kind::Internal,
                format!(
                    "AppArmor is enabled, and the profile {DEFAULT} could not be loaded: {why}; with --security-opt \
                 apparmor=unconfined the container goes without"
                ),
            )
        })
    }

    /// The profile of a container's processes; `None` if they are not confined.
    pub fn of(&self, record: &Record) -> Option<String> {
        if !self.enabled {
            return None;
        }
        match given(record) {
            Some(UNCONFINED) => None,
            Some(profile) => Some(profile.to_owned()),
            None if record.host_config.privileged => None,
            None => Some(DEFAULT.to_owned()),
        }
    }

    /// As `inspect` shows it.
    pub fn shown(&self, record: &Record) -> String {
        match (self.of(record), given(record)) {
            (Some(profile), _) => profile,
            (None, Some(given)) => given.to_owned(),
            (None, None) if self.enabled => UNCONFINED.to_owned(),
            (None, None) => String::new(),
        }
    }

    /// What to say about a profile that nothing enforces.
    pub fn warning(&self, record: &Record) -> Option<String> {
        let profile = given(record).filter(|profile| !self.enabled && *profile != UNCONFINED)?;
        Some(format!(
            "This host has no AppArmor: the container is not confined by the profile {profile}"
        ))
    }

    async fn loaded(&self) -> Result<(), String> {
        let load = || async {
            let done = tokio::task::spawn_blocking(load).await;
            done.unwrap_or_else(|error| Err(error.to_string()))
        };
        self.default.get_or_try_init(load).await.copied()
    }
}

/// The last `--security-opt apparmor=` counts.
fn given(record: &Record) -> Option<&str> {
    let options = record.host_config.security_opt.iter().flatten();
    let mut given = options.filter_map(|option| match option.split_once(['=', ':']) {
        Some(("apparmor", profile)) if !profile.is_empty() => Some(profile),
        _ => None,
    });
    given.next_back()
}

fn load() -> Result<(), String> {
    let listed = std::fs::read_to_string(LOADED).unwrap_or_default();
    if listed.lines().any(|line| line.split(' ').next() == Some(DEFAULT)) {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("{COMPILER}: {error}");
    let mut child = Command::new(COMPILER)
        .args(["--skip-cache", "--replace"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // One that does not read it says why not.
    let given = child.stdin.take().map(|mut input| input.write_all(SOURCE.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => given.transpose().map(drop).map_err(failed),
        false => Err(format!(
            "{COMPILER}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
