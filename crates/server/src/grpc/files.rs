//! Files of results, as frontends ask for them. Everything here blocks.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_buildkit::frontend::FileRange;
use ferry_buildkit::fsutil::{self, Stat};
use ferry_dockerfile::Ignore;
use ferry_sys::Root;
use rustix::fs::{Dir, FileType, OFlags};
use tonic::Status;

/// The most bytes that are read at a time: they go in one message.
const MOST: u64 = 15 << 20;
/// The most entries of a directory.
const ENTRIES: usize = 50_000;

fn failed(what: &str, path: &str, error: &io::Error) -> Status {
    let text = format!("{what} {path}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(text),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => Status::invalid_argument(text),
        _ => Status::unknown(text),
    }
}

/// A regular file, or the part of it in `range`.
pub fn read(root: &Root, path: &str, range: Option<FileRange>) -> Result<Bytes, Status> {
    use std::os::unix::fs::FileExt as _;
    let open = || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = root.resolve(path, flags)?;
        let stat = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((std::fs::File::from(file), u64::try_from(stat.st_size).unwrap_or(0))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        }
    };
    let (file, size) = open().map_err(|error| failed("open", path, &error))?;
    let whole = FileRange {
        offset: 0,
        length: i64::MAX,
    };
    let range = range.unwrap_or(whole);
    let negative = |_| Status::invalid_argument(format!("read {path}: a negative range"));
    let offset = u64::try_from(range.offset).map_err(negative)?;
    let length = u64::try_from(range.length)
        .map_err(negative)?
        .min(size.saturating_sub(offset));
    if length > MOST {
        return Err(Status::resource_exhausted(format!(
            "read {path}: {length} bytes are more than {MOST} at a time: ask for parts of it"
        )));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = file.read_exact_at(&mut bytes, offset);
    read.map_err(|error| failed("read", path, &error))?;
    Ok(bytes.into())
}

/// What is at a path, links followed.
pub fn stat(root: &Root, path: &str) -> Result<Stat, Status> {
    let expanded = root.expand(path).map_err(|error| failed("look at", path, &error))?;
    let mut found = look(root, &expanded.to_string_lossy())?;
    found.path = Path::new(path)
        .file_name()
        .map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(found)
}

fn look(root: &Root, path: &str) -> Result<Stat, Status> {
    fsutil::stat(root, path).map_err(|error| match error {
        fsutil::Error::Io { source, .. } => failed("look at", path, &source),
        other => Status::unknown(other.to_string()),
    })
}

/// What is in a directory, by name: all of it, or what a pattern as of `.dockerignore` matches, or has something below that it does.
pub fn list(root: &Root, path: &str, pattern: &str) -> Result<Vec<Stat>, Status> {
    let wrong = |error: io::Error| failed("list", path, &error);
    let mut seen = 0;
    let mut entries = names(root, path, &mut seen)?;
    if !pattern.is_empty() {
        let include = Ignore::new([pattern]).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut found = Vec::new();
        for (name, is_directory) in entries {
            if include.ignores(&name) || is_directory && is_below(root, path, &name, &include, &mut seen)? {
                found.push((name, is_directory));
            }
        }
        entries = found;
    }
    entries.sort_unstable();
    let below = root.expand(path).map_err(wrong)?;
    let at = |(name, _)| look(root, &PathBuf::from(&below).join::<String>(name).to_string_lossy());
    entries.into_iter().map(at).collect()
}

/// The entries of a directory, and whether they are directories; `seen` counts those of all.
fn names(root: &Root, path: &str, seen: &mut usize) -> Result<Vec<(String, bool)>, Status> {
    let wrong = |error: io::Error| failed("list", path, &error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = root.resolve(path, flags).map_err(wrong)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(|error| wrong(error.into()))? {
        let entry = entry.map_err(|error| wrong(error.into()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "." | "..") {
            continue;
        }
        names.push((name, entry.file_type() == FileType::Directory));
        *seen += 1;
        if *seen > ENTRIES {
            return Err(Status::resource_exhausted(format!(
                "list {path}: it has more than {ENTRIES} entries"
            )));
        }
    }
    Ok(names)
}

/// Whether something below a directory matches.
fn is_below(root: &Root, path: &str, name: &str, include: &Ignore, seen: &mut usize) -> Result<bool, Status> {
    let mut open = vec![name.to_owned()];
    while let Some(directory) = open.pop() {
        for (name, is_directory) in names(root, &format!("{path}/{directory}"), seen)? {
            let below = format!("{directory}/{name}");
            if include.ignores(&below) {
                return Ok(true);
            }
            if is_directory {
                open.push(below);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn files_are_those_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("d")).unwrap();
        std::fs::write(&outside, "secret").unwrap();
        std::fs::write(root.join("d/file"), "0123456789").unwrap();
        std::os::unix::fs::symlink("/d/file", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("out")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let root = Root::open(&root).unwrap();
        assert_eq!(read(&root, "/link", None).unwrap(), "0123456789");
        let part = |offset, length| read(&root, "d/file", Some(FileRange { offset, length }));
        assert_eq!(part(2, 3).unwrap(), "234");
        assert_eq!(part(8, 10).unwrap(), "89");
        assert_eq!(part(20, 1).unwrap(), "");
        assert!(part(-1, 1).is_err() && part(0, -1).is_err());
        for path in ["out", "../outside", "missing"] {
            assert_eq!(read(&root, path, None).unwrap_err().code(), Code::NotFound, "{path}");
        }
        for path in ["fifo", "d"] {
            assert!(read(&root, path, None).is_err(), "{path}");
        }
        let found = stat(&root, "/link").unwrap();
        assert_eq!((found.path.as_str(), found.size), ("link", 10));
        assert_eq!(stat(&root, "nothing").unwrap_err().code(), Code::NotFound);
        let names = |path: &str| -> Vec<String> {
            let listed = list(&root, path, "").unwrap();
            listed.into_iter().map(|stat| stat.path).collect()
        };
        assert_eq!(names("/"), ["d", "fifo", "link", "out"]);
        assert_eq!(names("d"), ["file"]);
        assert!(list(&root, "d/file", "").is_err() && list(&root, "out", "").is_err());
    }

    #[test]
    fn a_directory_is_listed_as_far_as_a_pattern_goes() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.txt", "b.rs", "d/c.txt", "d/e/f.rs", "g/h.c"] {
            let path = dir.path().join("top").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("d", dir.path().join("top/link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for (pattern, expected) in [
            ("", "a.txt b.rs d g link"),
            ("*", "a.txt b.rs d g link"),
            ("*.txt", "a.txt"),
            ("**/*.txt", "a.txt d"),
            ("d", "d"),
            ("d/e", "d"),
            ("*/*.c", "g"),
            ("**/*.rs", "b.rs d"),
            ("nothing", ""),
        ] {
            let listed = list(&root, "top", pattern).unwrap();
            let names: Vec<String> = listed.into_iter().map(|stat| stat.path).collect();
            assert_eq!(names.join(" "), expected, "{pattern}");
        }
        assert_eq!(list(&root, "top", "[").unwrap_err().code(), Code::InvalidArgument);
    }
}
