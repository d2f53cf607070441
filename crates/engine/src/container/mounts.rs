//! What the user mounts into a container: `-v`, `--mount`, `--tmpfs`, `--volumes-from`, and the volumes of its image.
//!
//! Everything is checked, in Docker's order and words, before a volume is made.

mod spec;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use ferry_api::container::{Config, HostConfig};
use ferry_api::volume::{Create as CreateVolume, MountPoint, mount_type};
use ferry_kit::Id;

use super::point::{Depth, Point};
use crate::error::{Error, Kind, Result};
use crate::images;
use crate::world::World;

/// What a container mounts, and the volumes it needs for that, which may be there already.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    pub points: Vec<Point>,
    pub volumes: Vec<CreateVolume>,
}

/// Reads what the request and the image mount. A bind's missing host directory is made for `-v`, and an error for `--mount`.
pub(crate) fn points(world: &World, host: &HostConfig, config: &Config) -> Result<Drafts> {
    let mut drafts = Drafts::default();
    for from in host.volumes_from.iter().flatten() {
        for point in of_container(world, from)? {
            drafts.points.retain(|known| known.destination != point.destination);
            drafts.points.push(point);
        }
    }
    // Those are not in the way of what is asked for by itself.
    let inherited = drafts.points.len();
    for text in host.binds.iter().flatten() {
        let (mount, mode) = spec::bind(text, &host.volume_driver)?;
        let point = spec::point(&mount, &mode).map_err(|error| spec::in_bind(text, &error))?;
        if point.r#type == mount_type::BIND && !Path::new(&point.source).exists() {
            make_source(&point.source)?;
        }
        drafts.add(point, inherited, spec::volume(&mount))?;
    }
    for mount in &host.mounts {
        spec::check_options(mount)?;
        let mut point = spec::point(mount, "")?;
        match mount.r#type.as_str() {
            mount_type::BIND if !Path::new(&mount.source).exists() => {
                if !mount.bind_options.as_ref().is_some_and(|bind| bind.create_mountpoint) {
                    let why = format!("bind source path does not exist: {}", mount.source);
                    return Err(spec::invalid(mount_type::BIND, &why));
                }
                make_source(&point.source)?;
            }
            mount_type::IMAGE => of_image(world, &mut point)?,
            _ => {}
        }
        drafts.add(point, inherited, spec::volume(mount))?;
    }
    for path in host.tmpfs.keys() {
        let point = Point {
            unlisted: true,
            ..Point::from(MountPoint {
                r#type: mount_type::TMPFS.to_owned(),
                destination: clean(path)?,
                rw: true,
                ..MountPoint::default()
            })
        };
        drafts.add(point, inherited, None)?;
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        drafts.of_image(path, &host.volume_driver)?;
    }
    for point in &drafts.points {
        // What the runtime writes through /proc must be the kernel's own (CVE-2019-16884).
        if point.destination == "/proc" {
            return Err(Error::invalid(
                "invalid mount: \"/proc\" cannot be mounted over: the container needs the kernel's own",
            ));
        }
    }
    Ok(drafts)
}

impl Drafts {
    fn add(&mut self, mut point: Point, inherited: usize, volume: Option<CreateVolume>) -> Result<()> {
        let at = |known: &Point| known.destination == point.destination;
        match self.points.iter().position(at) {
            Some(index) if index >= inherited => {
                return Err(Error::invalid(format!("Duplicate mount point: {}", point.destination)));
            }
            // In its place, so that the count of the inherited ones stays right.
            Some(index) => {
                self.name(&mut point, volume);
                self.points[index] = point;
            }
            None => {
                self.name(&mut point, volume);
                self.points.push(point);
            }
        }
        Ok(())
    }

    /// Gives a volume's point its name, and notes that there has to be such a volume.
    fn name(&mut self, point: &mut Point, volume: Option<CreateVolume>) {
        let Some(mut volume) = volume else { return };
        if volume.name.is_empty() {
            point.anonymous = true;
            volume.name = Id::random().to_string();
            volume
                .labels
                .insert(crate::volumes::ANONYMOUS.to_owned(), String::new());
        }
        point.name.clone_from(&volume.name);
        self.volumes.push(volume);
    }

    /// `-v /path`, or a volume of the image's. What it says is no more than where: whatever is mounted there is left.
    fn of_image(&mut self, path: &str, driver: &str) -> Result<()> {
        let destination = clean(&format!("/{path}"))?;
        if destination == "/" || self.points.iter().any(|point| point.destination == destination) {
            return Ok(());
        }
        let mut point = Point {
            copy: true,
            ..Point::from(MountPoint {
                r#type: mount_type::VOLUME.to_owned(),
                destination,
                rw: true,
                ..MountPoint::default()
            })
        };
        let volume = CreateVolume {
            driver: driver.to_owned(),
            ..CreateVolume::default()
        };
        self.name(&mut point, Some(volume));
        self.points.push(point);
        Ok(())
    }
}

/// `container[:mode]`: its binds and volumes, which are there and filled already.
fn of_container(world: &World, text: &str) -> Result<Vec<Point>> {
    if text.is_empty() {
        return Err(Error::invalid("volumes-from specification cannot be an empty string"));
    }
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    if text.contains(':') && !mode.is_empty() && !spec::is_mode(mode) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    // As Docker: what is wrong is the request, and not the path it came by.
    let found = world.containers.find(name);
    let handle = found.map_err(|error| Error::invalid(error.message))?;
    let read_only = mode.split(',').any(|option| option == "ro");
    let snapshot = handle.snapshot();
    let points = snapshot.record.mounts.iter();
    // A tmpfs is its container's own.
    let points = points.filter(|point| point.r#type != mount_type::TMPFS);
    Ok(points
        .map(|point| {
            let mut point = point.clone();
            point.shown.rw = point.shown.rw && !read_only;
            point.shown.mode = String::new();
            point.copy = false;
            point
        })
        .collect())
}

/// The image of that name, as it is now: what its name means later changes nothing.
fn of_image(world: &World, point: &mut Point) -> Result<()> {
    let image = images::find(world, &point.name).map_err(|error| match error.kind {
        Kind::NotFound => {
            let name = &point.name;
            Error::not_found(format!(
                "no image {name} to mount at {}: pull it first",
                point.destination
            ))
        }
        _ => error,
    })?;
    point.image = image.id.to_string();
    point.shown.source.clone_from(&point.image);
    point.layers = ferry_storage::visible_layers(&image);
    Ok(())
}

fn make_source(path: &str) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::internal(format!("error while creating mount source path '{path}'"), &error))
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

/// `size=…` and the like of `--tmpfs` and `--mount type=tmpfs` at this place.
pub(crate) fn tmpfs_options(host: &HostConfig, destination: &str) -> (String, Vec<(String, String)>) {
    let is_there = |path: &str| clean(path).is_ok_and(|path| path == destination);
    let own: BTreeMap<_, _> = host.tmpfs.iter().filter(|(path, _)| is_there(path)).collect();
    let mut words = own.values().next().map_or(String::new(), |text| (*text).clone());
    let mut data = Vec::new();
    let given = host.mounts.iter().find(|mount| is_there(&mount.target));
    if let Some(settings) = given.and_then(|mount| mount.tmpfs_options.as_ref()) {
        if settings.size_bytes > 0 {
            data.push(("size".to_owned(), settings.size_bytes.to_string()));
        }
        if settings.mode > 0 {
            data.push(("mode".to_owned(), format!("{:o}", settings.mode)));
        }
        for option in &settings.options {
            words.push(',');
            words.push_str(&option.join("="));
        }
    }
    (words, data)
}

impl Depth {
    pub fn of(mount: &ferry_api::volume::Mount) -> Self {
        let bind = mount.bind_options.clone().unwrap_or_default();
        match (bind.non_recursive, bind.read_only_non_recursive) {
            (true, _) => Self::Top,
            (false, true) => Self::Writable,
            (false, false) => Self::Whole,
        }
    }
}
