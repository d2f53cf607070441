//! From an OCI runtime specification (runtime-spec 1.2, config.md and config-linux.md) to a [`Plan`].

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::{Capabilities, Device, Mount, Namespaces, Plan, Process, Rlimit, Source, User, options};
use crate::caps;
use crate::namespace::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS,
};

/// A part of a specification this runtime does not do, by its name in the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not supported")]
pub struct Unsupported(pub String);

impl Plan {
    /// Decides what to do for `spec`. Pure: looks at nothing but its argument.
    pub fn new(spec: &oci::Spec) -> Result<Self, Unsupported> {
        let mut plan = Self {
            hostname: spec.hostname().clone(),
            domainname: spec.domainname().clone(),
            readonly_root: spec.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false),
            ..Self::default()
        };
        if let Some(linux) = spec.linux() {
            plan.namespaces = namespaces(linux)?;
            plan.devices = linux.devices().iter().flatten().map(device).collect::<Result<_, _>>()?;
            let given = |path: &Path| plan.devices.iter().any(|device| device.path == path);
            let missing: Vec<_> = super::devices::defaults()
                .filter(|device| !given(&device.path))
                .collect();
            plan.devices.extend(missing);
            plan.masked = linux.masked_paths().iter().flatten().map(PathBuf::from).collect();
            plan.readonly = linux.readonly_paths().iter().flatten().map(PathBuf::from).collect();
            plan.sysctls = linux
                .sysctl()
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            plan.sysctls.sort();
            if let Some(propagation) = linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty()) {
                let mode = options::parse([propagation]);
                if mode.propagation == 0 {
                    return Err(Unsupported(format!("rootfsPropagation {propagation:?}")));
                }
                plan.root_propagation = mode.propagation;
            }
        }
        plan.mounts = spec.mounts().iter().flatten().map(mount).collect();
        if let Some(process) = spec.process() {
            plan.process = self::process(process);
        }
        Ok(plan)
    }
}

fn namespaces(linux: &oci::Linux) -> Result<Namespaces, Unsupported> {
    let mut spaces = Namespaces::default();
    for namespace in linux.namespaces().iter().flatten() {
        let flag = flag_of(namespace.typ());
        match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => spaces.join.push((flag, path.clone())),
            _ if flag == CLONE_NEWCGROUP => spaces.cgroup = true,
            _ => spaces.create |= flag,
        }
    }
    // The user namespace decides over the others, so it is joined first.
    spaces.join.sort_by_key(|(flag, _)| *flag != CLONE_NEWUSER);
    let mapping = |map: &oci::LinuxIdMapping| (map.container_id(), map.host_id(), map.size());
    spaces.uids = linux.uid_mappings().iter().flatten().map(mapping).collect();
    spaces.gids = linux.gid_mappings().iter().flatten().map(mapping).collect();
    if spaces.create & CLONE_NEWNS == 0 && !spaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWNS) {
        return Err(Unsupported("a container without a mount namespace of its own".into()));
    }
    Ok(spaces)
}

fn flag_of(kind: oci::LinuxNamespaceType) -> u64 {
    match kind {
        oci::LinuxNamespaceType::Mount => CLONE_NEWNS,
        oci::LinuxNamespaceType::Cgroup => CLONE_NEWCGROUP,
        oci::LinuxNamespaceType::Uts => CLONE_NEWUTS,
        oci::LinuxNamespaceType::Ipc => CLONE_NEWIPC,
        oci::LinuxNamespaceType::User => CLONE_NEWUSER,
        oci::LinuxNamespaceType::Pid => CLONE_NEWPID,
        oci::LinuxNamespaceType::Network => CLONE_NEWNET,
        oci::LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

fn mount(mount: &oci::Mount) -> Mount {
    let mut mode = options::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().clone().unwrap_or_default();
    let source = if mode.bind || kind == "bind" {
        let path = mount.source().clone().unwrap_or_default();
        Source::Bind {
            path,
            recursive: mode.recursive,
        }
    } else if kind == "cgroup" || kind == "cgroup2" {
        Source::Cgroup
    } else {
        let device = mount
            .source()
            .as_deref()
            .unwrap_or(Path::new(""))
            .to_string_lossy()
            .into_owned();
        if !device.is_empty() {
            mode.data.insert(0, ("source".into(), device));
        }
        Source::New {
            kind,
            options: mode.data,
        }
    };
    Mount {
        target: mount.destination().clone(),
        source,
        attributes: mode.attributes,
        propagation: mode.propagation,
        copy_up: mode.copy_up,
    }
}

fn device(device: &oci::LinuxDevice) -> Result<Device, Unsupported> {
    let kind = match device.typ() {
        oci::LinuxDeviceType::B => 'b',
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => 'c',
        oci::LinuxDeviceType::P => 'p',
        oci::LinuxDeviceType::A => return Err(Unsupported("a device node of type a".into())),
    };
    let number =
        |value: i64, what: &str| u32::try_from(value).map_err(|_| Unsupported(format!("device {what} number {value}")));
    Ok(Device {
        path: device.path().clone(),
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn process(process: &oci::Process) -> Process {
    let set = |set: &Option<oci::Capabilities>| {
        caps::mask(
            set.iter()
                .flatten()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str),
        )
    };
    let capabilities = process.capabilities().as_ref().map(|caps| Capabilities {
        bounding: set(caps.bounding()),
        effective: set(caps.effective()),
        permitted: set(caps.permitted()),
        inheritable: set(caps.inheritable()),
        ambient: set(caps.ambient()),
    });
    let user = process.user();
    Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().clone(),
        make_cwd: false,
        user: User::Ids {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
        },
        capabilities: capabilities.unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj(),
        umask: user.umask(),
        terminal: process.terminal().unwrap_or(false),
        size: process
            .console_size()
            .and_then(|size| Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))),
        init: false,
    }
}

fn rlimit(limit: &oci::PosixRlimit) -> Rlimit {
    let name = limit.typ().to_string();
    let name = name.strip_prefix("RLIMIT_").unwrap_or(&name).to_lowercase();
    Rlimit {
        name,
        soft: limit.soft(),
        hard: limit.hard(),
    }
}
