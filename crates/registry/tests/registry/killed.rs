//! A server that is killed at any moment, again and again, while clients push, delete and mount and the collector works: what
//! was said to be there is there, whatever is visible is whole, and uploads go on where they were.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use ferry_image::Digest;
use ferry_registry::{Backend as _, Collection, FileSystem, FileSystemOptions};
use serde_json::Value;

use crate::child::{Child, harsh};
use crate::client::{self, Reply};
use crate::site::{image, scratch};

const KILLS: usize = 50;
const WRITERS: usize = 4;

/// Numbers that differ enough (Knuth's constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        let words = count.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.below(1 << 31).to_le_bytes()).collect();
        bytes.truncate(usize::try_from(count).unwrap());
        bytes
    }
}

/// An upload that was under way.
struct Begun {
    location: String,
    content: Vec<u8>,
    acknowledged: usize,
    sent: usize,
}

/// Somebody who pushes to a tag of their own.
struct Writer {
    repository: String,
    tag: String,
    numbers: Numbers,
    /// What the tag may point to: more than one while an answer is missing. `None` is no tag.
    may_be: BTreeSet<Option<String>>,
    begun: Option<Begun>,
    pushed: u64,
}

impl Writer {
    fn new(number: usize, seed: u64) -> Self {
        Self {
            repository: format!("r{}/x", number % 2),
            tag: format!("t{number}"),
            numbers: Numbers(seed ^ u64::try_from(number).unwrap()),
            may_be: BTreeSet::from([None]),
            begun: None,
            pushed: 0,
        }
    }

    /// Goes on until the server is gone.
    fn work(&mut self, address: SocketAddr) {
        let Ok(mut stream) = client::connect(address) else {
            return;
        };
        while self.round(&mut stream).is_ok() {}
    }

    fn round(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        let config = Digest::of("{}");
        let head = client::send(
            stream,
            "HEAD",
            &format!("/v2/{}/blobs/{config}", self.repository),
            &[],
            b"",
        )?;
        if head.status == 404 {
            let mounted = client::send(stream, "POST", &format!("{uploads}?mount={config}&from=r0/x"), &[], b"")?;
            if mounted.status == 202 {
                client::send(stream, "DELETE", mounted.header("location"), &[], b"")?;
                let pushed = client::send(stream, "POST", &format!("{uploads}?digest={config}"), &[], b"{}")?;
                assert_eq!(pushed.status, 201);
            }
        }
        let count = 1 + self.numbers.below(60_000);
        let content = self.numbers.bytes(count);
        let begun = client::send(stream, "POST", &uploads, &[], b"")?;
        assert_eq!(begun.status, 202);
        let upload = self.begun.insert(Begun {
            location: begun.header("location").to_owned(),
            content,
            acknowledged: 0,
            sent: 0,
        });
        let half = upload.content.len() / 2;
        upload.sent = half;
        let reply = client::send(stream, "PATCH", &upload.location, &[], &upload.content[..half])?;
        assert_eq!(reply.status, 202);
        upload.acknowledged = half;
        upload.sent = upload.content.len();
        let digest = Digest::of(&upload.content);
        let put = format!("{}?digest={digest}", upload.location);
        let reply = client::send(stream, "PUT", &put, &[], &upload.content[half..])?;
        assert_eq!(reply.status, 201);
        let size = upload.content.len();
        self.begun = None;

        let manifest = image(&config.to_string(), 2, &digest.to_string(), size);
        let path = format!("/v2/{}/manifests/{}", self.repository, self.tag);
        self.may_be.insert(Some(manifest.clone()));
        let reply = client::send(stream, "PUT", &path, &[], manifest.as_bytes())?;
        match (reply.status, reply.code().as_str()) {
            (201, _) => self.may_be = BTreeSet::from([Some(manifest.clone())]),
            // With a grace time of nothing the collector may have been quicker.
            (400, "MANIFEST_BLOB_UNKNOWN") => drop(self.may_be.remove(&Some(manifest.clone()))),
            _ => panic!("{reply:?}"),
        }
        self.pushed += 1;
        if self.numbers.below(6) == 0 && self.may_be == BTreeSet::from([Some(manifest.clone())]) {
            self.may_be.insert(None);
            let path = format!("/v2/{}/manifests/{}", self.repository, Digest::of(&manifest));
            assert_eq!(client::send(stream, "DELETE", &path, &[], b"")?.status, 202);
            self.may_be = BTreeSet::from([None]);
        }
        Ok(())
    }

    /// What there is now is what there may be.
    fn check(&mut self, server: &Child) {
        let reply = server.ask(
            "GET",
            &format!("/v2/{}/manifests/{}", self.repository, self.tag),
            &[],
            b"",
        );
        let found = match reply.status {
            200 => Some(String::from_utf8(reply.body).unwrap()),
            404 => None,
            status => panic!("{status} {:?}", reply.json()),
        };
        assert!(
            self.may_be.contains(&found),
            "{}: {found:?} instead of {:?}",
            self.tag,
            self.may_be
        );
        self.may_be = BTreeSet::from([found]);
    }

    /// The upload goes on, or it is gone.
    fn resume(&mut self, server: &Child) -> bool {
        let Some(upload) = self.begun.take() else { return false };
        let status = server.ask("GET", &upload.location, &[], b"");
        let digest = Digest::of(&upload.content);
        if status.status == 404 {
            assert_eq!(status.code(), "BLOB_UPLOAD_UNKNOWN");
            // Only one of which everything was sent, with its digest, can have ended.
            assert_eq!(upload.sent, upload.content.len(), "an upload is lost");
            return false;
        }
        let last: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
        let offset = if last == 0 {
            upload.acknowledged.min(1)
        } else {
            last + 1
        };
        assert!(
            (upload.acknowledged..=upload.sent).contains(&offset),
            "{offset} of {}",
            upload.sent
        );
        let rest = &upload.content[offset..];
        let range = format!("{offset}-{}", upload.content.len().max(1) - 1);
        let headers = [("content-range", range.as_str())];
        let headers = if rest.is_empty() { &[][..] } else { &headers[..] };
        let done = server.ask("PUT", &format!("{}?digest={digest}", upload.location), headers, rest);
        // Of a single byte the status does not say whether it is there.
        assert!(done.status == 201 || last == 0, "{:?}", done.json());
        if done.status == 201 {
            let blob = server.ask("GET", &format!("/v2/{}/blobs/{digest}", self.repository), &[], b"");
            assert!(blob.body == upload.content);
        }
        true
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Every manifest that has a link, tagged or not, and every blob that has one, is whole. What is `known` was read before.
fn check_links(root: &Path, server: &Child, known: &mut BTreeSet<String>) {
    let mut stream = client::connect(server.address).unwrap();
    let mut ask = |method: &str, path: &str| -> Reply {
        let reply = client::send(&mut stream, method, path, &[], b"").unwrap();
        assert_eq!(reply.status, 200, "{path}: {:?}", reply.json());
        reply
    };
    for repository in ["r0/x", "r1/x"] {
        let part = |part: &str| names(&root.join("repositories").join(repository).join(part));
        let blobs: BTreeSet<String> = part("_blobs").into_iter().map(|name| name.replace('.', ":")).collect();
        for digest in &blobs {
            let path = format!("/v2/{repository}/blobs/{digest}");
            if known.insert(path.clone()) {
                assert_eq!(Digest::of(&ask("GET", &path).body).to_string(), *digest);
            } else {
                ask("HEAD", &path);
            }
        }
        for name in part("_manifests") {
            let digest = name.replace('.', ":");
            let reply = ask("GET", &format!("/v2/{repository}/manifests/{digest}"));
            assert_eq!(Digest::of(&reply.body).to_string(), digest);
            let manifest: Value = reply.json();
            for blob in manifest["layers"]
                .as_array()
                .unwrap()
                .iter()
                .chain([&manifest["config"]])
            {
                let blob = blob["digest"].as_str().unwrap();
                assert!(blobs.contains(blob), "{blob} of {digest} is lost");
            }
        }
        for tag in part("_tags") {
            ask("HEAD", &format!("/v2/{repository}/manifests/{tag}"));
        }
    }
}

#[test]
fn a_server_that_is_killed_at_any_moment_has_lost_nothing_and_shows_nothing_half() {
    let dir = scratch();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed) >> 1;
    eprintln!("seed {seed}");
    let mut numbers = Numbers(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    let (mut resumed, mut known) = (0, BTreeSet::new());
    let mut server = Child::start(dir.path(), &[]);
    for _ in 0..KILLS {
        let address = server.address;
        server.collect_always();
        std::thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(move || writer.work(address));
            }
            std::thread::sleep(Duration::from_micros(numbers.below(60_000)));
            server.kill();
        });
        server = Child::start(dir.path(), &[]);
        check_links(dir.path(), &server, &mut known);
        for writer in &mut writers {
            writer.check(&server);
            resumed += usize::from(writer.resume(&server));
        }
    }
    server.kill();
    let pushed: u64 = writers.iter().map(|writer| writer.pushed).sum();
    eprintln!("{KILLS} kills: {pushed} manifests pushed, {resumed} uploads resumed");
    assert!(pushed > 0 && resumed > 0);
    collect_all(dir.path());
    let mut wanted = BTreeMap::new();
    for manifest in writers.iter().flat_map(|writer| writer.may_be.iter().flatten()) {
        wanted.insert(Digest::of(manifest).encoded().to_owned(), ());
        let parsed: Value = serde_json::from_str(manifest).unwrap();
        for part in [&parsed["config"], &parsed["layers"][0]] {
            wanted.insert(part["digest"].as_str().unwrap().replace("sha256:", ""), ());
        }
    }
    let base = dir.path().join("blobs/sha256");
    let left: BTreeMap<String, ()> = names(&base)
        .iter()
        .flat_map(|shard| names(&base.join(shard)))
        .map(|name| (name, ()))
        .collect();
    assert_eq!(left, wanted);
    assert_eq!(
        (
            names(&dir.path().join("tmp")).len(),
            names(&dir.path().join("uploads")).len()
        ),
        (0, 0)
    );
}

fn collect_all(root: &Path) {
    std::thread::sleep(Duration::from_millis(1200));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = FileSystemOptions {
        grace: Duration::ZERO,
        ..FileSystemOptions::default()
    };
    let storage = FileSystem::open(root, options).unwrap();
    let collection = Collection {
        upload_expiry: Duration::ZERO,
        ..harsh()
    };
    let collected = runtime.block_on(storage.collect(collection)).unwrap();
    assert_eq!(collected.unreadable, 0);
}
