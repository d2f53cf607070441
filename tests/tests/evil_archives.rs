//! Archives made to get out, to fill memory or to never end, through every way into the store and into containers (security
//! design, family F2): nothing on the host changes, and the engine stays small, quick and clean.

pub mod corpus;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_testkit::images::{self, Image, Layer, docker_archive, sha256, stretched};
use ferry_testkit::{Output, TestDaemon, wait_for_none};
use serde_json::{Value, json};

/// The most memory the engine has ever had.
const MEMORY: u64 = 100 << 20;

/// Files on the host that every archive of the corpus is after.
pub struct Canary {
    pub dir: PathBuf,
    before: Vec<String>,
}

impl Canary {
    pub fn new(name: &str) -> Self {
        let dir = PathBuf::from(format!("/var/tmp/ferry-canary-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("dir")).unwrap();
        for file in ["file", "dir/file"] {
            fs::write(dir.join(file), "untouched").unwrap();
        }
        let before = tree(&dir);
        Self { dir, before }
    }

    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        assert_eq!(tree(&self.dir), self.before, "{what}");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn tree(path: &Path) -> Vec<String> {
    let data = path.symlink_metadata().unwrap();
    let content = if data.is_file() {
        fs::read_to_string(path).unwrap()
    } else {
        String::new()
    };
    let mut lines = vec![format!(
        "{} {:o} {}:{} {}.{} {} {content}",
        path.display(),
        data.mode(),
        data.uid(),
        data.gid(),
        data.mtime(),
        data.mtime_nsec(),
        data.nlink()
    )];
    if data.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        lines.extend(entries.iter().flat_map(|entry| tree(entry)));
    }
    lines
}

/// Refused with a reason, or taken and kept inside.
#[track_caller]
fn answered(what: &str, output: &Output) {
    let said = output.stderr.trim();
    let refused = output.code == 1 && !said.is_empty() && !said.contains("panic") && !said.ends_with("EOF");
    assert!(output.code == 0 || refused, "{what}: {output:?}");
}

#[track_caller]
pub fn clean(daemon: &TestDaemon) {
    let tmp = daemon.data_root().join("tmp");
    wait_for_none("what archives leave", || {
        fs::read_dir(&tmp)
            .unwrap()
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    });
    let said = daemon.cli(["system", "check"]).ok();
    assert!(said.ends_with("nothing is wrong"), "{said}");
}

#[test]
fn no_archive_of_the_corpus_reaches_the_host_by_any_way_in() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let canary = Canary::new("c");
    let corpus = corpus::archives(&canary.dir);
    assert!(corpus.len() >= 60, "{}", corpus.len());
    for (name, tar) in &corpus {
        let image = Image::new("evil:1", vec![images::busybox_tar(), tar.clone()]);
        let load = daemon.run(["load", "-q"]).input(docker_archive(&[image])).output();
        answered(&format!("load {name}"), &load);
        canary.assert_untouched(&format!("load {name}"));
        if load.code == 0 {
            // What was taken is used as well: a start makes and mounts things in there.
            let run = daemon.cli(["run", "--rm", "--network=none", "evil:1", "true"]);
            assert!([0, 125, 126, 127].contains(&run.code), "run {name}: {run:?}");
            canary.assert_untouched(&format!("run {name}"));
        }
        let import = daemon.run(["import", "-", "evil:2"]).input(tar.clone()).output();
        answered(&format!("import {name}"), &import);
        canary.assert_untouched(&format!("import {name}"));
        daemon.cli(["create", "--name", "c1", images::BUSYBOX, "true"]).ok();
        let copy = daemon.run(["cp", "-", "c1:/"]).input(tar.clone()).output();
        answered(&format!("cp {name}"), &copy);
        canary.assert_untouched(&format!("cp {name}"));
        daemon.cli(["rm", "c1"]).ok();
        daemon.cli(["rmi", "-f", "evil:1", "evil:2"]);
    }
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    clean(&daemon);
    daemon.finish();
}

/// A link of a lower layer does not lead a higher layer out.
#[test]
fn links_of_lower_layers_lead_nowhere_either() {
    let daemon = TestDaemon::start();
    let canary = Canary::new("l");
    let target = canary.dir.display().to_string();
    let upper: [Layer; 6] = [
        Layer::new().file("trap/new", b"x", 0o644),
        Layer::new().file("trap/.wh.file", b"", 0o644),
        Layer::new().file("trap/.wh..wh..opq", b"", 0o644),
        Layer::new().hard_link("stolen", "trap/file"),
        Layer::new().dir("trap", 0o777).file("trap/new", b"x", 0o644),
        Layer::new().hard_link("trap2", "trap").file("trap2/new", b"x", 0o644),
    ];
    for (number, layer) in upper.into_iter().enumerate() {
        for link in [
            target.clone(),
            format!("../../../../../../..{target}"),
            format!("/proc/1/root{target}"),
        ] {
            let lower = Layer::new().symlink("trap", &link).finish();
            let image = Image::new("evil:1", vec![images::busybox_tar(), lower, layer_bytes(&layer)]);
            let load = daemon.run(["load", "-q"]).input(docker_archive(&[image])).output();
            answered(&format!("{number} over {link}"), &load);
            if load.code == 0 {
                daemon.cli(["run", "--rm", "--network=none", "evil:1", "true"]);
                daemon.cli(["rmi", "evil:1"]).ok();
            }
            canary.assert_untouched(&format!("{number} over {link}"));
        }
    }
    clean(&daemon);
    daemon.finish();
}

fn layer_bytes(layer: &Layer) -> Vec<u8> {
    layer.clone().finish()
}

/// An archive of one image, whose second layer is not what the configuration says.
fn with_layer(layer: &[u8]) -> Vec<u8> {
    let image = Image::new("large:1", vec![images::busybox_tar(), Layer::new().finish()]);
    archive(&image.configuration(), layer)
}

fn archive(configuration: &[u8], layer: &[u8]) -> Vec<u8> {
    let name = format!("{}.json", sha256(configuration));
    let manifest = json!([{ "Config": name, "RepoTags": ["large:1"], "Layers": ["a.tar", "b.tar"] }]);
    Layer::new()
        .file(&name, configuration, 0o644)
        .file("a.tar", &images::busybox_tar(), 0o644)
        .file("b.tar", layer, 0o644)
        .file("manifest.json", manifest.to_string().as_bytes(), 0o644)
        .finish()
}

#[test]
fn the_engine_stays_small_whatever_an_archive_claims() {
    let daemon = TestDaemon::start();
    let special = |kind: u8, size: u64| corpus::header("x", kind, size).to_vec();
    let records = |count: u64| {
        let one = |number: u64| format!("36 SCHILY.xattr.user.a{number:07}=12345\n");
        let text: String = (0..count).map(one).collect();
        let mut bytes = [special(b'x', text.len() as u64), text.into_bytes()].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let layers: [(&str, Vec<u8>); 8] = [
        ("ten gibibytes of zeros", stretched(&[], 0, 10 << 10)),
        (
            "a record of a gibibyte",
            stretched(&special(b'x', 1 << 30), b' ', 1 << 10),
        ),
        (
            "a global record of a gibibyte",
            stretched(&special(b'g', 1 << 30), b' ', 1 << 10),
        ),
        (
            "a name of a gibibyte",
            stretched(&special(b'L', 1 << 30), b'n', 1 << 10),
        ),
        (
            "a link of a gibibyte",
            stretched(&special(b'K', 1 << 30), b'n', 1 << 10),
        ),
        ("a million attributes", records(1_000_000)),
        ("a thousand attributes", records(1_500)),
        (
            "a sparse file of segments",
            stretched(&corpus::sparse_of_segments(1 << 30), b'1', 1 << 10),
        ),
    ];
    for (name, layer) in &layers {
        let begin = Instant::now();
        let ways = [("import", layer.clone()), ("load", with_layer(layer))];
        // Half a minute of nothing but zeros is enough.
        for (way, input) in ways.into_iter().take(if name.contains("zeros") { 1 } else { 2 }) {
            let line: &[&str] = if way == "load" {
                &["load", "-q"]
            } else {
                &["import", "-", "large:2"]
            };
            let output = daemon.run(line).input(input).output();
            // Zeros are the end of an archive, and an import of nothing is an image of nothing.
            assert!(
                output.code == 1 || (way == "import" && name.contains("zeros")),
                "{way} {name}: {output:?}"
            );
            answered(&format!("{way} {name}"), &output);
            let most = most_memory(&daemon);
            assert!(most < MEMORY, "{way} {name}: the engine had {} MiB", most >> 20);
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{name} took {:?}",
            begin.elapsed()
        );
    }
    // Documents.
    let image = Image::new("large:1", vec![images::busybox_tar(), Layer::new().finish()]);
    let mut configuration: Value = serde_json::from_slice(&image.configuration()).unwrap();
    configuration["comment"] = "x".repeat(64 << 20).into();
    let long = archive(configuration.to_string().as_bytes(), &Layer::new().finish());
    let head = corpus::header("manifest.json", b'0', 1 << 30).to_vec();
    for (name, input) in [
        ("a configuration of 64 MiB", long),
        ("a manifest of a gibibyte", stretched(&head, b' ', 1 << 10)),
        (
            "a deep manifest",
            Layer::new()
                .file("manifest.json", "[".repeat(3 << 20).as_bytes(), 0o644)
                .finish(),
        ),
        (
            "a deep index",
            Layer::new()
                .file("index.json", r#"{"manifests":["#.repeat(200_000).as_bytes(), 0o644)
                .finish(),
        ),
    ] {
        let output = daemon.run(["load", "-q"]).input(input).output();
        assert_eq!(output.code, 1, "{name}: {output:?}");
        answered(name, &output);
        let most = most_memory(&daemon);
        assert!(most < MEMORY, "{name}: the engine had {} MiB", most >> 20);
    }
    clean(&daemon);
    daemon.finish();
}

pub fn most_memory(daemon: &TestDaemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.engine_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn streams_that_do_not_decompress_end_in_time_and_are_named() {
    let daemon = TestDaemon::start();
    let tar = Layer::new().file("f", &vec![b'x'; 300_000], 0o644).finish();
    let image = |compression| {
        Image::new("", vec![tar.clone()])
            .compression(compression)
            .blobs()
            .concat()
    };
    let (gzip, zstd) = (image(images::Compression::Gzip), image(images::Compression::Zstd));
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x55;
        bytes
    };
    let streams: Vec<(String, Vec<u8>)> = [("gzip", &gzip), ("zstd", &zstd)]
        .iter()
        .flat_map(|(name, bytes)| {
            let end = bytes.len();
            let cuts = [3, 5, 9, 15, end / 2, end - 5, end - 1]
                .map(|at| (format!("{name} cut at {at}"), bytes[..at].to_vec()));
            let flips = [3, 4, 8, 12, end / 2].map(|at| (format!("{name} changed at {at}"), flipped(bytes, at)));
            cuts.into_iter().chain(flips).collect::<Vec<_>>()
        })
        .chain([
            ("xz".to_owned(), [b"\xfd7zXZ\0".as_slice(), &[0; 4096]].concat()),
            ("bzip2".to_owned(), [b"BZh91AY&SY".as_slice(), &[0x55; 4096]].concat()),
            (
                "gzip's magic and zeros".to_owned(),
                [&[0x1f, 0x8b, 8], [0; 8192].as_slice()].concat(),
            ),
            (
                "zstd's magic and noise".to_owned(),
                [&[0x28, 0xb5, 0x2f, 0xfd], [0xa5; 8192].as_slice()].concat(),
            ),
            // A window of 2 GiB (RFC 8878 3.1.1.1.2): memory before the first byte.
            (
                "zstd with a window of 2 GiB".to_owned(),
                [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8], [0x11; 64].as_slice()].concat(),
            ),
            (
                "a skippable frame of 4 GiB".to_owned(),
                [&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff], [0; 512].as_slice()].concat(),
            ),
        ])
        .collect();
    for (name, stream) in &streams {
        let begin = Instant::now();
        for (way, line, input) in [
            ("load", ["load", "-q", "--"], with_layer(stream)),
            ("import", ["import", "-", "x:1"], stream.clone()),
        ] {
            let output = daemon
                .run(&line[..if way == "load" { 2 } else { 3 }])
                .input(input)
                .output();
            // A change may hit nothing that matters to an import; a load compares the digest.
            let harmless = way == "import" && name.contains("changed");
            assert!(output.code == 1 || harmless, "{way} {name}: {output:?}");
            answered(&format!("{way} {name}"), &output);
            daemon.cli(["rmi", "-f", "x:1"]);
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{name} took {:?}",
            begin.elapsed()
        );
    }
    let most = most_memory(&daemon);
    assert!(most < MEMORY, "the engine had {} MiB", most >> 20);
    assert_eq!(daemon.cli(["images", "-q"]).ok(), "");
    clean(&daemon);
    daemon.finish();
}

/// Neither what images hold nor how the engine is reached is anybody else's: a set-user-id program of a layer, say.
#[test]
fn nobody_else_reads_or_runs_anything_below_the_data_root() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let busybox = fs::read("/bin/busybox").unwrap();
    let layer = Layer::new()
        .file("setuid", &busybox, 0o4755)
        .file("open", b"secret", 0o666)
        .dir("opendir", 0o777);
    daemon.load(&docker_archive(&[images::above_busybox("setuid:1", layer)]));
    daemon
        .cli(["run", "-d", "--name", "c1", "setuid:1", "sleep", "1000"])
        .ok();
    let as_nobody = |line: &[&str]| {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        daemon.in_namespace(&[&nobody, line].concat()).output()
    };
    let (data, run) = (daemon.data_root(), daemon.run_dir());
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o007, 0);
    let found = as_nobody(&["find", data.to_str().unwrap(), "-mindepth", "1"]);
    assert_eq!(found.stdout, "");
    // This directory is the test's own, and open; what the daemon made in it is not.
    let found = as_nobody(&[
        "find",
        run.to_str().unwrap(),
        "-mindepth",
        "1",
        "-readable",
        "-not",
        "-name",
        "ferry.pid",
    ]);
    assert_eq!(found.stdout, "");
    // Whose names are known is reached no better.
    let layers = fs::read_dir(data.join("layers"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let fs_of = layers
        .map(|layer| layer.join("fs"))
        .find(|root| root.join("setuid").exists())
        .unwrap();
    let (setuid, open) = (fs_of.join("setuid"), fs_of.join("open"));
    for line in [
        ["cat", open.to_str().unwrap()],
        [setuid.to_str().unwrap(), "id"],
        ["ls", fs_of.join("opendir").to_str().unwrap()],
        ["cat", data.join("ferry.db").to_str().unwrap()],
        ["ls", run.join("containers").to_str().unwrap()],
    ] {
        let output = as_nobody(&line);
        assert_ne!(output.code, 0, "{line:?}: {output:?}");
    }
    // It can fail: root reaches all of it.
    assert_eq!(daemon.in_namespace(&["cat", open.to_str().unwrap()]).ok(), "secret");
    daemon.cli(["rm", "-f", "c1"]).ok();
    daemon.finish();
}
