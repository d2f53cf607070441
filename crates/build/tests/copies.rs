//! What `COPY`, `ADD` and `WORKDIR` write, beside what BuildKit wrote: see `copies/README.md`.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command as Process;
use std::time::{SystemTime, UNIX_EPOCH};

use ferry_build::files::{self, Index, Options, Source};
use ferry_build::graph::{Action, Copy, Files};
use ferry_dockerfile::instruction::{Command, Transfer};
use ferry_dockerfile::{Dockerfile, Ignore};
use ferry_sys::Root;

/// Cases whose result is another one here, and why.
const DIFFERENT: [(&str, &str); 7] = [
    ("a socket", "BuildKit makes an empty file of it; it is left out"),
    (
        "a character device 0:0",
        "refused: a layer would take it for a deleted file",
    ),
    ("times are kept", "BuildKit takes the first second of 1970 for no time"),
    (
        "archives of all compressions",
        "the recorded engine had no `xz`, without which Docker cannot read it",
    ),
    ("special files", "BuildKit makes a character device of a block device"),
    (
        "a directory's content into one that is there",
        "BuildKit leaves the time of a directory further down that was there at now",
    ),
    ("a broken archive", "the error says where"),
];

struct Case {
    name: String,
    parts: BTreeMap<String, String>,
}

fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/copies");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = format!("\n{}", std::fs::read_to_string(path).unwrap());
        for block in text.split("\n=== ").skip(1) {
            let (name, rest) = block.split_once('\n').unwrap();
            let mut parts = BTreeMap::new();
            for part in format!("\n{rest}").split("\n--- ").skip(1) {
                let (key, value) = part.split_once('\n').unwrap_or((part, ""));
                parts.insert(key.to_owned(), value.trim_matches('\n').to_owned() + "\n");
            }
            found.push(Case {
                name: name.to_owned(),
                parts,
            });
        }
    }
    found
}

#[test]
fn root_copies_are_what_buildkit_makes_of_them() {
    let mut wrong = String::new();
    let cases = cases();
    assert!(cases.len() > 90, "{}", cases.len());
    for case in &cases {
        let found = run(case);
        let expected = case.parts["result"].trim().replace(" now /", " N /");
        let same = match expected.strip_prefix("error: ") {
            Some(text) => {
                let text = text.rsplit("failed to solve: ").next().unwrap();
                let text = text.rsplit("ref R: ").next().unwrap().replace("ROOT", "");
                found.starts_with("error: ") && found.contains(&text)
            }
            None => found.trim() == expected,
        };
        let is_known = DIFFERENT.iter().any(|(name, _)| *name == case.name);
        if same == is_known {
            let _ = writeln!(
                wrong,
                "=== {} (known: {is_known})\nexpected\n{expected}\nfound\n{found}",
                case.name
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn run(case: &Case) -> String {
    let dir = tempfile::tempdir().unwrap();
    for part in ["context", "base", "draft"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
        let script = format!("umask 022\n{}", case.parts.get(part).map_or("", String::as_str));
        let status = Process::new("sh")
            .args(["-euc", &script])
            .current_dir(dir.path().join(part))
            .status();
        assert!(status.unwrap().success(), "{}", case.name);
    }
    let open = |part: &str| Root::open(&dir.path().join(part)).unwrap();
    let (context, base, draft) = (open("context"), open("base"), open("draft"));
    let ignore = case
        .parts
        .get("ignore")
        .map(|text| Ignore::parse(text.as_bytes()).unwrap());
    let sources = BTreeMap::from([
        (
            0,
            Source {
                root: &context,
                ignore: ignore.as_ref(),
                plain_owner: true,
            },
        ),
        (
            1,
            Source {
                root: &base,
                ignore: None,
                plain_owner: false,
            },
        ),
    ]);
    let text = &case.parts["dockerfile"];
    let is_staged = text.starts_with("FROM");
    let has_base = case.parts.contains_key("base") && !is_staged;
    let files = Files {
        base: has_base.then_some(1),
        actions: actions(text),
    };
    let below = has_base.then_some(&base);
    let written = files::select(&files, &sources).and_then(|mut selection| {
        selection.digest(Some(&mut Index::default()))?;
        selection.write(below, &draft, &Options::default())
    });
    match written {
        Ok(_) => listing(
            &dir.path().join("draft"),
            has_base.then_some(dir.path().join("base").as_path()),
        ),
        Err(error) => format!("error: {error}"),
    }
}

/// As the frontend makes them of a stage, without variables.
fn actions(text: &str) -> Vec<Action> {
    let text = match text.starts_with("FROM") {
        true => text.to_owned(),
        false => format!("FROM scratch\n{text}"),
    };
    let file = Dockerfile::parse(text.as_bytes()).unwrap();
    let mut workdir = String::from("/");
    let mut actions = Vec::new();
    for instruction in &file.stages.last().unwrap().instructions {
        match &instruction.command {
            Command::Workdir(path) => {
                workdir.clone_from(path);
                actions.push(Action::MakeDirectory {
                    path: path.clone(),
                    mode: 0o755,
                    owner: None,
                });
            }
            Command::Copy(transfer) => actions.extend(transferred(transfer, &workdir, false)),
            Command::Add(transfer) => actions.extend(transferred(transfer, &workdir, transfer.unpack != Some(false))),
            other => panic!("{other:?}"),
        }
    }
    actions
}

fn transferred(transfer: &Transfer, workdir: &str, unpack: bool) -> Vec<Action> {
    let destination = match transfer.destination.as_str() {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{}", workdir.trim_end_matches('/'), path.trim_start_matches("./")),
    };
    let mut actions = Vec::new();
    if !transfer.sources.is_empty() {
        actions.push(Action::Copy(Copy {
            input: usize::from(transfer.from.is_some()),
            sources: transfer
                .sources
                .iter()
                .map(|source| source.replace("\\\\", "\\"))
                .collect(),
            destination: destination.clone(),
            owner: transfer.chown.clone(),
            chmod: transfer.chmod.clone(),
            parents: transfer.parents,
            exclude: transfer.exclude.clone(),
            unpack,
            keep_owner: transfer.from.is_some(),
            ..Copy::default()
        }));
    }
    if !transfer.documents.is_empty() {
        let documents = transfer.documents.iter();
        actions.push(Action::Documents {
            files: documents
                .map(|document| (document.name.clone(), document.content.clone()))
                .collect(),
            destination,
            chmod: transfer.chmod.clone(),
            owner: transfer.chown.clone(),
        });
    }
    actions
}

/// Both together as a mount of them would show them, in the form of the recorder.
fn listing(draft: &Path, base: Option<&Path>) -> String {
    let mut lines = BTreeMap::new();
    if let Some(base) = base {
        list(base, Path::new(""), &mut lines);
    }
    let mut above = BTreeMap::new();
    list(draft, Path::new(""), &mut above);
    for (path, line) in above {
        let is_opaque = line.starts_with("dir ")
            && ferry_archive::tree::is_opaque(std::fs::File::open(draft.join(&path)).unwrap().as_fd());
        if !line.starts_with("dir ")
            || is_opaque
            || lines.get(&path).is_some_and(|line: &String| !line.starts_with("dir "))
        {
            lines.retain(|known, _| !Path::new(known).starts_with(&path));
        }
        lines.insert(path, line);
    }
    let mut shown: Vec<(String, String)> = lines.into_iter().collect();
    shown.sort_by_key(|(path, _)| show(path));
    shown.into_iter().map(|(_, line)| line + "\n").collect()
}

fn show(path: &str) -> String {
    path.replace('\n', "\\n").replace('\u{1}', "\\x01")
}

fn list(root: &Path, below: &Path, lines: &mut BTreeMap<String, String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut names: Vec<_> = std::fs::read_dir(root.join(below))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        let whole = root.join(&path);
        let data = whole.symlink_metadata().unwrap();
        let kind = data.file_type();
        let (kind, mut detail) = if kind.is_dir() {
            ("dir", String::new())
        } else if kind.is_symlink() {
            ("link", whole.read_link().unwrap().display().to_string())
        } else if kind.is_file() {
            let digest = ferry_image::Digest::of(std::fs::read(&whole).unwrap());
            ("file", digest.encoded()[..16].to_owned())
        } else if kind.is_fifo() {
            ("fifo", String::new())
        } else {
            let device = format!("{}:{}", rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
            (if kind.is_char_device() { "char" } else { "block" }, device)
        };
        let fd = Root::open(root)
            .unwrap()
            .resolve(&path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW);
        let fd = fd.unwrap();
        if kind != "link" {
            let mut xattrs = ferry_archive::tree::xattrs(fd.as_fd()).unwrap();
            xattrs.sort();
            for (name, value) in xattrs {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                let _ = write!(detail, " {}={hex}", name.display());
            }
        }
        let mtime = match u64::try_from(data.mtime()) {
            Ok(mtime) if mtime + 1000 < now => mtime.to_string(),
            _ => "N".to_owned(),
        };
        let text = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        let shown = show(&text);
        if kind == "file" && data.nlink() > 1 {
            match first.get(&data.ino()) {
                Some(other) => {
                    let _ = write!(detail, " = /{other}");
                }
                None => {
                    first.insert(data.ino(), shown.clone());
                }
            }
        }
        let (mode, uid, gid) = (data.mode() & 0o7777, data.uid(), data.gid());
        let line = format!("{kind} {mode:04o} {uid}:{gid} {mtime} /{shown} {detail}");
        lines.insert(text, line.trim_end().to_owned());
        if kind == "dir" {
            list(root, &path, lines);
        }
    }
}
