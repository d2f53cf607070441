//! A saved image as text that two engines agree on: configuration, history, and the files that are not as in busybox.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;

use ferry_testkit::images::{busybox_tar, sha256};
use serde_json::{Value, json};
use tar::{Archive, EntryType};

/// What was written later has no time of its own: it is from the build. 2026-01-01.
const BUILT: u64 = 1_767_225_600;
/// Bytes of a file that are shown.
const SHOWN: usize = 100;
const XATTR: &str = "SCHILY.xattr.";

#[derive(Debug, Clone, PartialEq)]
struct Node {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    /// Content of a file, target of a link, numbers of a device.
    what: String,
    xattrs: BTreeMap<String, Vec<u8>>,
    time: Option<String>,
    /// Names of the same file have the same.
    file: usize,
}

#[derive(Debug, Clone, Default)]
struct Tree {
    nodes: BTreeMap<String, Node>,
    files: usize,
}

/// The lines of an image without files, which Docker does not save, by what is told of it.
pub fn describe_settings(inspected: &Value, history: &Value) -> String {
    let steps = history.as_array().unwrap().iter().rev();
    let steps: Vec<Value> = steps
        .map(|step| {
            let comment = step["Comment"].as_str().filter(|comment| !comment.is_empty());
            json!({ "created_by": step["CreatedBy"], "comment": comment, "empty_layer": true })
        })
        .collect();
    let config = json!({
        "architecture": inspected["Architecture"],
        "os": inspected["Os"],
        "author": inspected["Author"],
        "config": inspected["Config"],
        "history": steps,
    });
    let mut text = String::new();
    configuration(&config, 0, &mut text);
    text
}

/// The lines of an archive of `docker save` with one image.
pub fn describe(archive: &[u8]) -> String {
    let mut members: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(name, bytes);
    }
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let config: Value = serde_json::from_slice(&members[manifest[0]["Config"].as_str().unwrap()]).unwrap();
    let base = sha256(&busybox_tar());
    let (mut tree, mut before) = (Tree::default(), Tree::default());
    let layers = manifest[0]["Layers"].as_array().unwrap();
    for layer in layers {
        let layer = &members[layer.as_str().unwrap()];
        tree.apply(layer);
        if sha256(layer) == base {
            before = tree.clone();
        }
    }
    let mut text = String::new();
    configuration(&config, layers.len(), &mut text);
    tree.tell(&before, &mut text);
    text
}

fn configuration(config: &Value, layers: usize, text: &mut String) {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    text.push_str("config\n");
    for key in ["architecture", "os", "variant", "author"] {
        if !is_empty(&config[key]) {
            let _ = writeln!(text, "  {key} {}", config[key]);
        }
    }
    let settings = config["config"].as_object().cloned().unwrap_or_default();
    for (key, value) in settings.into_iter().collect::<BTreeMap<_, _>>() {
        if !is_empty(&value) {
            let _ = writeln!(text, "  {key} {}", sorted(value));
        }
    }
    let _ = writeln!(text, "history of {layers} layers");
    for step in config["history"].as_array().into_iter().flatten() {
        let kind = if step["empty_layer"] == true { '-' } else { '+' };
        let _ = write!(text, "  {kind} {}", step["created_by"]);
        match step["comment"].as_str() {
            Some(comment) => writeln!(text, " ({comment})"),
            None => writeln!(text),
        }
        .unwrap();
    }
}

/// Of a file: short text as it is, of others size and digest.
fn content(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= SHOWN => format!("{text:?}"),
        _ => format!("{} {}", bytes.len(), &sha256(bytes)[..16]),
    }
}

/// With the keys of maps in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            map.into_iter().collect()
        }
        other => other,
    }
}

impl Node {
    /// But for the time of a directory: to mount something below it changes that, and engines mount different things.
    fn same(&self, other: &Self) -> bool {
        let of = |node: &Self| Self {
            file: 0,
            time: node.time.clone().filter(|_| node.kind != 'd'),
            ..node.clone()
        };
        of(self) == of(other)
    }
}

impl Tree {
    fn apply(&mut self, layer: &[u8]) {
        let mut added = Vec::new();
        for entry in Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = format!("{parent}/{gone}");
                let gone = gone.trim_start_matches('/');
                self.remove_below(gone);
                self.nodes.remove(gone);
            } else {
                added.push(self.read(path, &mut entry));
            }
        }
        for (path, node, link) in added {
            if node.kind != 'd' {
                self.remove_below(&path);
            }
            let node = match link {
                Some(target) => self.nodes[&target].clone(),
                None => node,
            };
            self.nodes.insert(path, node);
        }
    }

    /// Path, node, and of which other path it is a name.
    fn read(&mut self, path: String, entry: &mut tar::Entry<'_, &[u8]>) -> (String, Node, Option<String>) {
        let mut xattrs = BTreeMap::new();
        let mut fraction = String::new();
        // What a header has no room for is beside it.
        let (mut uid, mut gid) = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records.flatten() {
                let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
                let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                if let Some(name) = key.strip_prefix(XATTR) {
                    xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                } else if key == "uid" {
                    uid = value.parse().unwrap();
                } else if key == "gid" {
                    gid = value.parse().unwrap();
                } else if key == "mtime" {
                    let digits = value
                        .split_once('.')
                        .map_or("", |(_, digits)| digits.trim_end_matches('0'));
                    fraction = digits.to_owned();
                }
            }
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let link = entry
            .link_name_bytes()
            .map(|name| String::from_utf8_lossy(&name).into_owned());
        let link = link.unwrap_or_default();
        let numbers = || format!("{:?}:{:?}", header.device_major(), header.device_minor());
        let (kind, what, of) = match header.entry_type() {
            EntryType::Directory => ('d', String::new(), None),
            EntryType::Symlink => ('l', format!("-> {link}"), None),
            EntryType::Link => ('f', String::new(), Some(link.trim_start_matches('/').to_owned())),
            EntryType::Fifo => ('p', String::new(), None),
            EntryType::Char => ('c', numbers(), None),
            EntryType::Block => ('b', numbers(), None),
            _ => ('f', content(&bytes), None),
        };
        let time = header.mtime().unwrap();
        let time = (time < BUILT).then(|| match fraction.is_empty() {
            true => format!("@{time}"),
            false => format!("@{time}.{fraction}"),
        });
        self.files += 1;
        let node = Node {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            owner: (uid, gid),
            what,
            xattrs,
            time,
            file: self.files,
        };
        (path, node, of)
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.nodes
            .retain(|name, _| !(name.starts_with(&prefix) || path.is_empty() && !name.is_empty()));
    }

    fn tell(&self, before: &Self, text: &mut String) {
        text.push_str("files\n");
        let mut names: BTreeMap<usize, &str> = BTreeMap::new();
        for (path, node) in &self.nodes {
            names.entry(node.file).or_insert(path);
        }
        let all: BTreeSet<&String> = self.nodes.keys().chain(before.nodes.keys()).collect();
        for path in all {
            let Some(node) = self.nodes.get(path) else {
                let _ = writeln!(text, "  gone /{path}");
                continue;
            };
            let same = |old: &Node| old.same(node);
            let is_first = names[&node.file] == path;
            if is_first && before.nodes.get(path).is_some_and(same) {
                continue;
            }
            if !is_first {
                let _ = writeln!(text, "  = /{path} /{}", names[&node.file]);
                continue;
            }
            let (uid, gid) = node.owner;
            let _ = write!(text, "  {} {:o} {uid}:{gid} /{path}", node.kind, node.mode);
            if !node.what.is_empty() {
                let _ = write!(text, " {}", node.what);
            }
            for (name, value) in &node.xattrs {
                let _ = write!(text, " {name}={}", value.escape_ascii());
            }
            let _ = writeln!(text, " {}", node.time.as_deref().unwrap_or("now"));
        }
    }
}
