//! The text of `-v` and the fields of `--mount`, as moby's `volume/mounts` reads them.

use std::path::{Component, Path};

use ferry_api::volume::{
    BindOptions, Create as CreateVolume, Driver, Mount, MountPoint, VolumeOptions, mount_type, propagation,
};

use super::super::point::{Depth, Point};
use super::clean;
use crate::error::{Error, Result};

const PROPAGATIONS: [&str; 6] = [
    propagation::RPRIVATE,
    propagation::PRIVATE,
    propagation::RSHARED,
    propagation::SHARED,
    propagation::RSLAVE,
    propagation::SLAVE,
];

/// `source:target[:options]`, or a target alone, as the mount it means; and its options.
pub(super) fn bind(text: &str, driver: &str) -> Result<(Mount, String)> {
    let malformed = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        ["", ..] | [] => return Err(malformed()),
        [target] => ("", *target, ""),
        // A place with a mode is no volume.
        [_, mode] if is_mode(mode) => return Err(malformed()),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(malformed()),
    };
    if !is_mode(mode) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    let options: Vec<&str> = mode.split(',').collect();
    let is_bind = source.starts_with('/');
    let mut mount = Mount {
        r#type: if is_bind { mount_type::BIND } else { mount_type::VOLUME }.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: options.contains(&"ro"),
        ..Mount::default()
    };
    if !driver.is_empty() && !is_bind {
        let driver = Driver {
            name: driver.to_owned(),
            ..Driver::default()
        };
        mount
            .volume_options
            .get_or_insert_with(VolumeOptions::default)
            .driver_config = Some(driver);
    }
    if options.contains(&"nocopy") {
        mount.volume_options.get_or_insert_with(VolumeOptions::default).no_copy = true;
    }
    if let Some(found) = options.iter().find(|option| PROPAGATIONS.contains(option)) {
        mount.bind_options = Some(BindOptions {
            propagation: (*found).to_owned(),
            ..BindOptions::default()
        });
    }
    Ok((mount, mode.to_owned()))
}

/// Options of `-v`: one of a kind at most.
pub(super) fn is_mode(mode: &str) -> bool {
    let mut kinds = [0_u8; 5];
    for option in mode.split(',').filter(|_| !mode.is_empty()) {
        let kind = match option {
            "rw" | "ro" => 0,
            "z" | "Z" => 1,
            "nocopy" => 2,
            "default" | "consistent" | "cached" | "delegated" => 3,
            option if PROPAGATIONS.contains(&option) => 4,
            _ => return false,
        };
        kinds[kind] += 1;
    }
    kinds.iter().all(|count| *count <= 1)
}

/// What was wrong in the words for a text of `-v`.
pub(super) fn in_bind(text: &str, error: &Error) -> Error {
    Error::new(
        error.kind,
        format!("invalid volume specification: '{text}': {}", error.message),
    )
}

pub(super) fn invalid(kind: &str, why: &str) -> Error {
    Error::invalid(format!("invalid mount config for type {kind:?}: {why}"))
}

/// Options of one type on a mount of another.
pub(super) fn check_options(mount: &Mount) -> Result<()> {
    let kind = mount.r#type.as_str();
    for (given, name, belongs) in [
        (mount.bind_options.is_some(), "BindOptions", mount_type::BIND),
        (mount.volume_options.is_some(), "VolumeOptions", mount_type::VOLUME),
        (mount.image_options.is_some(), "ImageOptions", mount_type::IMAGE),
        (mount.tmpfs_options.is_some(), "TmpfsOptions", mount_type::TMPFS),
    ] {
        let known = [
            mount_type::BIND,
            mount_type::VOLUME,
            mount_type::IMAGE,
            mount_type::TMPFS,
        ];
        if given && kind != belongs && known.contains(&kind) {
            return Err(Error::invalid(format!(
                "{name} must not be specified on mount type {kind:?}"
            )));
        }
    }
    Ok(())
}

/// The mount as a container has it, without the name of an anonymous volume. Looks at no file.
pub(super) fn point(mount: &Mount, mode: &str) -> Result<Point> {
    let kind = mount.r#type.as_str();
    let fail = |why: &str| Err(invalid(kind, why));
    if !matches!(
        kind,
        mount_type::BIND | mount_type::VOLUME | mount_type::TMPFS | mount_type::IMAGE
    ) {
        return fail("mount type unknown");
    }
    if mount.target.is_empty() {
        return fail("field Target must not be empty");
    }
    let absolute = |path: &str| clean(path).map_err(|error| invalid(kind, &error.message));
    let destination = absolute(&mount.target)?;
    if destination == "/" {
        return fail("invalid specification: destination can't be '/'");
    }
    let mut point = Point::from(MountPoint {
        r#type: kind.to_owned(),
        destination,
        mode: mode.to_owned(),
        rw: !mount.read_only,
        ..MountPoint::default()
    });
    let is_local = |path: &str| {
        let mut depth = 0_i32;
        Path::new(path).components().all(|component| {
            depth += match component {
                Component::Normal(_) => 1,
                Component::ParentDir => -1,
                Component::CurDir => 0,
                _ => return false,
            };
            depth >= 0
        })
    };
    match kind {
        mount_type::BIND => {
            if mount.source.is_empty() {
                return fail("field Source must not be empty");
            }
            let bind = mount.bind_options.clone().unwrap_or_default();
            if !bind.propagation.is_empty() && !PROPAGATIONS.contains(&bind.propagation.as_str()) {
                return fail(&format!("invalid propagation mode: {}", bind.propagation));
            }
            if mount.volume_options.is_some() {
                return fail("field VolumeOptions must not be specified");
            }
            point.source = absolute(&mount.source)?;
            point.propagation = match bind.propagation.as_str() {
                "" => propagation::RPRIVATE.to_owned(),
                given => given.to_owned(),
            };
            point.depth = Depth::of(mount);
            point.idmap = bind.idmap;
        }
        mount_type::VOLUME => {
            if mount.bind_options.is_some() {
                return fail("field BindOptions must not be specified");
            }
            let options = mount.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() {
                if mount.source.is_empty() {
                    return fail("must not set Subpath when using anonymous volumes");
                }
                if !is_local(&options.subpath) {
                    return fail("subpath must be a relative path within the volume");
                }
            }
            if mount.read_only && mount.source.is_empty() {
                return fail("must not set ReadOnly mode when using anonymous volumes");
            }
            point.copy = !options.no_copy && options.subpath.is_empty();
            point.subpath = options.subpath;
            if mode.is_empty() {
                "z".clone_into(&mut point.mode);
            }
        }
        mount_type::IMAGE => {
            if mount.source.is_empty() {
                return fail("field Source must not be empty");
            }
            let subpath = mount
                .image_options
                .as_ref()
                .map_or("", |options| options.subpath.as_str());
            if !is_local(subpath) {
                return fail("subpath must be a relative path within the volume");
            }
            point.name.clone_from(&mount.source);
            point.rw = false;
            propagation::RPRIVATE.clone_into(&mut point.propagation);
            subpath.clone_into(&mut point.subpath);
        }
        _ => {
            if !mount.source.is_empty() {
                return fail("field Source must not be specified");
            }
            for option in mount.tmpfs_options.iter().flat_map(|options| &options.options) {
                let known = matches!(option.as_slice(), [flag] if matches!(flag.as_str(), "exec" | "noexec"));
                if !known {
                    return fail(&format!("invalid option: {}", option.join("=")));
                }
            }
        }
    }
    Ok(point)
}

/// The volume that a mount of that type needs.
pub(super) fn volume(mount: &Mount) -> Option<CreateVolume> {
    if mount.r#type != mount_type::VOLUME {
        return None;
    }
    let options = mount.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    Some(CreateVolume {
        name: mount.source.clone(),
        driver: driver.name,
        driver_opts: driver.options,
        labels: options.labels,
        ..CreateVolume::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Point> {
        let (mount, mode) = bind(text, "")?;
        point(&mount, &mode).map_err(|error| in_bind(text, &error))
    }

    #[test]
    fn a_bind_is_source_target_and_options() {
        let point = parse("/a/../b:/c//d:ro,rslave").unwrap();
        assert_eq!(
            (point.source.as_str(), point.destination.as_str(), point.rw),
            ("/b", "/c/d", false)
        );
        assert_eq!(
            (point.propagation.as_str(), point.mode.as_str()),
            ("rslave", "ro,rslave")
        );
        let point = parse("name:/x:nocopy").unwrap();
        assert_eq!((point.r#type.as_str(), point.copy), ("volume", false));
        assert_eq!(parse("name:/x").unwrap().mode, "z");
    }

    #[test]
    fn what_is_wrong_is_said_in_dockers_words() {
        for (text, why) in [
            (
                "v1",
                "invalid volume specification: 'v1': invalid mount config for type \"volume\": invalid mount path: 'v1' mount path must be absolute",
            ),
            (
                "v1:/",
                "invalid volume specification: 'v1:/': invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
            ),
            ("v1:/x:foo", "invalid mode: foo"),
            ("v1:/x:ro,rw", "invalid mode: ro,rw"),
            (
                "v1:/x:shared",
                "invalid volume specification: 'v1:/x:shared': invalid mount config for type \"volume\": field BindOptions must not be specified",
            ),
            (
                "/a:/x:nocopy",
                "invalid volume specification: '/a:/x:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
            ),
            (":/x", "invalid volume specification: ':/x'"),
            ("v1:", "invalid volume specification: 'v1:'"),
            ("", "invalid volume specification: ''"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            ("v1:/x:ro:z", "invalid volume specification: 'v1:/x:ro:z'"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, why);
        }
    }

    #[test]
    fn a_subpath_stays_inside() {
        let at = |subpath: &str| {
            let mount = Mount {
                r#type: "volume".into(),
                source: "vv".into(),
                target: "/x".into(),
                volume_options: Some(VolumeOptions {
                    subpath: subpath.into(),
                    ..VolumeOptions::default()
                }),
                ..Mount::default()
            };
            point(&mount, "").is_ok()
        };
        assert!(at("a/b") && at("a/../b") && at("./a"));
        assert!(!at("../a") && !at("/a") && !at("a/../../b"));
    }
}
