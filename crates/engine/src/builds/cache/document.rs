//! What a cache says of itself.
//!
//! ```text
//! {"layers": [{"blob": …, "parent": …, "annotations": {"mediaType", "diffID", "size", "createdAt"}}],      as BuildKit writes it
//!  "records": [],                                                                  BuildKit's, which it finds none of here
//!  "ferry": {"version", "diff_ids": […], "records": [{"key", "layers": places in diff_ids, …}]}}                     ours
//! ```
//!
//! In an image's configuration ours stands alone, under a name of its own; its layers are those of the image. A layer without a
//! blob is one of a base image's: who looks for the step has it.

use std::collections::{HashMap, HashSet};

use ferry_distribution::Descriptor;
use ferry_image::Digest;
use ferry_storage::Step;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::images::LAYERS;

/// The media type of a cache's configuration.
pub const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Under this name an image's configuration has its records.
pub const INLINE: &str = "ferry.cache.v0";

const VERSION: u32 = 1;
/// Records, and layers.
const MOST: usize = 10_000;
/// Parents of a record, what it is made of, and its other keys.
const MOST_OF_ONE: usize = 1000;
/// Bytes of a text.
const MOST_TEXT: usize = 4096;
const KINDS: [&str; 3] = ["regular", "source.http", "source.git.checkout"];

/// A cache, checked.
#[derive(Debug)]
pub struct Cache {
    pub diff_ids: Vec<Digest>,
    /// By diff id.
    pub blobs: HashMap<Digest, Descriptor>,
    pub records: Vec<Record>,
}

/// What is remembered of a step ([`Step`]).
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub parents: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<(String, String)>,
    pub kind: String,
    pub description: String,
    /// Places among the diff ids, lowest first. None for a step that is there for its identity alone: others are made of it.
    pub layers: Vec<u32>,
    #[serde(default)]
    pub times: Vec<Option<Timestamp>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Records {
    version: u32,
    /// None in an image's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    diff_ids: Vec<Digest>,
    records: Vec<Record>,
}

/// A layer's blob as BuildKit describes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    pub blob: Digest,
    /// Its place among the others; -1 for none.
    #[serde(default, rename = "parent")]
    pub parent: i64,
    #[serde(default)]
    pub annotations: Option<Annotations>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    #[serde(default)]
    pub media_type: String,
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// What was found in a place.
#[derive(Debug)]
pub enum Found {
    Ours(Cache),
    /// Nothing of ours; of whom it is.
    Foreign(&'static str),
}

/// Reads the configuration of a cache whose manifest lists these blobs. Fails with the reason.
pub fn of_config(bytes: &[u8], listed: &[Descriptor]) -> Result<Found, String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        layers: Option<Vec<Entry>>,
        #[serde(default)]
        ferry: Option<Records>,
    }
    let config: Config = read(bytes)?;
    let Some(ours) = config.ferry else {
        return Ok(Found::Foreign("BuildKit"));
    };
    let listed: HashMap<&Digest, &Descriptor> = listed.iter().map(|blob| (&blob.digest, blob)).collect();
    let mut blobs = HashMap::new();
    for entry in config.layers.unwrap_or_default() {
        let Some(annotations) = entry.annotations else { continue };
        let blob = listed.get(&entry.blob);
        let blob = blob.ok_or_else(|| format!("its manifest does not list the layer {}", entry.blob))?;
        blobs.insert(annotations.diff_id, (*blob).clone());
    }
    Cache::new(ours.diff_ids.clone(), blobs, ours).map(Found::Ours)
}

/// Reads the configuration of an image with these layers, or of one that is here. Fails with the reason.
pub fn of_image(bytes: &[u8], layers: Option<&[Descriptor]>) -> Result<Found, String> {
    #[derive(Deserialize)]
    struct Image {
        rootfs: RootFs,
        #[serde(default, rename = "ferry.cache.v0")]
        ferry: Option<Records>,
        #[serde(default, rename = "moby.buildkit.cache.v0")]
        buildkit: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<Digest>,
    }
    let image: Image = read(bytes)?;
    let Some(ours) = image.ferry else {
        let whose = image.buildkit.map_or("nobody", |_| "BuildKit");
        return Ok(Found::Foreign(whose));
    };
    let diff_ids = image.rootfs.diff_ids;
    if layers.is_some_and(|layers| layers.len() != diff_ids.len()) {
        return Err("its configuration and its manifest have different numbers of layers".to_owned());
    }
    let layers = layers.into_iter().flatten().cloned();
    let blobs = diff_ids.iter().cloned().zip(layers).collect();
    Cache::new(diff_ids, blobs, ours).map(Found::Ours)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("its configuration is malformed: {error}"))
}

impl Cache {
    fn new(diff_ids: Vec<Digest>, blobs: HashMap<Digest, Descriptor>, ours: Records) -> Result<Self, String> {
        if ours.version != VERSION {
            return Err(format!(
                "it is of another Ferry: version {}, not {VERSION}",
                ours.version
            ));
        }
        if ours.records.len() > MOST || diff_ids.len() > MOST {
            return Err(format!("it has more than {MOST} records or layers"));
        }
        let keys: HashSet<&str> = ours.records.iter().map(|record| record.key.as_str()).collect();
        let mut before = HashSet::new();
        for record in &ours.records {
            record.check(diff_ids.len())?;
            let is_early = |parent: &&String| keys.contains(parent.as_str()) && !before.contains(parent.as_str());
            if let Some(parent) = record.parents.iter().find(is_early) {
                return Err(format!(
                    "the step {} stands before {parent}, which it is made of",
                    record.key
                ));
            }
            if !before.insert(record.key.as_str()) {
                return Err(format!("it has the step {} twice", record.key));
            }
        }
        Ok(Self {
            diff_ids,
            blobs,
            records: ours.records,
        })
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Record {
    /// Of a step whose layers have these places.
    pub fn new(step: &Step, layers: Vec<u32>) -> Self {
        let bounded = |text: &str| text[..text.floor_char_boundary(MOST_TEXT)].to_owned();
        Self {
            key: step.key.clone(),
            identity: step.identity.clone(),
            aliases: step.aliases.clone(),
            parents: step.parents.iter().take(MOST_OF_ONE).cloned().collect(),
            made_of: step
                .made_of
                .iter()
                .take(MOST_OF_ONE)
                .map(|(name, key)| (bounded(name), key.clone()))
                .collect(),
            kind: step.kind.clone(),
            description: bounded(&step.description),
            times: step.times.iter().take(layers.len()).copied().collect(),
            layers,
        }
    }

    /// The same for the store, which finds the rest out.
    pub fn step(&self) -> Step {
        Step {
            key: self.key.clone(),
            identity: self.identity.clone(),
            aliases: self.aliases.clone(),
            parents: self.parents.clone(),
            made_of: self.made_of.clone(),
            kind: self.kind.clone(),
            description: self.description.clone(),
            times: self.times.clone(),
            ..Step::default()
        }
    }

    fn check(&self, layers: usize) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("the step {:.64} has {what}", self.key));
        let keys = [&self.key].into_iter().chain(&self.aliases).chain(&self.parents);
        let pairs = self.made_of.iter();
        if !keys.clone().all(|key| is_key(key)) || !(self.identity.is_empty() || is_key(&self.identity)) {
            return wrong("a key that is none");
        }
        if [self.aliases.len(), self.parents.len(), self.made_of.len()]
            .into_iter()
            .max()
            > Some(MOST_OF_ONE)
        {
            return wrong("too many parts");
        }
        if self.description.len() > MOST_TEXT
            || pairs
                .clone()
                .any(|(name, value)| name.len() > MOST_TEXT || value.len() > MOST_TEXT)
        {
            return wrong("a text that is too long");
        }
        if !KINDS.contains(&self.kind.as_str()) {
            return wrong("a kind that does not exist");
        }
        let has_nothing = self.layers.is_empty() && self.identity.is_empty();
        if has_nothing || self.layers.len() > LAYERS || self.times.len() > self.layers.len() {
            return wrong("no layers, or too many");
        }
        if self
            .layers
            .iter()
            .any(|place| usize::try_from(*place).is_ok_and(|place| place >= layers))
        {
            return wrong("a layer that does not exist");
        }
        Ok(())
    }
}

/// Writes the configuration of a cache.
pub fn config(diff_ids: Vec<Digest>, layers: &[Entry], records: Vec<Record>) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Config<'a> {
        layers: &'a [Entry],
        records: [(); 0],
        ferry: Records,
    }
    serde_json::to_vec(&Config {
        layers,
        records: [],
        ferry: Records {
            version: VERSION,
            diff_ids,
            records,
        },
    })
}

/// What an image's configuration has of its steps.
pub fn inline(records: Vec<Record>) -> Records {
    Records {
        version: VERSION,
        diff_ids: Vec::new(),
        records,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(number: usize) -> String {
        format!("{number:064x}")
    }

    fn record(number: usize, parents: &[usize]) -> Value {
        let parents: Vec<String> = parents.iter().map(|parent| key(*parent)).collect();
        json!({"key": key(number), "parents": parents, "kind": "regular", "description": "RUN x",
               "layers": [0]})
    }

    fn cache(records: &[Value]) -> Value {
        let (diff_id, blob) = (Digest::of("tar"), Digest::of("gzip"));
        json!({"layers": [{"blob": blob, "parent": -1, "annotations": {"diffID": diff_id}}], "records": [],
               "ferry": {"version": 1, "diff_ids": [diff_id], "records": records}})
    }

    fn opened(config: &Value) -> Result<Found, String> {
        let listed = [Descriptor::of("x", b"gzip")];
        of_config(config.to_string().as_bytes(), &listed)
    }

    #[test]
    fn a_cache_is_what_was_written() {
        let Found::Ours(cache) = opened(&cache(&[record(1, &[]), record(2, &[1, 9])])).unwrap() else {
            panic!("not ours");
        };
        assert_eq!(cache.blobs[&Digest::of("tar")].digest, Digest::of("gzip"));
        assert_eq!(cache.records[1].step().parents, [key(1), key(9)]);
        let written = config(cache.diff_ids, &[], cache.records).unwrap();
        assert!(matches!(of_config(&written, &[]), Ok(Found::Ours(cache)) if cache.records.len() == 2));
    }

    #[test]
    fn what_others_wrote_has_nothing_for_us() {
        let foreign =
            json!({"layers": [{"blob": Digest::of("x"), "parent": -1}], "records": [{"digest": Digest::of("r")}]});
        assert!(matches!(opened(&foreign), Ok(Found::Foreign("BuildKit"))));
        let image = json!({"rootfs": {"diff_ids": []}, "moby.buildkit.cache.v0": "W10="});
        let read = of_image(image.to_string().as_bytes(), Some(&[]));
        assert!(matches!(read, Ok(Found::Foreign("BuildKit"))));
        let image = json!({"rootfs": {"diff_ids": []}});
        assert!(matches!(
            of_image(image.to_string().as_bytes(), Some(&[])),
            Ok(Found::Foreign("nobody"))
        ));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let with = |name: &str, value: Value| {
            let mut record = record(1, &[]);
            record[name] = value;
            cache(&[record])
        };
        let mut newer = cache(&[]);
        newer["ferry"]["version"] = json!(2);
        let mut unlisted = cache(&[]);
        unlisted["layers"][0]["blob"] = json!(Digest::of("other"));
        for (config, text) in [
            (cache(&[record(1, &[2]), record(2, &[1])]), "stands before"),
            (cache(&[record(1, &[1])]), "stands before"),
            (cache(&[record(1, &[]), record(1, &[])]), "twice"),
            (with("layers", json!([1])), "a layer that does not exist"),
            (with("layers", json!([])), "no layers"),
            (with("layers", json!(vec![0; LAYERS + 1])), "too many"),
            (with("layers", json!([-1])), "malformed"),
            (with("key", json!("../../x")), "a key that is none"),
            (with("aliases", json!(["x"])), "a key that is none"),
            (with("parents", json!(vec![key(3); MOST_OF_ONE + 1])), "too many parts"),
            (with("kind", json!("internal")), "a kind"),
            (with("description", json!("x".repeat(MOST_TEXT + 1))), "too long"),
            (newer, "version 2"),
            (unlisted, "does not list"),
            (json!({"ferry": 1}), "malformed"),
        ] {
            let error = opened(&config).unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
        }
        let many: Vec<Value> = (0..=MOST).map(|number| record(number, &[])).collect();
        assert!(opened(&cache(&many)).unwrap_err().contains("more than"));
    }
}
