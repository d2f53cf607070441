//! Caches of builds that are kept elsewhere: one engine writes them, an empty one reads them.

mod trouble;

use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_testkit::{Engines, Output, Program, Registry, Run, TestDaemon, Wire, http};
use serde_json::Value;

use crate::build::Place;

/// Bytes of a layer that nobody needs who has the result.
const BIG: u64 = 3_000_000;
const DOCKERFILE: &str = "\
FROM busybox AS tools
RUN head -c 3000000 /dev/urandom > /big && echo tool > /tool
FROM busybox
RUN echo first > /first
COPY src /src
COPY --from=tools /tool /tool
RUN cat /src/a /first /tool > /both
";
/// How many steps it has beside its base.
const STEPS: usize = 5;
const BOTH: &str = "one\nfirst\ntool";

/// A place with a registry.
struct Cached {
    /// Ends before the engine, in whose namespace it is.
    registry: Registry,
    place: Place,
    /// By Docker's client.
    by_docker: bool,
}

impl Deref for Cached {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Cached {
    fn new() -> Self {
        Self::on(Place::new(), false)
    }

    /// With buildx; `None`, saying so, where there is none.
    fn with_buildx() -> Option<Self> {
        Place::with_plugins().map(|place| Self::on(place, true))
    }

    fn on(place: Place, by_docker: bool) -> Self {
        place.write("Dockerfile", DOCKERFILE);
        place.write("src/a", "one\n");
        Self {
            registry: Registry::start(&place.engine, &[]),
            place,
            by_docker,
        }
    }

    /// The engine has nothing but busybox any more.
    fn empty(&mut self) {
        self.place.engine.stop();
        let data = self.engine.data_root();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        self.place.engine.start_again();
        self.engine.busybox();
    }

    /// `build` with these options and the context, by Ferry's client or, where it is there, Docker's.
    fn build(&self, options: &str) -> Output {
        let run = match self.by_docker {
            true => self.docker_command(),
            false => self.command(),
        };
        run.args(["build"]).args(options.split(' ')).args(["."]).output()
    }

    fn builds(&self, options: &str) -> Output {
        let output = self.build(options);
        assert_eq!(output.code, 0, "{options}: {output:?}");
        output
    }

    /// `POST /build` of the context; how many steps were not done again, the base as well.
    fn post(&self, query: &str) -> usize {
        let archive = Run::new("tar")
            .args(["c", "-C"])
            .args([self.context.path()])
            .args(["."]);
        let archive = archive.into_command().output().unwrap().stdout;
        let path = format!("/build?{query}");
        let answer = http::request(self.engine.socket(), "POST", &path, "application/x-tar", &archive).unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("Successfully built"), "{query}: {} {text}", answer.status);
        text.matches("Using cache").count()
    }

    fn inspect(&self, image: &str, format: &str) -> String {
        self.engine.ferry(["image", "inspect", "-f", format, image]).ok()
    }

    /// Something of a registry's.
    fn get(&self, path: &str) -> Value {
        let url = format!("http://{}/v2/{path}", Registry::ADDRESS);
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let text = self.engine.in_namespace(&["curl", "-fsSL", "-H", accept, &url]).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
    }

    /// The registry fails when it is asked for a blob.
    fn spoil(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let found = Run::new("find")
            .args([self.registry.root()])
            .args(["-path", &format!("*{hex}*"), "-type", "f", "-size", "+0", "-print"])
            .ok();
        let path = found.lines().next().unwrap_or_else(|| panic!("{digest}"));
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }

    /// The registry loses a blob.
    fn lose(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let found = Run::new("find")
            .args([self.registry.root()])
            .args(["-path", &format!("*{hex}*"), "-type", "f"]);
        let found = found.args(["-print", "-delete"]).ok();
        assert!(found.contains(hex), "{digest}");
    }
}

fn at(name: &str) -> String {
    format!("{}/{name}", Registry::ADDRESS)
}

fn layers(manifest: &Value) -> Vec<&Value> {
    manifest["layers"].as_array().unwrap().iter().collect()
}

fn has(output: &Output, text: &str) {
    assert!(output.stderr.contains(text), "{text}: {output:?}");
}

#[test]
fn a_registry_gives_an_empty_engine_what_another_one_built() {
    let mut place = Cached::new();
    let wire = Wire::start(&place.engine, u64::MAX);
    let max = at("app:max");
    let first = place.builds(&format!("-t app --cache-to type=registry,ref={max},mode=max"));
    assert_eq!(Place::remembered(&first), 0, "{first:?}");
    has(&first, "exporting cache to registry");
    has(&first, "writing cache image manifest sha256:");
    // What is there already is not sent again.
    place.builds(&format!("--cache-to {}", at("app:min")));
    let manifests = ["max", "min"].map(|tag| place.get(&format!("app/manifests/{tag}")));
    let [all, few] = manifests.each_ref().map(|manifest| layers(manifest).len());
    assert_eq!((all, few), (STEPS, STEPS - 1), "{manifests:?}");
    assert_eq!(
        manifests[0]["config"]["mediaType"],
        "application/vnd.buildkit.cacheconfig.v0"
    );
    let (id, ids) = (
        place.inspect("app", "{{.Id}}"),
        place.inspect("app", "{{.RootFS.Layers}}"),
    );

    for tag in ["max", "min"] {
        place.empty();
        let before = wire.bytes();
        let second = place.builds(&format!("-t app --cache-from {}/app:{tag}", Wire::ADDRESS));
        assert_eq!(Place::remembered(&second), STEPS, "{tag}: {second:?}");
        has(
            &second,
            &format!("importing cache manifest from {}/app:{tag}", Wire::ADDRESS),
        );
        assert_eq!(place.inspect("app", "{{.RootFS.Layers}}"), ids);
        assert_eq!(place.inspect("app", "{{.Id}}"), id);
        assert_eq!(place.inside("app", "cat /both"), BOTH);
        let fetched = wire.bytes() - before;
        assert!(fetched < BIG / 10, "{tag}: {fetched} bytes");
        // It is remembered as if it had been made here, with all that it stands on.
        place.write(
            "Dockerfile",
            &format!("{DOCKERFILE}RUN echo more\n").replace("RUN cat", "RUN tac"),
        );
        let third = place.builds("-t other");
        assert_eq!(Place::remembered(&third), STEPS - 1, "{third:?}");
        place.write("Dockerfile", DOCKERFILE);
        place.is_clean();
    }
}

/// As BuildKit wrote caches first, for registries that take what is neither an image nor an index of some.
#[test]
fn a_cache_may_be_an_index() {
    let mut place = Cached::new();
    let cncf = Registry::cncf(&place.engine);
    for (registry, (tag, media_types)) in [Registry::ADDRESS, Registry::CNCF]
        .into_iter()
        .take(1 + usize::from(cncf.is_some()))
        .flat_map(|registry| [("oci", ""), ("docker", ",oci-mediatypes=false")].map(|kind| (registry, kind)))
    {
        let cache = format!("{registry}/app:{tag}");
        place.builds(&format!(
            "--cache-to type=registry,ref={cache},mode=max,image-manifest=false{media_types}"
        ));
        place.empty();
        let second = place.builds(&format!("-t app --cache-from {cache}"));
        assert_eq!(Place::remembered(&second), STEPS, "{registry} {tag}: {second:?}");
        assert_eq!(place.inside("app", "cat /both"), BOTH);
        place.empty();
    }
}

#[test]
fn only_what_changed_is_made_again() {
    let mut place = Cached::new();
    let cache = at("app:cache");
    place.builds(&format!("--cache-to type=registry,ref={cache},mode=max"));
    place.empty();
    place.write("src/a", "two\n");
    let changed = place.builds(&format!("-t app --cache-from {cache}"));
    // The first step of each stage: the second's files are copied from the first's.
    assert_eq!(Place::remembered(&changed), 2, "{changed:?}");
    assert_eq!(place.inside("app", "cat /both"), "two\nfirst\ntool");
    // Another instruction is another step, whatever it comes to.
    place.empty();
    place.write("src/a", "one\n");
    place.write("Dockerfile", &DOCKERFILE.replace("echo first", "echo other"));
    let changed = place.builds(&format!("-t app --cache-from {cache}"));
    assert_eq!(Place::remembered(&changed), 1, "{changed:?}");
    assert_eq!(place.inside("app", "cat /both"), "one\nother\ntool");
    let none = place.builds(&format!("--no-cache --cache-from {cache}"));
    assert_eq!(Place::remembered(&none), 0, "{none:?}");
    place.is_clean();
}

#[test]
fn what_was_made_again_by_order_is_found() {
    let mut place = Cached::new();
    for (tag, options) in [("min", ""), ("max", ",mode=max"), ("inline", "")] {
        let cache = at(&format!("app:{tag}"));
        match tag {
            "inline" => place.builds(&format!("--no-cache -t {cache} --push --cache-to type=inline")),
            _ => place.builds(&format!("--no-cache --cache-to type=registry,ref={cache}{options}")),
        };
        place.empty();
        let second = place.builds(&format!("--cache-from {cache}"));
        assert_eq!(Place::remembered(&second), STEPS, "{tag}: {second:?}");
    }
}

#[test]
fn an_image_is_a_cache_of_itself() {
    let mut place = Cached::new();
    let app = at("app:1");
    place.builds(&format!("-t {app} --push --cache-to type=inline"));
    let (id, layers) = (
        place.inspect(&app, "{{.Id}}"),
        place.inspect(&app, "{{.RootFS.Layers}}"),
    );
    place.empty();
    let second = place.builds(&format!(
        "-t app --cache-from type=registry,ref={app} --cache-to type=inline"
    ));
    assert_eq!(Place::remembered(&second), STEPS, "{second:?}");
    assert_eq!(place.inspect("app", "{{.Id}}"), id);
    // As it was asked for before there were several kinds, and by whom.
    place.builds(&format!("-t {app} --push --build-arg BUILDKIT_INLINE_CACHE=1"));
    place.empty();
    assert_eq!(place.post(&format!("t=old&cachefrom=%5B%22{app}%22%5D")), STEPS + 1);
    assert_eq!(place.inspect("old", "{{.RootFS.Layers}}"), layers);
}

#[test]
fn an_image_that_is_here_is_a_cache_without_a_registry() {
    let place = Cached::new();
    place.builds("-t app --cache-to type=inline");
    place.builds("-t plain");
    let layers = place.inspect("app", "{{.RootFS.Layers}}");
    let forget = || place.engine.ferry(["builder", "prune", "-af"]).ok();
    forget();
    // It has none, and is no name to ask a registry for.
    let none = place.builds("-t none --cache-from plain");
    assert_eq!(Place::remembered(&none), 0, "{none:?}");
    assert!(!none.stderr.contains("ERROR"), "{none:?}");
    forget();
    let second = place.builds("-t second --cache-from app");
    assert_eq!(Place::remembered(&second), STEPS, "{second:?}");
    assert_eq!(place.inspect("second", "{{.RootFS.Layers}}"), layers);
    forget();
    assert_eq!(place.post("t=third&cachefrom=%5B%22app%22%5D"), STEPS + 1);
    assert_eq!(place.inspect("third", "{{.RootFS.Layers}}"), layers);
    place.is_clean();
}

#[test]
fn what_nobody_wants_is_not_fetched() {
    let mut place = Cached::new();
    place.write("Dockerfile", "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n");
    place.builds(&format!("--cache-to type=registry,ref={}", at("app:cache")));
    place.empty();
    let wire = Wire::start(&place.engine, u64::MAX);
    let cache = format!("--cache-from {}/app:cache", Wire::ADDRESS);
    let checked = place.builds(&format!("--output type=cacheonly {cache}"));
    assert_eq!(Place::remembered(&checked), 1, "{checked:?}");
    assert!(wire.bytes() < BIG / 10, "{} bytes", wire.bytes());
    place.builds(&format!("-t app {cache}"));
    assert!(wire.bytes() > BIG, "{} bytes", wire.bytes());
    assert_eq!(place.inside("app", "wc -c < /big"), BIG.to_string());
    place.is_clean();
}

#[test]
fn a_directory_is_a_cache() {
    let mut place = Cached::new();
    place.builds("-t app --cache-to type=local,dest=cache,mode=max,compression=uncompressed");
    place.builds("--cache-to type=local,dest=cache,tag=small,compression=zstd,force-compression=true");
    let read = |name: &str| -> Value {
        let text = std::fs::read(place.path("cache").join(name)).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let index = read("index.json");
    let manifests = index["manifests"].as_array().unwrap();
    let tags: Vec<&str> = manifests
        .iter()
        .filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str())
        .collect();
    assert_eq!(tags, ["latest", "small"]);
    let types: Vec<String> = manifests
        .iter()
        .map(|entry| {
            let digest = entry["digest"].as_str().unwrap().replace(':', "/");
            let manifest = read(&format!("blobs/{digest}"));
            layers(&manifest)[0]["mediaType"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        types,
        [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd"
        ]
    );
    let id = place.inspect("app", "{{.Id}}");
    for source in ["type=local,src=cache", "type=local,src=cache,tag=small"] {
        place.empty();
        let second = place.builds(&format!("-t app --cache-from {source}"));
        assert_eq!(Place::remembered(&second), STEPS, "{second:?}");
        assert_eq!(place.inspect("app", "{{.Id}}"), id);
        assert_eq!(place.inside("app", "cat /both"), BOTH);
    }
    // Read and written at once, what is there stays.
    place.builds("--cache-from type=local,src=cache --cache-to type=local,dest=cache,tag=again");
    assert_eq!(read_tags(&place.path("cache")), 3);
    let missing = place.builds("-t app --cache-from type=local,src=nowhere");
    has(&missing, "WARNING: local cache import at nowhere not found");
    place.is_clean();
}

fn read_tags(dir: &Path) -> usize {
    let index: Value = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    index["manifests"].as_array().unwrap().len()
}

#[test]
fn buildx_writes_and_reads_caches() {
    let Some(mut place) = Cached::with_buildx() else { return };
    let (cache, image) = (at("app:cache"), at("app:image"));
    place.builds(&format!(
        "-t {image} --push --provenance=false --cache-to type=registry,ref={cache},mode=max \
         --cache-to type=local,dest=cache,mode=max --cache-to type=inline"
    ));
    assert_eq!(layers(&place.get("app/manifests/cache")).len(), STEPS);
    let id = place.inspect(&image, "{{.Id}}");
    for source in [
        format!("type=registry,ref={cache}"),
        "type=local,src=cache".to_owned(),
        format!("{image} --cache-to type=inline"),
    ] {
        place.empty();
        let second = place.builds(&format!("-t app --provenance=false --cache-from {source}"));
        assert_eq!(Place::remembered(&second), STEPS, "{source}: {second:?}");
        assert_eq!(
            place.inspect("app", "{{.RootFS.Layers}}").matches("sha256").count(),
            STEPS
        );
        if source.ends_with("inline") {
            assert_eq!(place.inspect("app", "{{.Id}}"), id);
        }
    }
    let begun = Instant::now();
    let refused = place.build("--cache-to type=azblob,account_url=https://x,name=y,secret_access_key=opensesame");
    has(&refused, "there is no cache of type azblob");
    assert!(!refused.stderr.contains("opensesame"), "{refused:?}");
    let refused = place.build("--cache-from type=azblob,account_url=https://x,name=y");
    has(&refused, "there is no cache of type azblob");
    let missing = place.builds(&format!("--cache-from type=registry,ref={}", at("none:1")));
    has(&missing, "ERROR");
    // Nobody waits for a build that was refused.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn buildkit_and_ferry_pass_each_others_caches_over() {
    let Some(engines) = Engines::start() else { return };
    engines.sh(&format!(
        "cp /run/ferry/runc /run/real/ferry; mkdir -p /data/registry /data/context; ip link set lo up
         printf 'FROM busybox\\nRUN echo x > /x\\n' >/data/context/Dockerfile
         exec setsid /run/real/ferry registry serve --root /data/registry --listen {} >/run/registry.log 2>&1 </dev/null &",
        Registry::ADDRESS
    ));
    engines.start_docker(&["--feature containerd-snapshotter=true"]);
    let (theirs, image, ours) = (at("x:theirs"), at("x:image"), at("x:ours"));
    engines.sh(&format!(
        "cd /data/context; docker build --provenance=false -t {image} --push --cache-to type=inline \
         --cache-to type=registry,ref={theirs},mode=max ."
    ));
    let engine = TestDaemon::builder().beside(&engines).start();
    engine.busybox();
    let build = |options: &str| {
        let run = engine.command(Program::Ferry).directory(engines.path("/data/context"));
        run.args(["build"]).args(options.split(' ')).args(["."]).output()
    };
    let built = build(&format!("--cache-from {theirs} --cache-from {image} --cache-to {ours}"));
    assert_eq!(built.code, 0, "{built:?}");
    let said = built
        .stderr
        .matches("the cache is BuildKit's and has nothing for this builder")
        .count();
    assert_eq!(said, 2, "{built:?}");
    let read = engines.run("sh").args([
        "-ec",
        &format!("cd /data/context; docker build --no-cache-filter none --cache-from type=registry,ref={ours} . 2>&1"),
    ]);
    let read = read.ok();
    assert!(
        read.contains("importing cache manifest from") && !read.contains("ERROR"),
        "{read}"
    );
}

#[test]
fn what_depends_on_another_target_is_in_its_cache() {
    let Some(mut place) = Cached::with_buildx() else { return };
    place.write(
        "docker-bake.hcl",
        &format!(
            r#"
target "base" {{
  dockerfile-inline = "FROM busybox\nRUN echo base > /base\n"
}}
target "app" {{
  contexts = {{ base = "target:base" }}
  dockerfile-inline = "FROM base\nRUN cat /base > /app\n"
  tags = ["app"]
  cache-to = ["type=registry,ref={cache},mode=max"]
  cache-from = ["type=registry,ref={cache}"]
}}
"#,
            cache = at("app:bake")
        ),
    );
    let bake = |place: &Cached| {
        let output = place.docker("buildx bake app");
        assert_eq!(output.code, 0, "{output:?}");
        Place::remembered(&output)
    };
    // What the second stands on is there, as its base is; then also what each of them runs.
    assert_eq!((bake(&place), bake(&place)), (1, 3));
    place.empty();
    // The first has no cache elsewhere.
    assert_eq!(bake(&place), 2);
    assert_eq!(place.inside("app", "cat /app"), "base");
}

/// To a client that is elsewhere: nothing of its directories comes along.
#[test]
fn a_directory_is_a_cache_over_tcp() {
    let engine = TestDaemon::builder()
        .arg("--host=tcp://127.0.0.1:2375")
        .arg("--tls=false")
        .start();
    engine.busybox();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN head -c 500000 /dev/urandom > /x\n",
    )
    .unwrap();
    let ferry = ferry_testkit::tools::ferry();
    let build = |options: &str| {
        let line = format!("{} -H tcp://127.0.0.1:2375 build {options} .", ferry.display());
        let words: Vec<&str> = line.split(' ').collect();
        engine.in_namespace(&words).directory(context.path()).output()
    };
    let written = build("--cache-to type=local,dest=cache");
    assert_eq!(written.code, 0, "{written:?}");
    engine.ferry(["builder", "prune", "-af"]).ok();
    let read = build("--cache-from type=local,src=cache --cache-to type=local,dest=cache,tag=again");
    assert_eq!((read.code, Place::remembered(&read)), (0, 1), "{read:?}");
    assert_eq!(read_tags(&context.path().join("cache")), 2);
}
