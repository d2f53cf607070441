//! Which entries a source of `COPY` names.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ferry_archive::tree;
use ferry_dockerfile::ignore::Matched;
use ferry_dockerfile::{Ignore, suggest};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::entry::{Entry, xattrs};
use super::pattern::{Pattern, is_pattern};
use super::walk::{Filters, Include, State, Walk, above};
use super::{Source, failed};
use crate::error::{Error, Result};
use crate::graph::Copy;

/// A file, or a directory with what of it is copied.
#[derive(Debug)]
pub(super) struct Part {
    /// What it is called: a link that was followed has its own name.
    pub name: OsString,
    /// Where it really is in the source's root.
    pub at: PathBuf,
    /// The first is itself; then parents before what is in them.
    pub entries: Vec<Entry>,
}

pub(super) fn select(source: &Source<'_>, copy: &Copy) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for text in &copy.sources {
        let text = text.trim_start_matches('/');
        if copy.parents {
            let (root, pattern) = text
                .split_once("/./")
                .unwrap_or(("", text.strip_prefix("./").unwrap_or(text)));
            let pattern = match pattern.trim_matches('/') {
                "" | "." => "**",
                pattern => pattern,
            };
            let include = Some(Include::new(pattern)?);
            let part = find(source, Path::new(root), copy, include)?;
            let nothing = part.as_ref().is_none_or(|part| part.entries.len() < 2);
            if nothing && !pattern.contains(['*', '?', '[']) && !copy.allow_missing {
                return Err(missing(source, &Path::new(root).join(pattern)));
            }
            parts.extend(part.filter(|_| !nothing));
        } else if copy.literal || !is_pattern(text) {
            let path = Path::new(text);
            match find(source, path, copy, None)? {
                Some(part) => parts.push(part),
                None if copy.allow_missing => {}
                None => return Err(missing(source, path)),
            }
        } else {
            for path in matches(source, text)? {
                match find(source, &path, copy, None)? {
                    Some(part) => parts.push(part),
                    None if real(source, &path)?.is_some_and(|at| ignored(source, &at).0) => {}
                    None => return Err(missing(source, &path)),
                }
            }
        }
    }
    Ok(parts)
}

/// What is at a path of the source, links followed, with what is below it; `None`: nothing, or nothing that may be seen.
fn find(source: &Source<'_>, path: &Path, copy: &Copy, include: Option<Include>) -> Result<Option<Part>> {
    let Some(at) = real(source, path)? else { return Ok(None) };
    let fd = match source.root.resolve_no_links(&at, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if is_absent(&error) => return Ok(None),
        fd => fd.map_err(|error| failed("open", &at, error))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|error| failed("look at", &at, error))?;
    let Some(mut entry) = Entry::new(PathBuf::new(), &stat) else {
        return Err(Error::Invalid(format!("/{}: a socket cannot be copied", at.display())));
    };
    let (ignored, state) = ignored(source, &at);
    let name = path.file_name().unwrap_or_default().to_owned();
    if !entry.is_directory() {
        let part = Part {
            name,
            at,
            entries: vec![entry],
        };
        return Ok((!ignored).then_some(part));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir = source
        .root
        .resolve_no_links(&at, flags)
        .map_err(|error| failed("open", &at, error))?;
    entry.xattrs =
        xattrs(dir.as_fd(), source.plain_owner).map_err(|error| failed("read the attributes of", &at, error))?;
    let exclude = Ignore::new(&copy.exclude).map_err(|error| Error::invalid(error.to_string()))?;
    let filters = Filters {
        ignore: source.ignore,
        at: at.to_string_lossy().into_owned(),
        exclude,
        include,
    };
    let mut walk = Walk {
        filters: &filters,
        plain: source.plain_owner,
        at: &at,
        found: vec![entry],
        pending: Vec::new(),
    };
    walk.directory(dir, state)?;
    let entries = walk.found;
    // A directory that is ignored is there for what is an exception below it.
    Ok((!ignored || entries.len() > 1).then_some(Part { name, at, entries }))
}

/// A path without its links; `None` if something on the way is no directory.
fn real(source: &Source<'_>, path: &Path) -> Result<Option<PathBuf>> {
    match source.root.expand(path) {
        Ok(at) => Ok(Some(at)),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            Err(Error::Invalid(format!("\"/{}\": too many links", path.display())))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed("open", path, error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether `.dockerignore` takes it away, and what its patterns made of the way to it.
fn ignored(source: &Source<'_>, at: &Path) -> (bool, State) {
    let mut ignored = false;
    let mut matched = Matched::default();
    if let Some(ignore) = source.ignore {
        for path in above(at) {
            (ignored, matched) = ignore.look(&path.to_string_lossy(), &matched);
        }
    }
    let state = State {
        ignore: matched,
        ..State::default()
    };
    (ignored, state)
}

/// All paths that a pattern names, in order.
fn matches(source: &Source<'_>, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if !component.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        let wrong = || Error::Invalid(format!("syntax error in pattern {text}: a class is not closed"));
        let pattern = Pattern::parse(component).ok_or_else(wrong)?;
        let mut next = Vec::new();
        for path in found {
            for name in names(source, &path)? {
                if pattern.matches(&name.to_string_lossy()) {
                    next.push(path.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| is_seen(source, path));
    Ok(found)
}

/// Whether there is an entry, a link perhaps, that is not ignored.
fn is_seen(source: &Source<'_>, path: &Path) -> bool {
    let parent = path.parent().unwrap_or(Path::new(""));
    let Ok(parent) = source.root.expand(parent) else {
        return false;
    };
    let at = parent.join(path.file_name().unwrap_or_default());
    let is_there = source.root.exists(&at).unwrap_or_default();
    is_there
        && (!ignored(source, &at).0
            || source
                .ignore
                .is_some_and(|ignore| !ignore.can_skip(&at.to_string_lossy())))
}

fn names(source: &Source<'_>, path: &Path) -> Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    match source.root.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        dir => {
            let dir = dir.map_err(|error| failed("open", path, error))?;
            let names = tree::names(dir.as_fd()).map_err(|error| failed("read", path, error))?;
            Ok(names
                .into_iter()
                .map(|name| OsString::from_vec(name.into_bytes()))
                .collect())
        }
    }
}

/// BuildKit's words, and why, or what may have been meant.
fn missing(source: &Source<'_>, path: &Path) -> Error {
    let text = path.display().to_string();
    let mut why = format!("{:?}: not found", format!("/{text}"));
    let at = real(source, path).ok().flatten().unwrap_or_default();
    if source.root.exists(&at).unwrap_or_default() && ignored(source, &at).0 {
        why += " (.dockerignore excludes it)";
        return Error::NotFound(why);
    }
    // The first of its names that is not there.
    for part in above(path) {
        let parent = part.parent().unwrap_or(Path::new(""));
        if source.root.exists(&part).unwrap_or_default() {
            continue;
        }
        let names = names(source, parent).unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let wrong = part.file_name().unwrap_or_default().to_string_lossy();
        if let Some(near) = suggest::nearest(&wrong, names.iter().map(String::as_str)) {
            why += &format!(" (did you mean {:?}?)", format!("/{}", parent.join(near).display()));
        }
        break;
    }
    Error::NotFound(why)
}
