//! A directory as an archive, without what is ignored: for an engine that cannot read it itself.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::ffi::OsStringExt as _;

use ferry_archive::{Entry as Header, Writer, tree};
use ferry_dockerfile::Ignore;
use ferry_sys::Root;
use rustix::fs::{FileType, OFlags};

use super::Source;
use super::select::{Entry, select};
use crate::error::{Error, Result};
use crate::graph::Copy;

const BUFFER: usize = 128 << 10;

/// Writes all that `exclude`, patterns of a `.dockerignore`, leaves; returns the stream. Blocks.
pub fn archive<W: Write>(root: &Root, exclude: &[String], out: W) -> Result<W> {
    let wrong = |error| Error::invalid(format!("failed parsing .dockerignore: {error}"));
    let ignore = Ignore::new(exclude).map_err(wrong)?;
    let source = Source {
        root,
        ignore: Some(&ignore).filter(|ignore| !ignore.is_empty()),
        plain_owner: true,
        index: None,
    };
    let all = Copy {
        sources: vec![String::new()],
        literal: true,
        ..Copy::default()
    };
    let mut writer = Writer::new(out);
    let mut buffer = vec![0; BUFFER];
    for group in select(&source, &all)? {
        for entry in &group.entries {
            write(root, entry, &mut writer, &mut buffer)?;
        }
    }
    writer
        .finish()
        .map_err(|error| Error::internal("send the build context", &error))
}

fn write<W: Write>(root: &Root, entry: &Entry, writer: &mut Writer<W>, buffer: &mut [u8]) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal(format!("send {}", entry.below.display()), &error);
    let Some(kind) = tree::kind(&entry.stat) else {
        return Ok(());
    };
    let mut header = Header {
        mode: entry.stat.st_mode & 0o7777,
        mtime: tree::mtime(&entry.stat),
        ..Header::blank(&entry.below, kind)
    };
    match entry.kind() {
        FileType::Symlink => {
            let link = root.resolve_no_links(&entry.path, OFlags::PATH | OFlags::NOFOLLOW);
            let target = rustix::fs::readlinkat(link.map_err(failed)?, "", Vec::new());
            let target = target.map_err(|error| failed(error.into()))?;
            header.link = std::ffi::OsString::from_vec(target.into_bytes());
            writer.header(&header).map_err(failed)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let mut file = File::from(root.resolve_no_links(&entry.path, flags).map_err(failed)?);
            header.size = u64::try_from(entry.stat.st_size).unwrap_or(0);
            writer.header(&header).map_err(failed)?;
            let mut left = header.size;
            // The header has promised a size: one that shrinks is filled up, one that grows is cut off.
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let mut count = file.read(&mut buffer[..most]).map_err(failed)?;
                if count == 0 {
                    buffer[..most].fill(0);
                    count = most;
                }
                writer.data(&buffer[..count]).map_err(failed)?;
                left -= count as u64;
            }
            writer.pad(header.size).map_err(failed)
        }
        _ => writer.header(&header).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_ignored_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/keep"), "k").unwrap();
        std::fs::write(dir.path().join("a/drop.o"), "d").unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("a/link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let bytes = archive(&root, &["**/*.o".to_owned()], Vec::new()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let options = ferry_archive::ApplyOptions {
            owner: ferry_archive::Owner::Unchanged,
            ..ferry_archive::ApplyOptions::default()
        };
        ferry_archive::apply(bytes.as_slice(), &Root::open(out.path()).unwrap(), &options).unwrap();
        assert_eq!(std::fs::read(out.path().join("a/b/keep")).unwrap(), b"k");
        assert!(!out.path().join("a/drop.o").exists());
        assert_eq!(std::fs::read_link(out.path().join("a/link")).unwrap(), Path::new("b"));
    }
}
