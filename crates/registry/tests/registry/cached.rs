//! A cache of an upstream that is made up: what is kept of it, and for how long.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use ferry_image::Digest;
use ferry_registry::{
    Asked, Auth, Backend as _, Caching, Descriptor, Fetched, FileSystem, FileSystemOptions, Incoming, Name, Options,
    Places, Reference, Registry, Tag, Trouble, Upstream, Why, router,
};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::site::{image, scratch};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const KIB: u64 = 1024;

/// Has an image of two blobs under every tag that is a number: a small one, and one of [`LAYER`] bytes.
#[derive(Debug, Default)]
struct Far {
    down: AtomicBool,
    /// A piece of a blob takes so long.
    pace: Mutex<Duration>,
    blobs: AtomicUsize,
    manifests: AtomicUsize,
    referrers: Mutex<HashMap<Digest, Vec<Descriptor>>>,
    others: Mutex<HashMap<Digest, Bytes>>,
}

const LAYER: usize = 200 << 10;
const PIECE: usize = 16 << 10;

fn layer(number: usize) -> Bytes {
    let mut layer = vec![0; LAYER];
    for (at, byte) in layer.iter_mut().enumerate() {
        *byte = u8::try_from((at * 7 + number * 13 + at / 251) % 256).unwrap();
    }
    layer[..8].copy_from_slice(&number.to_be_bytes());
    layer.into()
}

fn config(number: usize) -> Bytes {
    format!("{{\"number\":{number}}}").into()
}

fn manifest(number: usize) -> Bytes {
    let (config, layer) = (config(number), layer(number));
    let digest = |bytes: &Bytes| Digest::of(bytes).to_string();
    image(&digest(&config), config.len(), &digest(&layer), layer.len()).into()
}

const IMAGES: usize = 24;

impl Far {
    fn find(&self, digest: &Digest) -> Option<Bytes> {
        static ALL: std::sync::LazyLock<HashMap<Digest, Bytes>> = std::sync::LazyLock::new(|| {
            let all = (0..IMAGES).flat_map(|number| [config(number), layer(number), manifest(number)]);
            all.map(|bytes| (Digest::of(&bytes), bytes)).collect()
        });
        ALL.get(digest)
            .cloned()
            .or_else(|| self.others.lock().unwrap().get(digest).cloned())
    }

    fn up(&self) -> Result<(), Trouble> {
        match self.down.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Trouble {
                why: Why::Down,
                message: "nobody is there".to_owned(),
            }),
        }
    }
}

fn numbered(tag: &Tag) -> Option<Bytes> {
    let number = tag.as_str().parse().ok().filter(|number| *number < IMAGES)?;
    Some(manifest(number))
}

impl Upstream for Far {
    fn shown(&self) -> &str {
        "http://far"
    }

    fn digest<'a>(&'a self, _: &'a Name, tag: &'a Tag) -> Asked<'a, Digest> {
        Box::pin(async {
            self.up()?;
            Ok(numbered(tag).map(|bytes| Digest::of(&bytes)))
        })
    }

    fn manifest<'a>(&'a self, _: &'a Name, reference: &'a Reference) -> Asked<'a, Fetched> {
        Box::pin(async {
            self.up()?;
            self.manifests.fetch_add(1, Ordering::Relaxed);
            let content = match reference {
                Reference::Tag(tag) => numbered(tag),
                Reference::Digest(digest) => self.find(digest),
            };
            Ok(content.map(|content| Fetched {
                media_type: OCI.to_owned(),
                content,
            }))
        })
    }

    fn size<'a>(&'a self, _: &'a Name, digest: &'a Digest) -> Asked<'a, u64> {
        Box::pin(async {
            self.up()?;
            Ok(self.find(digest).map(|bytes| bytes.len() as u64))
        })
    }

    fn blob<'a>(&'a self, _: &'a Name, digest: &'a Digest) -> Asked<'a, (u64, Incoming)> {
        Box::pin(async {
            self.up()?;
            self.blobs.fetch_add(1, Ordering::Relaxed);
            let pace = *self.pace.lock().unwrap();
            Ok(self.find(digest).map(|bytes| {
                let pieces: Vec<Bytes> = bytes.chunks(PIECE).map(Bytes::copy_from_slice).collect();
                let pieces = stream::iter(pieces).then(move |piece| async move {
                    tokio::time::sleep(pace).await;
                    Ok(piece)
                });
                (bytes.len() as u64, pieces.boxed() as Incoming)
            }))
        })
    }

    fn tags<'a>(&'a self, _: &'a Name) -> Asked<'a, Vec<String>> {
        Box::pin(async {
            self.up()?;
            Ok(None)
        })
    }

    fn referrers<'a>(&'a self, _: &'a Name, subject: &'a Digest) -> Asked<'a, Vec<Descriptor>> {
        Box::pin(async {
            self.up()?;
            Ok(self.referrers.lock().unwrap().get(subject).cloned())
        })
    }
}

/// A cache of everything but `own/`.
struct Cache {
    router: Router,
    registry: Registry<FileSystem>,
    storage: FileSystem,
    far: Arc<Far>,
    dir: PathBuf,
    _scratch: Option<TempDir>,
    ended: CancellationToken,
}

impl Cache {
    fn open(size: Option<u64>) -> Self {
        Self::of(scratch(), Arc::default(), size)
    }

    fn of(scratch: TempDir, far: Arc<Far>, size: Option<u64>) -> Self {
        let mut cache = Self::at(scratch.path(), far, size);
        cache._scratch = Some(scratch);
        cache
    }

    fn at(dir: &Path, far: Arc<Far>, size: Option<u64>) -> Self {
        let options = FileSystemOptions {
            grace: Duration::ZERO,
            ..FileSystemOptions::default()
        };
        let storage = FileSystem::open(dir, options).unwrap();
        let caching = Caching {
            places: Places {
                whole: Some(far.clone()),
                own: vec!["own".parse().unwrap()],
                ..Places::default()
            },
            ttl: Duration::ZERO,
            size,
            ..Caching::default()
        };
        let options = Options {
            delete: true,
            ..Options::default()
        };
        let registry = Registry::with_upstreams(storage.clone(), Auth::open(), options, caching);
        let ended = CancellationToken::new();
        let (watching, until) = (registry.clone(), ended.clone());
        tokio::spawn(async move { watching.keep_within(until).await });
        Self {
            router: router(registry.clone()),
            registry,
            storage,
            far,
            dir: dir.to_owned(),
            _scratch: None,
            ended,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> http::Response<Body> {
        let request = Request::builder().method(method).uri(path).header("host", "here");
        self.router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Bytes {
        let response = self.ask(Method::GET, path, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    /// As a client without anything pulls, and looks at every byte.
    async fn pull(&self, number: usize) {
        assert_eq!(self.get(&format!("/v2/a/manifests/{number}")).await, manifest(number));
        for blob in [config(number), layer(number)] {
            assert_eq!(self.get(&format!("/v2/a/blobs/{}", Digest::of(&blob))).await, blob);
        }
    }

    async fn push(&self, repository: &str, content: &Bytes) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.ask(Method::POST, &path, content.clone()).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    fn has(&self, content: &Bytes) -> bool {
        let hex = Digest::of(content).encoded().to_owned();
        self.dir.join("blobs/sha256").join(&hex[..2]).join(hex).exists()
    }

    fn bytes(&self) -> u64 {
        below(&self.dir.join("blobs"))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

fn below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => below(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn within(what: &str, check: impl Fn() -> bool) {
    for _ in 0..500 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test]
async fn a_cache_stays_within_its_size_and_what_went_comes_again() {
    let size = 1000 * KIB;
    let cache = Cache::open(Some(size));
    let own = Bytes::from(vec![b'x'; 3 << 20]);
    cache.push("own/app", &own).await;
    // It has been pushed as well: room for it is not the cache's.
    cache.push("own/app", &layer(0)).await;
    let most = size + LAYER as u64 + KIB;
    for number in 0..IMAGES {
        cache.pull(number).await;
        within(&format!("less than {most} bytes after {number}"), || {
            cache.bytes() - own.len() as u64 - LAYER as u64 <= most
        })
        .await;
    }
    assert!(cache.has(&own) && cache.has(&layer(0)) && cache.has(&layer(IMAGES - 1)));
    assert!(
        !cache.has(&layer(1)) && !cache.has(&manifest(1)),
        "what came first has gone"
    );
    let text = cache.registry.metrics().text();
    assert!(!text.contains("ferry_registry_trimmed_bytes_total 0"), "{text}");
    // And comes again, with its tag.
    let before = cache.far.blobs.load(Ordering::Relaxed);
    cache.pull(1).await;
    assert_eq!(cache.far.blobs.load(Ordering::Relaxed), before + 2);
    cache.pull(1).await;
    assert_eq!(cache.far.blobs.load(Ordering::Relaxed), before + 2);
    // To the last byte, but for what was pushed; which is whole.
    let trimmed = cache.storage.trim(0).await.unwrap();
    assert_eq!(trimmed.left, 0);
    assert_eq!(cache.bytes(), (own.len() + LAYER) as u64);
    assert_eq!(
        cache.get(&format!("/v2/own/app/blobs/{}", Digest::of(layer(0)))).await,
        layer(0)
    );
    cache.pull(2).await;
    // Longer than this takes: a link that no manifest needs is the collector's after that, whoever made it.
    let collection = ferry_registry::Collection {
        grace: Duration::from_secs(60),
        ..ferry_registry::Collection::default()
    };
    cache.storage.trim(0).await.unwrap();
    cache.storage.collect(collection).await.unwrap();
    // The one that was pushed elsewhere takes no room here.
    for (part, count) in [("_tags", 0), ("_manifests", 0), ("_blobs", 1), ("_copies", 1)] {
        let found = std::fs::read_dir(cache.dir.join("repositories/a").join(part));
        assert_eq!(found.map_or(0, Iterator::count), count, "{part}");
    }
}

#[tokio::test]
async fn what_was_asked_for_last_stays_also_after_a_new_start() {
    let cache = Cache::open(None);
    for number in 0..4 {
        cache.pull(number).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // An answer from storage counts, a second later.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cache.pull(0).await;
    let mark = cache
        .dir
        .join("repositories/a/_copies")
        .join(format!("sha256.{}", Digest::of(layer(0)).encoded()));
    let at = std::fs::metadata(cache.dir.join("repositories/a/_blobs").join(mark.file_name().unwrap()));
    let at = at.unwrap().modified().unwrap();
    within("the time of the mark", || {
        std::fs::metadata(&mark).unwrap().modified().unwrap() > at + Duration::from_secs(1)
    })
    .await;
    // The old server has its directory as long as anything of it lives.
    let dir = scratch();
    let copied = std::process::Command::new("cp")
        .args(["-a", &format!("{}/.", cache.dir.display())])
        .arg(dir.path())
        .status();
    assert!(copied.unwrap().success());
    let again = Cache::of(dir, cache.far.clone(), None);
    let each = (LAYER + config(0).len() + manifest(0).len()) as u64;
    let trimmed = again.storage.trim(2 * each).await.unwrap();
    assert!(trimmed.left <= 2 * each && trimmed.removed >= 6, "{trimmed:?}");
    for (number, stays) in [(0, true), (1, false), (2, false), (3, true)] {
        assert_eq!(again.has(&layer(number)), stays, "{number}");
    }
    let before = again.far.blobs.load(Ordering::Relaxed);
    again.far.down.store(true, Ordering::Relaxed);
    again.pull(0).await;
    assert_eq!(again.far.blobs.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn a_mark_of_what_never_came_goes_with_its_repository() {
    let dir = scratch();
    let marks = dir.path().join("repositories/b/c/_copies");
    std::fs::create_dir_all(&marks).unwrap();
    let mark = marks.join(format!("sha256.{}", Digest::of("x").encoded()));
    for trimmed in [true, false] {
        std::fs::create_dir_all(&marks).unwrap();
        std::fs::write(&mark, "").unwrap();
        let storage = FileSystem::open(dir.path(), FileSystemOptions::default()).unwrap();
        if trimmed {
            assert_eq!(storage.trim(0).await.unwrap(), ferry_registry::Trimmed::default());
            assert!(!mark.exists());
        }
        let collected = storage.collect(ferry_registry::Collection::default()).await.unwrap();
        assert_eq!(collected.repositories, 1);
        assert!(!dir.path().join("repositories/b").exists());
        drop(storage);
        for _ in 0..100 {
            if FileSystem::open(dir.path(), FileSystemOptions::default()).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_blob_on_its_way_to_a_client_is_not_cut() {
    let cache = Cache::open(None);
    let path = format!("/v2/a/blobs/{}", Digest::of(layer(5)));
    let rest = async |mut body: Body, mut read: Vec<u8>, pause: Duration| {
        while let Some(frame) = body.frame().await {
            read.extend(frame.unwrap().into_data().unwrap());
            tokio::time::sleep(pause).await;
        }
        assert_eq!(read, layer(5));
    };
    // One that is here.
    cache.get(&path).await;
    let mut body = cache.ask(Method::GET, &path, "").await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(cache.storage.trim(0).await.unwrap().removed, 1);
    assert!(!cache.has(&layer(5)));
    rest(body, first.to_vec(), Duration::ZERO).await;
    // One that is coming, to somebody who is slower than it comes.
    *cache.far.pace.lock().unwrap() = Duration::from_millis(5);
    let mut body = cache.ask(Method::GET, &path, "").await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    within("the blob is here", || cache.has(&layer(5))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = cache.storage.trim(0).await.unwrap();
    assert_eq!((held.removed, held.left), (0, LAYER as u64), "it is being read");
    rest(body, first.to_vec(), Duration::from_millis(20)).await;
    let gone = cache.storage.trim(0).await.unwrap();
    assert_eq!((gone.removed, gone.left), (1, 0));
}

/// Readers, writers that mount from the cache, the collector, and trimming to nothing, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_beside_readers_and_writers_loses_nothing_and_cuts_nobody() {
    let cache = Arc::new(Cache::open(None));
    let ended = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for reader in 0..6 {
        let (cache, ended) = (cache.clone(), ended.clone());
        tasks.spawn(async move {
            let mut pulled = 0;
            while !ended.load(Ordering::Relaxed) {
                cache.pull((pulled * 5 + reader) % IMAGES).await;
                pulled += 1;
            }
            pulled
        });
    }
    for writer in 0..2 {
        let (cache, ended) = (cache.clone(), ended.clone());
        tasks.spawn(async move {
            let (mut pushed, repository) = (0, format!("own/{writer}"));
            while !ended.load(Ordering::Relaxed) {
                let number = pushed % IMAGES;
                let (config, layer) = (config(number), layer(number));
                let mount = format!("/v2/{repository}/blobs/uploads/?mount={}&from=a", Digest::of(&layer));
                if cache.ask(Method::POST, &mount, "").await.status() != StatusCode::CREATED {
                    cache.push(&repository, &layer).await;
                }
                cache.push(&repository, &config).await;
                let path = format!("/v2/{repository}/manifests/{number}");
                let put = cache.ask(Method::PUT, &path, manifest(number)).await;
                assert_eq!(put.status(), StatusCode::CREATED);
                assert_eq!(cache.get(&path).await, manifest(number));
                let blob = format!("/v2/{repository}/blobs/{}", Digest::of(&layer));
                assert_eq!(cache.get(&blob).await, layer);
                // So that there is again something that only the cache has.
                let delete = cache
                    .ask(
                        Method::DELETE,
                        &format!("/v2/{repository}/manifests/{}", Digest::of(manifest(number))),
                        "",
                    )
                    .await;
                assert_eq!(delete.status(), StatusCode::ACCEPTED);
                for blob in [&layer, &config] {
                    cache
                        .ask(
                            Method::DELETE,
                            &format!("/v2/{repository}/blobs/{}", Digest::of(blob)),
                            "",
                        )
                        .await;
                }
                pushed += 1;
            }
            pushed
        });
    }
    let begin = std::time::Instant::now();
    let (mut removed, mut rounds) = (0, 0);
    while begin.elapsed() < Duration::from_secs(3) {
        removed += cache.storage.trim(0).await.unwrap().removed;
        rounds += 1;
    }
    ended.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    while let Some(count) = tasks.join_next().await {
        done.push(count.unwrap());
    }
    println!("{done:?} pulls and pushes, {rounds} rounds took {removed} copies");
    assert!(
        done.iter().all(|count| *count > 0) && removed > 20,
        "{done:?} {removed}"
    );
    assert_eq!(cache.storage.trim(0).await.unwrap().left, 0);
}

#[tokio::test]
async fn referrers_are_the_upstreams_and_those_that_are_here_when_it_is_down() {
    let cache = Cache::open(None);
    let subject = Digest::of(manifest(3));
    let signature = |kind: &str| {
        let empty = Digest::of("{}");
        let part = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 });
        Bytes::from(
            json!({
                "schemaVersion": 2, "mediaType": OCI, "artifactType": kind, "config": part, "layers": [part],
                "subject": { "mediaType": OCI, "digest": subject, "size": manifest(3).len() },
            })
            .to_string(),
        )
    };
    let (one, two) = (signature("x/one"), signature("x/two"));
    let listed = |content: &Bytes, kind: &str| Descriptor {
        media_type: OCI.to_owned(),
        digest: Digest::of(content),
        size: content.len() as u64,
        artifact_type: Some(kind.to_owned()),
        annotations: None,
    };
    cache
        .far
        .referrers
        .lock()
        .unwrap()
        .insert(subject.clone(), vec![listed(&one, "x/one"), listed(&two, "x/two")]);
    for content in [&one, &two] {
        cache
            .far
            .others
            .lock()
            .unwrap()
            .insert(Digest::of(content), content.clone());
    }
    let path = format!("/v2/a/referrers/{subject}");
    let found = async |path: &str| {
        let response = cache.ask(Method::GET, path, "").await;
        assert_eq!(response.status(), StatusCode::OK);
        let stale = response.headers().get("warning").is_some();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list["mediaType"], "application/vnd.oci.image.index.v1+json");
        let mut kinds: Vec<String> = list["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["artifactType"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        (kinds.join(" "), stale)
    };
    assert_eq!(found(&path).await, ("x/one x/two".to_owned(), false));
    assert_eq!(
        found(&format!("{path}?artifactType=x/two")).await,
        ("x/two".to_owned(), false)
    );
    assert_eq!(
        found(&format!("/v2/a/referrers/{}", Digest::of("nothing"))).await,
        (String::new(), false)
    );
    // What was fetched is here.
    assert_eq!(cache.get(&format!("/v2/a/manifests/{}", Digest::of(&one))).await, one);
    cache.far.down.store(true, Ordering::Relaxed);
    assert_eq!(found(&path).await, ("x/one".to_owned(), true));
}

const ROOT: &str = "FERRY_TEST_CACHE_ROOT";

/// No test, but a cache that is pulled from and trimmed until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test starts it as a process of its own"]
async fn pull_and_trim_for_another_test() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let cache = Arc::new(Cache::at(Path::new(&root), Arc::default(), None));
    println!("\nbegun");
    for reader in 0..4 {
        let cache = cache.clone();
        tokio::spawn(async move {
            for number in 0.. {
                cache.pull((number * 7 + reader * 5) % IMAGES).await;
            }
        });
    }
    for most in [600 * KIB, 300 * KIB, 0].into_iter().cycle() {
        cache.storage.trim(most).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whenever it is killed: what has a link is whole and known to be a copy, and nothing is left that cannot go.
#[test]
fn a_cache_that_is_killed_at_any_moment_is_whole_and_can_be_emptied() {
    use std::io::{BufRead as _, BufReader};
    let dir = scratch();
    let (mut links, mut loose) = (0, 0);
    for round in 0..30_u64 {
        let program = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(program)
            .args([
                "cached::pull_and_trim_for_another_test",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(ROOT, dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "begun"), "it ended");
        std::thread::sleep(Duration::from_millis(40 + round * 37 % 200));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let names = |part: &str| -> std::collections::BTreeSet<String> {
            let entries = std::fs::read_dir(dir.path().join("repositories/a").join(part));
            let entries = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
            entries.map(|name| name.into_string().unwrap()).collect()
        };
        let marks = names("_copies");
        let mut needed = std::collections::BTreeSet::new();
        for link in names("_blobs").union(&names("_manifests")) {
            assert!(marks.contains(link), "{round}: {link} is not known to be a copy");
            let hex = &link["sha256.".len()..];
            let content = std::fs::read(dir.path().join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
            assert_eq!(Digest::of(content).encoded(), hex, "{round}");
            needed.insert(hex.to_owned());
            links += 1;
        }
        for tag in names("_tags") {
            let target = std::fs::read_to_string(dir.path().join("repositories/a/_tags").join(tag)).unwrap();
            assert!(
                names("_manifests").contains(&target.replace(':', ".")),
                "{round}: a tag of nothing"
            );
        }
        loose += marks.len() - needed.len();
    }
    println!("{links} links seen, {loose} marks without one");
    assert!(links > 50, "{links}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cache = Cache::at(dir.path(), Arc::default(), None);
        let trimmed = cache.storage.trim(0).await.unwrap();
        assert_eq!(trimmed.left, 0);
        // Content that had lost its link, or not got it yet, and uploads.
        let collection = ferry_registry::Collection {
            grace: Duration::ZERO,
            upload_expiry: Duration::ZERO,
            ..ferry_registry::Collection::default()
        };
        cache.storage.collect(collection).await.unwrap();
        assert_eq!(cache.bytes(), 0);
        assert!(!dir.path().join("repositories/a").exists());
        assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
        cache.pull(3).await;
    });
}
