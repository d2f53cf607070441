//! Builds archives entry by entry, and unpacks them beside a canary that must not change.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ferry_archive::{Applied, ApplyOptions, Entry, Error, Kind, Time, Writer, apply};
use ferry_sys::Root;

pub fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: PathBuf::from(path),
        kind,
        link: "".into(),
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time {
            secs: 1_600_000_000,
            nanos: 0,
        },
        xattrs: Vec::new(),
        segments: None,
        offset: 0,
    }
}

#[derive(Debug)]
pub struct Tar(pub Writer<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    pub fn entry(mut self, entry: &Entry) -> Self {
        self.0.header(entry).unwrap();
        self
    }

    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.0.file(&entry(path, Kind::File), content.as_bytes()).unwrap();
        self
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(&entry(path, Kind::Directory))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(&Entry {
            link: target.into(),
            mode: 0o777,
            ..entry(path, Kind::Symlink)
        })
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(&Entry {
            link: target.into(),
            ..entry(path, Kind::HardLink)
        })
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.data(bytes).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// A header block with a right checksum and everything else as given.
pub fn block(name: &[u8], flag: u8, size: &[u8], edit: impl Fn(&mut [u8; 512])) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// A directory to unpack to, and beside it things nobody may touch.
#[derive(Debug)]
pub struct Bench {
    pub outside: tempfile::TempDir,
    canary: Vec<String>,
}

impl Bench {
    pub fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("root")).unwrap();
        std::fs::create_dir_all(outside.path().join("canary/dir")).unwrap();
        std::fs::write(outside.path().join("canary/file"), "untouched").unwrap();
        std::fs::write(outside.path().join("canary/dir/file"), "untouched").unwrap();
        let canary = tree(&outside.path().join("canary"));
        Self { outside, canary }
    }

    pub fn path(&self) -> PathBuf {
        self.outside.path().join("root")
    }

    pub fn canary(&self) -> String {
        self.outside.path().join("canary").to_str().unwrap().to_owned()
    }

    pub fn apply(&self, tar: &[u8]) -> Result<Applied, Error> {
        self.apply_with(tar, &ApplyOptions::default())
    }

    pub fn apply_with(&self, tar: &[u8], options: &ApplyOptions<'_>) -> Result<Applied, Error> {
        let result = apply(tar, &Root::open(&self.path()).unwrap(), options);
        assert_eq!(tree(&self.outside.path().join("canary")), self.canary, "the canary");
        let outside: Vec<_> = std::fs::read_dir(self.outside.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(outside.len(), 2, "{outside:?}");
        result
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).unwrap()
    }
}

/// Every entry below `path` with all that an archive can say about it, in a stable order.
pub fn tree(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(path, path, &mut lines);
    lines.sort();
    lines
}

fn walk(top: &Path, path: &Path, lines: &mut Vec<String>) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let mut line = format!(
        "{:?} mode={:o} owner={}:{} mtime={}.{:09}",
        path.strip_prefix(top).unwrap(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
    );
    let handle = rustix::fs::open(
        path,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    );
    let mut xattrs = ferry_archive::tree::xattrs(std::os::fd::AsFd::as_fd(&handle.unwrap())).unwrap();
    // The file system lists them in whichever order they were set.
    xattrs.sort();
    for (name, value) in xattrs {
        line += &format!(" {name:?}={value:?}");
    }
    if meta.is_symlink() {
        line += &format!(" -> {:?}", std::fs::read_link(path).unwrap());
    } else if meta.is_file() {
        let mut content = Vec::new();
        std::fs::File::open(path).unwrap().read_to_end(&mut content).unwrap();
        let sum = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
        });
        line += &format!(" size={} sum={sum:x} links={}", content.len(), meta.nlink());
    } else if !meta.is_dir() {
        line += &format!(" rdev={}", meta.rdev());
    }
    lines.push(line);
    if meta.is_dir() {
        for child in std::fs::read_dir(path).unwrap() {
            walk(top, &child.unwrap().path(), lines);
        }
    }
}
