//! A tar that was applied and recorded comes out again byte for byte.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::Path;
use std::process::Command;

use ferry_archive::{ApplyOptions, Entry, Error, Kind, Recorder, apply, rebuild};
use ferry_sys::Root;
use proptest::prelude::*;

mod support;
use support::{Tar, block, entry};

/// Applies with a recorder; the place, unless the archive is refused.
fn record(tar: &[u8]) -> Result<tempfile::TempDir, Error> {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("fs")).unwrap();
    let root = Root::open(&place.path().join("fs")).unwrap();
    let recorder = Recorder::create(place.path(), &root).unwrap();
    let options = ApplyOptions {
        recorder: Some(recorder.clone()),
        ..ApplyOptions::default()
    };
    apply(recorder.watch(tar), &root, &options)?;
    drop(options);
    assert_eq!(recorder.finish().unwrap(), tar.len() as u64);
    Ok(place)
}

fn again(place: &Path) -> Result<Vec<u8>, Error> {
    let root = Root::open(&place.join("fs")).unwrap();
    let mut out = Vec::new();
    rebuild(place, &root, &mut out)?;
    Ok(out)
}

fn assert_same(what: &str, tar: &[u8]) {
    let place = record(tar).unwrap_or_else(|error| panic!("{what}: {error}"));
    let rebuilt = again(place.path()).unwrap_or_else(|error| panic!("{what}: {error} {error:?}"));
    assert!(rebuilt == tar, "{what}: other bytes");
}

#[test]
fn odd_archives_come_out_as_they_went_in() {
    let long = "d/".repeat(30) + &"n".repeat(200);
    let padded = |tail: &[u8]| [Tar::new().file("a", "1").bytes(), tail.to_vec()].concat();
    let unfinished = Tar::new().file("a", "12345").bytes();
    let sixteen = "x".repeat(16 << 10);
    for (what, tar) in [
        ("nothing", Tar::new().bytes()),
        ("no end", unfinished[..1024].to_vec()),
        ("no padding either", unfinished[..517].to_vec()),
        ("zeros behind", padded(&[0; 9 * 1024])),
        ("garbage behind", padded(b"garbage that is no block")),
        (
            "the same file twice",
            Tar::new().file("a", "one").file("a", "two").bytes(),
        ),
        (
            "a directory becomes a file",
            Tar::new()
                .file("d/x/a", "one")
                .file("d/b", "2")
                .file("d", "three")
                .bytes(),
        ),
        (
            "and a directory again, with the same names",
            Tar::new()
                .file("d/a", "one")
                .file("d", "2")
                .dir("d")
                .file("d/a", "3")
                .file("d", "4")
                .bytes(),
        ),
        (
            "through a link that later leads elsewhere",
            Tar::new()
                .file("usr/lib/a", "one")
                .symlink("lib", "usr/lib")
                .file("lib/b", "two")
                .dir("other")
                .symlink("lib", "other")
                .file("lib/b", "three")
                .file("usr/lib/b", "four")
                .bytes(),
        ),
        (
            "links and what replaces them",
            Tar::new()
                .file("a", "one")
                .link("b", "a")
                .file("a", "two")
                .file("b", "three")
                .link("b", "a")
                .bytes(),
        ),
        (
            "whiteouts with contents",
            Tar::new()
                .file("d/.wh.gone", "odd")
                .file(".wh..wh.plnk/1", "odd")
                .file("d/a", "x")
                .file("d/.wh..wh..opq", "")
                .bytes(),
        ),
        (
            "long names",
            Tar::new().file(&long, "x").symlink("l", &long).link("h", &long).bytes(),
        ),
        ("a large file", Tar::new().file("a", &sixteen).bytes()),
    ] {
        assert_same(what, &tar);
    }
}

#[test]
fn names_longer_than_the_kernel_tells_are_kept_in_the_recipe() {
    // Deeper than PATH_MAX: made component by component through links that shorten the way.
    let piece = "p".repeat(250);
    let mut tar = Tar::new();
    let mut way = String::new();
    for at in 0..20 {
        let deep = format!("{way}{piece}");
        tar = tar.dir(&deep).symlink(&format!("s{at}"), &deep);
        way = format!("s{at}/");
    }
    let tar = tar
        .file(&format!("{way}a"), "deep")
        .file(&format!("{way}a"), "deeper")
        .bytes();
    assert_same("deep", &tar);
}

#[test]
fn archives_of_gnu_tar_in_every_format() {
    let from = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir -p a/b; echo one > a/one; ln a/one a/b/link; ln -s ../one a/b/sym; mkfifo a/fifo
        truncate -s 5M a/sparse; echo mid | dd of=a/sparse bs=1M seek=2 conv=notrunc 2>/dev/null
        n=$(printf 'n%.0s' $(seq 150)); mkdir -p a/$n; echo long > a/$n/$n; touch -d '1960-01-01 00:00:00.5' a/old
        printf 'x' > "a/$(printf 'new\nline')"
    "#;
    assert!(
        Command::new("sh")
            .args(["-ec", script])
            .current_dir(from.path())
            .status()
            .unwrap()
            .success()
    );
    rustix::fs::setxattr(
        from.path().join("a/one"),
        "user.k",
        b"v",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    for arguments in [
        // The oldest format has no pipes.
        &["--format=v7", "--exclude=a/n*", "--exclude=a/old", "--exclude=a/fifo"][..],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=ustar", "--exclude=a/n*", "--exclude=a/old"],
        &["--format=pax", "--xattrs", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=gnu", "-b", "64"],
    ] {
        let output = Command::new("tar")
            .args(["-cf", "-"])
            .args(arguments)
            .arg("a")
            .current_dir(from.path())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&format!("{arguments:?}"), &output.stdout);
        let twice = [&output.stdout[..], &output.stdout].concat();
        assert_same(&format!("{arguments:?} twice"), &twice);
    }
}

/// What is kept of an entry that was replaced is no link of the file that has its other name.
#[test]
fn a_name_that_was_replaced_does_not_count_as_a_link() {
    use std::os::unix::fs::MetadataExt as _;
    let tar = Tar::new()
        .file("one", "linked")
        .link("two", "one")
        .link("three", "one")
        .file("two", "another")
        .file("four", "alone")
        .file("four", "again")
        .bytes();
    let place = record(&tar).unwrap();
    let links = |name: &str| std::fs::metadata(place.path().join("fs").join(name)).unwrap().nlink();
    assert_eq!((links("one"), links("two"), links("four")), (2, 1, 1));
    assert_eq!(again(place.path()).unwrap(), tar);
}

#[test]
fn a_file_that_was_changed_is_an_error_or_other_bytes() {
    let tar = Tar::new().file("d/a", "content").bytes();
    let changes: [&dyn Fn(&Path); 4] = [
        &|fs| std::fs::remove_file(fs.join("d/a")).unwrap(),
        &|fs| std::fs::write(fs.join("d/a"), "short").unwrap(),
        &|fs| {
            std::fs::remove_file(fs.join("d/a")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", fs.join("d/a")).unwrap();
        },
        &|fs| {
            std::fs::rename(fs.join("d"), fs.join("e")).unwrap();
            std::os::unix::fs::symlink("e", fs.join("d")).unwrap();
        },
    ];
    for change in changes {
        let place = record(&tar).unwrap();
        change(&place.path().join("fs"));
        assert!(matches!(again(place.path()), Err(Error::Changed { .. })));
    }
    for cut in 0..4 {
        let place = record(&tar).unwrap();
        let recipe = place.path().join("recipe");
        let bytes = std::fs::read(&recipe).unwrap();
        std::fs::write(&recipe, &bytes[..bytes.len() * cut / 4]).unwrap();
        assert!(matches!(again(place.path()), Err(Error::Changed { .. })), "{cut}");
    }
}

fn operation() -> impl Strategy<Value = (u8, usize, usize, String)> {
    (0..7_u8, 0..10_usize, 0..10_usize, "[a-z]{0,600}")
}

const NAMES: [&str; 10] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l/a", "l", "l/e/b"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_replaces_whatever(operations in prop::collection::vec(operation(), 1..14), tail in 0..3_usize) {
        let mut tar = Tar::new();
        for (kind, name, other, text) in &operations {
            let (name, other) = (NAMES[*name], NAMES[*other]);
            tar = match kind {
                0..=2 => tar.file(name, text),
                3 => tar.dir(name),
                4 => tar.symlink(name, other.rsplit('/').next().unwrap()),
                5 => tar.link(name, other),
                _ => {
                    let (parent, last) = name.rsplit_once('/').unwrap_or(("", name));
                    let whiteout = format!("{parent}{}.wh.{last}", if parent.is_empty() { "" } else { "/" });
                    tar.entry(&Entry { ..entry(&whiteout, Kind::File) })
                }
            };
        }
        let mut bytes = tar.bytes();
        bytes.extend(vec![0; tail * 512]);
        // Many of these are refused: links to nothing, files as directories.
        if let Ok(place) = record(&bytes) {
            prop_assert!(again(place.path()).unwrap() == bytes);
        }
    }
}

#[test]
fn more_replacements_than_memory_is_good_for_are_refused() {
    let name = "n".repeat(200) + &("/".to_owned() + &"m".repeat(200)).repeat(18);
    let mut tar = Tar::new();
    for _ in 0..10_000 {
        tar = tar.file(&name, "x");
    }
    assert!(matches!(record(&tar.bytes()), Err(Error::TooLarge { .. })));
    // A block that is not the writer's: a directory entry with contents announced.
    let odd = [block(b"d", b'5', b"00000001000\0", |_| {}).to_vec(), vec![0; 1024]].concat();
    assert_same("a directory with a size", &odd);
}
