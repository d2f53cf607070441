//! What containers get that ask for nothing else: dockerd's `default-…` keys and their like.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ferry_engine::config::{Defaults, Ulimit};
use ferry_kit::units::ram_in_bytes;
use serde::Deserialize;

use super::file::File;
use super::settings::Both;

/// A seccomp profile is smaller than this.
const PROFILE_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Clone, Args)]
pub struct DefaultFlags {
    /// Default ulimits for containers, as nofile=1024:2048
    #[arg(long = "default-ulimit", value_name = "ulimit")]
    pub ulimits: Vec<String>,
    /// Default shm size for containers [default: 64MiB]
    #[arg(long = "default-shm-size", value_name = "bytes")]
    pub shm_size: Option<String>,
    /// Default mode for containers cgroup namespace ("host" | "private")
    #[arg(long = "default-cgroupns-mode", value_name = "string")]
    pub cgroupns: Option<String>,
    /// Default mode for containers ipc ("shareable" | "private") [default: private]
    #[arg(long = "default-ipc-mode", value_name = "string")]
    pub ipc: Option<String>,
    /// Run an init in the container to forward signals and reap processes
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub init: Option<bool>,
    /// Set no-new-privileges by default for new containers
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privileges: Option<bool>,
    /// Path to seccomp profile; "unconfined" to disable the default one [default: builtin]
    #[arg(long, value_name = "string")]
    pub seccomp_profile: Option<String>,
    /// "default": containers get a user namespace of their own, unless they share one of the host's
    #[arg(long, value_name = "string")]
    pub userns_remap: Option<String>,
}

/// As in daemon.json: `{"Name": "nofile", "Hard": 2048, "Soft": 1024}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Limit {
    name: String,
    hard: i64,
    soft: i64,
}

/// `"64m"`, or a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Bytes(i64),
    Text(String),
}

pub fn of(flags: DefaultFlags, file: &mut File, both: &mut Both) -> Result<Defaults> {
    let usual = Defaults::default();
    let flag_limits = (!flags.ulimits.is_empty()).then_some(flags.ulimits);
    let file_limits = file.default_ulimits.take().unwrap_or_default();
    let file_limits: BTreeMap<String, Limit> = file_limits;
    let shown = file_limits
        .values()
        .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    let shown: Vec<String> = shown.collect();
    let limits = both.pick("default-ulimits", flag_limits, (!shown.is_empty()).then_some(shown));
    let limits = limits.unwrap_or_default();
    let shm_size = both.pick(
        "default-shm-size",
        flags.shm_size,
        file.default_shm_size.take().map(|size| match size {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Text(text) => text,
        }),
    );
    let cgroupns = both.pick(
        "default-cgroupns-mode",
        flags.cgroupns,
        file.default_cgroupns_mode.take(),
    );
    let ipc = both.pick("default-ipc-mode", flags.ipc, file.default_ipc_mode.take());
    let init = both.pick("init", flags.init, file.init.take());
    let no_new_privileges = both.pick(
        "no-new-privileges",
        flags.no_new_privileges,
        file.no_new_privileges.take(),
    );
    let profile = both.pick("seccomp-profile", flags.seccomp_profile, file.seccomp_profile.take());
    let remap = both.pick("userns-remap", flags.userns_remap, file.userns_remap.take());
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());

    let cgroupns = set(cgroupns);
    if let Some(mode) = cgroupns.as_deref().filter(|mode| !["host", "private"].contains(mode)) {
        bail!("invalid default cgroup namespace ({mode}): use \"host\" or \"private\"");
    }
    let ipc = set(ipc).unwrap_or(usual.ipc);
    if !["shareable", "private"].contains(&ipc.as_str()) {
        bail!("IPC \"{ipc}\" is not supported as default value; use \"shareable\" or \"private\"");
    }
    let own_users = match set(remap).as_deref() {
        None => false,
        Some("default") => true,
        Some(other) => bail!(
            "userns-remap: {other:?} is not there: with \"default\" every container gets a range of ids of its own, as with --userns=auto of run"
        ),
    };
    Ok(Defaults {
        ulimits: limits.iter().map(|text| ulimit(text)).collect::<Result<_>>()?,
        shm_size: match set(shm_size) {
            Some(text) => ram_in_bytes(&text).with_context(|| format!("default-shm-size: {text:?}"))?,
            None => usual.shm_size,
        },
        cgroupns,
        ipc,
        init: init.unwrap_or(false),
        no_new_privileges: no_new_privileges.unwrap_or(false),
        seccomp: set(profile).and_then(|path| seccomp(path).transpose()).transpose()?,
        own_users,
    })
}

fn ulimit(text: &str) -> Result<Ulimit> {
    ferry_cli::ulimit(text).map_err(|error| anyhow::anyhow!("default-ulimits: {error}"))
}

/// The profile's text; none for the built-in one.
fn seccomp(path: String) -> Result<Option<String>> {
    use std::io::Read as _;
    match path.as_str() {
        "builtin" => Ok(None),
        "unconfined" => Ok(Some(path)),
        path => {
            let path = PathBuf::from(path);
            let mut text = String::new();
            let read = std::fs::File::open(&path).and_then(|file| file.take(PROFILE_MAX).read_to_string(&mut text));
            read.with_context(|| format!("opening seccomp profile ({}) failed", path.display()))?;
            ferry_engine::config::check_seccomp(&text)
                .map_err(|error| anyhow::anyhow!("decoding seccomp profile ({}) failed: {error}", path.display()))?;
            Ok(Some(text))
        }
    }
}
