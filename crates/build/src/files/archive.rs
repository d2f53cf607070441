//! A directory as an archive, without what is ignored: for an engine that cannot read it itself.

use std::fs::File;
use std::io::{Read as _, Write};

use ferry_archive::reader::Kind;
use ferry_archive::{Entry as Header, Writer};
use ferry_dockerfile::Ignore;
use ferry_sys::Root;
use rustix::fs::OFlags;

use super::entry::Entry;
use super::select::select;
use super::{Source, failed};
use crate::error::{Error, Result};
use crate::graph::Copy;

const BUFFER: usize = 128 << 10;

/// Writes all that `exclude`, patterns of a `.dockerignore`, leaves; returns the stream.
pub fn archive<W: Write>(root: &Root, exclude: &[String], out: W) -> Result<W> {
    let wrong = |error| Error::invalid(format!("failed parsing .dockerignore: {error}"));
    let ignore = Ignore::new(exclude).map_err(wrong)?;
    let source = Source {
        root,
        ignore: Some(&ignore).filter(|ignore| !ignore.is_empty()),
        plain_owner: true,
    };
    let all = Copy {
        sources: vec![String::new()],
        literal: true,
        ..Copy::default()
    };
    let mut writer = Writer::new(out);
    let mut buffer = vec![0; BUFFER];
    for part in select(&source, &all)? {
        for entry in part.entries.iter().filter(|entry| !entry.path.as_os_str().is_empty()) {
            write(root, entry, &mut writer, &mut buffer)?;
        }
    }
    writer
        .finish()
        .map_err(|error| Error::internal("send the build context", &error))
}

fn write<W: Write>(root: &Root, entry: &Entry, writer: &mut Writer<W>, buffer: &mut [u8]) -> Result<()> {
    let unsent = |error: std::io::Error| failed("send", &entry.path, error);
    let mut header = Header {
        mode: entry.mode,
        mtime: entry.stamp.modified(),
        link: entry.target.clone(),
        ..Header::blank(&entry.path, entry.kind)
    };
    if entry.kind != Kind::File {
        return writer.header(&header).map_err(unsent);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(root.resolve_no_links(&entry.path, flags).map_err(unsent)?);
    header.size = entry.stamp.size;
    writer.header(&header).map_err(unsent)?;
    let mut left = header.size;
    // The header has promised a size: one that shrinks is filled up, one that grows is cut off.
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let mut count = file.read(&mut buffer[..most]).map_err(unsent)?;
        if count == 0 {
            buffer[..most].fill(0);
            count = most;
        }
        writer.data(&buffer[..count]).map_err(unsent)?;
        left -= count as u64;
    }
    writer.pad(header.size).map_err(unsent)
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
