//! A plan as `config.json` (runtime-spec 1.0, config.md and config-linux.md), for runtimes that are not Ferry's own.
//!
//! The opposite of what `ferry-oci` reads, which tests hold against it: what a plan grants, hides and limits is what any
//! runtime is told.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use ferry_sys::Root;
use ferry_sys::mount::{
    ATIME, Attributes, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, PRIVATE, RDONLY, SHARED, SLAVE,
    STRICTATIME, UNBINDABLE,
};
use oci_spec::runtime::{LinuxResources, LinuxSeccomp};
use serde_json::{Map, Value, json};

use crate::caps;
use crate::failure::Failure;
use crate::identity;
use crate::namespace::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS,
};
use crate::plan::{self, Device, Namespaces, Plan, Source, devices};

/// Where `--init` finds PID 1, as in Docker.
pub const INIT: &str = "/sbin/docker-init";

/// What a configuration says beside its plan.
#[derive(Debug)]
pub struct Beside<'a> {
    pub plan: &'a Plan,
    /// As [`process`] makes it.
    pub process: Value,
    /// The container's root, mounted.
    pub root: &'a Path,
    /// Below the root of each hierarchy, without a leading slash.
    pub cgroup: &'a str,
    pub resources: &'a LinuxResources,
    pub seccomp: Option<&'a LinuxSeccomp>,
    pub annotations: &'a BTreeMap<String, String>,
    /// The file of a network namespace to join, beside what the plan joins.
    pub network: Option<&'a Path>,
    /// Where the sources of these steps of the plan's are mounted, which have no path of their own.
    pub sources: &'a BTreeMap<usize, PathBuf>,
    /// The program that is PID 1 for [`plan::Process::init`].
    pub init: Option<&'a Path>,
}

/// The configuration of a container.
pub fn config(beside: &Beside<'_>) -> Value {
    let plan = beside.plan;
    let mut mounts: Vec<Value> = plan
        .mounts
        .iter()
        .enumerate()
        .map(|(index, step)| mount(step, beside.sources.get(&index)))
        .collect();
    if let Some(init) = beside.init {
        let options = ["bind", "ro", "rprivate"];
        mounts.push(json!({"destination": INIT, "type": "bind", "source": init, "options": options}));
    }
    let mut sysctls: BTreeMap<&str, &str> = plan.sysctls.iter().map(|(key, value)| (&**key, &**value)).collect();
    if let Some(name) = &plan.domainname {
        // Every runtime knows the file; `domainname` came with version 1.1.
        sysctls.insert("kernel.domainname", name);
    }
    let mut linux = json!({
        "namespaces": namespaces(&plan.namespaces, beside.network),
        "cgroupsPath": format!("/{}", beside.cgroup),
        "resources": beside.resources,
        "devices": plan.devices.iter().filter(|device| !is_default(device)).map(device).collect::<Vec<_>>(),
        "maskedPaths": plan.masked,
        "readonlyPaths": plan.readonly,
        "sysctl": sysctls,
    });
    let mut set = |key: &str, value: Value| linux[key] = value;
    if let Some(seccomp) = beside.seccomp {
        set("seccomp", json!(seccomp));
    }
    if !plan.namespaces.uids.is_empty() {
        set("uidMappings", mappings(&plan.namespaces.uids));
        set("gidMappings", mappings(&plan.namespaces.gids));
    }
    // A mount that follows the host's needs a root that does; without it runtimes differ.
    if plan.mounts.iter().any(|step| step.propagation == SLAVE) {
        set("rootfsPropagation", json!("rslave"));
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": beside.root, "readonly": plan.readonly_root},
        "process": beside.process,
        "mounts": mounts,
        "annotations": beside.annotations,
        "linux": linux,
    });
    if let Some(name) = &plan.hostname {
        config["hostname"] = json!(name);
    }
    config
}

/// A process: the container's first one, or what `exec --process` takes. Its user is looked up in the files of `root`.
pub fn process(process: &plan::Process, root: &Root) -> Result<Value, Failure> {
    let identity = identity::resolve(root, &process.user)?;
    let env = identity::environment(&process.env, &identity.home)?;
    let env = env.into_iter().filter_map(|entry| CString::into_string(entry).ok());
    let named = |entry: &String| entry.find('=').is_some_and(|at| at > 0);
    let first = process
        .init
        .then(|| [INIT, "--"].map(str::to_owned))
        .into_iter()
        .flatten();
    let mut value = json!({
        "terminal": process.terminal,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
        "args": first.chain(process.args.iter().cloned()).collect::<Vec<_>>(),
        "env": env.filter(named).collect::<Vec<_>>(),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": names(process.capabilities.bounding),
            "effective": names(process.capabilities.effective),
            "permitted": names(process.capabilities.permitted),
            "inheritable": names(process.capabilities.inheritable),
            "ambient": names(process.capabilities.ambient),
        },
        "noNewPrivileges": process.no_new_privileges,
        "rlimits": process.rlimits.iter().map(rlimit).collect::<Vec<_>>(),
    });
    if let Some((rows, columns)) = process.size {
        value["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if let Some(adjustment) = process.oom_score_adj {
        value["oomScoreAdj"] = json!(adjustment);
    }
    if let Some(umask) = process.umask {
        value["user"]["umask"] = json!(umask);
    }
    if let Some(profile) = &process.kernel.apparmor {
        value["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = &process.kernel.selinux {
        value["selinuxLabel"] = json!(label);
    }
    Ok(value)
}

fn names(mask: u64) -> Vec<&'static str> {
    let has = |number: &usize| mask & (1 << number) != 0;
    (0..caps::NAMES.len())
        .filter(has)
        .map(|number| caps::NAMES[number])
        .collect()
}

fn rlimit(limit: &plan::Rlimit) -> Value {
    let kind = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
    json!({"type": kind, "soft": limit.soft, "hard": limit.hard})
}

fn mappings(map: &[(u32, u32, u32)]) -> Value {
    let one =
        |(inside, outside, count): &(u32, u32, u32)| json!({"containerID": inside, "hostID": outside, "size": count});
    map.iter().map(one).collect()
}

fn namespaces(spaces: &Namespaces, network: Option<&Path>) -> Vec<Value> {
    const KINDS: [(u64, &str); 7] = [
        (CLONE_NEWUSER, "user"),
        (CLONE_NEWNS, "mount"),
        (CLONE_NEWPID, "pid"),
        (CLONE_NEWNET, "network"),
        (CLONE_NEWIPC, "ipc"),
        (CLONE_NEWUTS, "uts"),
        (CLONE_NEWCGROUP, "cgroup"),
    ];
    let of = |(flag, kind): (u64, &str)| {
        let joined = spaces.join.iter().find(|(joined, _)| *joined == flag);
        let path = joined.map(|(_, path)| path.as_path());
        let path = path.or(network.filter(|_| flag == CLONE_NEWNET));
        let made = spaces.create & flag != 0 || (flag == CLONE_NEWCGROUP && spaces.cgroup);
        match path {
            Some(path) => Some(json!({"type": kind, "path": path})),
            None => made.then(|| json!({"type": kind})),
        }
    };
    KINDS.into_iter().filter_map(of).collect()
}

/// Every runtime makes those itself.
fn is_default(device: &Device) -> bool {
    devices::defaults().any(|default| default == *device) || device.path == Path::new("/dev/ptmx")
}

fn device(device: &Device) -> Value {
    let mut value = json!({
        "path": device.path,
        "type": device.kind.to_string(),
        "fileMode": device.mode & 0o7777,
        "uid": device.uid,
        "gid": device.gid,
    });
    if device.kind != 'p' {
        (value["major"], value["minor"]) = (json!(device.major), json!(device.minor));
    }
    value
}

fn mount(step: &plan::Mount, mounted: Option<&PathBuf>) -> Value {
    let (kind, source, mut options): (&str, Value, Vec<String>) = match &step.source {
        Source::New { kind, options } => {
            let is_source = |key: &String| key == "source";
            let source = options.iter().find(|(key, _)| is_source(key));
            let source = source.map_or(kind.as_str(), |(_, source)| source);
            let word = |(key, value): &(String, String)| match value.as_str() {
                "" => key.clone(),
                value => format!("{key}={value}"),
            };
            let rest = options.iter().filter(|(key, _)| !is_source(key)).map(word);
            (kind, json!(source), rest.collect())
        }
        Source::Bind { path, recursive } => {
            let word = if *recursive { "rbind" } else { "bind" };
            ("bind", json!(mounted.unwrap_or(path)), vec![word.to_owned()])
        }
        // An image has no path on the host: whoever asks for the configuration has mounted it.
        Source::Layers { .. } => ("bind", json!(mounted), vec!["bind".to_owned()]),
        Source::Cgroup => ("cgroup", json!("cgroup"), Vec::new()),
    };
    options.extend(words(step.attributes, ""));
    if step.attributes.recursive && kind == "bind" {
        options.extend(words(step.attributes, "r"));
    }
    options.extend(words(step.below, "r"));
    if step.copy_up {
        options.push("tmpcopyup".to_owned());
    }
    let propagation = match step.propagation {
        PRIVATE => Some("private"),
        SLAVE => Some("slave"),
        SHARED => Some("shared"),
        UNBINDABLE => Some("unbindable"),
        _ => (kind == "bind").then_some("private"),
    };
    if let Some(word) = propagation {
        let top = step.propagation_top && step.propagation != 0;
        options.push(format!("{}{word}", if top { "" } else { "r" }));
    }
    let mut value = Map::new();
    value.insert("destination".to_owned(), json!(step.target));
    value.insert("type".to_owned(), json!(kind));
    value.insert("source".to_owned(), source);
    value.insert("options".to_owned(), json!(options));
    Value::Object(value)
}

/// The options that set and clear these attributes; `prefix`: `r` for those that reach what is mounted below.
fn words(attributes: Attributes, prefix: &str) -> Vec<String> {
    const FLAGS: [(u64, &str, &str); 6] = [
        (RDONLY, "ro", "rw"),
        (NOSUID, "nosuid", "suid"),
        (NODEV, "nodev", "dev"),
        (NOEXEC, "noexec", "exec"),
        (NODIRATIME, "nodiratime", "diratime"),
        (NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ];
    let (set, clear) = (attributes.set, attributes.clear);
    let flag = |(flag, on, off): (u64, &'static str, &'static str)| match (set & flag != 0, clear & flag != 0) {
        (true, _) => Some(on),
        (false, true) => Some(off),
        (false, false) => None,
    };
    let time = match set & ATIME {
        NOATIME => Some("noatime"),
        STRICTATIME => Some("strictatime"),
        _ => (clear & ATIME != 0).then_some("relatime"),
    };
    let all = FLAGS.into_iter().filter_map(flag).chain(time);
    all.map(|word| format!("{prefix}{word}")).collect()
}
