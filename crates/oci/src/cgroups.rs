//! Which cgroup a container is in, and with which limits.

pub(crate) mod subgroup;

use std::path::{Path, PathBuf};

use ferry_cgroup::{Cgroup, Hierarchy, Layout, V1_CONTROLLERS, V1Mount, Warning};
use ferry_runtime::namespace::CLONE_NEWUSER;
use ferry_runtime::plan::Namespaces;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxResources};
use rustix::fs::FsWord;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::Log;

const MOUNT: &str = "/sys/fs/cgroup";
/// linux/magic.h
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;
const CGROUP_SUPER_MAGIC: FsWord = 0x27_e0eb;
/// The parent of containers whose configuration names no cgroup.
const PARENT: &str = "ferry-oci";

/// The hierarchies of this machine, from `/proc/self/cgroup` and where they usually are: reading the mount table would
/// cost more with every container that runs. It is read only where that does not tell.
pub(crate) fn layout() -> Result<Layout> {
    match usual() {
        Some(layout) => Ok(layout),
        None => Ok(Layout::detect()?),
    }
}

fn usual() -> Option<Layout> {
    if is(Path::new(MOUNT), CGROUP2_SUPER_MAGIC) {
        return Some(Layout::V2(MOUNT.into()));
    }
    let (mut mounts, mut limits) = (Vec::new(), false);
    let mine = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    for line in mine.lines() {
        let list = line.split(':').nth(1)?;
        let name = list.strip_prefix("name=");
        let (directory, magic) = match list {
            "" => ("unified", CGROUP2_SUPER_MAGIC),
            list => (name.unwrap_or(list), CGROUP_SUPER_MAGIC),
        };
        let path = PathBuf::from(format!("{MOUNT}/{directory}"));
        match is(&path, magic) {
            true => {}
            // Hierarchies without a controller are often not mounted.
            false if list.is_empty() || name.is_some() => continue,
            false => return None,
        }
        let controllers: Vec<String> = list
            .split(',')
            .filter(|controller| V1_CONTROLLERS.contains(controller) || name.is_some())
            .map(str::to_owned)
            .collect();
        limits |= name.is_none() && !controllers.is_empty();
        if !controllers.is_empty() || list.is_empty() {
            mounts.push(V1Mount { path, controllers });
        }
    }
    limits.then_some(Layout::V1(mounts))
}

fn is(path: &Path, magic: FsWord) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == magic)
}

/// The container's group, relative to the hierarchies' mounts. The specification leaves open where a relative path
/// starts; here it is the same place.
pub(crate) fn path(asked: Option<&str>, id: &str) -> Result<String> {
    let asked = asked.unwrap_or_default();
    if asked.contains(':') && !asked.contains('/') {
        let text = "expected cgroupsPath to be a path: the form \"slice:prefix:name\" needs --systemd-cgroup";
        return Err(Error::config("linux.cgroupsPath", text));
    }
    let mut parts = Vec::new();
    for part in asked.split('/') {
        match part {
            "" | "." => {}
            // As runc: cleaned as if it were absolute, so nothing leads out.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Ok(format!("{PARENT}/{id}"));
    }
    Ok(parts.join("/"))
}

/// The devices every container may use, whatever its rules (runc's `AllowedDevices`).
const ALLOWED: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 10] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
];

/// The limits of the configuration, with the device rules that go without saying.
pub(crate) fn resources(given: Option<LinuxResources>, version: u8) -> Result<LinuxResources> {
    let mut resources = given.unwrap_or_default();
    if version == 1 && resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::Invalid(
            "invalid configuration: cannot use unified on cgroup v1".to_owned(),
        ));
    }
    let mut rules: Vec<LinuxDeviceCgroup> = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        // Nothing was said: nothing but what follows.
        rules.push(rule(false, None, None, None, "rwm")?);
    }
    for (kind, major, minor, access) in ALLOWED {
        rules.push(rule(true, Some(kind), major, minor, access)?);
    }
    resources.set_devices(Some(rules));
    Ok(resources)
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
    if let Some(kind) = kind {
        builder = builder.typ(kind);
    }
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build().map_err(|error| Error::Invalid(error.to_string()))
}

/// The hierarchies for a new container. Its group may be there, but has to be empty and not frozen: what is done to one
/// container must not happen to another (config-linux.md, "Control groups").
pub(crate) fn open_for(layout: Option<&Layout>, path: &str) -> Result<Option<Hierarchy>> {
    let Some(layout) = layout else { return Ok(None) };
    let hierarchy = Hierarchy::try_from(layout.clone())?;
    match hierarchy.open(path) {
        Err(ferry_cgroup::Error::NotFound(_)) => {}
        opened => check_unused(&opened?, layout, path)?,
    }
    Ok(Some(hierarchy))
}

fn check_unused(held: &Cgroup, layout: &Layout, path: &str) -> Result<()> {
    match held.pids() {
        Ok(pids) if !pids.is_empty() => {
            let text = format!("container's cgroup is not empty: {} process(es) found", pids.len());
            return Err(Error::State(text));
        }
        // It may go meanwhile.
        Ok(_) | Err(ferry_cgroup::Error::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if is_frozen(layout, path) {
        return Err(Error::State("container's cgroup unexpectedly frozen".to_owned()));
    }
    Ok(())
}

/// Whom the group belongs to: the user of the container's process as the host knows it, where the container has a cgroup
/// namespace of its own and may write to the file system (config-linux.md, "Cgroup ownership"). `None`: the runtime's.
pub(crate) fn owner(config: &Config, namespaces: &Namespaces) -> Option<u32> {
    const TARGET: &str = "/sys/fs/cgroup";
    let is_writable = |mount: &crate::config::Mount| {
        let target: PathBuf = Path::new(&mount.destination).components().collect();
        mount.source.as_deref() == Some("cgroup")
            && target == Path::new(TARGET)
            && !mount.options.iter().flatten().any(|option| option == "ro")
    };
    if !namespaces.cgroup || !config.mounts.iter().flatten().any(is_writable) {
        return None;
    }
    let user = config.process.as_ref().and_then(|process| process.user.as_ref());
    let inside = user.map_or(0, |user| user.uid);
    if namespaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWUSER) {
        // Its map is another's.
        return None;
    }
    if namespaces.create & CLONE_NEWUSER == 0 {
        return (inside != 0).then_some(inside);
    }
    namespaces.uids.iter().find_map(|(first, outside, count)| {
        let offset = inside.checked_sub(*first).filter(|offset| offset < count)?;
        outside.checked_add(offset)
    })
}

pub(crate) fn warn_of_kernel_memory(resources: &LinuxResources, log: &mut Log) {
    let memory = resources.memory().as_ref();
    if memory.is_some_and(|memory| memory.kernel().or(memory.kernel_tcp()).is_some()) {
        log.warn("Kernel memory settings are ignored and will be removed");
    }
}

/// Says what did not take effect. What the other version of control groups would have is left out, as runc leaves it out;
/// what this machine lacks is an error.
pub(crate) fn judge(warnings: Vec<Warning>, log: &mut Log) -> Result<()> {
    for warning in warnings {
        match &warning {
            Warning::Unsupported { limit, missing, .. } => {
                let text = format!("cannot set it: this machine has no {missing}");
                return Err(Error::config(format!("linux.resources.{limit}"), text));
            }
            // The kernel takes any number and keeps it within its bounds.
            Warning::Adjusted { limit, asked, held } if limit == "cpu.shares" => {
                let bound = if asked.len() > held.len() { "maximum" } else { "minimum" };
                return Err(Error::Invalid(format!("the {bound} allowed cpu-shares is {held}")));
            }
            Warning::NoCounterpart { .. } => log.warn(&warning.to_string()),
            Warning::Adjusted { .. } => log.debug(&warning.to_string()),
        }
    }
    Ok(())
}

/// Whether the container is paused, by whoever it was.
pub(crate) fn is_frozen(layout: &Layout, path: &str) -> bool {
    let read = |file: PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    match layout {
        Layout::V1(mounts) => mounts
            .iter()
            .find(|mount| mount.controllers.iter().any(|name| name == "freezer"))
            .is_some_and(|mount| {
                let state = read(mount.path.join(path).join("freezer.state"));
                matches!(state.trim(), "FROZEN" | "FREEZING")
            }),
        Layout::V2(mount) => read(mount.join(path).join("cgroup.events"))
            .lines()
            .any(|line| line == "frozen 1"),
    }
}

/// The parent of containers that name no cgroup goes when it is empty.
pub(crate) fn remove_parent(hierarchy: &ferry_cgroup::Hierarchy, path: &str) {
    if path.starts_with(&format!("{PARENT}/")) {
        let _ = hierarchy.remove_empty(PARENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_path_never_leads_out() {
        let path = |asked: &str| path(Some(asked), "id").unwrap();
        assert_eq!(path("/docker/abc"), "docker/abc");
        assert_eq!(path("docker//./abc/"), "docker/abc");
        assert_eq!(path("../../x"), "x");
        assert_eq!(path("/"), "ferry-oci/id");
        assert!(super::path(Some("system.slice:runc:id"), "id").is_err());
    }

    #[test]
    fn the_usual_layout_is_the_one_the_mount_table_tells_of() {
        let (Some(usual), Ok(table)) = (usual(), Layout::detect()) else {
            return;
        };
        let sorted = |layout: Layout| match layout {
            Layout::V1(mut mounts) => {
                mounts.sort_by(|a, b| a.path.cmp(&b.path));
                Layout::V1(mounts)
            }
            other => other,
        };
        assert_eq!(sorted(usual), sorted(table));
    }

    #[test]
    fn rules_end_with_what_every_container_may_use() {
        let all = resources(None, 2).unwrap();
        let rules = all.devices().as_ref().unwrap();
        assert_eq!((rules.len(), rules[0].allow()), (11, false));
    }
}
