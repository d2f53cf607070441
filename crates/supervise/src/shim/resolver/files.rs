//! The files that the daemon writes for a resolver.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ferry_dns::{Action, MAX_SETTINGS, MAX_ZONE, Resolver, Settings, View, Zone, ZoneFile};

/// What makes two states of a file different; they are replaced by renaming, so the inode differs too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
    size: u64,
}

pub(super) struct Files {
    settings: PathBuf,
    stamp: Option<Stamp>,
    zones: Vec<Known>,
}

struct Known {
    file: ZoneFile,
    stamp: Option<Stamp>,
    zone: Rc<Zone>,
}

impl Files {
    pub fn new(settings: &Path) -> Self {
        Self {
            settings: settings.to_owned(),
            stamp: None,
            zones: Vec::new(),
        }
    }

    /// Reads what has changed. Settings that cannot be read leave the former ones; a zone that is gone has no names any more, and
    /// one that cannot be read keeps its former ones.
    pub fn refresh<C: Clone + PartialEq>(&mut self, resolver: &mut Resolver<C>, actions: &mut Vec<Action<C>>) {
        let mut changed = false;
        let stamp = stamp(&self.settings);
        if stamp.is_some() && stamp != self.stamp {
            // Only looked at again when it changes: reading it again gives the same.
            self.stamp = stamp;
            let settings =
                read(&self.settings, MAX_SETTINGS).and_then(|bytes| Settings::parse(&bytes).map_err(io::Error::other));
            if let Ok(settings) = settings {
                resolver.set_links(settings.links);
                resolver.set_servers(&settings.servers, settings.forward, settings.options, actions);
                self.zones = settings.zones.into_iter().map(|file| self.known(file)).collect();
                changed = true;
            }
        }
        for zone in &mut self.zones {
            changed |= zone.refresh();
        }
        if changed {
            let view = |known: &Known| View {
                network: known.file.network.clone(),
                zone: Rc::clone(&known.zone),
            };
            resolver.set_zones(self.zones.iter().map(view).collect());
        }
    }

    /// A zone that was known stays, though its place in the list may be another.
    fn known(&self, file: ZoneFile) -> Known {
        let former = self.zones.iter().find(|known| known.file.path == file.path);
        Known {
            file,
            stamp: former.and_then(|former| former.stamp),
            zone: former.map(|former| Rc::clone(&former.zone)).unwrap_or_default(),
        }
    }
}

impl Known {
    /// True if it has other names than before.
    fn refresh(&mut self) -> bool {
        let stamp = stamp(&self.file.path);
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let zone = match stamp {
            None => Ok(Zone::default()),
            Some(_) => read(&self.file.path, MAX_ZONE).and_then(|bytes| {
                let text = std::str::from_utf8(&bytes).map_err(io::Error::other)?;
                Zone::parse(text).map_err(io::Error::other)
            }),
        };
        match zone {
            Ok(zone) => {
                self.zone = Rc::new(zone);
                true
            }
            Err(_) => false,
        }
    }
}

/// `None` if there is no such file.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
        size: metadata.size(),
    })
}

fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
