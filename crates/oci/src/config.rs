//! `config.json` (runtime-spec 1.2, config.md and config-linux.md), as plain structs.
//!
//! Read as Go reads it: what is absent or `null` has its zero value, unknown fields are ignored, keys are taken in any case,
//! and of two equal ones the last. Names that the
//! specification lists (namespaces, capabilities, limits, …) stay text here, so that [`crate::plan`] can say which field
//! has which one it does not know. `linux.resources` and `linux.seccomp` are the oci-spec crate's, which `cgroup` and
//! `seccomp` take.

mod locate;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ferry_api::json::{self, AnyCase, Tree};
use ferry_runtime::hooks::Hook;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{During as _, Error, Result};

/// The largest config.json or process.json that is read (rule D5).
const LIMIT: u64 = 16 << 20;

/// Its limit is Go's uint64 and the oci-spec crate's i64. The kernel counts pages, of which both maxima are more than there
/// can be, and takes either for no limit.
const HUGE: &str = "LinuxHugepageLimit";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub oci_version: Option<String>,
    pub root: Option<Root>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mounts: Option<Vec<Mount>>,
    pub hooks: Option<Hooks>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub path: Option<PathBuf>,
    pub readonly: Option<bool>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Process {
    pub terminal: Option<bool>,
    pub console_size: Option<ConsoleSize>,
    pub user: Option<User>,
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Option<Vec<Rlimit>>,
    pub no_new_privileges: Option<bool>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    pub height: u32,
    pub width: u32,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Option<Vec<u32>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub bounding: Option<Vec<String>>,
    pub effective: Option<Vec<String>>,
    pub inheritable: Option<Vec<String>>,
    pub permitted: Option<Vec<String>>,
    pub ambient: Option<Vec<String>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub hard: u64,
    pub soft: u64,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub policy: String,
    pub nice: i32,
    pub priority: i32,
    pub flags: Option<Vec<String>>,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct IoPriority {
    pub class: String,
    pub priority: i64,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct CpuAffinity {
    pub initial: Option<String>,
    #[serde(rename = "final")]
    pub last: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    pub options: Option<Vec<String>>,
    pub uid_mappings: Option<Vec<IdMapping>>,
    pub gid_mappings: Option<Vec<IdMapping>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub container: u32,
    #[serde(rename = "hostID")]
    pub host: u32,
    pub size: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    pub prestart: Option<Vec<Hook>>,
    pub create_runtime: Option<Vec<Hook>>,
    pub create_container: Option<Vec<Hook>>,
    pub start_container: Option<Vec<Hook>>,
    pub poststart: Option<Vec<Hook>>,
    pub poststop: Option<Vec<Hook>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Linux {
    pub uid_mappings: Option<Vec<IdMapping>>,
    pub gid_mappings: Option<Vec<IdMapping>>,
    pub sysctl: Option<BTreeMap<String, String>>,
    pub resources: Option<LinuxResources>,
    pub cgroups_path: Option<String>,
    pub namespaces: Option<Vec<Namespace>>,
    pub devices: Option<Vec<Device>>,
    pub net_devices: Option<BTreeMap<String, NetDevice>>,
    pub seccomp: Option<LinuxSeccomp>,
    pub rootfs_propagation: Option<String>,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub mount_label: Option<String>,
    pub intel_rdt: Option<IntelRdt>,
    pub memory_policy: Option<MemoryPolicy>,
    pub personality: Option<Personality>,
    pub time_offsets: Option<BTreeMap<String, TimeOffset>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Device {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// runtime-spec 1.3.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct NetDevice {
    pub name: Option<String>,
}

/// runtime-spec 1.3.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryPolicy {
    pub mode: String,
    pub nodes: Option<String>,
    pub flags: Option<Vec<String>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    /// runtime-spec 1.3.
    #[serde(deserialize_with = "null_is_default")]
    pub schemata: Vec<String>,
    #[serde(rename = "enableCMT")]
    pub enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    pub enable_mbm: bool,
    /// runtime-spec 1.3, in place of the two before it.
    pub enable_monitoring: bool,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Personality {
    pub domain: String,
    pub flags: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

/// Reads the bundle's configuration.
pub(crate) fn load(path: &Path) -> Result<Config> {
    let text = match read(path, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Invalid(format!(
                "JSON specification file {} not found",
                path.file_name().unwrap_or_default().to_string_lossy()
            )));
        }
        done => done.during(|| format!("open {}", path.display()))?,
    };
    parse(&text)
}

/// Reads a process.json.
pub(crate) fn load_process(path: &Path) -> Result<Process> {
    // A pipe as well: `--process <(…)`.
    let text = read(path, false).during(|| format!("open {}", path.display()))?;
    parse(&text)
}

fn read(path: &Path, regular: bool) -> std::io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    if regular {
        // Nobody waits for what is behind a FIFO.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    if regular && !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(rustix::io::Errno::FBIG.into());
    }
    Ok(text)
}

/// Parses JSON as Go does: keys in any case, the last of two equal ones. An error names the field.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    match deserialize(text) {
        Err(error) if json::is_duplicate(&error) => once_each(text).map_err(|error| located(text, &error))?,
        done => done.map_err(|error| located(text, &error)),
    }
}

/// The outer error is of the text, the inner one names the field.
fn once_each<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<Result<T>> {
    let tree: Tree = serde_json::from_slice(text)?;
    T::deserialize(&tree).map(Ok).or_else(|_| {
        let text = serde_json::to_vec(&tree)?;
        Ok(deserialize(&text).map_err(|error| located(&text, &error)))
    })
}

fn deserialize<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(AnyCase::new(&mut deserializer).unsigned_in(HUGE))?;
    deserializer.end().map(|()| value)
}

fn located(text: &[u8], error: &serde_json::Error) -> Error {
    let problem = error.to_string();
    if error.is_eof() {
        return Error::Invalid("unexpected EOF".to_owned());
    }
    match locate::field(text, error.line(), error.column()) {
        Some(field) => Error::config(field, problem),
        None => Error::Invalid(format!("invalid JSON: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_and_unknown_fields_are_ignored() {
        let text = br#"{"ociVersion":"1.2.0","process":null,"hooks":{"poststop":null},"vm":{"x":1},
            "linux":{"resources":null,"namespaces":null,"intelRdt":null},"mounts":[{"destination":"/x","options":null}]}"#;
        let config: Config = parse(text).unwrap();
        assert!(config.process.is_none() && config.linux.unwrap().intel_rdt.is_none());
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_field() {
        let wrong = [
            (r#"{"process":{"user":{"uid":-1}}}"#, "process.user.uid: "),
            (r#"{"process":{"args":["a",5]}}"#, "process.args[1]: "),
            (
                r#"{"linux":{"resources":{"memory":{"limit":"1g"}}}}"#,
                "linux.resources.memory.limit: ",
            ),
            (
                r#"{"linux":{"seccomp":{"defaultAction":"BOGUS"}}}"#,
                "linux.seccomp.defaultAction: ",
            ),
        ];
        for (text, field) in wrong {
            let error = parse::<Config>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
        assert_eq!(parse::<Config>(b"{\"a\":").unwrap_err().to_string(), "unexpected EOF");
    }

    #[test]
    fn keys_are_taken_in_any_case_but_those_of_maps_as_they_are() {
        let text = br#"{"OCIVersion":"1.2.0","PROCESS":{"Args":["a"],"noNewprivileges":true,"USER":{"UID":7}},
            "annotations":{"A":"1","a":"2"},"Linux":{"Resources":{"PIDS":{"Limit":5},"unified":{"Memory.Max":"1"}}}}"#;
        let config: Config = parse(text).unwrap();
        let process = config.process.unwrap();
        assert_eq!(config.oci_version.as_deref(), Some("1.2.0"));
        assert_eq!((process.args.unwrap().len(), process.user.unwrap().uid), (1, 7));
        assert_eq!(process.no_new_privileges, Some(true));
        let annotations: Vec<_> = config.annotations.unwrap().into_iter().collect();
        assert_eq!(annotations, [("A".into(), "1".into()), ("a".into(), "2".into())]);
        let resources = config.linux.unwrap().resources.unwrap();
        assert_eq!(resources.pids().map(|pids| pids.limit()), Some(5));
        assert!(resources.unified().as_ref().unwrap().contains_key("Memory.Max"));
        let wrong = parse::<Config>(br#"{"Process":{"User":{"UID":-1}}}"#).unwrap_err();
        assert!(wrong.to_string().starts_with("Process.User.UID: "), "{wrong}");
    }

    #[test]
    fn of_two_equal_keys_the_last_counts_and_objects_are_one() {
        let text = br#"{"hostname":"a","process":{"cwd":"/","args":["x","y"]},"hostname":"b","process":{"args":["z"]},
            "mounts":[{"destination":"/a"}],"mounts":[],"linux":{"resources":{"pids":{"limit":1,"limit":2}}}}"#;
        let config: Config = parse(text).unwrap();
        let process = config.process.unwrap();
        assert_eq!(config.hostname.as_deref(), Some("b"));
        assert_eq!(
            (process.cwd.as_deref(), process.args),
            (Some("/"), Some(vec!["z".into()]))
        );
        assert!(config.mounts.unwrap().is_empty());
        let pids = *config.linux.unwrap().resources.unwrap().pids();
        assert_eq!(pids.map(|pids| pids.limit()), Some(2));
        let wrong = parse::<Config>(br#"{"hostname":"a","hostname":"b","process":{"args":5}}"#).unwrap_err();
        assert!(wrong.to_string().starts_with("process.args: "), "{wrong}");
        let config: Config = parse(br#"{"hostname":"a","HostName":"b","HOSTname":"c","hostname":"d"}"#).unwrap();
        assert_eq!(config.hostname.as_deref(), Some("d"));
    }

    #[test]
    fn a_limit_of_huge_pages_is_unsigned() {
        let limit = |number: &str| {
            let text = format!(r#"{{"hugepageLimits":[{{"pageSize":"2MB","limit":{number}}}]}}"#);
            let resources: LinuxResources = parse(text.as_bytes())?;
            Ok::<_, Error>(resources.hugepage_limits().as_ref().unwrap()[0].limit())
        };
        assert_eq!(limit("4096").unwrap(), 4096);
        assert_eq!(limit("18446744073709551615").unwrap(), i64::MAX);
        for refused in ["-1", "18446744073709551616", "\"1\""] {
            let error = limit(refused).unwrap_err().to_string();
            assert!(error.starts_with("hugepageLimits[0].limit: "), "{error}");
        }
        assert!(parse::<LinuxResources>(br#"{"memory":{"limit":18446744073709551615}}"#).is_err());
    }
}
