//! COPY, ADD and WORKDIR of trees made by nobody's good will: whatever links lie below, in the draft and in the source, and wherever
//! destinations lead, nothing outside of the draft changes (CVE-2024-23652, CVE-2026-44517, BuildKit's batch of July 2026).
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use ferry_build::files::{self, Options, Source};
use ferry_build::graph::{Action, Copy, Files};
use ferry_sys::Root;
use proptest::prelude::*;

/// Names that meet each other often.
const NAMES: [&str; 5] = ["a", "b", "c", "s", "t"];

#[derive(Debug, Clone)]
enum Thing {
    Directory,
    File,
    Link(String),
    HardLink(String),
    Fifo,
    /// An archive of these.
    Archive(Vec<(String, Thing)>),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..4).prop_map(|names| names.join("/"))
}

/// Where links and destinations lead: out by any way there is, or in. `OUT` is the directory outside.
fn anywhere() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("OUT".to_owned()),
        Just("OUT/file".to_owned()),
        Just("OUT/new".to_owned()),
        Just("../../../../../../../../../../../..OUT".to_owned()),
        Just("..".to_owned()),
        Just("../..".to_owned()),
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("/proc/self/root/OUT".to_owned()),
        Just("/proc/self/cwd".to_owned()),
        Just("../outside/file".to_owned()),
        Just("../../outside".to_owned()),
        path(),
        path().prop_map(|path| format!("/{path}")),
        path().prop_map(|path| format!("../{path}")),
        (path(), path()).prop_map(|(one, other)| format!("{one}/../../{other}")),
        (path(), path()).prop_map(|(one, other)| format!("{one}/../../../outside/{other}/")),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    let leaf = prop_oneof![
        2 => Just(Thing::Directory),
        2 => Just(Thing::File),
        4 => anywhere().prop_map(Thing::Link),
        1 => anywhere().prop_map(Thing::HardLink),
        1 => Just(Thing::Fifo),
    ];
    leaf.prop_recursive(1, 12, 8, |inner| {
        let name = prop_oneof![path(), anywhere()];
        proptest::collection::vec((name, inner), 1..8).prop_map(Thing::Archive)
    })
}

fn things() -> impl Strategy<Value = Vec<(String, Thing)>> {
    proptest::collection::vec((path(), thing()), 0..10)
}

fn step() -> impl Strategy<Value = Vec<Action>> {
    let pattern = prop_oneof![
        anywhere(),
        path(),
        Just("*".to_owned()),
        Just("**/s".to_owned()),
        Just(String::new())
    ];
    let copy = (
        proptest::collection::vec(pattern, 1..3),
        anywhere(),
        proptest::bits::u8::masked(0b11111),
    )
        .prop_map(|(sources, destination, bits)| {
            let several = sources.len() > 1 && !destination.ends_with('/');
            Action::Copy(Copy {
                sources,
                destination: if several { destination + "/" } else { destination },
                unpack: bits & 1 != 0,
                parents: bits & 2 != 0,
                literal: bits & 4 != 0,
                keep_owner: bits & 8 != 0,
                chmod: (bits & 16 != 0).then(|| "0777".to_owned()),
                ..Copy::default()
            })
        });
    let make = anywhere().prop_map(|path| Action::MakeDirectory {
        path,
        mode: 0o777,
        owner: Some("1:2".to_owned()),
    });
    let document = anywhere().prop_map(|destination| Action::Documents {
        files: vec![("f".to_owned(), b"document".to_vec())],
        destination,
        chmod: Some("0666".to_owned()),
        owner: Some("3:4".to_owned()),
    });
    proptest::collection::vec(prop_oneof![4 => copy, 1 => make, 1 => document], 1..4)
}

/// Places of one case: all in one directory, so that `..` leads from one to the other.
struct Places {
    dir: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["outside", "outside/dir", "below", "draft", "source"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["outside/file", "outside/dir/file"] {
            std::fs::write(dir.path().join(name), "untouched").unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn real(&self, text: &str) -> String {
        text.replace("OUT", &self.path("outside").display().to_string())
    }

    /// Makes what can be made: what is in the way of others stays.
    fn fill(&self, name: &str, things: &[(String, Thing)]) {
        for (path, thing) in things {
            let path = self.path(name).join(path);
            let parent = path.parent().unwrap();
            // By names alone, so that no link of the fixture's own leads out.
            let is_inside = parent
                .ancestors()
                .take_while(|above| *above != self.dir.path())
                .all(|above| !above.is_symlink());
            if !is_inside || std::fs::create_dir_all(parent).is_err() {
                continue;
            }
            let _ = match thing {
                Thing::Directory => std::fs::create_dir(&path),
                Thing::File | Thing::HardLink(_) if path.symlink_metadata().is_ok() => Ok(()),
                Thing::File | Thing::HardLink(_) => std::fs::write(&path, "inside"),
                Thing::Link(target) => symlink(self.real(target), &path),
                Thing::Fifo => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::from(0o600),
                    0,
                )
                .map_err(Into::into),
                Thing::Archive(_) if path.symlink_metadata().is_ok() => Ok(()),
                Thing::Archive(entries) => std::fs::write(&path, self.archive(entries)),
            };
        }
    }

    fn archive(&self, entries: &[(String, Thing)]) -> Vec<u8> {
        use ferry_archive::reader::Kind;
        let mut writer = ferry_archive::Writer::new(Vec::new());
        for (name, thing) in entries {
            let name = self.real(name);
            let kind = match thing {
                Thing::Directory => Kind::Directory,
                Thing::File | Thing::Archive(_) => Kind::File,
                Thing::Link(_) => Kind::Symlink,
                Thing::HardLink(_) => Kind::HardLink,
                Thing::Fifo => Kind::Fifo,
            };
            let mut header = ferry_archive::Entry::blank(Path::new(&name), kind);
            header.mode = 0o777;
            if let Thing::Link(target) | Thing::HardLink(target) = thing {
                header.link = self.real(target).into();
            }
            writer.header(&header).unwrap();
        }
        writer.finish().unwrap()
    }

    /// Everything but the draft, as text.
    fn shown(&self) -> String {
        let mut text = String::new();
        let mut left: Vec<PathBuf> = ["outside", "below", "source"].map(|name| self.path(name)).into();
        left.push(self.dir.path().to_owned());
        while let Some(path) = left.pop() {
            let data = path.symlink_metadata().unwrap();
            let _ = write!(
                text,
                "{} {:o} {}:{} {} {}.{} ",
                path.display(),
                data.permissions().mode(),
                data.uid(),
                data.gid(),
                data.nlink(),
                data.mtime(),
                data.mtime_nsec()
            );
            if data.is_file() {
                text += &std::fs::read(&path).unwrap().escape_ascii().to_string();
            } else if data.is_symlink() {
                text += &std::fs::read_link(&path).unwrap().display().to_string();
            } else if data.is_dir() {
                let mut names: Vec<_> = std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect();
                names.sort();
                let _ = write!(text, "{names:?}");
                if path != self.dir.path() {
                    left.extend(names);
                }
            }
            text.push('\n');
        }
        text
    }

    /// No content of the outside is in the draft.
    fn is_kept_out(&self, path: &Path) -> bool {
        std::fs::read_dir(path).unwrap().all(|entry| {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            match data.is_dir() {
                true => self.is_kept_out(&path),
                false => !data.is_file() || !std::fs::read(&path).unwrap().starts_with(b"untouched"),
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn root_nothing_outside_of_the_draft_changes(
        below in things(), draft in things(), source in things(), actions in step(), has_below in any::<bool>(),
    ) {
        let places = Places::new();
        for (name, things) in [("below", &below), ("draft", &draft), ("source", &source)] {
            places.fill(name, things);
        }
        let real = |text: &mut String| *text = places.real(text);
        let mut actions = actions;
        for action in &mut actions {
            match action {
                Action::Copy(copy) => {
                    copy.sources.iter_mut().for_each(real);
                    real(&mut copy.destination);
                }
                Action::MakeDirectory { path, .. } => real(path),
                Action::Documents { destination, .. } => real(destination),
            }
        }
        let before = places.shown();
        let [below, draft, source] = ["below", "draft", "source"].map(|name| Root::open(&places.path(name)).unwrap());
        let files = Files { base: None, actions };
        let from = Source { root: &source, ignore: None, plain_owner: true };
        let written = files::select(&files, &BTreeMap::from([(0, from)])).and_then(|mut selection| {
            selection.digest(None)?;
            selection.write(Some(&below).filter(|_| has_below), &draft, &Options::default())
        });
        prop_assert_eq!(places.shown(), before, "{:?}", written);
        prop_assert!(places.is_kept_out(&places.path("draft")));
        if let Err(error) = written {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
