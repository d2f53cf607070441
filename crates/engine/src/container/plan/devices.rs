//! The device nodes in a container's /dev.

use std::path::{Path, PathBuf};

use ferry_api::container::HostConfig;
use ferry_runtime::plan::{Device, devices};
use rustix::fs::{FileType, Mode, major, minor};

use crate::error::{Error, Result};

pub(super) fn of(host: &HostConfig) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = devices::defaults().collect();
    if host.privileged {
        let mut all = Vec::new();
        collect(Path::new("/dev"), 0, &mut all);
        for device in all {
            add(&mut devices, device);
        }
    }
    for mapping in host.resources.devices.iter().flatten() {
        let inside = if mapping.path_in_container.is_empty() {
            &mapping.path_on_host
        } else {
            &mapping.path_in_container
        };
        let on_host = Path::new(&mapping.path_on_host);
        if on_host.is_dir() {
            let mut found = Vec::new();
            collect(on_host, 0, &mut found);
            for mut device in found {
                if let Ok(rest) = device.path.strip_prefix(on_host) {
                    device.path = Path::new(inside).join(rest);
                }
                add(&mut devices, device);
            }
            continue;
        }
        super::super::resources::stat_device(&mapping.path_on_host)?;
        let device =
            device_at(on_host).ok_or_else(|| Error::invalid(format!("not a device node: {}", mapping.path_on_host)))?;
        add(
            &mut devices,
            Device {
                path: PathBuf::from(inside),
                ..device
            },
        );
    }
    Ok(devices)
}

fn add(devices: &mut Vec<Device>, device: Device) {
    devices.retain(|known| known.path != device.path);
    devices.push(device);
}

/// The host's devices below a directory, without what a container has of its own.
fn collect(dir: &Path, depth: usize, into: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let own = depth == 0
                && ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"]
                    .iter()
                    .any(|own| name == *own);
            if !own && depth < 8 {
                collect(&path, depth + 1, into);
            }
        } else if !(depth == 0 && name == "console") {
            into.extend(device_at(&path));
        }
    }
}

fn device_at(path: &Path) -> Option<Device> {
    let stat = rustix::fs::lstat(path).ok()?;
    let stat = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => rustix::fs::stat(path).ok()?,
        _ => stat,
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => 'b',
        FileType::CharacterDevice => 'c',
        _ => return None,
    };
    Some(Device {
        path: path.to_owned(),
        kind,
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
        mode: Mode::from_raw_mode(stat.st_mode).bits(),
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}
