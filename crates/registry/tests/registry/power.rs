//! What a loss of power would leave, from the order of system calls: `strace` watches a server while clients push, mount, tag
//! and delete and the collector works.
//!
//! The model is the worst that a file system may do: a change of a directory (a name made, renamed, removed) may reach the disk
//! at any time from its call on, and has reached it only when a sync of that directory, begun after the change, has ended. Data
//! is on the disk when the file's sync has ended. Changes of one directory keep their order. From that follows what must be
//! durable before what is done; each rule below says why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use ferry_image::Digest;
use serde_json::{Value, json};

use crate::child::Child;
use crate::site::{image, scratch};

/// What is known of the disk.
#[derive(Default)]
struct Disk {
    /// Files that are there as the processes see it, and whether their data is synced.
    files: BTreeMap<String, bool>,
    /// Directories that are there as well.
    dirs: BTreeSet<String>,
    /// Names that were made or removed and whose directory was not synced since: with the number of the change.
    changed: BTreeMap<String, u64>,
    number: u64,
    /// Small files' content, as it was written.
    text: HashMap<String, String>,
    broken: Vec<String>,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    fn change(&mut self, path: &str) {
        self.number += 1;
        self.changed.insert(path.to_owned(), self.number);
    }

    /// What was changed in a directory before a sync of it began is on the disk.
    fn synced(&mut self, dir: &str, begun: u64) {
        self.changed
            .retain(|path, number| parent(path) != dir || *number > begun);
    }

    /// There, and there after a loss of power.
    fn is_durable(&self, path: &str) -> bool {
        let mut above = path;
        while !above.is_empty() {
            if self.changed.contains_key(above) {
                return false;
            }
            above = parent(above);
        }
        self.files.get(path) == Some(&true)
    }

    /// Perhaps there after a loss of power.
    fn may_be(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.changed.contains_key(path)
    }

    fn demand(&mut self, holds: bool, what: &str, rule: &str) {
        if !holds {
            self.broken.push(format!("{what}: {rule}"));
        }
    }

    fn content(digest: &str) -> String {
        let (algorithm, hex) = digest.split_once([':', '.']).unwrap();
        format!("blobs/{algorithm}/{}/{hex}", &hex[..2])
    }

    /// A name is about to be made.
    fn before_link(&mut self, path: &str, text: Option<&str>) {
        let (dir, name) = (parent(path).to_owned(), path.rsplit('/').next().unwrap_or_default());
        let repository = parent(&dir).to_owned();
        if dir.ends_with("/_blobs") {
            let content = self.is_durable(&Self::content(name));
            self.demand(content, path, "a link leads to content");
        } else if dir.ends_with("/_manifests") {
            let content = Self::content(name);
            let durable = self.is_durable(&content);
            self.demand(durable, path, "a link leads to content");
            let manifest: Value = serde_json::from_str(&self.text[&content]).unwrap();
            for (list, folder) in [("layers", "_blobs"), ("manifests", "_manifests")] {
                for part in manifest[list].as_array().into_iter().flatten() {
                    let part = part["digest"].as_str().unwrap().replace(':', ".");
                    let durable = self.is_durable(&format!("{repository}/{folder}/{part}"));
                    self.demand(durable, path, "what a manifest names is there");
                }
            }
        } else if dir.ends_with("/_tags") {
            let digest = text.unwrap().replace(':', ".");
            let durable = self.is_durable(&format!("{repository}/_manifests/{digest}"));
            self.demand(durable, path, "a tag leads to a manifest");
        }
    }

    /// A name is about to be removed.
    fn before_removal(&mut self, path: &str) {
        let (dir, name) = (
            parent(path).to_owned(),
            path.rsplit('/').next().unwrap_or_default().to_owned(),
        );
        let repository = parent(&dir).to_owned();
        let manifests: Vec<String> = self
            .text
            .keys()
            .filter(|path| path.starts_with("blobs/"))
            .cloned()
            .collect();
        if dir.ends_with("/_blobs") {
            for content in manifests {
                let (algorithm, hex) = content["blobs/".len()..].split_once('/').unwrap();
                let manifest = format!("{repository}/_manifests/{algorithm}.{}", &hex[3..]);
                let names = self.text[&content].contains(&name.replace('.', ":"));
                self.demand(!names || !self.may_be(&manifest), path, "no manifest names it");
            }
        } else if dir.ends_with("/_manifests") {
            let tags: Vec<String> = self
                .text
                .keys()
                .filter(|path| path.starts_with(&format!("{repository}/_tags/")))
                .cloned()
                .collect();
            for tag in tags {
                let leads = self.text[&tag] == name.replace('.', ":");
                self.demand(!leads || !self.may_be(&tag), path, "no tag leads to it");
            }
        } else if dir.starts_with("blobs/") {
            let algorithm = dir.split('/').nth(1).unwrap_or_default();
            let suffix = format!("/{algorithm}.{name}");
            let paths = self.files.keys().chain(self.changed.keys());
            let linked = paths
                .into_iter()
                .any(|path| path.ends_with(&suffix) && !path.contains("/_referrers/"));
            self.demand(!linked, path, "no link leads to it");
        }
    }

    fn create(&mut self, path: &str) {
        if !self.files.contains_key(path) {
            self.before_link(path, None);
            self.files.insert(path.to_owned(), path.contains("/_blobs/"));
            self.change(path);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let synced = self.files.remove(from).unwrap_or(false);
        let text = self.text.remove(from);
        self.demand(synced, to, "its data is synced before it gets its name");
        if let Some(text) = &text {
            self.text.insert(to.to_owned(), text.clone());
        }
        self.before_link(to, text.as_deref());
        // The same content in place of the same: whichever is on the disk, it is there.
        let same = to.starts_with("blobs/") && self.is_durable(to);
        self.files.insert(to.to_owned(), synced);
        self.change(from);
        if !same {
            self.change(to);
        }
    }

    fn remove(&mut self, path: &str) {
        self.before_removal(path);
        self.files.remove(path);
        self.change(path);
    }

    /// A client is told that it is done; nobody else does anything.
    fn answered(&mut self, what: &str) {
        // Content that comes back without a link is collected again.
        let matters = |path: &&String| {
            path.starts_with("repositories") || (path.starts_with("blobs") && self.files.contains_key(*path))
        };
        let left: Vec<String> = self.changed.keys().filter(matters).cloned().collect();
        self.demand(
            left.is_empty(),
            what,
            &format!("what a client was told is durable: {left:?}"),
        );
    }
}

/// A call from its begin or to its end.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// Quoted arguments, relative to the root, and the path of a descriptor (`5</path>`).
fn paths<'a>(arguments: &'a str, root: &str) -> Vec<&'a str> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    let below = |path: &'a str| path.strip_prefix(root).map(|path| path.trim_start_matches('/'));
    quoted.filter_map(below).collect()
}

fn descriptor<'a>(arguments: &'a str, root: &str) -> Option<&'a str> {
    let path = arguments.split_once('<')?.1.split_once('>')?.0;
    path.strip_prefix(root).map(|path| path.trim_start_matches('/'))
}

/// Whether each call of the log succeeds, also where its end is another line.
fn outcomes(log: &str) -> Vec<bool> {
    let (mut outcomes, mut open) = (Vec::new(), HashMap::new());
    for (number, line) in log.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap_or_default();
        outcomes.push(!failed(rest));
        if rest.ends_with("<unfinished ...>") {
            open.insert(thread, number);
        } else if rest.trim_start().starts_with("<... ")
            && let Some(begin) = open.remove(thread)
        {
            outcomes[begin] = !failed(rest);
        }
    }
    outcomes
}

/// The log, call by call: what may happen from the begin of a call, and what has happened at its end.
fn replay(log: &str, root: &str, alone: bool) -> Disk {
    let mut disk = Disk::default();
    let mut syncs: HashMap<&str, (String, u64)> = HashMap::new();
    for (line, succeeds) in log.lines().zip(outcomes(log)) {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if resumed.starts_with("fsync") || resumed.starts_with("fdatasync") {
                finish(&mut disk, syncs.remove(thread).filter(|_| succeeds));
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else {
            continue;
        };
        if matches!(name, "fsync" | "fdatasync") {
            let Some(path) = descriptor(arguments, root) else {
                continue;
            };
            let begun = (path.to_owned(), disk.number);
            match arguments.contains("<unfinished") {
                true => drop(syncs.insert(thread, begun)),
                false => finish(&mut disk, Some(begun).filter(|_| succeeds)),
            }
        } else if succeeds {
            apply(&mut disk, &Call { name, arguments }, root, alone);
        }
    }
    disk
}

fn failed(arguments: &str) -> bool {
    arguments.contains(" = -1 E")
}

fn finish(disk: &mut Disk, sync: Option<(String, u64)>) {
    let Some((path, begun)) = sync else { return };
    match disk.files.get_mut(&path) {
        Some(synced) => *synced = true,
        None => disk.synced(&path, begun),
    }
}

fn apply(disk: &mut Disk, call: &Call<'_>, root: &str, alone: bool) {
    let named = paths(call.arguments, root);
    match (call.name, &named[..]) {
        ("openat" | "open", [path]) if call.arguments.contains("O_CREAT") => disk.create(path),
        ("rename" | "renameat" | "renameat2", [from, to]) => disk.rename(from, to),
        ("unlink" | "unlinkat", [path]) if !call.arguments.contains("AT_REMOVEDIR") => disk.remove(path),
        ("mkdir" | "mkdirat", [path]) if disk.dirs.insert((*path).to_owned()) => disk.change(path),
        ("rmdir", [path]) | ("unlinkat", [path]) => {
            disk.dirs.remove(*path);
            disk.changed.remove(*path);
        }
        ("write" | "pwrite64", _) => {
            if let Some(path) = descriptor(call.arguments, root)
                && let Some((_, rest)) = call.arguments.split_once(", \"")
                && let Some((text, _)) = rest.rsplit_once("\", ")
            {
                let (path, text) = (path.to_owned(), text.replace("\\\"", "\""));
                disk.files.insert(path.clone(), false);
                disk.text.insert(path, text);
            }
        }
        ("sendto" | "writev" | "sendmsg", _)
            if alone
                && ["201", "202"]
                    .iter()
                    .any(|done| call.arguments.contains(&format!("HTTP/1.1 {done}"))) =>
        {
            disk.answered(&call.arguments[..call.arguments.len().min(200)]);
        }
        _ => {}
    }
}

const CALLS: &str = "trace=openat,open,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,fsync,fdatasync,write,pwrite64,sendto,writev,sendmsg";

/// What `work` breaks, with the server's calls watched. `alone`: only one client does something at a time.
fn watched(alone: bool, work: impl FnOnce(&mut Child)) -> Option<Disk> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: there is no strace");
        return None;
    }
    let dir = scratch();
    let log = dir.path().join("log");
    let wrapper = [
        "strace",
        "-f",
        "-y",
        "-s",
        "4096",
        "-e",
        CALLS,
        "-e",
        "signal=none",
        "-o",
    ]
    .map(OsString::from);
    let wrapper: Vec<OsString> = wrapper.into_iter().chain([log.clone().into()]).collect();
    let root = dir.path().join("root");
    let mut child = Child::start(&root, &wrapper);
    work(&mut child);
    child.end();
    Some(replay(
        &std::fs::read_to_string(log).unwrap(),
        root.to_str().unwrap(),
        alone,
    ))
}

#[track_caller]
fn holds(disk: &Disk, path: impl AsRef<Path>) {
    let path = path.as_ref().to_str().unwrap();
    assert!(
        disk.is_durable(path),
        "{path} was seen: {:?}, {:?}",
        disk.files.get(path),
        disk.changed
    );
}

fn push_blob(server: &Child, repository: &str, content: &str) -> String {
    let digest = Digest::of(content).to_string();
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    assert_eq!(server.ask("POST", &path, &[], content.as_bytes()).status, 201);
    digest
}

fn push(server: &Child, repository: &str, reference: &str, manifest: &str) {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let reply = server.ask("PUT", &path, &[], manifest.as_bytes());
    assert_eq!(reply.status, 201, "{:?}", reply.json());
}

#[test]
fn after_a_loss_of_power_what_is_visible_is_whole_and_what_was_told_is_there() {
    let mut last = (String::new(), String::new());
    let disk = watched(true, |server| {
        for number in 0..3 {
            let content = format!("content {number}");
            let blob = push_blob(server, "a/b", &content);
            let mounted = server.ask("POST", &format!("/v2/c/blobs/uploads/?mount={blob}&from=a/b"), &[], b"");
            assert_eq!(mounted.status, 201);
            let manifest = image(&blob, content.len(), &blob, content.len());
            push(server, "a/b", "latest", &manifest);
            let digest = Digest::of(&manifest).to_string();
            let part = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len() });
            let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [part] });
            push(server, "a/b", "index", &index.to_string());
            let mut artifact: Value = serde_json::from_str(&manifest).unwrap();
            artifact["subject"] = part;
            push(
                server,
                "a/b",
                &Digest::of(artifact.to_string()).to_string(),
                &artifact.to_string(),
            );
            if number == 1 {
                std::thread::sleep(std::time::Duration::from_millis(1200));
                assert!(server.collect().starts_with("Ok("));
                let path = format!("/v2/a/b/manifests/{digest}");
                assert_eq!(server.ask("DELETE", &path, &[], b"").status, 202);
            }
            last = (blob, digest);
        }
        std::thread::sleep(std::time::Duration::from_millis(1200));
        assert!(server.collect().starts_with("Ok("));
    });
    let Some(disk) = disk else { return };
    assert!(disk.broken.is_empty(), "{:#?}", disk.broken);
    // What is checked was seen.
    let (blob, manifest) = (last.0.replace(':', "."), last.1.replace(':', "."));
    holds(&disk, "repositories/a/b/_tags/latest");
    holds(&disk, format!("repositories/a/b/_manifests/{manifest}"));
    holds(&disk, format!("repositories/a/b/_blobs/{blob}"));
    holds(&disk, Disk::content(&blob));
    // The mount that no manifest used was collected.
    assert!(!disk.files.contains_key(&format!("repositories/c/_blobs/{blob}")));
}

#[test]
fn clients_that_rely_on_what_another_one_is_about_to_finish_lose_nothing_either() {
    let disk = watched(false, |server| {
        for round in 0..6 {
            let server = &*server;
            std::thread::scope(|scope| {
                for writer in 0..4 {
                    scope.spawn(move || {
                        // The same blobs and the same repository, which is new, and everybody's own manifest.
                        let (repository, content) = (format!("r{round}/x/y"), format!("shared {round}"));
                        let head = format!("/v2/{repository}/blobs/{}", Digest::of(&content));
                        let blob = match server.ask("HEAD", &head, &[], b"").status {
                            200 => Digest::of(&content).to_string(),
                            _ => push_blob(server, &repository, &content),
                        };
                        let manifest = image(&blob, content.len(), &blob, content.len());
                        let manifest = manifest.replace(
                            "\"schemaVersion\"",
                            &format!("\"annotations\":{{\"w\":\"{writer}\"}},\"schemaVersion\""),
                        );
                        push(server, &repository, &format!("t{writer}"), &manifest);
                    });
                }
            });
        }
    });
    let Some(disk) = disk else { return };
    assert!(disk.broken.is_empty(), "{:#?}", disk.broken);
    for round in 0..6 {
        for writer in 0..4 {
            holds(&disk, format!("repositories/r{round}/x/y/_tags/t{writer}"));
        }
    }
}
