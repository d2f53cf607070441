//! dockerd's `builder`: what builds may do, and what is removed of what is kept of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use ferry_engine::config::{BuildPrune, Builds, Collection};
use ferry_kit::duration::parse_go;
use ferry_kit::units::ram_in_bytes;
use serde::Deserialize;

/// As in daemon.json.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    gc: Option<Gc>,
    entitlements: Option<Entitlements>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Entitlements {
    network_host: Option<bool>,
    security_insecure: Option<bool>,
    device: Option<bool>,
}

/// The keys that end in `KeepStorage` are older names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Gc {
    enabled: Option<bool>,
    policy: Vec<Rule>,
    #[serde(alias = "defaultKeepStorage")]
    default_reserved_space: Option<String>,
    default_max_used_space: Option<String>,
    default_min_free_space: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Rule {
    all: bool,
    filter: Filter,
    #[serde(alias = "keepStorage")]
    reserved_space: Option<String>,
    max_used_space: Option<String>,
    min_free_space: Option<String>,
}

/// `["unused-for=48h"]`, and as it was written before.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Filter {
    List(Vec<String>),
    Map(BTreeMap<String, BTreeMap<String, bool>>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Filter {
    fn pairs(self) -> Result<Vec<(String, String)>> {
        match self {
            Self::List(list) => list
                .into_iter()
                .map(|text| {
                    let (name, value) = text
                        .split_once('=')
                        .context("filter: bad format (expected name=value)")?;
                    Ok((name.trim().to_lowercase(), value.trim().to_owned()))
                })
                .collect(),
            Self::Map(map) => {
                let pairs = map.into_iter().flat_map(|(name, values)| {
                    let wanted = values.into_iter().filter(|(_, wanted)| *wanted);
                    wanted.map(move |(value, _)| (name.clone(), value))
                });
                Ok(pairs.collect())
            }
        }
    }
}

impl Builder {
    pub fn settings(self) -> Result<Builds> {
        let usual = Builds::default();
        let entitlements = self.entitlements.unwrap_or_default();
        let collection = self.gc.map(Gc::collection).transpose().context("builder: gc")?;
        Ok(Builds {
            collection: collection.unwrap_or(usual.collection),
            network_host: entitlements.network_host.unwrap_or(usual.network_host),
            security_insecure: entitlements.security_insecure.unwrap_or(usual.security_insecure),
            device: entitlements.device.unwrap_or(usual.device),
        })
    }
}

impl Gc {
    fn collection(self) -> Result<Collection> {
        let usual = Collection::Usual {
            reserved: bytes("defaultReservedSpace", self.default_reserved_space.as_deref())?,
            max_used: bytes("defaultMaxUsedSpace", self.default_max_used_space.as_deref())?,
            min_free: bytes("defaultMinFreeSpace", self.default_min_free_space.as_deref())?,
        };
        let rules = self.policy.into_iter().map(Rule::prune).collect::<Result<Vec<_>>>()?;
        Ok(match (self.enabled, rules.is_empty()) {
            (Some(false), _) => Collection::Rules(Vec::new()),
            (_, true) => usual,
            (_, false) => Collection::Rules(rules),
        })
    }
}

impl Rule {
    fn prune(self) -> Result<BuildPrune> {
        let mut prune = BuildPrune {
            all: self.all,
            reserved: bytes("reservedSpace", self.reserved_space.as_deref())?,
            max_used: bytes("maxUsedSpace", self.max_used_space.as_deref())?,
            min_free: bytes("minFreeSpace", self.min_free_space.as_deref())?,
            ..BuildPrune::default()
        };
        let mut conditions = Vec::new();
        for (name, value) in self.filter.pairs()? {
            match name.as_str() {
                "unused-for" | "until" => {
                    let wrong = || format!("filter: invalid duration {value:?}");
                    let time = parse_go(&value).map_err(|_| anyhow::anyhow!(wrong()))?;
                    prune.keep_seconds = u64::try_from(time.as_secs()).with_context(wrong)?;
                }
                "id" => conditions.push(format!("id~={value}")),
                "type" | "description" | "inuse" | "shared" | "private" | "parent" => {
                    conditions.push(format!("{name}=={value}"));
                }
                _ => bail!(
                    "filter: {name} is unknown: there are unused-for, until, id, parent, type, description, inuse, shared, private"
                ),
            }
        }
        if !conditions.is_empty() {
            prune.filters = vec![conditions.join(",")];
        }
        Ok(prune)
    }
}

fn bytes(key: &str, text: Option<&str>) -> Result<u64> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    let bytes = ram_in_bytes(text).with_context(|| key.to_owned())?;
    u64::try_from(bytes).with_context(|| format!("{key}: {text} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Builds> {
        serde_json::from_str::<Builder>(json)?.settings()
    }

    #[test]
    fn dockers_examples_are_read() {
        let json = r#"{"gc": {"enabled": true, "defaultReservedSpace": "20GB", "policy": [
            {"reservedSpace": "10GB", "filter": ["unused-for=2200h"]},
            {"keepStorage": "50GB", "filter": {"unused-for": {"3300h": true}, "type": {"exec.cachemount": true}}},
            {"maxUsedSpace": "100GB", "all": true}]}}"#;
        let Collection::Rules(rules) = read(json).unwrap().collection else {
            panic!("rules are set");
        };
        assert_eq!((rules[0].reserved, rules[0].keep_seconds), (10 << 30, 2200 * 3600));
        assert_eq!((rules[1].reserved, rules[1].keep_seconds), (50 << 30, 3300 * 3600));
        assert_eq!(rules[1].filters, ["type==exec.cachemount"]);
        assert!(rules[2].all && rules[2].max_used == 100 << 30);
        assert_eq!(
            read(r#"{"gc": {"enabled": false}}"#).unwrap().collection,
            Collection::Rules(Vec::new())
        );
        let granted = read(r#"{"entitlements": {"security-insecure": true, "network-host": false}}"#).unwrap();
        assert!(granted.security_insecure && !granted.network_host && granted.device);
        assert_eq!(read("{}").unwrap(), Builds::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, text) in [
            (
                r#"{"gc": {"policy": [{"filter": ["unused-for=x"]}]}}"#,
                "invalid duration \"x\"",
            ),
            (r#"{"gc": {"policy": [{"filter": ["x=y"]}]}}"#, "x is unknown"),
            (r#"{"gc": {"policy": [{"filter": ["x"]}]}}"#, "bad format"),
            (r#"{"gc": {"defaultMaxUsedSpace": "lots"}}"#, "defaultMaxUsedSpace"),
            (r#"{"gc": {"x": 1}}"#, "unknown field `x`"),
        ] {
            let error = format!("{:#}", read(json).unwrap_err());
            assert!(error.contains(text), "{error}");
        }
    }
}
