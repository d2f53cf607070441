//! What the engine does for logs while shims write them: it compresses files that were rotated, and keeps all logs together below
//! a tenth of the disk. A shim bounds its own container's; without an engine files stay as they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::{Compression, GzBuilder};

use super::cursor::{SUBFIELD, places};
use crate::world::{World, blocking};

/// How often it looks.
const PACE: Duration = Duration::from_secs(10);
/// The part of the disk that is for logs: one in so many.
const PART: u64 = 10;

/// A container's log.
struct Log {
    path: PathBuf,
    compress: bool,
}

/// Looks after all logs, for as long as the engine is there.
pub(crate) async fn tend(world: Arc<World>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pace.tick() => {}
            () = world.closing.cancelled() => return,
        }
        let logs: Vec<Log> = world
            .containers
            .all()
            .iter()
            .filter_map(|handle| {
                let snapshot = handle.snapshot();
                let file = super::options::file(&snapshot.record, &world).ok()??;
                Some(Log {
                    path: file.path,
                    compress: super::options::compresses(&snapshot.record),
                })
            })
            .collect();
        if logs.is_empty() {
            continue;
        }
        let root = world.config.data_root.clone();
        let done = blocking("look after the logs", move || {
            for log in &logs {
                compress_rotated(log);
            }
            let disk = rustix::fs::statvfs(&root).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
            remove_oldest(&logs, disk / PART);
        });
        if let Err(error) = done.await {
            tracing::warn!(error = error.message, "logs");
        }
    }
}

fn compress_rotated(log: &Log) {
    if !log.compress {
        return;
    }
    let rotated = places(&log.path)
        .into_iter()
        .filter(|place| !place.is_compressed() && place.path != log.path);
    for place in rotated {
        match compress(&place.path) {
            // The shim has removed it meanwhile.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %place.path.display(), %error, "a rotated log stays as it is: it cannot be compressed");
            }
            _ => {}
        }
    }
}

/// Replaces a file that nobody writes to by `NAME.gz`, which remembers its inode for those who follow it.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let (target, draft) = (with(".gz"), with(".draft"));
    let write = || {
        let mut source = File::open(path)?;
        let extra = [&SUBFIELD[..], &source.metadata()?.ino().to_le_bytes()].concat();
        let file = File::create(&draft)?;
        let mut packed = GzBuilder::new().extra(extra).write(file, Compression::fast());
        io::copy(&mut source, &mut packed)?;
        let file = packed.finish()?;
        file.set_modified(source.metadata()?.modified()?)
    };
    let written = write().and_then(|()| std::fs::rename(&draft, &target));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written?;
    std::fs::remove_file(path)
}

/// Removes rotated files, the oldest of all containers first, until there are at most `limit` bytes. What a container writes to
/// stays.
fn remove_oldest(logs: &[Log], limit: u64) {
    let mut files: Vec<(SystemTime, u64, Option<PathBuf>)> = Vec::new();
    for log in logs {
        for place in places(&log.path) {
            let Ok(metadata) = std::fs::metadata(&place.path) else {
                continue;
            };
            let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            files.push((
                time,
                metadata.blocks() * 512,
                (place.path != log.path).then_some(place.path),
            ));
        }
    }
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    files.sort_by_key(|(time, ..)| *time);
    for (_, size, path) in files {
        if total <= limit {
            break;
        }
        if let Some(path) = path
            && std::fs::remove_file(&path).is_ok()
        {
            tracing::warn!(file = %path.display(), "a rotated log was removed: logs take more than a tenth of the disk");
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rotated_files_go_first_and_what_is_written_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (age, name) in ["a.log.1", "b.log.1", "a.log.2", "a.log", "b.log"].iter().enumerate() {
            std::fs::write(path(name), [1u8; 8192]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64);
            File::options()
                .write(true)
                .open(path(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let logs = ["a.log", "b.log"].map(|name| Log {
            path: path(name),
            compress: false,
        });
        remove_oldest(&logs, 3 * 8192);
        assert_eq!(
            ["a.log.1", "b.log.1", "a.log.2"].map(|name| path(name).exists()),
            [false, false, true]
        );
        remove_oldest(&logs, 0);
        assert!(!path("a.log.2").exists() && path("a.log").exists() && path("b.log").exists());
    }
}
