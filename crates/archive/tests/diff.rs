//! A container's changes as the tar that Docker makes of them, and merged layers.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_archive::{ApplyOptions, Change, DiffOptions, Entry, Kind, Shift, apply, changed, diff, merged, tree};
use ferry_sys::Root;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

mod support;
use support::{Bench, Tar, entry};

fn shell(dir: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status();
    assert!(status.unwrap().success());
}

fn listing(tar: &[u8]) -> Vec<String> {
    let mut reader = ferry_archive::Reader::new(tar, ferry_archive::Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        lines.push(entry.path.display().to_string());
    }
    lines
}

/// The layer is `docker commit`'s (28.5.2, overlay2) of a container that deleted, linked, replaced and made all sorts of
/// things; the upper directory is made from it again.
#[test]
fn a_diff_is_dockers_byte_for_byte() {
    let golden = include_bytes!("golden/docker-commit.tar");
    let bench = Bench::new();
    bench.apply(golden).unwrap();
    let data = bench.path().join("data");
    let dir = std::fs::metadata(&data).unwrap();
    // The kernel links whiteouts to each other and gives them the time they were made.
    std::fs::remove_file(data.join("b")).unwrap();
    std::fs::hard_link(data.join("a"), data.join("b")).unwrap();
    let time = Timespec {
        tv_sec: dir.mtime(),
        tv_nsec: 999,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    for path in [data.join("a"), data.clone()] {
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let root = Root::open(&bench.path()).unwrap();
    let written = diff(&root, Vec::new(), &DiffOptions::default()).unwrap();
    assert!(written.warnings.is_empty());
    let (found, expected) = (listing(&written.stream), listing(golden));
    assert_eq!(found, expected);
    let first = written.stream.iter().zip(golden).position(|(a, b)| a != b);
    assert_eq!(first, None, "the first byte that differs");
    assert_eq!(written.stream.len(), golden.len());
    assert_eq!(written.size, tree::size(root.as_fd()).unwrap());
}

#[test]
fn what_a_diff_says_is_what_overlayfs_would_show() {
    let bench = Bench::new();
    let top = bench.path();
    shell(
        &top,
        "mkdir d o; echo x > d/f; ln d/f d/g; mkfifo d/p; mknod d/gone c 0 0; mknod d/null c 1 3",
    );
    for (path, name, value) in [
        ("d/f", "user.k", b"v"),
        ("d/f", "trusted.overlay.origin", b"z"),
        ("o", "trusted.overlay.opaque", b"y"),
    ] {
        rustix::fs::setxattr(top.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(top.join("d/socket")).unwrap();
    let root = Root::open(&top).unwrap();
    let written = diff(&root, Vec::new(), &DiffOptions::default()).unwrap();
    assert_eq!(written.warnings.len(), 1, "{:?}", written.warnings);
    assert_eq!(written.size, tree::size(root.as_fd()).unwrap());
    let expected = [
        "d/",
        "d/f",
        "d/g",
        "d/.wh.gone",
        "d/null",
        "d/p",
        "o/",
        "o/.wh..wh..opq",
    ];
    assert_eq!(listing(&written.stream), expected);
    let other = Bench::new();
    let to = Root::open(&other.path()).unwrap();
    apply(&written.stream[..], &to, &ApplyOptions::default()).unwrap();
    let again = diff(&to, Vec::new(), &DiffOptions::default()).unwrap();
    // Whiteouts are not given their times.
    assert_eq!(listing(&again.stream), expected);
    let f = std::fs::symlink_metadata(other.path().join("d/f")).unwrap();
    assert_eq!((f.nlink(), f.mtime_nsec()), (2, 0));
}

#[test]
fn what_the_engine_made_to_mount_on_is_left_out_while_it_is_empty() {
    let bench = Bench::new();
    let top = bench.path();
    shell(
        &top,
        "umask 022; mkdir -p etc dev proc run/x; : > etc/hosts; : > etc/hostname; echo mine > kept; : > .dockerenv",
    );
    let made: Vec<PathBuf> = ["etc/hosts", "etc/hostname", "dev", "proc", ".dockerenv"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let below = Bench::new();
    shell(&below.path(), "umask 022; mkdir etc");
    let lower = [Root::open(&below.path()).unwrap()];
    let root = Root::open(&top).unwrap();
    let list = || {
        let options = DiffOptions {
            made: &made,
            lower: &lower,
            ..DiffOptions::default()
        };
        listing(&diff(&root, Vec::new(), &options).unwrap().stream)
    };
    assert_eq!(list(), ["kept", "run/", "run/x/"]);
    std::fs::write(top.join("etc/new"), "").unwrap();
    assert_eq!(list(), ["etc/", "etc/new", "kept", "run/", "run/x/"]);
    std::fs::write(top.join("etc/hosts"), "not empty").unwrap();
    std::fs::remove_file(top.join("etc/new")).unwrap();
    assert_eq!(list(), ["etc/", "etc/hosts", "kept", "run/", "run/x/"]);
    std::fs::write(top.join("etc/hosts"), "").unwrap();
    std::fs::set_permissions(top.join("etc"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(list(), ["etc/", "kept", "run/", "run/x/"]);
}

#[test]
fn ids_of_a_user_namespace_are_taken_back() {
    let bench = Bench::new();
    shell(
        &bench.path(),
        "echo x > f; chown 100000:100005 f; echo y > g; chown 7:7 g",
    );
    let root = Root::open(&bench.path()).unwrap();
    let options = DiffOptions {
        shift: Some(Shift {
            start: 100_000,
            count: 65_536,
        }),
        ..DiffOptions::default()
    };
    let tar = diff(&root, Vec::new(), &options).unwrap().stream;
    let mut reader = ferry_archive::Reader::new(&tar[..], ferry_archive::Limits::default());
    let mut owners = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        owners.push((entry.uid, entry.gid));
    }
    assert_eq!(owners, [(0, 5), (7, 7)]);
}

#[test]
fn merged_layers_are_what_overlayfs_shows() {
    let layers: Vec<Bench> = (0..3).map(|_| Bench::new()).collect();
    let dir = |path: &str| entry(path, Kind::Directory);
    layers[2]
        .apply(
            &Tar::new()
                .file("a", "low")
                .file("d/x", "low")
                .file("d/y", "low")
                .file("e/old", "low")
                .file("gone/x", "1")
                .file("kind", "file")
                .dir("was")
                .file("was/in", "x")
                .link("hard", "a")
                .bytes(),
        )
        .unwrap();
    layers[1]
        .apply(
            &Tar::new()
                .file("d/.wh.x", "")
                .file(".wh.gone", "")
                .file("e/.wh..wh..opq", "")
                .file("e/new", "mid")
                .dir("kind")
                .file("kind/in", "x")
                .file("was", "file")
                .bytes(),
        )
        .unwrap();
    layers[0]
        .apply(
            &Tar::new()
                .entry(&Entry {
                    mode: 0o700,
                    ..dir("d")
                })
                .file("gone/y", "2")
                .symlink("l", "d")
                .bytes(),
        )
        .unwrap();
    let target = Bench::new();
    let mount = target.path();
    let lower: Vec<_> = layers.iter().map(|layer| layer.path().display().to_string()).collect();
    // In a mount namespace of its own, so that nothing stays.
    let script = format!(
        "mount -t overlay -o lowerdir={} none {m} && tar -C {m} --sort=name -cf - .",
        lower.join(":"),
        m = mount.display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let roots: Vec<_> = layers.iter().map(|layer| Root::open(&layer.path()).unwrap()).collect();
    let written = merged(&roots, None, Vec::new()).unwrap();
    let (ours, theirs) = (Bench::new(), Bench::new());
    ours.apply(&written.stream).unwrap();
    theirs.apply(&output.stdout).unwrap();
    let without_top = |bench: &Bench| {
        let mut lines = support::tree(&bench.path());
        lines.retain(|line| !line.starts_with("\"\""));
        lines
    };
    assert_eq!(without_top(&ours), without_top(&theirs));
}

#[test]
fn a_directory_that_becomes_a_link_while_it_is_read_is_not_followed() {
    // The walk opens each name without following: a link is written as a link.
    let bench = Bench::new();
    shell(&bench.path(), "mkdir d; ln -s / out; ln -s ../../.. d/up");
    rustix::fs::mknodat(
        CWD,
        bench.path().join("dev"),
        FileType::BlockDevice,
        Mode::from(0o600),
        rustix::fs::makedev(8, 1),
    )
    .unwrap();
    let root = Root::open(&bench.path()).unwrap();
    let written = diff(&root, Vec::new(), &DiffOptions::default()).unwrap();
    assert_eq!(listing(&written.stream), ["d/", "d/up", "dev", "out"]);
}

#[test]
fn changes_are_what_differs_from_the_layers_below() {
    let directory = tempfile::tempdir().unwrap();
    shell(
        directory.path(),
        "mkdir -p low/a/b low/gone low/opaque/sub low/opaque/kept top/t up/a/b up/opaque
         echo 1 >low/a/b/same; echo 1 >low/a/b/other; echo 1 >low/gone/f; echo 1 >low/opaque/x; echo 1 >low/opaque/kept/y
         echo 1 >low/t; echo 1 >low/file
         mknod top/gone c 0 0
         cp -a low/a/b/same up/a/b/same; echo 22 >up/a/b/other
         cp -a low/opaque/x up/opaque/x
         mknod up/file c 0 0; mkdir up/gone; echo new >up/gone/f; touch -r low/t up/t; echo 2 >up/t; touch -r low/t up/t
         mkdir -p up/dev; mknod up/never c 0 0",
    );
    let opaque = directory.path().join("up/opaque");
    rustix::fs::setxattr(opaque, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let root = |name: &str| Root::open(&directory.path().join(name)).unwrap();
    let lower = [root("top"), root("low")];
    let made = [PathBuf::from("dev")];
    let options = DiffOptions {
        lower: &lower,
        made: &made,
        ..DiffOptions::default()
    };
    let lines: Vec<String> = changed(&root("up"), &options)
        .unwrap()
        .iter()
        .map(|changed| {
            let letter = match changed.change {
                Change::Modified => 'C',
                Change::Added => 'A',
                Change::Deleted => 'D',
            };
            format!("{letter} {}", changed.path.display())
        })
        .collect();
    let expected = [
        // What is in it has changed, and so have all on the way.
        "C a",
        "C a/b",
        "C a/b/other",
        "D file",
        // It was deleted one layer up: nothing below counts.
        "A gone",
        "A gone/f",
        // An opaque directory hides what is below it.
        "C opaque",
        "D opaque/kept",
        "D opaque/sub",
        // A directory has become a file.
        "C t",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn files_that_are_read_ahead_come_out_as_others_do() {
    let bench = Bench::new();
    let top = bench.path();
    // More than a thread takes at a time, with directories, links and large files among them; and the same by single files.
    shell(
        &top,
        "mkdir many; i=100; while [ $i -lt 400 ]; do head -c $i /dev/zero | tr '\\0' $((i % 10)) > many/f$i; i=$((i+1)); done
         mkdir many/f250d; echo in > many/f250d/in; ln -s x many/f260s; ln many/f100 many/f350h; mknod many/f300w c 0 0
         head -c 300000 /dev/urandom > many/f200large; head -c 65536 /dev/urandom > many/f201small; : > many/f202empty
         mkfifo many/f270p",
    );
    rustix::fs::setxattr(top.join("many/f150"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
    let root = Root::open(&top).unwrap();
    let written = diff(&root, Vec::new(), &DiffOptions::default()).unwrap();
    let mut names = listing(&written.stream);
    let mut sorted = names.clone();
    sorted.sort_by_key(|name| name.trim_end_matches('/').replace(".wh.", "").replace('/', "\u{1}"));
    assert_eq!(names, sorted);
    assert_eq!(names.len(), 300 + 10, "{names:?}");
    assert_eq!(written.size, tree::size(root.as_fd()).unwrap());
    let other = Bench::new();
    let to = Root::open(&other.path()).unwrap();
    apply(&written.stream[..], &to, &ApplyOptions::default()).unwrap();
    names.retain(|name| !name.ends_with('/') && !name.contains(".wh.") && !name.ends_with('p'));
    for name in names {
        let read = |bench: &Bench| std::fs::read(bench.path().join(&name)).ok();
        assert_eq!(read(&bench), read(&other), "{name}");
    }
    let found = tree::xattrs(std::fs::File::open(other.path().join("many/f150")).unwrap().as_fd()).unwrap();
    assert_eq!(found, [("user.k".into(), b"v".to_vec())]);
    let links = |bench: &Bench| std::fs::metadata(bench.path().join("many/f350h")).unwrap().nlink();
    assert_eq!((links(&bench), links(&other)), (2, 2));
}

/// A directory with a file in each of a thousand levels.
fn thousand_levels(top: &std::path::Path) {
    let mut dir = top.join("d/".repeat(1000));
    std::fs::create_dir_all(&dir).unwrap();
    while dir != top {
        std::fs::write(dir.join("f"), "x").unwrap();
        dir.pop();
    }
}

/// With so little stack that no level can have a call of its own.
fn with_little_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        thread.spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

#[test]
fn depth_is_no_weapon() {
    let directory = tempfile::tempdir().unwrap();
    let dir = |name: &str, levels: usize| {
        std::fs::create_dir_all(directory.path().join(name).join("d/".repeat(levels))).unwrap();
        Root::open(&directory.path().join(name)).unwrap()
    };
    thousand_levels(&directory.path().join("low"));
    thousand_levels(&directory.path().join("up"));
    std::fs::write(directory.path().join("up/d/f"), "longer").unwrap();
    let (low, up) = (dir("low", 0), dir("up", 0));
    let compare = |upper: &Root, lower: &[Root], made: &[PathBuf]| {
        with_little_stack(|| {
            let options = DiffOptions {
                lower,
                made,
                ..DiffOptions::default()
            };
            changed(upper, &options)
        })
    };
    assert_eq!(compare(&up, &[], &[]).unwrap().len(), 2000);
    let some = compare(&up, &[low], &[]).unwrap();
    let told = some.iter().find(|changed| changed.path == Path::new("d/f"));
    assert_eq!(told.unwrap().change, Change::Modified);
    // A mount point that the engine made, as deep as the path of a volume can be.
    let made: Vec<PathBuf> = Path::new(&"d/".repeat(1000)).ancestors().map(Path::to_owned).collect();
    assert_eq!(compare(&dir("point", 1000), &[], &made).unwrap(), []);
    let error = compare(&dir("deeper", 1500), &[], &[]).unwrap_err();
    assert!(error.to_string().contains("1024"), "{error}");
}
