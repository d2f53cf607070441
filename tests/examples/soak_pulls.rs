//! `cargo xtask soak --pulls N`: N pulls and N removals of images, the engine killed at a random moment of each, and after
//! every kill a look at everything there is.
//!
//! ```text
//! pull:     (removed, if it is there) ─▶ pull ─ kill -9 ─▶ start ─▶ look ─▶ often: pull to the end, look
//! removal:  (pulled, if it is not)    ─▶ rmi  ─ kill -9 ─▶ start ─▶ look
//! ```
//! To look is: `system check` finds nothing; every image that is listed runs and holds what it held; every file below the data
//! root belongs to an image that is listed or, of the parts of blobs, to one that is still to be pulled; and `system df` says
//! what the disk holds. Two images with layers in common and one of their own come from Ferry's registry and from the CNCF's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ferry_testkit::images::{self, Compression, Image, Layer, sha256};
use ferry_testkit::{Registry, TestDaemon, wait_for_none};
use serde_json::Value;

const USAGE: &str = "soak --pulls [N [SEED]]";
/// Beside the layers, blobs and parts.
const KEPT: [&str; 10] = [
    "blobs",
    "containers",
    "empty",
    "ferry.db",
    "ferry.db-shm",
    "ferry.db-wal",
    "ingest",
    "layers",
    "lock",
    "reserve",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let (Ok(count), Ok(seed)) = (number(0, 500), number(1, 1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let mut soak = Soak::begin(seed);
    println!(
        "{:.1} s  {} images; a pull takes {:.0?}, a removal {:.0?}",
        begin.elapsed().as_secs_f64(),
        soak.subjects.len(),
        soak.pulling,
        soak.removing
    );
    let mut outcomes = Outcomes::default();
    for round in 0..count {
        soak.pull(&mut outcomes);
        soak.remove(&mut outcomes);
        if (round + 1) * 20 / count != round * 20 / count {
            println!(
                "{:.1} s  {} pulls and removals: {outcomes:?}",
                begin.elapsed().as_secs_f64(),
                round + 1
            );
        }
    }
    soak.end();
    println!(
        "{count} pulls and {count} removals killed in {:.0} s: {outcomes:?}; nothing was lost and nothing is left",
        begin.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// How far what was killed had come.
#[derive(Debug, Default)]
struct Outcomes {
    pulls_done: u64,
    pulls_undone: u64,
    with_parts: u64,
    removals_done: u64,
    removals_undone: u64,
}

/// An image in a registry.
#[derive(Debug)]
struct Subject {
    name: String,
    id: String,
    content: String,
    /// Hex digits of its manifest, configuration and layers.
    blobs: BTreeSet<String>,
}

struct Soak {
    daemon: TestDaemon,
    _registries: Vec<Registry>,
    subjects: Vec<Subject>,
    chance: Chance,
    pulling: Duration,
    removing: Duration,
}

impl Soak {
    fn begin(seed: u64) -> Self {
        let daemon = TestDaemon::start();
        let mut registries = vec![(Registry::ADDRESS, Registry::start(&daemon, &[]))];
        registries.extend(Registry::cncf(&daemon).map(|registry| (Registry::CNCF, registry)));
        let mut subjects = Vec::new();
        for (address, _) in &registries {
            for content in ["one", "two", "plain"] {
                let name = format!("{address}/soak/{content}:1");
                let image = image(&name, content);
                daemon.run(["load", "-q"]).input(images::docker_archive(&[image])).ok();
                daemon.cli(["push", "-q", &name]).ok();
                daemon.cli(["rmi", &name]).ok();
                subjects.push(Subject {
                    name,
                    id: String::new(),
                    content: content.to_owned(),
                    blobs: BTreeSet::new(),
                });
            }
        }
        let mut soak = Self {
            daemon,
            _registries: registries.into_iter().map(|(_, registry)| registry).collect(),
            subjects,
            chance: Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed | 1)),
            pulling: Duration::ZERO,
            removing: Duration::ZERO,
        };
        for at in 0..soak.subjects.len() {
            soak.learn(at);
        }
        soak
    }

    /// What an image is made of, and how long it takes to have it and to lose it: the store holds nothing else.
    fn learn(&mut self, at: usize) {
        let name = self.subjects[at].name.clone();
        let begin = Instant::now();
        self.daemon.cli(["pull", "-q", &name]).ok();
        self.pulling = self.pulling.max(begin.elapsed());
        let digest = self
            .daemon
            .cli(["image", "inspect", "-f", "{{index .RepoDigests 0}}", &name])
            .ok();
        let manifest = digest.rsplit_once(':').unwrap().1.to_owned();
        let bytes = fs::read(self.blob(&manifest)).unwrap();
        assert_eq!(sha256(&bytes), manifest);
        let parsed: Value = serde_json::from_slice(&bytes).unwrap();
        let hex = |descriptor: &Value| descriptor["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
        let subject = &mut self.subjects[at];
        subject.id = hex(&parsed["config"]);
        subject.blobs = parsed["layers"].as_array().unwrap().iter().map(hex).collect();
        subject.blobs.extend([manifest, subject.id.clone()]);
        self.look();
        let begin = Instant::now();
        self.daemon.cli(["rmi", &name]).ok();
        self.removing = self.removing.max(begin.elapsed());
        self.look();
    }

    fn blob(&self, hex: &str) -> std::path::PathBuf {
        self.daemon.data_root().join("blobs/sha256").join(hex)
    }

    fn pull(&mut self, outcomes: &mut Outcomes) {
        let name = self.any();
        let listed = self.listed();
        // Mostly with the same image of the other registry, whose layers would not have to come again.
        let alone = self.chance.below(4) > 0;
        let id = |name: &str| {
            self.subjects
                .iter()
                .find(|subject| subject.name == name)
                .map(|subject| &subject.id)
        };
        for other in listed
            .iter()
            .filter(|other| **other == name || (alone && id(other) == id(&name)))
        {
            self.daemon.cli(["rmi", other]).ok();
        }
        let work = self.daemon.run(["pull", "-q", &name]).spawn();
        self.kill(self.pulling);
        drop(work);
        self.daemon.start_again();
        self.look();
        let done = self.listed().contains(&name);
        self.pulling = closer(self.pulling, done);
        *(if done {
            &mut outcomes.pulls_done
        } else {
            &mut outcomes.pulls_undone
        }) += 1;
        outcomes.with_parts += u64::from(!children(&self.daemon.data_root().join("ingest")).is_empty());
        if self.chance.below(3) > 0 {
            self.daemon.cli(["pull", "-q", &name]).ok();
            self.look();
        }
    }

    fn remove(&mut self, outcomes: &mut Outcomes) {
        let name = self.any();
        if !self.listed().contains(&name) {
            self.daemon.cli(["pull", "-q", &name]).ok();
        }
        let work = self.daemon.run(["rmi", &name]).spawn();
        self.kill(self.removing);
        drop(work);
        self.daemon.start_again();
        self.look();
        let undone = self.listed().contains(&name);
        self.removing = closer(self.removing, !undone);
        *(if undone {
            &mut outcomes.removals_undone
        } else {
            &mut outcomes.removals_done
        }) += 1;
    }

    fn kill(&mut self, within: Duration) {
        let most = u64::try_from(within.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.chance.below(most)));
        self.daemon.kill9();
    }

    fn any(&mut self) -> String {
        let at = self.chance.below(self.subjects.len() as u64);
        self.subjects[usize::try_from(at).unwrap()].name.clone()
    }

    fn listed(&self) -> BTreeSet<String> {
        let format = "{{.Repository}}:{{.Tag}}";
        let text = self.daemon.cli(["images", "-a", "--format", format]).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// Panics if anything is not as it should be.
    fn look(&self) {
        let said = self.daemon.cli(["system", "check"]).ok();
        assert!(said.ends_with("nothing is wrong"), "{said}");
        let listed = self.listed();
        let known: BTreeMap<&str, &Subject> = self
            .subjects
            .iter()
            .map(|subject| (subject.name.as_str(), subject))
            .collect();
        // Those of an image that the same run has not yet learnt about.
        let learning = self.subjects.iter().any(|subject| subject.id.is_empty());
        let (mut chains, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for name in &listed {
            let subject = known.get(name.as_str()).unwrap_or_else(|| panic!("{name} is listed"));
            let content = self
                .daemon
                .cli(["run", "--rm", "--network", "none", name, "cat", "/own/content"])
                .ok();
            assert_eq!(content, subject.content, "{name}");
            chains.extend(self.chains(name));
            blobs.extend(subject.blobs.iter().cloned());
        }
        let root = self.daemon.data_root();
        let parts: BTreeSet<&String> = self
            .subjects
            .iter()
            .filter(|subject| !listed.contains(&subject.name))
            .flat_map(|subject| &subject.blobs)
            .collect();
        wait_for_none("files that nothing refers to, or that are not there", || {
            let mut wrong = Vec::new();
            let mut compare = |dir: &str, wanted: &BTreeSet<String>| {
                let found = children(&root.join(dir));
                wrong.extend(found.symmetric_difference(wanted).map(|name| format!("{dir}/{name}")));
            };
            compare("layers", &chains);
            compare("blobs/sha256", &blobs);
            for dir in ["tmp", "containers", "volumes", "empty"] {
                compare(dir, &BTreeSet::new());
            }
            compare("blobs", &BTreeSet::from(["sha256".to_owned()]));
            for chain in &chains {
                let dir = format!("layers/{chain}");
                for name in children(&root.join(&dir)) {
                    if !["fs", "recipe", "attic"].contains(&name.as_str()) {
                        wrong.push(format!("{dir}/{name}"));
                    }
                }
            }
            for part in children(&root.join("ingest")) {
                // What an image that is there needs has come.
                if blobs.contains(&part) || !(learning || parts.contains(&part)) {
                    wrong.push(format!("ingest/{part}"));
                }
            }
            for name in children(&root) {
                if !KEPT.contains(&name.as_str()) && !["tmp", "volumes"].contains(&name.as_str()) {
                    wrong.push(name);
                }
            }
            wrong
        });
        let (_, usage) = self.daemon.api("GET", "/system/df", None);
        let mut seen = BTreeSet::new();
        let held: u64 = chains
            .iter()
            .map(|chain| bytes(&root.join("layers").join(chain).join("fs"), &mut seen))
            .sum();
        assert_eq!(usage["LayersSize"], held, "system df, and what the layers hold");
    }

    /// The directories of an image's layers (OCI image specification, "Layer ChainID").
    fn chains(&self, name: &str) -> Vec<String> {
        let text = self
            .daemon
            .cli(["image", "inspect", "-f", "{{json .RootFS.Layers}}", name])
            .ok();
        let layers: Vec<String> = serde_json::from_str(&text).unwrap();
        let mut chains: Vec<String> = Vec::new();
        for layer in layers {
            chains.push(match chains.last() {
                None => layer["sha256:".len()..].to_owned(),
                Some(below) => sha256(format!("sha256:{below} {layer}").as_bytes()),
            });
        }
        chains
    }

    /// Without images and parts there is nothing.
    fn end(self) {
        for name in self.listed() {
            self.daemon.cli(["rmi", &name]).ok();
        }
        self.daemon.cli(["image", "prune", "-f"]).ok();
        self.look();
        assert_eq!(
            children(&self.daemon.data_root().join("ingest")),
            BTreeSet::new(),
            "parts after a prune"
        );
        drop(self._registries);
        self.daemon.finish();
    }
}

/// Busybox, what `one` and `two` have in common, and what is each image's own, with something of the common layer hidden.
fn image(name: &str, content: &str) -> Image {
    let mut layers = vec![images::busybox_tar()];
    let files = |layer: Layer, dir: &str, count: u64| {
        (0..count).fold(layer.dir(dir, 0o755), |layer, number| {
            let text = format!("{dir} {number} ").repeat(usize::try_from(number % 60).unwrap() + 1);
            layer.file(&format!("{dir}/file{number}"), text.as_bytes(), 0o644)
        })
    };
    let mut own = Layer::new();
    if content != "plain" {
        let common = files(Layer::new(), "common", 200).file("common/noise", &noise(1, 512 << 10), 0o644);
        layers.push(common.hard_link("common/linked", "common/file1").finish());
        own = own
            .file("common/.wh.file2", b"", 0o644)
            .file("common/file3", content.as_bytes(), 0o600);
    }
    let salt = content.len() as u64 + u64::from(content.as_bytes()[0]);
    own = files(own, "own", 60).file("own/noise", &noise(salt, 1 << 20), 0o644);
    layers.push(own.file("own/content", content.as_bytes(), 0o644).finish());
    layers.push(Layer::new().file("top", content.as_bytes(), 0o644).finish());
    Image::new(name, layers).compression(Compression::Gzip)
}

/// Bytes that do not compress.
fn noise(salt: u64, count: usize) -> Vec<u8> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ (salt << 20));
    (0..count / 8).flat_map(|_| chance.next().to_le_bytes()).collect()
}

fn children(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Bytes of the files below, each once.
fn bytes(path: &Path, seen: &mut BTreeSet<u64>) -> u64 {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let sizes = entries.map(|entry| {
        let data = entry.symlink_metadata().unwrap();
        match data.is_dir() {
            true => bytes(&entry, seen),
            false if seen.insert(data.ino()) => data.len(),
            false => 0,
        }
    });
    sizes.sum()
}

/// The time within which the kill comes, so that four of five come before the end.
fn closer(within: Duration, done: bool) -> Duration {
    within.mul_f64(if done { 0.9 } else { 1.025 })
}

/// xorshift64: the same moments in every run, as far as the machine is the same.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
