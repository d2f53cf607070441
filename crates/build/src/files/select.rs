//! Which files an instruction takes, in an order that depends on their names alone.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_archive::tree;
use ferry_dockerfile::Ignore;
use ferry_dockerfile::ignore::Matched;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Source;
use crate::error::{Error, Result};
use crate::graph::Copy;

/// Directories inside each other.
const MAX_DEPTH: usize = 1024;
/// The most entries of one step.
const MAX_ENTRIES: usize = 20_000_000;

/// What one source, or one match of a pattern, came to.
#[derive(Debug)]
pub struct Group {
    /// Its own name, which it has where a directory is its destination.
    pub name: Vec<u8>,
    /// Without what leads to it: its content is copied, or the file.
    pub top: Entry,
    /// What is in a directory, each after the directory it is in.
    pub entries: Vec<Entry>,
    /// The entries keep the directories that lead to them (`--parents`), so that there is no top.
    pub parents: bool,
    /// It was found by a pattern.
    pub by_pattern: bool,
}

/// A file, a directory, a link.
#[derive(Debug)]
pub struct Entry {
    /// Below the source's root, without links.
    pub path: PathBuf,
    /// Below the group's top; empty for that.
    pub below: PathBuf,
    pub stat: Stat,
}

impl Entry {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

/// Finds all that a copy takes.
pub fn select(source: &Source<'_>, copy: &Copy) -> Result<Vec<Group>> {
    let exclude = Ignore::new(&copy.exclude).map_err(|error| Error::invalid(format!("invalid --exclude: {error}")))?;
    let mut walk = Walk {
        source,
        exclude: Some(&exclude).filter(|exclude| !exclude.is_empty()),
        left: MAX_ENTRIES,
    };
    let mut groups = Vec::new();
    for pattern in &copy.sources {
        if copy.parents {
            groups.extend(walk.with_parents(pattern)?);
        } else if copy.literal || !has_wildcard(pattern) {
            match walk.one(Path::new(pattern))? {
                Some(group) => groups.push(group),
                None if copy.allow_missing => {}
                None => return Err(walk.missing(pattern)),
            }
        } else {
            for path in walk.matches(pattern)? {
                let found = walk.one(&path)?;
                let mut group = found.ok_or_else(|| walk.missing(&path.to_string_lossy()))?;
                group.by_pattern = true;
                groups.push(group);
            }
        }
    }
    Ok(groups)
}

/// Whether a path is a pattern: BuildKit looks for these, and an escape.
fn has_wildcard(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

struct Walk<'a> {
    source: &'a Source<'a>,
    exclude: Option<&'a Ignore>,
    left: usize,
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc_eloop) if libc_eloop == Errno::LOOP.raw_os_error() => Error::invalid("too many links"),
        _ => Error::internal(format!("read {}", path.display()), &error),
    }
}

impl Walk<'_> {
    fn missing(&self, path: &str) -> Error {
        let path = path.trim_start_matches('/');
        let name = ferry_kit::gofmt::quote(&format!("/{path}"));
        let is_ignored = self
            .source
            .ignore
            .is_some_and(|ignore| ignore.ignores(path) && self.source.root.exists(path).unwrap_or(false));
        let hint = match is_ignored {
            true => " (it is left out by .dockerignore)".to_owned(),
            false => self
                .nearest(path)
                .map_or_else(String::new, |near| format!(" (did you mean {near}?)")),
        };
        Error::NotFound(format!("{name}: not found{hint}"))
    }

    /// A name in the same directory that is nearly the same.
    fn nearest(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self
            .source
            .root
            .resolve(parent, OFlags::RDONLY | OFlags::DIRECTORY)
            .ok()?;
        let names = tree::names(dir.as_fd()).ok()?;
        let names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        let name = path.file_name()?.to_str()?;
        let near = ferry_dockerfile::nearest(name, names.iter().map(String::as_str))?;
        Some(parent.join(near).display().to_string())
    }

    /// A source that is no pattern. Links that lead to it are followed, and so is one that it is itself.
    fn one(&mut self, path: &Path) -> Result<Option<Group>> {
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let root = self.source.root;
        let text = path.to_string_lossy();
        let text = text.trim_matches('/');
        // What is ignored is not there, by the name it was asked for.
        if !text.is_empty()
            && let Some(ignore) = self.source.ignore
            && ignore.ignores(text)
            && ignore.can_skip(text)
        {
            return Ok(None);
        }
        let real = match root.expand(path) {
            Ok(real) => real,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(path, error)),
        };
        let real: PathBuf = real.strip_prefix("/").unwrap_or(&real).to_owned();
        let fd = match root.resolve_no_links(&real, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => fd,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(path, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| failed(path, error.into()))?;
        let top = Entry {
            path: real.clone(),
            below: PathBuf::new(),
            stat,
        };
        let mut entries = Vec::new();
        if top.is_directory() {
            let (ignored, matched) = self.look(&real);
            let dir = self.open(&real)?;
            self.directory(dir, &real, Path::new(""), matched, &mut entries)?;
            if ignored && entries.is_empty() && !real.as_os_str().is_empty() {
                return Ok(None);
            }
        } else if self.look(&real).0 {
            return Ok(None);
        }
        Ok(Some(Group {
            name,
            top,
            entries,
            parents: false,
            by_pattern: false,
        }))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = self.source.root.resolve_no_links(path, flags);
        dir.map_err(|error| failed(path, error))
    }

    /// Whether a path is ignored, and what is known of what is below it.
    fn look(&self, path: &Path) -> (bool, Matched) {
        let mut state = (false, Matched::default());
        let Some(ignore) = self.source.ignore else { return state };
        let mut sofar = String::new();
        for part in path.components() {
            if !sofar.is_empty() {
                sofar.push('/');
            }
            sofar.push_str(&part.as_os_str().to_string_lossy());
            state = ignore.look(&sofar, &state.1);
        }
        state
    }

    /// Everything below a directory. `below` is where it is in the group.
    fn directory(
        &mut self,
        dir: OwnedFd,
        path: &Path,
        below: &Path,
        ignored: Matched,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        struct Level {
            dir: OwnedFd,
            path: PathBuf,
            below: PathBuf,
            left: Vec<CString>,
            ignored: Matched,
            excluded: Matched,
            /// Where its own entry is, if it is only there for what is in it.
            tentative: Option<usize>,
        }
        let list = |dir: &OwnedFd, path: &Path| {
            let mut names = tree::names(dir.as_fd()).map_err(|error| failed(path, error))?;
            names.reverse();
            Ok::<_, Error>(names)
        };
        let mut stack = vec![Level {
            left: list(&dir, path)?,
            dir,
            path: path.to_owned(),
            below: below.to_owned(),
            ignored,
            excluded: Matched::default(),
            tentative: None,
        }];
        while let Some(level) = stack.last_mut() {
            let Some(name) = level.left.pop() else {
                // Nothing of an ignored directory was an exception.
                if let Some(at) = level.tentative
                    && entries.len() == at + 1
                {
                    entries.pop();
                }
                stack.pop();
                continue;
            };
            let child = OsStr::from_bytes(name.to_bytes());
            let (path, below) = (level.path.join(child), level.below.join(child));
            let stat = match rustix::fs::statat(&level.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(|error| failed(&path, error.into()))?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let look = |ignore: Option<&Ignore>, path: &Path, above: &Matched| match ignore {
                None => (false, Matched::default(), true),
                Some(ignore) => {
                    let text = path.to_string_lossy();
                    let (ignored, matched) = ignore.look(&text, above);
                    let skips = ignored && (!is_directory || ignore.can_skip(&text));
                    (ignored, matched, !skips)
                }
            };
            let (ignored, ignores, goes_on) = look(self.source.ignore, &path, &level.ignored);
            let (excluded, excludes, still) = look(self.exclude, &below, &level.excluded);
            if !goes_on || !still || ((ignored || excluded) && !is_directory) {
                continue;
            }
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| Error::invalid(format!("a step copies more than {MAX_ENTRIES} files")))?;
            let opened = match is_directory {
                false => None,
                true => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match rustix::fs::openat(&level.dir, &name, flags, Mode::empty()) {
                        // Gone, or something else by now.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                        opened => Some(opened.map_err(|error| failed(&path, error.into()))?),
                    }
                }
            };
            let at = entries.len();
            entries.push(Entry {
                path: path.clone(),
                below: below.clone(),
                stat,
            });
            if let Some(dir) = opened {
                if stack.len() >= MAX_DEPTH {
                    return Err(Error::invalid(format!(
                        "{}: more than {MAX_DEPTH} directories inside each other",
                        path.display()
                    )));
                }
                stack.push(Level {
                    left: list(&dir, &path)?,
                    dir,
                    path,
                    below,
                    ignored: ignores,
                    excluded: excludes,
                    tentative: (ignored || excluded).then_some(at),
                });
            }
        }
        Ok(())
    }

    /// The paths that match a pattern, part by part, in order.
    fn matches(&mut self, pattern: &str) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == parts.len();
            let mut next = Vec::new();
            for dir in &found {
                if !has_wildcard(part) {
                    next.push(dir.join(part));
                    continue;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let opened = match self.source.root.resolve(dir, flags) {
                    Ok(opened) => opened,
                    Err(error) if is_missing(&error) => continue,
                    Err(error) => return Err(failed(dir, error)),
                };
                for name in tree::names(opened.as_fd()).map_err(|error| failed(dir, error))? {
                    let text = String::from_utf8_lossy(name.to_bytes());
                    if ferry_dockerfile::ignore::matches_name(part, &text)
                        .ok_or_else(|| Error::invalid(format!("syntax error in pattern {pattern}")))?
                    {
                        next.push(dir.join(OsStr::from_bytes(name.to_bytes())));
                    }
                }
            }
            if !is_last {
                let root = self.source.root;
                next.retain(|path| root.resolve(path, OFlags::PATH | OFlags::DIRECTORY).is_ok());
            }
            found = next;
        }
        let is_there = |path: &PathBuf| {
            let (ignored, _) = self.look(path);
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            !ignored && self.source.root.resolve(path, flags).is_ok()
        };
        found.retain(is_there);
        Ok(found)
    }

    /// Entries with the directories that lead to them, from `/./` on.
    fn with_parents(&mut self, source: &str) -> Result<Vec<Group>> {
        let (pivot, pattern) = match source.split_once("/./") {
            Some((pivot, pattern)) => (pivot, pattern),
            None => ("", source),
        };
        let clean = |text: &str| match ferry_dockerfile::path::clean(text.trim_start_matches('/')).as_str() {
            "." => String::new(),
            text => text.to_owned(),
        };
        let (pivot, pattern) = (clean(pivot), clean(pattern));
        let mut tops = match has_wildcard(&pivot) {
            true => self.matches(&pivot)?,
            false => vec![PathBuf::from(&pivot)],
        };
        let mut groups = Vec::new();
        for top in tops.drain(..) {
            let Some(mut group) = self.one(&top)? else {
                return Err(self.missing(source));
            };
            group.parents = true;
            if !pattern.is_empty() {
                only(&mut group.entries, &pattern)?;
                if group.entries.is_empty() && !has_wildcard(&pattern) {
                    return Err(self.missing(&format!("{pivot}/{pattern}")));
                }
            }
            groups.push(group);
        }
        Ok(groups)
    }
}

/// Leaves what matches a pattern, what is below that, and the directories that lead there.
fn only(entries: &mut Vec<Entry>, pattern: &str) -> Result<()> {
    let wrong = |error| Error::invalid(format!("invalid pattern {pattern}: {error}"));
    let ignore = Ignore::new(["**", &format!("!{pattern}")]).map_err(wrong)?;
    let mut wanted: Vec<bool> = entries
        .iter()
        .map(|entry| !ignore.ignores(&entry.below.to_string_lossy()))
        .collect();
    let mut leads: std::collections::HashSet<PathBuf> = std::collections::HashSet::new();
    for (entry, _) in entries.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
        leads.extend(entry.below.ancestors().skip(1).map(Path::to_owned));
    }
    for (entry, wanted) in entries.iter().zip(&mut wanted) {
        *wanted |= leads.contains(&entry.below);
    }
    let mut wanted = wanted.into_iter();
    entries.retain(|_| wanted.next().unwrap_or_default());
    Ok(())
}

fn is_missing(error: &std::io::Error) -> bool {
    let missing = [Errno::NOENT, Errno::NOTDIR].map(|errno| Some(errno.raw_os_error()));
    missing.contains(&error.raw_os_error())
}
