//! Files of a step beyond what BuildKit was asked: `--parents`, hostile sources, digests, and how long it takes.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use ferry_build::files::{self, Index, Manifest, Options, Previous, Source, Written};
use ferry_build::graph::{Action, Copy, Files};
use ferry_build::{Error, Result};
use ferry_dockerfile::Ignore;
use ferry_image::Digest;
use ferry_sys::Root;

fn copy(sources: &[&str], destination: &str) -> Copy {
    Copy {
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        destination: destination.to_owned(),
        ..Copy::default()
    }
}

fn step(copy: Copy) -> Files {
    Files {
        base: None,
        actions: vec![Action::Copy(copy)],
    }
}

fn from<'a>(root: &'a Root, ignore: Option<&'a Ignore>) -> BTreeMap<usize, Source<'a>> {
    let source = Source {
        root,
        ignore,
        plain_owner: true,
    };
    BTreeMap::from([(0, source)])
}

fn write(files: &Files, source: &Path, draft: &Path) -> Result<Written> {
    std::fs::create_dir_all(draft).unwrap();
    let (source, draft) = (Root::open(source).unwrap(), Root::open(draft).unwrap());
    files::select(files, &from(&source, None))?.write(None, &draft, &Options::default())
}

fn digest(files: &Files, source: &Path, index: Option<&mut Index>) -> Digest {
    let source = Root::open(source).unwrap();
    files::select(files, &from(&source, None))
        .unwrap()
        .digest(index)
        .unwrap()
}

/// Paths of files and of directories, which end in `/`.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            let path = entry.path();
            let text = path.strip_prefix(root).unwrap().display().to_string();
            found.push(if is_dir { text + "/" } else { text });
            if is_dir {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

fn place(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    dir
}

#[test]
fn root_parents_are_kept_from_the_pivot_on() {
    let source = place(&["a/b/c/f.txt", "a/b/g.md", "a/d/h.txt", "x/y.txt", "top.txt"]);
    for (sources, exclude, expected) in [
        (&["a/b/c/f.txt"][..], "", "a/ a/b/ a/b/c/ a/b/c/f.txt"),
        (&["a/b", "x"], "", "a/ a/b/ a/b/c/ a/b/c/f.txt a/b/g.md x/ x/y.txt"),
        (&["a/./b/c"], "", "b/ b/c/ b/c/f.txt"),
        (&["./a/d"], "", "a/ a/d/ a/d/h.txt"),
        (&["**/*.md"], "", "a/ a/b/ a/b/g.md"),
        (&["a/*/h.txt"], "", "a/ a/d/ a/d/h.txt"),
        (&["a/./**/*.txt"], "", "b/ b/c/ b/c/f.txt d/ d/h.txt"),
        (&["**/*.txt"], "a/b", "a/ a/d/ a/d/h.txt top.txt x/ x/y.txt"),
        (&["*.c"], "", ""),
    ] {
        let draft = tempfile::tempdir().unwrap();
        let exclude = if exclude.is_empty() {
            Vec::new()
        } else {
            vec![exclude.to_owned()]
        };
        let step = step(Copy {
            parents: true,
            exclude,
            ..copy(sources, "/")
        });
        write(&step, source.path(), draft.path()).unwrap();
        assert_eq!(tree(draft.path()).join(" "), expected, "{sources:?}");
    }
    let step = step(Copy {
        parents: true,
        ..copy(&["a/nothing"], "/")
    });
    let error = write(&step, source.path(), &source.path().join("draft")).unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text.contains("\"/a/nothing\": not found")),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_said_with_a_reason() {
    let source = place(&["readme.md", "src/main.c", "gone/x"]);
    let root = Root::open(source.path()).unwrap();
    let ignore = Ignore::parse(b"gone\n").unwrap();
    for (path, expected) in [
        ("README", r#""/README": not found"#),
        ("readme.nd", r#""/readme.nd": not found (did you mean "/readme.md"?)"#),
        ("scr/main.c", r#""/scr/main.c": not found (did you mean "/src"?)"#),
        ("gone/x", r#""/gone/x": not found (.dockerignore excludes it)"#),
    ] {
        let step = step(copy(&[path], "/"));
        let error = files::select(&step, &from(&root, Some(&ignore))).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn root_no_link_of_source_or_destination_leads_out() {
    let outside = place(&["secret/key", "source/f", "source/d/key", "base/keep"]);
    let at = |path: &str| outside.path().join(path);
    symlink(at("secret"), at("source/absolute")).unwrap();
    symlink("../secret", at("source/relative")).unwrap();
    symlink(at("secret"), at("base/absolute")).unwrap();
    symlink("../secret", at("base/relative")).unwrap();
    for link in ["absolute/key", "relative/key", "../secret/key"] {
        let error = write(&step(copy(&[link], "/x")), &at("source"), &at("none")).unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{link}: {error}");
    }
    // Copied as links, not through them.
    write(&step(copy(&["/"], "/all/")), &at("source"), &at("copy")).unwrap();
    assert!(at("copy/all/absolute").is_symlink());
    let (source, base) = (Root::open(&at("source")).unwrap(), Root::open(&at("base")).unwrap());
    for destination in ["/absolute/", "/relative/", "/../../secret/", "/relative/../../x/"] {
        let draft = tempfile::tempdir().unwrap();
        let step = step(copy(&["f"], destination));
        let selection = files::select(&step, &from(&source, None)).unwrap();
        let draft_root = Root::open(draft.path()).unwrap();
        selection.write(Some(&base), &draft_root, &Options::default()).unwrap();
        assert!(
            tree(draft.path()).iter().any(|path| path.ends_with("/f")),
            "{destination}"
        );
    }
    assert_eq!(tree(&at("secret")), ["key"]);
    assert_eq!(std::fs::read(at("secret/key")).unwrap(), b"secret/key");
}

#[test]
fn root_a_directory_that_becomes_a_link_meanwhile_does_no_harm() {
    let outside = place(&["secret/key", "source/d/key"]);
    let at = |path: &str| outside.path().join(path);
    let source = Root::open(&at("source")).unwrap();
    let step = step(copy(&["/"], "/"));
    let mut selection = files::select(&step, &from(&source, None)).unwrap();
    std::fs::rename(at("source/d"), at("source/e")).unwrap();
    symlink("../secret", at("source/d")).unwrap();
    assert!(selection.digest(None).is_err());
    let draft = tempfile::tempdir().unwrap();
    let error = selection.write(None, &Root::open(draft.path()).unwrap(), &Options::default());
    assert!(error.is_err());
    assert!(!tree(draft.path()).contains(&"d/key".to_owned()));
}

#[test]
fn root_a_file_that_changes_after_it_was_read_is_an_error() {
    let source = place(&["f"]);
    let root = Root::open(source.path()).unwrap();
    let step = step(copy(&["f"], "/f"));
    let mut selection = files::select(&step, &from(&root, None)).unwrap();
    selection.digest(None).unwrap();
    std::fs::write(source.path().join("f"), "something else").unwrap();
    let draft = tempfile::tempdir().unwrap();
    let error = selection
        .write(None, &Root::open(draft.path()).unwrap(), &Options::default())
        .unwrap_err();
    assert!(
        error.to_string().contains("/f changed while the build read it"),
        "{error}"
    );
}

#[test]
fn root_deep_trees_and_long_names_are_copied_or_refused() {
    let source = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    let deep = vec!["d"; 900].join("/");
    std::fs::create_dir_all(source.path().join(&deep)).unwrap();
    std::fs::write(source.path().join(&deep).join(&name), "x").unwrap();
    let draft = tempfile::tempdir().unwrap();
    write(&step(copy(&["/"], "/")), source.path(), draft.path()).unwrap();
    assert!(draft.path().join(&deep).join(&name).is_file());
    std::fs::create_dir_all(source.path().join(&deep).join("d/".repeat(200))).unwrap();
    let error = write(&step(copy(&["/"], "/")), source.path(), &source.path().join("draft")).unwrap_err();
    assert!(error.to_string().contains("levels"), "{error}");
}

#[test]
fn the_digest_is_of_contents_and_modes_and_not_of_times() {
    let source = place(&["d/a", "d/b"]);
    let step = step(copy(&["d"], "/x"));
    let first = digest(&step, source.path(), None);
    let file = std::fs::File::open(source.path().join("d/a")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(digest(&step, source.path(), None), first);
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let second = digest(&step, source.path(), None);
    assert_ne!(second, first);
    std::fs::write(source.path().join("d/b"), "d/c").unwrap();
    assert_ne!(digest(&step, source.path(), None), second);
    std::fs::rename(source.path().join("d/b"), source.path().join("d/c")).unwrap();
    let other = place(&["d/a", "d/c"]);
    let path = other.path().join("d/a");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(digest(&step, source.path(), None), digest(&step, other.path(), None));
}

#[test]
fn root_times_are_no_later_than_the_epoch() {
    let source = place(&["d/a"]);
    let (root, draft) = (Root::open(source.path()).unwrap(), tempfile::tempdir().unwrap());
    let step = step(copy(&["d"], "/new/x"));
    let options = Options {
        epoch: Some(1_000_000),
        ..Options::default()
    };
    let selection = files::select(&step, &from(&root, None)).unwrap();
    selection
        .write(None, &Root::open(draft.path()).unwrap(), &options)
        .unwrap();
    for path in ["new", "new/x", "new/x/a"] {
        assert_eq!(draft.path().join(path).metadata().unwrap().mtime(), 1_000_000, "{path}");
    }
}

#[test]
fn root_archives_of_every_compression_are_unpacked() {
    let source = place(&["in/d/x"]);
    for flag in ["", "z", "j", "J", "-zstd"] {
        let flags = if flag.starts_with('-') {
            vec!["--zstd", "-cf"]
        } else {
            vec!["-c", "-f"]
        };
        let (archive, draft) = (source.path().join("a"), tempfile::tempdir().unwrap());
        let mut tar = std::process::Command::new("tar");
        tar.args(flags).arg(&archive).arg("-C").arg(source.path().join("in"));
        if !flag.is_empty() && !flag.starts_with('-') {
            tar.arg(format!("-{flag}"));
        }
        assert!(tar.arg("d").status().unwrap().success());
        let step = step(Copy {
            unpack: true,
            ..copy(&["a"], "/to/")
        });
        write(&step, source.path(), draft.path()).unwrap();
        assert_eq!(tree(draft.path()), ["to/", "to/d/", "to/d/x"], "{flag}");
    }
}

/// 200 directories with 100 files of 5 kB each.
fn many(root: &Path) {
    for dir in 0..200 {
        let dir = root.join(format!("d{dir}"));
        std::fs::create_dir(&dir).unwrap();
        for file in 0..100 {
            let mut content = String::new();
            let _ = writeln!(content, "{}/{file}", dir.display());
            std::fs::write(dir.join(format!("f{file}")), content.repeat(5000 / content.len())).unwrap();
        }
    }
}

#[test]
fn root_of_many_files_only_the_changed_ones_are_written_again() {
    let place = tempfile::tempdir().unwrap();
    let at = |path: &str| place.path().join(path);
    for dir in ["source", "one", "two"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    many(&at("source"));
    std::thread::sleep(Duration::from_millis(2100));
    let step = step(copy(&["/"], "/app/"));
    let source = Root::open(&at("source")).unwrap();
    let round = |draft: &str, previous: Option<(&str, &Manifest)>| {
        let started = Instant::now();
        let mut index = Index::open(&at("index"));
        let mut selection = files::select(&step, &from(&source, None)).unwrap();
        let selected = started.elapsed();
        selection.digest(Some(&mut index)).unwrap();
        index.save().unwrap();
        let digested = started.elapsed() - selected;
        let root = previous.map(|(path, _)| Root::open(&at(path)).unwrap());
        let options = Options {
            epoch: None,
            previous: previous
                .zip(root.as_ref())
                .map(|((_, manifest), root)| Previous { root, manifest }),
        };
        let written = selection
            .write(None, &Root::open(&at(draft)).unwrap(), &options)
            .unwrap();
        let wrote = started.elapsed() - selected - digested;
        println!("{draft}: selected in {selected:?}, digested in {digested:?}, written in {wrote:?}");
        written
    };
    let first = round("one", None);
    assert_eq!((first.manifest.files.len(), first.linked), (20_000, 0));
    std::fs::write(at("source/d7/f7"), "changed").unwrap();
    let second = round("two", Some(("one", &first.manifest)));
    assert_eq!((second.manifest.files.len(), second.linked), (20_000, 19_999));
    assert_eq!(std::fs::read(at("two/app/d7/f7")).unwrap(), b"changed");
    assert_eq!(tree(&at("one")), tree(&at("two")));
}
