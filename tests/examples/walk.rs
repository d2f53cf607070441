//! Every entry below a directory with all that a layer can say about it, a line each: the program in the containers of
//! `tests/corners.rs`. It says nothing of what the kernel or the engine mounted (other file systems), and nothing of what
//! file systems decide themselves: sizes and links of directories.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

fn main() {
    let top = std::env::args().nth(1).unwrap_or_else(|| "/".to_owned());
    let mut found = Vec::new();
    let device = fs::symlink_metadata(&top).unwrap().dev();
    walk(Path::new(&top), device, &mut found);
    found.sort();
    // The first name of those that are one file stands for it.
    let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for path in found {
        let line = describe(&path, &mut first);
        println!("{} {line}", path.as_os_str().as_bytes().escape_ascii());
    }
}

fn walk(path: &Path, device: u64, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    let data = fs::symlink_metadata(path).unwrap();
    // In an overlay a file may have another number than its directory; what is mounted is a directory, or a file of /etc.
    if data.is_dir() && (data.dev() == device || found.len() == 1) {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), device, found);
        }
    }
}

fn describe(path: &Path, first: &mut BTreeMap<(u64, u64), PathBuf>) -> String {
    let data = fs::symlink_metadata(path).unwrap();
    let mut line = format!(
        "mode={:o} owner={}:{} mtime={}.{:09}",
        data.mode(),
        data.uid(),
        data.gid(),
        data.mtime(),
        data.mtime_nsec()
    );
    if data.is_symlink() {
        let target = fs::read_link(path).unwrap();
        let _ = write!(line, " -> {}", target.as_os_str().as_bytes().escape_ascii());
    } else if data.is_file() {
        let _ = write!(line, " size={} sum={:016x}", data.len(), sum(path));
    } else if !data.is_dir() {
        let _ = write!(line, " rdev={:x}", data.rdev());
    }
    if !data.is_dir() {
        let same = first.entry((data.dev(), data.ino())).or_insert_with(|| path.to_owned());
        let _ = write!(
            line,
            " links={} of={}",
            data.nlink(),
            same.as_os_str().as_bytes().escape_ascii()
        );
    }
    for (name, value) in attributes(path) {
        let _ = write!(line, " {}={}", name.escape_ascii(), value.escape_ascii());
    }
    line
}

/// FNV-1a, 64 bits.
fn sum(path: &Path) -> u64 {
    let (mut file, mut buffer) = (fs::File::open(path).unwrap(), vec![0; 64 << 10]);
    let mut sum = 0xcbf2_9ce4_8422_2325;
    loop {
        let count = file.read(&mut buffer).unwrap();
        if count == 0 {
            return sum;
        }
        for byte in &buffer[..count] {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or_default();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
            value.truncate(length);
            Some((name.to_vec(), value))
        })
        .collect();
    found.sort();
    found
}
