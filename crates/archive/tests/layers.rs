//! What legal archives turn into.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Command;

use ferry_archive::{ApplyOptions, Entry, Error, Kind, Time, Whiteouts, tree};
use ferry_sys::Root;
use support::{Bench, Tar, entry};

fn opaque(bench: &Bench, path: &str) -> bool {
    tree::is_opaque(std::fs::File::open(bench.path().join(path)).unwrap().as_fd())
}

fn whiteout(bench: &Bench, path: &str) -> bool {
    let meta = std::fs::symlink_metadata(bench.path().join(path)).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn whiteouts_become_devices_and_attributes() {
    let bench = Bench::new();
    let tar = Tar::new()
        .dir("d")
        .file("d/.wh.gone", "")
        .file("missing/.wh.gone", "")
        .file("o/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1.2", "")
        .file(".wh..wh.aufs", "")
        .file("d/.wh..wh.orph", "");
    bench.apply(&tar.bytes()).unwrap();
    assert!(whiteout(&bench, "d/gone") && whiteout(&bench, "missing/gone") && opaque(&bench, "o"));
    assert_eq!(std::fs::read_dir(bench.path()).unwrap().count(), 3);
    assert_eq!(std::fs::read_dir(bench.path().join("d")).unwrap().count(), 1);
}

#[test]
fn an_opaque_mark_leaves_siblings_of_its_layer_before_and_after_it() {
    let bench = Bench::new();
    bench
        .apply(
            &Tar::new()
                .dir("d")
                .file("d/a", "1")
                .file("d/.wh..wh..opq", "")
                .file("d/b", "2")
                .dir("d")
                .bytes(),
        )
        .unwrap();
    assert!(opaque(&bench, "d"));
    assert_eq!(bench.read("d/a") + &bench.read("d/b"), "12");
}

#[test]
fn a_whiteout_beside_a_new_entry_of_the_same_name_hides_only_what_is_below() {
    for (tar, name) in [
        (Tar::new().file(".wh.x", "").file("x", "new"), "whiteout first"),
        (Tar::new().file("x", "new").file(".wh.x", ""), "whiteout last"),
    ] {
        let bench = Bench::new();
        bench.apply(&tar.bytes()).unwrap();
        assert_eq!(bench.read("x"), "new", "{name}");
    }
    for tar in [
        Tar::new().file(".wh.x", "").dir("x").file("x/f", "new"),
        Tar::new().dir("x").file("x/f", "new").file(".wh.x", ""),
        Tar::new().file(".wh.x", "").file("x/f", "new"),
    ] {
        let bench = Bench::new();
        bench.apply(&tar.bytes()).unwrap();
        assert!(opaque(&bench, "x"));
        assert_eq!(bench.read("x/f"), "new");
    }
}

#[test]
fn names_are_literal_where_it_is_no_layer() {
    let bench = Bench::new();
    let options = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        ..ApplyOptions::default()
    };
    bench
        .apply_with(
            &Tar::new().file(".wh.x", "y").file(".wh..wh..opq", "z").bytes(),
            &options,
        )
        .unwrap();
    assert_eq!(bench.read(".wh.x") + &bench.read(".wh..wh..opq"), "yz");
}

#[test]
fn the_last_of_several_entries_of_a_name_wins() {
    let bench = Bench::new();
    let tar = Tar::new()
        .file("file", "old")
        .file("file", "new")
        .file("to-dir", "old")
        .dir("to-dir")
        .file("to-dir/f", "x")
        .dir("to-file")
        .file("to-file/f", "x")
        .file("to-file", "new")
        .dir("to-link")
        .file("to-link/f", "x")
        .symlink("to-link", "to-dir")
        .file("to-link/g", "through")
        .entry(&Entry {
            mode: 0o700,
            ..entry("dir", Kind::Directory)
        })
        .file("dir/f", "kept")
        .dir("dir");
    let applied = bench.apply(&tar.bytes()).unwrap();
    assert_eq!(
        bench.read("file") + &bench.read("to-dir/f") + &bench.read("to-file"),
        "newxnew"
    );
    assert_eq!(bench.read("to-dir/g") + &bench.read("dir/f"), "throughkept");
    assert_eq!(
        std::fs::metadata(bench.path().join("dir")).unwrap().mode() & 0o7777,
        0o755
    );
    assert_eq!(
        applied.bytes,
        tree::size(Root::open(&bench.path()).unwrap().as_fd()).unwrap()
    );
}

#[test]
fn odd_but_legal_archives_are_read() {
    let empty = vec![0; 1024];
    for bytes in [&b""[..], &empty[..512], &empty] {
        assert_eq!(Bench::new().apply(bytes).unwrap().entries, 0);
    }
    let bench = Bench::new();
    let whole = Tar::new()
        .entry(&Entry {
            mode: 0o1777,
            ..entry("./", Kind::Directory)
        })
        .dir("./a//b/./")
        .file("./a/b/c", "1")
        .file("a/x/../y", "2")
        .dir("slash///")
        .bytes();
    let unpadded = &whole[..whole.len() - 1024];
    bench.apply(unpadded).unwrap();
    bench
        .apply(&[&whole[..], b"trailing garbage that is no header"].concat())
        .unwrap();
    assert_eq!(bench.read("a/b/c") + &bench.read("a/y"), "12");
    assert_eq!(std::fs::metadata(bench.path()).unwrap().mode() & 0o7777, 0o1777);
    // The last content is not padded to a block.
    let short = Tar::new().file("f", "abc").bytes();
    Bench::new().apply(&short[..515]).unwrap();
}

#[test]
fn metadata_survives_in_the_right_order() {
    let bench = Bench::new();
    // VFS_CAP_REVISION_2 with cap_net_raw permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let tar = Tar::new()
        .entry(&Entry {
            mode: 0o6755,
            uid: 12_345_678,
            gid: 4_294_967_294,
            xattrs: vec![
                ("security.capability".into(), capability.clone()),
                ("user.bin".into(), b"a\0\n=".to_vec()),
            ],
            mtime: Time {
                secs: 4_000_000_000,
                nanos: 123_456_789,
            },
            ..entry("ping", Kind::File)
        })
        .entry(&Entry {
            mtime: Time {
                secs: -1000,
                nanos: 750_000_000,
            },
            ..entry("old", Kind::Directory)
        })
        .file("old/inside", "x")
        .entry(&Entry {
            link: "t".into(),
            mtime: Time { secs: 5, nanos: 6 },
            uid: 3,
            ..entry("link", Kind::Symlink)
        });
    bench.apply(&tar.bytes()).unwrap();
    let ping = std::fs::metadata(bench.path().join("ping")).unwrap();
    assert_eq!(
        (ping.mode() & 0o7777, ping.uid(), ping.gid()),
        (0o6755, 12_345_678, 4_294_967_294)
    );
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (4_000_000_000, 123_456_789));
    let found = tree::xattrs(std::fs::File::open(bench.path().join("ping")).unwrap().as_fd()).unwrap();
    assert!(found.contains(&("security.capability".into(), capability)));
    assert!(found.contains(&("user.bin".into(), b"a\0\n=".to_vec())));
    let old = std::fs::metadata(bench.path().join("old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (-1000, 750_000_000));
    let link = std::fs::symlink_metadata(bench.path().join("link")).unwrap();
    assert_eq!((link.uid(), link.mtime(), link.mtime_nsec()), (3, 5, 6));
}

#[test]
fn a_refused_attribute_is_a_warning() {
    let bench = Bench::new();
    // The kernel takes user.* attributes on files and directories only.
    let xattrs = vec![("user.x".into(), b"v".to_vec())];
    let applied = bench
        .apply(
            &Tar::new()
                .entry(&Entry {
                    xattrs,
                    ..entry("fifo", Kind::Fifo)
                })
                .bytes(),
        )
        .unwrap();
    assert_eq!(applied.warnings.len(), 1);
}

#[test]
fn a_hard_link_into_a_lower_layer_copies_the_file_up() {
    let (lowest, low, bench) = (Bench::new(), Bench::new(), Bench::new());
    lowest
        .apply(
            &Tar::new()
                .entry(&Entry {
                    mode: 0o1777,
                    uid: 5,
                    ..entry("d", Kind::Directory)
                })
                .entry(&Entry {
                    size: 4,
                    mode: 0o4755,
                    uid: 7,
                    xattrs: vec![("user.a".into(), b"b".to_vec())],
                    ..entry("d/f", Kind::File)
                })
                .raw(b"data")
                .raw(&[0; 508])
                .symlink("d/s", "f")
                .file("d/gone", "x")
                .file("o/f", "x")
                .bytes(),
        )
        .unwrap();
    low.apply(&Tar::new().file("d/.wh.gone", "").file("o/.wh..wh..opq", "").bytes())
        .unwrap();
    let lower = vec![Root::open(&low.path()).unwrap(), Root::open(&lowest.path()).unwrap()];
    let with = |tar: Tar| {
        bench.apply_with(
            &tar.bytes(),
            &ApplyOptions {
                lower: Some(&lower),
                ..ApplyOptions::default()
            },
        )
    };
    let link = |path: &str| Entry {
        link: "d/f".into(),
        mode: 0o4755,
        uid: 7,
        ..entry(path, Kind::HardLink)
    };
    with(Tar::new().entry(&link("new/h")).entry(&link("h2")).link("l", "d/s")).unwrap();
    let (up, link) = (bench.path().join("d/f"), bench.path().join("new/h"));
    let meta = std::fs::metadata(&up).unwrap();
    assert_eq!(meta.ino(), std::fs::metadata(link).unwrap().ino());
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.nlink(), meta.mtime()),
        (0o4755, 7, 3, 1_600_000_000)
    );
    assert_eq!(bench.read("new/h"), "data");
    assert!(std::fs::symlink_metadata(bench.path().join("l")).unwrap().is_symlink());
    let dir = std::fs::metadata(bench.path().join("d")).unwrap();
    // The directory of the layer below gave the missing parent its metadata; `low` has it as 0755 root on top.
    assert_eq!((dir.mode() & 0o7777, dir.uid()), (0o755, 0));
    for target in ["d/gone", "o/f", "nowhere"] {
        assert!(
            matches!(with(Tar::new().link("x", target)), Err(Error::MissingTarget { .. })),
            "{target}"
        );
    }
}

#[test]
fn a_hard_link_s_entry_has_the_last_word_on_the_file_and_takes_no_capability_away() {
    let bench = Bench::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let capable = Entry {
        mode: 0o4755,
        uid: 7,
        xattrs: vec![("security.capability".into(), capability.clone())],
        ..entry("capable", Kind::File)
    };
    let link = |path: &str, target: &str, mode, uid| Entry {
        link: target.into(),
        mode,
        uid,
        mtime: Time { secs: 5, nanos: 6 },
        ..entry(path, Kind::HardLink)
    };
    let repeats = Entry {
        mtime: capable.mtime,
        ..link("repeats", "capable", 0o4755, 7)
    };
    let tar = Tar::new()
        .entry(&capable)
        .entry(&repeats)
        .file("changed", "x")
        .entry(&link("changes", "changed", 0o4711, 9))
        .symlink("symlink", "nowhere")
        .entry(&link("hard", "symlink", 0o600, 9));
    bench.apply(&tar.bytes()).unwrap();
    let meta = |name: &str| std::fs::symlink_metadata(bench.path().join(name)).unwrap();
    let found = tree::xattrs(std::fs::File::open(bench.path().join("repeats")).unwrap().as_fd()).unwrap();
    assert!(found.contains(&("security.capability".into(), capability)));
    assert_eq!((meta("capable").mode() & 0o7777, meta("capable").uid()), (0o4755, 7));
    let changed = meta("changed");
    assert_eq!(
        (
            changed.mode() & 0o7777,
            changed.uid(),
            changed.mtime(),
            changed.mtime_nsec()
        ),
        (0o4711, 9, 5, 6)
    );
    assert_eq!((meta("symlink").uid(), meta("symlink").mode() & 0o777), (9, 0o777));
}

#[test]
fn directories_and_files_do_not_replace_each_other_where_that_is_asked() {
    let bench = Bench::new();
    let options = ApplyOptions {
        keep_kinds: true,
        ..ApplyOptions::default()
    };
    bench
        .apply_with(
            &Tar::new().dir("d").file("f", "1").file("f", "2").dir("d").bytes(),
            &options,
        )
        .unwrap();
    for tar in [
        Tar::new().file("d", ""),
        Tar::new().dir("f"),
        Tar::new().symlink("d", "x"),
    ] {
        assert!(matches!(
            bench.apply_with(&tar.bytes(), &options),
            Err(Error::Unsupported { .. })
        ));
    }
    bench
        .apply_with(&Tar::new().symlink("f", "d").bytes(), &options)
        .unwrap();
}

/// The same tree through GNU tar and through Ferry.
#[test]
fn gnu_tar_unpacks_the_same_tree() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let script = r#"
        umask 022; mkdir -p usr/lib/deep "sp ace" $'new\nline'; ln -s usr/lib lib; echo through > lib/through
        echo hello > usr/file; ln usr/file usr/hard; ln -s nowhere dangling; ln dangling hardlinked-link
        chmod 4755 usr/file; mkdir sticky; chmod 1777 sticky; chmod 2750 usr/lib/deep
        chown 12345:54321 usr/file; chown 3000000000:3000000001 sticky; chown -h 7:8 dangling
        touch $'non\xff\xfeutf8' "sp ace/x"; mkfifo fifo; mknod null c 1 3; mknod blk b 7 200; chmod 600 blk
        setfattr -n user.binary -v 0x000a3d00ff usr/file 2>/dev/null; setcap cap_net_raw+ep usr/lib/through 2>/dev/null
        L=$(printf 'n%.0s' $(seq 200)); mkdir -p "$L/$L"; echo long > "$L/$L/$L"; ln -s "$L/$L/$L" longlink; ln "$L/$L/$L" longhard
        truncate -s 5M holes; printf middle | dd of=holes bs=1 seek=1000000 conv=notrunc status=none; printf end | dd of=holes bs=1 seek=4000000 conv=notrunc status=none
        truncate -s 1M allhole; printf x > tail; truncate -s 700000 tail
        for i in $(seq 0 60); do printf "seg$i" | dd of=many bs=1 seek=$((i*100000)) conv=notrunc status=none; done
        touch -d '1960-01-02 03:04:05.123456789 UTC' usr/hard; touch -d '2040-06-07 08:09:10.987654321 UTC' fifo; touch -h -d '1999-01-01 00:00:00.5 UTC' dangling
        touch -d '2001-02-03 04:05:06.000000007 UTC' sticky usr
    "#;
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(&source).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run("bash", &["-c", script]);
    let formats: [&[&str]; 7] = [
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--sparse",
            "--sparse-version=1.0",
        ],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=gnu", "--sparse"],
        &["--format=gnu"],
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--sort=name",
            "--hard-dereference",
        ],
    ];
    for format in formats {
        let tar = work.path().join("archive.tar");
        let tar_arg = tar.to_str().unwrap();
        run("tar", &[&["-cf", tar_arg], format, &["."]].concat());
        let theirs = work.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        run(
            "tar",
            &[
                "-xpf",
                tar_arg,
                "-C",
                theirs.to_str().unwrap(),
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "--same-owner",
            ],
        );
        let bench = Bench::new();
        bench.apply(&std::fs::read(&tar).unwrap()).unwrap();
        let (ours, theirs_tree) = (support::tree(&bench.path()), support::tree(&theirs));
        for (our, their) in ours.iter().zip(&theirs_tree) {
            assert_eq!(our, their, "{format:?}");
        }
        assert_eq!(ours.len(), theirs_tree.len());
        if format.contains(&"--sparse") {
            assert!(
                std::fs::metadata(bench.path().join("holes")).unwrap().blocks() < 100,
                "{format:?}: holes stay holes"
            );
        }
        std::fs::remove_dir_all(&theirs).unwrap();
    }
    assert!(
        std::fs::read_dir(&source)
            .unwrap()
            .any(|e| e.unwrap().file_name().as_bytes().contains(&0xff))
    );
}
