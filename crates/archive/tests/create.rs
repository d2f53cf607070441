//! What `create` writes, `apply` and GNU tar read back.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_archive::{CreateOptions, Entry, Error, Kind, Reader, Time, create};
use ferry_sys::Root;
use support::{Bench, Tar, entry};

fn names(bytes: &[u8]) -> Vec<PathBuf> {
    let mut reader = Reader::new(bytes, ferry_archive::Limits::default());
    std::iter::from_fn(|| reader.next_entry().unwrap())
        .map(|entry| entry.path)
        .collect()
}

fn source() -> Bench {
    let bench = Bench::new();
    let long = "long".repeat(50);
    let tar = Tar::new()
        .entry(&Entry {
            mode: 0o1777,
            uid: 3_000_000_000,
            mtime: Time { secs: 7, nanos: 8 },
            ..entry("d", Kind::Directory)
        })
        .entry(&Entry {
            mode: 0o6755,
            xattrs: vec![
                ("user.x".into(), b"a\0\n".to_vec()),
                (
                    "security.capability".into(),
                    [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
                ),
            ],
            mtime: Time {
                secs: -5,
                nanos: 250_000_000,
            },
            size: 700,
            ..entry("d/f", Kind::File)
        })
        .raw(&[b'x'; 1024])
        .link("d/hard", "d/f")
        .symlink("d/s", "../../etc/passwd")
        .file(&format!("d/{long}"), "long")
        .symlink(&format!("d/l{long}"), &long)
        .file("d/ümläut", "x")
        .entry(&entry("d/fifo", Kind::Fifo))
        .entry(&entry("d/null", Kind::Character { major: 1, minor: 3 }));
    bench.apply(&tar.bytes()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(bench.path().join("d/socket")).unwrap());
    bench
}

#[test]
fn what_is_created_unpacks_to_the_same_tree() {
    let from = source();
    let root = Root::open(&from.path()).unwrap();
    let bytes = create(&root, Path::new("/d"), Vec::new(), &CreateOptions::default()).unwrap();
    std::fs::remove_file(from.path().join("d/socket")).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 7, tv_nsec: 8 };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        from.path().join("d"),
        &times,
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    let mut expected = support::tree(&from.path().join("d"));
    // The socket was made after the times were set.
    let to = Bench::new();
    to.apply(&bytes).unwrap();
    let mut found = support::tree(&to.path().join("d"));
    for lines in [&mut expected, &mut found] {
        let top = lines.iter_mut().find(|line| line.starts_with("\"\"")).unwrap();
        *top = top.split(" mtime").next().unwrap().to_owned();
    }
    assert_eq!(found, expected);
    let gnu = Bench::new();
    std::fs::write(gnu.path().join("x.tar"), &bytes).unwrap();
    let args = [
        "-xpf",
        "x.tar",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--same-owner",
    ];
    let output = Command::new("tar").args(args).current_dir(gnu.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = support::tree(&gnu.path().join("d"));
    let top = found.iter_mut().find(|line| line.starts_with("\"\"")).unwrap();
    *top = top.split(" mtime").next().unwrap().to_owned();
    assert_eq!(found, expected);
}

#[test]
fn the_top_can_be_renamed_nameless_or_left_out() {
    let from = Bench::new();
    from.apply(&Tar::new().file("a/b/c", "x").symlink("link", "a").bytes())
        .unwrap();
    let root = Root::open(&from.path()).unwrap();
    let of = |path: &str, options: CreateOptions| {
        let created = create(&root, Path::new(path), Vec::new(), &options).map(|bytes| names(&bytes));
        created.map(|names| {
            names
                .iter()
                .map(|name| name.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(of("a/b", CreateOptions::default()).unwrap(), ["b/", "b/c"]);
    assert_eq!(of("link/b/c", CreateOptions::default()).unwrap(), ["c"]);
    assert_eq!(of("link", CreateOptions::default()).unwrap(), ["link"]);
    assert_eq!(
        of("/", CreateOptions::default()).unwrap(),
        ["./", "a/", "a/b/", "a/b/c", "link"]
    );
    let renamed = CreateOptions {
        name: Some("x".into()),
        ..CreateOptions::default()
    };
    assert_eq!(of("a/b", renamed).unwrap(), ["x/", "x/c"]);
    let contents = CreateOptions {
        contents_only: true,
        name: Some("".into()),
        ..CreateOptions::default()
    };
    assert_eq!(of("a", contents).unwrap(), ["b/", "b/c"]);
    assert!(matches!(
        of("nowhere", CreateOptions::default()),
        Err(Error::Write { .. })
    ));
}

#[test]
fn nothing_outside_is_read_through_a_link() {
    let from = Bench::new();
    let canary = from.canary();
    from.apply(
        &Tar::new()
            .symlink("d/out", &canary)
            .symlink("d/up", "../../canary/file")
            .bytes(),
    )
    .unwrap();
    let root = Root::open(&from.path()).unwrap();
    let bytes = create(&root, Path::new("d"), Vec::new(), &CreateOptions::default()).unwrap();
    assert!(!bytes.windows(9).any(|window| window == b"untouched"));
    assert!(create(&root, Path::new("d/out/file"), Vec::new(), &CreateOptions::default()).is_err());
}
