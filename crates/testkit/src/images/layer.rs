//! A tar stream written entry by entry, names as they are given: also the names no honest archive has.

use tar::{Builder, EntryType, Header};

/// 2023-11-14, the time of everything in a fixture.
const TIME: u64 = 1_700_000_000;

#[derive(Debug, Clone)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    pub fn new() -> Self {
        Self { tar: Vec::new() }
    }

    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.dir_of(path, mode, (0, 0))
    }

    #[must_use]
    pub fn dir_of(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.entry(&format!("{path}/"), EntryType::Directory, "", mode, owner, &[])
    }

    #[must_use]
    pub fn file(self, path: &str, bytes: &[u8], mode: u32) -> Self {
        self.file_of(path, bytes, mode, (0, 0))
    }

    #[must_use]
    pub fn file_of(self, path: &str, bytes: &[u8], mode: u32, owner: (u64, u64)) -> Self {
        self.entry(path, EntryType::Regular, "", mode, owner, bytes)
    }

    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, target, 0o777, (0, 0), &[])
    }

    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, target, 0o644, (0, 0), &[])
    }

    /// A character device.
    #[must_use]
    pub fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(path, EntryType::Char, "", 0o666, (0, 0), 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self
    }

    /// A header that says `size` bytes follow, and none do.
    #[must_use]
    pub fn header_only(mut self, path: &str, size: u64) -> Self {
        let header = header(path, EntryType::Regular, "", 0o644, (0, 0), size);
        self.tar.extend_from_slice(header.as_bytes());
        self
    }

    /// Extended attributes (`SCHILY.xattr.…`) of the entry that comes next.
    #[must_use]
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let tar = builder.into_inner().unwrap();
        self.tar.extend_from_slice(&tar[..tar.len() - 1024]);
        self
    }

    /// Bytes as they are, filled up to a block.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.tar.extend_from_slice(bytes);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// Two blocks of zeros, and the tar is whole.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.extend_from_slice(&[0; 1024]);
        self.tar
    }

    /// The tar without its end.
    pub fn truncated(self) -> Vec<u8> {
        self.tar
    }

    fn entry(mut self, path: &str, kind: EntryType, link: &str, mode: u32, owner: (u64, u64), data: &[u8]) -> Self {
        let length = u64::try_from(data.len()).unwrap();
        self.tar
            .extend_from_slice(header(path, kind, link, mode, owner, length).as_bytes());
        self.tar.extend_from_slice(data);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }
}

fn header(path: &str, kind: EntryType, link: &str, mode: u32, owner: (u64, u64), size: u64) -> Header {
    let mut header = Header::new_gnu();
    // Byte by byte: `set_path` refuses what a hostile archive holds.
    let old = header.as_old_mut();
    assert!(
        path.len() <= old.name.len() && link.len() <= old.linkname.len(),
        "fixture names are short"
    );
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(TIME);
    header.set_size(size);
    header.set_cksum();
    header
}
