//! What the user mounts into a container: `-v`, `--mount`, `--tmpfs`.

use std::path::{Component, Path};

use ferry_api::container::HostConfig;
use ferry_api::volume::{Mount, MountPoint, mount_type, propagation};

use crate::error::{Error, Result};

/// Reads what the request mounts; a bind's missing host directory is made for `-v`, and an error for `--mount`.
pub(crate) fn points(host: &HostConfig) -> Result<Vec<MountPoint>> {
    let mut points: Vec<MountPoint> = Vec::new();
    for bind in host.binds.iter().flatten() {
        let point = parse_bind(bind)?;
        if !Path::new(&point.source).exists() {
            std::fs::create_dir_all(&point.source)
                .map_err(|error| Error::internal(format!("make the bind source {}", point.source), &error))?;
        }
        add(&mut points, point)?;
    }
    for mount in &host.mounts {
        match mount.r#type.as_str() {
            mount_type::BIND => add(&mut points, bind_of(mount)?)?,
            mount_type::TMPFS => {
                add(
                    &mut points,
                    MountPoint {
                        r#type: mount_type::TMPFS.to_owned(),
                        destination: clean(&mount.target)?,
                        rw: !mount.read_only,
                        ..MountPoint::default()
                    },
                )?;
            }
            mount_type::VOLUME => return Err(no_volumes(&mount.source)),
            mount_type::IMAGE | mount_type::NPIPE | mount_type::CLUSTER => {
                let kind = &mount.r#type;
                return Err(Error::unsupported(format!(
                    "mounts of type {kind:?} are not there yet: use bind or tmpfs"
                )));
            }
            other => {
                return Err(Error::invalid(format!(
                    "invalid mount config for type {other:?}: mount type unknown"
                )));
            }
        }
    }
    for path in host.tmpfs.keys() {
        let point = MountPoint {
            r#type: mount_type::TMPFS.to_owned(),
            destination: clean(path)?,
            rw: true,
            ..MountPoint::default()
        };
        add(&mut points, point)?;
    }
    Ok(points)
}

fn add(points: &mut Vec<MountPoint>, point: MountPoint) -> Result<()> {
    // What the runtime writes through /proc must be the kernel's own (CVE-2019-16884).
    if point.destination == "/proc" {
        return Err(Error::invalid(
            "invalid mount: \"/proc\" cannot be mounted over: the container needs the kernel's own",
        ));
    }
    if points.iter().any(|known| known.destination == point.destination) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    points.push(point);
    Ok(())
}

fn no_volumes(name: &str) -> Error {
    let what = if name.is_empty() {
        "anonymous volumes are".to_owned()
    } else {
        format!("the named volume {name:?} is")
    };
    Error::unsupported(format!(
        "{what} not there yet: give a host directory by its absolute path"
    ))
}

/// `source:target[:options]`.
fn parse_bind(text: &str) -> Result<MountPoint> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [_] => return Err(no_volumes("")),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(invalid()),
    };
    if source.is_empty() || target.is_empty() {
        return Err(invalid());
    }
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{}\": invalid mount path: '{target}' mount path must be absolute",
            if source.starts_with('/') { "bind" } else { "volume" }
        )));
    }
    if !source.starts_with('/') {
        return Err(no_volumes(source));
    }
    let mut point = MountPoint {
        r#type: mount_type::BIND.to_owned(),
        source: clean(source)?,
        destination: clean(target)?,
        mode: mode.to_owned(),
        rw: true,
        propagation: propagation::RPRIVATE.to_owned(),
        ..MountPoint::default()
    };
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => point.rw = true,
            "ro" => point.rw = false,
            "z" | "Z" | "consistent" | "cached" | "delegated" | "nocopy" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                option.clone_into(&mut point.propagation);
            }
            _ => return Err(Error::invalid(format!("invalid mode: {option}"))),
        }
    }
    if point.destination == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )));
    }
    Ok(point)
}

fn bind_of(mount: &Mount) -> Result<MountPoint> {
    let invalid = |why: &str| Error::invalid(format!("invalid mount config for type \"bind\": {why}"));
    if mount.source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    if !mount.source.starts_with('/') {
        return Err(invalid(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.source
        )));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if !Path::new(&mount.source).exists() {
        if !options.create_mountpoint {
            return Err(invalid(&format!("bind source path does not exist: {}", mount.source)));
        }
        std::fs::create_dir_all(&mount.source)
            .map_err(|error| Error::internal(format!("make the bind source {}", mount.source), &error))?;
    }
    let propagation = if options.propagation.is_empty() {
        propagation::RPRIVATE
    } else {
        &options.propagation
    };
    Ok(MountPoint {
        r#type: mount_type::BIND.to_owned(),
        source: clean(&mount.source)?,
        destination: clean(&mount.target)?,
        rw: !mount.read_only,
        propagation: propagation.to_owned(),
        ..MountPoint::default()
    })
}

/// An absolute path without `.`, `..` and doubled slashes, resolved as text, as Go's path.Clean does.
pub(crate) fn clean(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_source_target_and_options() {
        let point = parse_bind("/a/../b:/c//d:ro,rslave").unwrap();
        assert_eq!(
            (point.source.as_str(), point.destination.as_str(), point.rw),
            ("/b", "/c/d", false)
        );
        assert_eq!(point.propagation, "rslave");
        for bad in ["name:/x", "/x", "/a:", ":/b", "/a:/b:xx", "/a:b", "/a:/b:ro:rw", "/a:/"] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }
}
