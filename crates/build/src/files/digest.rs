//! What a step copies, as one digest: names, kinds, modes, owners, contents; not times.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ferry_archive::tree;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::Source;
use super::index::{Content, Key};
use super::select::{Entry, select};
use crate::error::{Error, Result};
use crate::graph::{Action, Files};

const THREADS: usize = 4;
const BUFFER: usize = 128 << 10;

/// The digest of all that a step's copies take, as hex. `sources` are by the places of its inputs. Blocks.
pub fn digest(files: &Files, sources: &[Option<Source<'_>>]) -> Result<String> {
    let mut whole = Sha256::new();
    for action in &files.actions {
        let Action::Copy(copy) = action else { continue };
        let source = sources.get(copy.input).and_then(Option::as_ref);
        let source = source.ok_or_else(|| Error::Internal("a copy without a source".to_owned()))?;
        let groups = select(source, copy)?;
        let all: Vec<&Entry> = groups
            .iter()
            .flat_map(|group| std::iter::once(&group.top).chain(&group.entries))
            .collect();
        let contents = contents(source, &all)?;
        let mut at = 0;
        for group in &groups {
            field(&mut whole, &group.name);
            for entry in std::iter::once(&group.top).chain(&group.entries) {
                let is_top = entry.below.as_os_str().is_empty();
                // Of a directory whose content is copied, nothing counts but that.
                let is_dropped = is_top && (entry.is_directory() || group.parents);
                if !is_dropped {
                    describe(&mut whole, source, copy.keep_owner, entry, &contents[at]);
                }
                at += 1;
            }
            whole.update(b"\0end");
        }
    }
    Ok(whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn describe(hash: &mut Sha256, source: &Source<'_>, keep_owner: bool, entry: &Entry, content: &[u8]) {
    let stat = &entry.stat;
    field(hash, entry.below.as_os_str().as_bytes());
    hash.update(stat.st_mode.to_le_bytes());
    if !source.plain_owner && keep_owner {
        hash.update(stat.st_uid.to_le_bytes());
        hash.update(stat.st_gid.to_le_bytes());
    }
    if matches!(entry.kind(), FileType::CharacterDevice | FileType::BlockDevice) {
        hash.update(stat.st_rdev.to_le_bytes());
    }
    field(hash, content);
}

/// Of each entry: a file's digest and attributes, where a link leads, or nothing. Files are read by several threads.
fn contents(source: &Source<'_>, entries: &[&Entry]) -> Result<Vec<Vec<u8>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    /// A few files are read before another thread has begun.
    const FEW: usize = 16;
    if entries.len() <= FEW || threads == 1 {
        let mut buffer = Vec::new();
        return entries
            .iter()
            .map(|entry| content(source, entry, &mut buffer))
            .collect();
    }
    let next = AtomicUsize::new(0);
    let (found, wrong) = (Mutex::new(vec![Vec::new(); entries.len()]), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                /// Entries that are taken at once.
                const PIECE: usize = 64;
                let mut buffer = Vec::new();
                loop {
                    let first = next.fetch_add(PIECE, Ordering::Relaxed);
                    let Some(piece) = entries
                        .get(first..entries.len().min(first + PIECE))
                        .filter(|p| !p.is_empty())
                    else {
                        return;
                    };
                    let mut done = Vec::with_capacity(piece.len());
                    for entry in piece {
                        match content(source, entry, &mut buffer) {
                            Ok(content) => done.push(content),
                            Err(error) => {
                                next.store(entries.len(), Ordering::Relaxed);
                                wrong
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .get_or_insert(error);
                                return;
                            }
                        }
                    }
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    for (place, content) in found[first..].iter_mut().zip(done) {
                        *place = content;
                    }
                }
            });
        }
    });
    match wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn content(source: &Source<'_>, entry: &Entry, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::internal(format!("read {}", entry.path.display()), &error);
    match entry.kind() {
        FileType::Symlink => {
            let link = source
                .root
                .resolve_no_links(&entry.path, OFlags::PATH | OFlags::NOFOLLOW);
            let target = rustix::fs::readlinkat(&link.map_err(failed)?, "", Vec::new());
            Ok(target.map_err(|error| failed(error.into()))?.into_bytes())
        }
        FileType::RegularFile => {
            let key = Key::of(&entry.stat);
            let known = source.index.and_then(|index| index.find(&key));
            if let Some(known) = known.filter(|_| source.plain_owner) {
                return Ok(known.to_vec());
            }
            let (content, attributes) = read(source, &entry.path, buffer).map_err(failed)?;
            if let Some(index) = source.index.filter(|_| attributes.is_empty()) {
                index.learn(key, content);
            }
            Ok([content.as_slice(), &attributes].concat())
        }
        _ => Ok(Vec::new()),
    }
}

/// Digest and attributes of a file.
fn read(source: &Source<'_>, path: &Path, buffer: &mut Vec<u8>) -> std::io::Result<(Content, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = source.root.resolve_no_links(path, flags)?;
    buffer.resize(BUFFER, 0);
    let mut hash = Sha256::new();
    loop {
        match rustix::io::read(&file, &mut buffer[..]) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut attributes = Vec::new();
    for (name, value) in tree::xattrs(std::os::fd::AsFd::as_fd(&file))? {
        attributes.extend_from_slice(name.as_bytes());
        attributes.push(0);
        attributes.extend_from_slice(&value);
        attributes.push(0);
    }
    Ok((hash.finalize().into(), attributes))
}
