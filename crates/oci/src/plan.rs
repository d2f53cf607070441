//! From a configuration to what the runtime does: checks, defaults, and the specification's words turned into numbers.
//!
//! Pure but for what the machine has (security modules, the caller's network namespace), which comes in as [`Host`].

mod kernel;
mod process;
mod sysctl;

use std::path::{Path, PathBuf};

use ferry_runtime::Plan;
use ferry_runtime::namespace::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS,
};
use ferry_runtime::plan::{Device, IdMap, Lifecycle, Mount, Namespaces, Propagation, Source, parse_options};
use ferry_sys::mount::{ATIME, Attributes, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, SLAVE};

use crate::config::{Config, IdMapping, Linux};
use crate::error::{Error, Result};
use crate::resctrl;

pub(crate) use kernel::{MEMORY_FLAGS, MEMORY_MODES};
pub(crate) use process::process;

/// What the machine has that a configuration may ask for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Host {
    pub apparmor: bool,
    pub selinux: bool,
}

impl Host {
    pub fn detect() -> Self {
        let starts_with = |path: &str, byte: u8| std::fs::read(path).is_ok_and(|text| text.first() == Some(&byte));
        Self {
            apparmor: starts_with("/sys/module/apparmor/parameters/enabled", b'Y'),
            selinux: has_selinux(),
        }
    }
}

/// Whether SELinux decides here: a policy is loaded, and its file system is here and not read-only, which is how a container is
/// shown that there is none for it (libselinux's `is_selinux_enabled`).
fn has_selinux() -> bool {
    // linux/magic.h
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    let mounted = rustix::fs::statvfs("/sys/fs/selinux")
        .is_ok_and(|found| !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        && rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|found| u64::try_from(found.f_type) == Ok(SELINUX_MAGIC));
    mounted && std::fs::read("/proc/self/attr/current").is_ok_and(|label| is_of_a_policy(&label))
}

/// Until there is a policy, every process has the name of the first label the kernel has.
fn is_of_a_policy(label: &[u8]) -> bool {
    let label = label.trim_ascii_end();
    let label = label.strip_suffix(b"\0").unwrap_or(label);
    !label.is_empty() && label != b"kernel"
}

/// Checks `config` and decides what to do for it; `bundle` is absolute. Warnings are for the log.
pub(crate) fn of(config: &Config, bundle: &Path, host: Host, warnings: &mut Vec<String>) -> Result<Plan> {
    version(config)?;
    let Some(root) = &config.root else {
        return Err(Error::Invalid("root must be specified".to_owned()));
    };
    let Some(process) = &config.process else {
        return Err(Error::Invalid("process property must not be empty".to_owned()));
    };
    let mut process = self::process(process, "process", host, warnings)?;
    let nothing = Linux::default();
    let linux = config.linux.as_ref().unwrap_or(&nothing);
    process.kernel.personality = kernel::personality(linux)?;
    process.kernel.memory_policy = kernel::memory_policy(linux.memory_policy.as_ref())?;
    if let Some(rdt) = &linux.intel_rdt {
        resctrl::check(rdt)?;
    }
    let mount_label = mount_label(linux, host)?;
    let namespaces = namespaces(linux)?;
    let own = |flag: u64| namespaces.create & flag != 0 || namespaces.join.iter().any(|(joined, _)| *joined == flag);
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let (hostname, domainname) = (given(&config.hostname), given(&config.domainname));
    if hostname.is_some() && !own(CLONE_NEWUTS) {
        return Err(Error::Invalid(
            "unable to set hostname without a private UTS namespace".to_owned(),
        ));
    }
    if domainname.is_some() && !own(CLONE_NEWUTS) {
        return Err(Error::Invalid(
            "unable to set domainname without a private UTS namespace".to_owned(),
        ));
    }
    let shares_mounts = !own(CLONE_NEWNS);
    let any = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    if shares_mounts && (any(&linux.masked_paths) || any(&linux.readonly_paths)) {
        let text = "unable to restrict sys entries without a private MNT namespace";
        return Err(Error::Invalid(text.to_owned()));
    }
    let sysctls = sysctl::check(linux, &namespaces, hostname.is_some())?;
    let rootfs = bundle.join(root.path.as_deref().unwrap_or(Path::new("")));
    let mut mounts = Vec::new();
    for (index, mount) in config.mounts.iter().flatten().enumerate() {
        mounts.push(self::mount(mount, index, bundle, &rootfs, &namespaces)?);
    }
    let on_dev = |mount: &Mount| mount.target == Path::new("/dev");
    let devices = if mounts
        .iter()
        .any(|mount| on_dev(mount) && matches!(mount.source, Source::Bind { .. }))
    {
        Vec::new()
    } else {
        devices(linux)?
    };
    let own_dev = !mounts.iter().any(on_dev);
    let paths = |paths: &Option<Vec<String>>| paths.iter().flatten().map(PathBuf::from).collect();
    let root_propagation = propagation(linux)?;
    // What runc makes of the host's mounts where the configuration says nothing.
    let default = Propagation {
        mode: SLAVE,
        top: false,
    };
    Ok(Plan {
        root_propagation,
        namespaces,
        hostname,
        domainname,
        mounts,
        devices,
        masked: paths(&linux.masked_paths),
        readonly: paths(&linux.readonly_paths),
        readonly_root: root.readonly.unwrap_or(false),
        sysctls,
        process,
        lifecycle: Lifecycle {
            own_dev,
            mount_label,
            shares_mounts,
            host_propagation: Some(root_propagation.unwrap_or(default)),
            ..Lifecycle::default()
        },
    })
}

fn version(config: &Config) -> Result<()> {
    let version = config.oci_version.as_deref().unwrap_or_default();
    let mut parts = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let numbers: Vec<_> = parts.by_ref().map(str::parse::<u32>).collect();
    match numbers.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        [Ok(_), Ok(_), Ok(_)] => Err(Error::config(
            "ociVersion",
            format!("version {version} is not supported, 1.x is"),
        )),
        _ => Err(Error::config(
            "ociVersion",
            format!("{version:?} is not a semantic version"),
        )),
    }
}

/// The SELinux context of the container's own file systems.
fn mount_label(linux: &Linux, host: Host) -> Result<Option<String>> {
    let label = linux.mount_label.clone().filter(|label| !label.is_empty());
    if label.is_some() && !host.selinux {
        let problem = "selinux is disabled or not supported";
        return Err(Error::config("linux.mountLabel", problem));
    }
    Ok(label)
}

fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let mut spaces = Namespaces::default();
    let mut seen = 0;
    for namespace in linux.namespaces.iter().flatten() {
        let kind = &namespace.kind;
        let Some(flag) = flag_of(kind) else {
            return Err(Error::Invalid(format!("namespace {kind:?} does not exist")));
        };
        if seen & flag != 0 {
            return Err(Error::Invalid(format!("malformed spec file: duplicated ns {kind:?}")));
        }
        seen |= flag;
        match namespace.path.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) if !path.is_absolute() => {
                let problem = format!("path {} of the {kind} namespace is not absolute", path.display());
                return Err(Error::config("linux.namespaces", problem));
            }
            Some(path) => spaces.join.push((flag, path.clone())),
            None if flag == CLONE_NEWCGROUP => spaces.cgroup = true,
            None => spaces.create |= flag,
        }
    }
    // The user namespace decides over the others, so it is joined first.
    spaces.join.sort_by_key(|(flag, _)| *flag != CLONE_NEWUSER);
    let new_user = spaces.create & CLONE_NEWUSER != 0;
    if new_user {
        spaces.uids = mappings(linux.uid_mappings.as_deref(), "linux.uidMappings")?;
        spaces.gids = mappings(linux.gid_mappings.as_deref(), "linux.gidMappings")?;
        if spaces.uids.is_empty() {
            return Err(Error::Invalid(
                "user namespaces enabled, but no uid mappings found".to_owned(),
            ));
        }
        if spaces.gids.is_empty() {
            return Err(Error::Invalid(
                "user namespaces enabled, but no gid mappings found".to_owned(),
            ));
        }
    }
    for (clock, offset) in linux.time_offsets.iter().flatten() {
        if spaces.create & CLONE_NEWTIME == 0 {
            let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
            return Err(Error::Invalid(text.to_owned()));
        }
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::config("linux.timeOffsets", format!("unknown clock {clock:?}")));
        }
        spaces.time_offsets.push((clock.clone(), offset.secs, offset.nanosecs));
    }
    Ok(spaces)
}

pub(crate) fn flag_of(kind: &str) -> Option<u64> {
    Some(match kind {
        "mount" => CLONE_NEWNS,
        "cgroup" => CLONE_NEWCGROUP,
        "uts" => CLONE_NEWUTS,
        "ipc" => CLONE_NEWIPC,
        "user" => CLONE_NEWUSER,
        "pid" => CLONE_NEWPID,
        "network" => CLONE_NEWNET,
        "time" => CLONE_NEWTIME,
        _ => return None,
    })
}

/// At most 340 lines fit into a map (user_namespaces(7)); ranges beyond the ids there are would wrap (CVE-2021-43784).
fn mappings(mappings: Option<&[IdMapping]>, field: &str) -> Result<Vec<(u32, u32, u32)>> {
    const MOST: usize = 340;
    let mappings = mappings.unwrap_or_default();
    if mappings.len() > MOST {
        return Err(Error::config(
            field,
            format!("{} ranges, the kernel takes {MOST}", mappings.len()),
        ));
    }
    for (index, map) in mappings.iter().enumerate() {
        let ends = [map.container, map.host].map(|start| start.checked_add(map.size));
        if map.size == 0 || ends.contains(&None) {
            let problem = format!(
                "a range of {} ids from {} and {} overflows",
                map.size, map.container, map.host
            );
            return Err(Error::config(format!("{field}[{index}]"), problem));
        }
    }
    Ok(mappings.iter().map(|map| (map.container, map.host, map.size)).collect())
}

fn mount(
    mount: &crate::config::Mount,
    index: usize,
    bundle: &Path,
    rootfs: &Path,
    namespaces: &Namespaces,
) -> Result<Mount> {
    let field = || format!("mounts[{index}]");
    if mount.destination.is_empty() {
        return Err(Error::config(field(), "the destination is empty"));
    }
    let mut target = PathBuf::from(&mount.destination);
    if !target.is_absolute() {
        target = Path::new("/").join(target);
    }
    // Some callers write where it is on the host (runc).
    if rootfs != Path::new("/")
        && let Ok(inside) = target.strip_prefix(rootfs)
    {
        target = Path::new("/").join(inside);
    }
    let mut mode = parse_options(mount.options.iter().flatten().map(String::as_str));
    let kind = mount.kind.clone().unwrap_or_default();
    let device = mount.source.clone().unwrap_or_default();
    let source = if mode.bind || kind == "bind" {
        if device.is_empty() {
            return Err(Error::config(field(), "a bind mount needs a source"));
        }
        Source::Bind {
            path: bundle.join(device),
            recursive: mode.recursive,
        }
    } else if kind == "cgroup" || kind == "cgroup2" {
        Source::Cgroup
    } else if kind.is_empty() {
        return Err(Error::config(field(), "a mount needs a type, or the option bind"));
    } else {
        if !device.is_empty() {
            mode.data.insert(0, ("source".into(), device));
        }
        Source::New {
            kind,
            options: mode.data,
        }
    };
    let maps = [
        (&mount.uid_mappings, "uidMappings"),
        (&mount.gid_mappings, "gidMappings"),
    ];
    let [uids, gids] = maps.map(|(map, name)| mappings(map.as_deref(), &format!("{}.{name}", field())));
    let (uids, gids) = (uids?, gids?);
    let idmap = match (mode.idmap, uids.is_empty(), gids.is_empty()) {
        (None, true, true) => None,
        (_, false, true) | (_, true, false) => {
            return Err(Error::config(field(), "uidMappings and gidMappings go together"));
        }
        // With the container's own mappings.
        (Some(recursive), true, true)
            if !namespaces.uids.is_empty() || namespaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWUSER) =>
        {
            Some(IdMap {
                uids: namespaces.uids.clone(),
                gids: namespaces.gids.clone(),
                recursive,
            })
        }
        (Some(_), true, true) => {
            return Err(Error::config(
                field(),
                "an id-mapped mount needs mappings or a user namespace",
            ));
        }
        (recursive, false, false) => Some(IdMap {
            uids,
            gids,
            recursive: recursive.unwrap_or(false),
        }),
    };
    if idmap.is_some() && !matches!(source, Source::Bind { .. }) {
        return Err(Error::config(
            field(),
            "id-mapped mounts are only supported for bind-mounts",
        ));
    }
    let is_bind = matches!(source, Source::Bind { .. });
    let (attributes, explicit) = if is_bind && mode.names_attributes {
        exactly(mode.attributes)
    } else {
        (mode.attributes, 0)
    };
    Ok(Mount {
        target,
        source,
        attributes,
        explicit,
        propagation: mode.propagation,
        propagation_top: mode.propagation_top,
        copy_up: mode.copy_up,
        below: mode.below,
        subpath: PathBuf::new(),
        idmap,
    })
}

/// The attributes of a bind mount for which any was named: these and no others, as runc does it, but for the access times,
/// which stay as they are unless some are chosen. And what of them goes against the source's on purpose.
fn exactly(named: Attributes) -> (Attributes, u64) {
    let all = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
    let times = named.clear & ATIME != 0 || named.set & NODIRATIME != 0;
    let (chosen, mut clear) = if times {
        (ATIME, all | ATIME | NODIRATIME)
    } else {
        (0, all)
    };
    let explicit = named.clear & all | chosen;
    // The kernel wants all three cleared for one of them to be set.
    clear &= !named.set | ATIME;
    (Attributes { clear, ..named }, explicit)
}

fn propagation(linux: &Linux) -> Result<Option<Propagation>> {
    let Some(name) = linux.rootfs_propagation.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mode = parse_options([name]);
    if mode.propagation == 0 || mode.bind || mode.attributes != Attributes::default() {
        return Err(Error::Invalid(format!("rootfsPropagation={name} is not supported")));
    }
    Ok(Some(Propagation {
        mode: mode.propagation,
        top: mode.propagation_top,
    }))
}

fn devices(linux: &Linux) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for (index, device) in linux.devices.iter().flatten().enumerate() {
        let field = |name: &str| format!("linux.devices[{index}].{name}");
        let kind = match device.kind.as_str() {
            "b" => 'b',
            "c" | "u" => 'c',
            "p" => 'p',
            other => return Err(Error::Invalid(format!("invalid device type {other:?}"))),
        };
        let number = |value: i64, name: &str| {
            u32::try_from(value).map_err(|_| Error::config(field(name), format!("{value} is no device number")))
        };
        if !device.path.starts_with('/') {
            return Err(Error::config(
                field("path"),
                format!("{:?} is not absolute", device.path),
            ));
        }
        let plain = kind == 'p';
        devices.push(Device {
            path: PathBuf::from(&device.path),
            kind,
            major: if plain { 0 } else { number(device.major, "major")? },
            minor: if plain { 0 } else { number(device.minor, "minor")? },
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    let missing: Vec<_> = ferry_runtime::plan::devices::defaults()
        .filter(|default| !devices.iter().any(|device| device.path == default.path))
        .collect();
    devices.extend(missing);
    Ok(devices)
}

#[cfg(test)]
mod tests;
