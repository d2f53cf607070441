//! The image's configuration as BuildKit writes it: OCI's, with Docker's additions.

use std::collections::BTreeMap;

use crate::graph::Exec;
use ferry_image::Platform;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What `FROM scratch` begins with, and any image without one.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is known of an image before its layers are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub author: String,
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version")]
    pub os_version: String,
    #[serde(rename = "os.features", deserialize_with = "null_is_default")]
    pub os_features: Vec<String>,
    pub variant: String,
    #[serde(deserialize_with = "null_is_default")]
    pub config: Config,
    #[serde(deserialize_with = "null_is_default")]
    pub history: Vec<History>,
}

/// In the order of Go's fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "is_nothing")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_nothing")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// As it was written in a base image; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn is_nothing(words: &Option<Vec<String>>) -> bool {
    words.as_ref().is_none_or(Vec::is_empty)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ImageConfig {
    /// Of `FROM scratch`.
    pub fn scratch(platform: &Platform) -> Self {
        let mut image = Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        };
        image.config.env.push(format!("PATH={PATH}"));
        image.config.working_dir = "/".to_owned();
        image
    }

    /// In which a shell is what a process of a build was.
    pub fn of_process(exec: &Exec, platform: &Platform) -> Self {
        let mut image = Self::scratch(platform);
        image.config.env.clone_from(&exec.env);
        image.config.user.clone_from(&exec.user);
        image.config.working_dir.clone_from(&exec.cwd);
        image.config.cmd = Some(vec!["/bin/sh".to_owned()]);
        image
    }

    /// Of a base image.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// A variable of the image's own.
    pub fn set_env(&mut self, key: &str, value: &str) {
        let pair = format!("{key}={value}");
        let is_key = |known: &&mut String| known.split_once('=').map_or(known.as_str(), |(key, _)| key) == key;
        match self.config.env.iter_mut().find(is_key) {
            Some(known) => *known = pair,
            None => self.config.env.push(pair),
        }
    }

    /// The whole configuration. `times` are those of the layers with an entry in the history that has none, in their order;
    /// `now` is for an image without any.
    pub fn finish(
        &self,
        diff_ids: &[String],
        times: &[Option<Timestamp>],
        now: Timestamp,
    ) -> serde_json::Result<Vec<u8>> {
        let history = dated(&self.history, times);
        let created = history.last().and_then(|last| last.created.clone());
        let created = created.unwrap_or_else(|| go_time(now));
        let mut map: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
        let raw = |value: &dyn erased::Json| value.raw();
        for (key, text) in [
            ("architecture", &self.architecture),
            ("author", &self.author),
            ("os", &self.os),
            ("os.version", &self.os_version),
            ("variant", &self.variant),
        ] {
            if !text.is_empty() {
                map.insert(key, raw(text)?);
            }
        }
        if !self.os_features.is_empty() {
            map.insert("os.features", raw(&self.os_features)?);
        }
        map.insert("config", raw(&self.config)?);
        map.insert("created", raw(&created)?);
        map.insert("history", raw(&history)?);
        let rootfs = RootFs {
            r#type: "layers",
            diff_ids,
        };
        map.insert("rootfs", raw(&rootfs)?);
        serde_json::to_vec(&map)
    }
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'static str,
    diff_ids: &'a [String],
}

mod erased {
    use serde::Serialize;
    use serde_json::value::RawValue;

    pub trait Json {
        fn raw(&self) -> serde_json::Result<Box<RawValue>>;
    }

    impl<T: Serialize> Json for T {
        fn raw(&self) -> serde_json::Result<Box<RawValue>> {
            serde_json::value::to_raw_value(self)
        }
    }
}

/// Every entry gets a time, as in BuildKit: a layer that of its making, another one that of the layer before it, and before
/// all layers that are new that of the first new one.
fn dated(history: &[History], times: &[Option<Timestamp>]) -> Vec<History> {
    let mut history = history.to_vec();
    let mut layer = 0;
    for entry in &mut history {
        if !entry.empty_layer {
            if entry.created.is_none() {
                entry.created = times.get(layer).copied().flatten().map(go_time);
            }
            layer += 1;
        }
    }
    let mut first = None;
    let mut undated = false;
    for entry in &history {
        match &entry.created {
            Some(created) => {
                first = Some(created.clone());
                if undated {
                    break;
                }
            }
            None => undated = true,
        }
    }
    let mut last = first;
    undated = false;
    for entry in &mut history {
        match &entry.created {
            Some(created) if undated => last = Some(created.clone()),
            Some(_) => {}
            None => {
                undated = true;
                entry.created.clone_from(&last);
            }
        }
    }
    history
}

/// RFC 3339 with nanoseconds without zeros at the end, as Go prints it.
pub fn go_time(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: Option<&str>, empty_layer: bool) -> History {
        History {
            created: created.map(str::to_owned),
            empty_layer,
            ..History::default()
        }
    }

    #[test]
    fn history_is_dated_by_layers() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let times = [None, Some(at(100)), Some(at(200))];
        let history = [
            entry(Some("1970-01-01T00:00:01Z"), false),
            entry(None, true),
            entry(None, false),
            entry(None, true),
            entry(None, false),
        ];
        let dated: Vec<_> = dated(&history, &times)
            .into_iter()
            .map(|h| h.created.unwrap())
            .collect();
        let expected = [
            "1970-01-01T00:00:01Z",
            "1970-01-01T00:01:40Z",
            "1970-01-01T00:01:40Z",
            "1970-01-01T00:01:40Z",
            "1970-01-01T00:03:20Z",
        ];
        assert_eq!(dated, expected);
    }

    #[test]
    fn configurations_are_written_as_buildkit_writes_them() {
        let mut image = ImageConfig::scratch(&Platform::new("linux", "amd64", ""));
        image.set_env("A", "1");
        image.set_env("A", "2");
        let json = image.finish(&[], &[], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"architecture":"amd64","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=2"],"WorkingDir":"/"},"created":"1970-01-01T00:00:00Z","history":[],"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }
}
