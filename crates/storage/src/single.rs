//! An image of one file: how `ferry/hello` comes about without a registry.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::{Entry, Kind, Recorder, Writer};
use ferry_image::{Digest, Hasher, Reference};
use ferry_sys::Root;
use rustix::fs::{Timespec, Timestamps};

use crate::db::Durability;
use crate::error::Context as _;
use crate::images::{Image, Images, NewBlob, NewImage, parse_config};
use crate::layers::Layer;
use crate::layout::Staging;
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Single {
    pub reference: Reference,
    /// The file on this machine, which must not be written while it is added.
    pub source: PathBuf,
    /// Where it is in the image: absolute, without `.` and `..`.
    pub path: PathBuf,
    /// A configuration without `rootfs` and `history`, which are filled in.
    pub config: serde_json::Value,
}

impl Images {
    /// Makes an image whose one layer is one file with mode 0755, owned by root. The layer shares the file's blocks where
    /// that can be done (a hard link to root's own file of that mode, a reflink), else it is a copy. The same file and
    /// configuration give the same id. Blocks.
    pub fn add_single_file(&self, single: &Single) -> Result<Arc<Image>> {
        let shared = &self.shared;
        let names = components(&single.path)?;
        let diff = diff_id(&single.source, &names)?;
        let source = &single.source;
        let pin = shared.layers.obtain(&diff, || {
            let staging = Staging::new(&shared.layout)?;
            let mut at = staging.path.join("fs");
            let (file, dirs) = names.split_last().ok_or_else(|| invalid(&single.path))?;
            for name in [None].into_iter().chain(dirs.iter().map(Some)) {
                at = name.map_or_else(|| at.clone(), |name| at.join(name));
                std::fs::create_dir(&at).at("make the directory", &at)?;
                std::fs::set_permissions(&at, Permissions::from_mode(0o755)).at("change the mode of", &at)?;
            }
            let size = place(source, &at.join(file))?;
            let tar_size = record(&staging.path, &names, size).at("write the recipe in", &staging.path)?;
            Ok((
                staging,
                Layer {
                    chain_id: diff.clone(),
                    diff_id: diff.clone(),
                    parent: None,
                    size,
                    tar_size: Some(tar_size),
                    opaque: false,
                    blob: None,
                },
            ))
        })?;
        let mut config = single.config.clone();
        let object = config
            .as_object_mut()
            .ok_or_else(|| Error::Invalid("the configuration is no object".to_owned()))?;
        object.insert(
            "rootfs".to_owned(),
            serde_json::json!({ "type": "layers", "diff_ids": [diff.to_string()] }),
        );
        let raw_config = serde_json::to_vec(&config).map_err(|error| Error::Invalid(error.to_string()))?;
        let new = NewImage {
            config: parse_config(&raw_config)?,
            raw_config,
            pins: vec![pin],
            manifest: None,
            origin: None,
            parent: None,
            references: vec![single.reference.clone()],
        };
        self.add(new)
    }

    /// Records one image whose configuration is not in a file yet.
    pub(crate) fn add(&self, new: NewImage) -> Result<Arc<Image>> {
        let staging = Staging::new(&self.shared.layout)?;
        let path = staging.path.join("config");
        std::fs::write(&path, &new.raw_config).at("write", &path)?;
        let digest = Digest::of(&new.raw_config);
        let loaded = self
            .shared
            .record(&[new], &[NewBlob { digest, path }], Durability::Power)?;
        loaded
            .into_iter()
            .next()
            .map(|loaded| loaded.image)
            .ok_or(Error::Closed)
    }
}

fn place(source: &Path, target: &Path) -> Result<u64> {
    let meta = std::fs::metadata(source).at("look at", source)?;
    let alike = meta.mode() & 0o7777 == 0o755 && meta.uid() == 0 && meta.gid() == 0;
    if !(alike && std::fs::hard_link(source, target).is_ok()) {
        std::fs::copy(source, target).at("copy", source)?;
        std::fs::set_permissions(target, Permissions::from_mode(0o755)).at("change the mode of", target)?;
        let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps {
            last_access: epoch,
            last_modification: epoch,
        };
        rustix::fs::utimensat(rustix::fs::CWD, target, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .at("set the times of", target)?;
    }
    Ok(meta.len())
}

/// What stands before the file's content and after it in the tar that would unpack to this layer: the directories, then the
/// file, all of 1970.
fn frame(names: &[OsString], size: u64) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut tar = Writer::new(Vec::new());
    let mut path = PathBuf::new();
    for (at, name) in names.iter().enumerate() {
        path.push(name);
        let kind = if at + 1 == names.len() {
            Kind::File
        } else {
            Kind::Directory
        };
        tar.header(&entry(&path, kind, size))?;
    }
    let mut end = Writer::new(Vec::new());
    end.pad(size)?;
    Ok((tar.into_inner(), end.finish()?))
}

/// The digest of that tar.
fn diff_id(source: &Path, names: &[OsString]) -> Result<Digest> {
    let failed = |error| Error::io("read", source, error);
    let mut file = File::open(source).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let (before, after) = frame(names, size).map_err(failed)?;
    let mut hash = Hasher::default();
    hash.update(&before);
    let mut buffer = vec![0; 64 << 10];
    let mut left = size;
    while left > 0 {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 || count as u64 > left {
            return Err(Error::Invalid(format!(
                "{} changed while it was read",
                source.display()
            )));
        }
        hash.update(&buffer[..count]);
        left -= count as u64;
    }
    hash.update(&after);
    Ok(hash.finish())
}

/// Writes down how to make that tar of the layer, whose file was placed; its size.
fn record(staging: &Path, names: &[OsString], size: u64) -> std::io::Result<u64> {
    let (before, after) = frame(names, size)?;
    let recorder = Recorder::create(staging, &Root::open(&staging.join("fs"))?)?;
    std::io::copy(&mut recorder.watch(&before[..]), &mut std::io::sink())?;
    recorder.unread(&names.iter().collect::<PathBuf>(), size)?;
    std::io::copy(&mut recorder.watch(&after[..]), &mut std::io::sink())?;
    recorder.finish()
}

fn entry(path: &Path, kind: Kind, size: u64) -> Entry {
    Entry {
        mode: 0o755,
        size,
        ..Entry::blank(path, kind)
    }
}

fn components(path: &Path) -> Result<Vec<OsString>> {
    let names = path
        .components()
        .filter(|component| *component != std::path::Component::RootDir);
    let name = |component| match component {
        std::path::Component::Normal(name) => Ok(name.to_owned()),
        _ => Err(invalid(path)),
    };
    let names: Vec<_> = names.map(name).collect::<Result<_>>()?;
    if names.is_empty() {
        Err(invalid(path))
    } else {
        Ok(names)
    }
}

fn invalid(path: &Path) -> Error {
    Error::Invalid(format!("{} is no path of a file", path.display()))
}
