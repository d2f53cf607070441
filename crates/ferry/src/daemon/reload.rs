//! SIGHUP: the file is read again. What may change while the engine runs does; what needs a restart is named; of a file that is
//! wrong, nothing is taken.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ferry_engine::Engine;
use ferry_engine::config::Reload;
use ferry_server::Acceptor;
use serde_json::{Map, Value};

use super::flags::Flags;
use super::log::Level;
use super::service::Manager;
use super::settings::Settings;

/// Keys that are taken while the engine runs.
const LIVE: &[&str] = &[
    "debug",
    "log-level",
    "labels",
    "registry-mirrors",
    "mirrors",
    "insecure-registries",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "proxies",
    "default-ulimits",
    "default-shm-size",
    "default-cgroupns-mode",
    "default-ipc-mode",
    "init",
    "no-new-privileges",
    "seccomp-profile",
    "userns-remap",
    "runtimes",
    "default-runtime",
    "tlscacert",
    "tlscert",
    "tlskey",
];

/// What is needed to begin again with the same command line.
#[derive(Debug)]
pub struct Reloader {
    pub flags: Flags,
    /// The file's keys as they were last read.
    pub keys: Map<String, Value>,
    pub level: Level,
    pub engine: Engine,
    /// Shared with the ports that use it.
    pub acceptor: Option<Acceptor>,
    pub manager: Manager,
    pub environment: fn(&str) -> Option<String>,
}

impl Reloader {
    /// Never fails: what went wrong is in the log, as what changed is.
    pub async fn reload(&mut self) {
        self.manager.reloading();
        let flags = self.flags.clone();
        let environment = self.environment;
        let read = tokio::task::spawn_blocking(move || Settings::merge(flags, &environment)).await;
        let done = read
            .context("read the settings")
            .and_then(|settings| self.take(settings?));
        if let Err(error) = done {
            tracing::error!("Error reloading configuration: {error:#}; everything stays as it was");
        }
        self.manager.ready();
    }

    fn take(&mut self, settings: Settings) -> Result<()> {
        let certificates = match &self.acceptor {
            Some(own) => settings.tls.acceptor(&[])?.map(|read| (own, read)),
            None => None,
        };
        let (changed, late) = changes(&self.keys, &settings.keys);
        let engine = settings.engine;
        self.engine.reload(Reload {
            debug: engine.debug,
            labels: engine.labels,
            registries: engine.registries,
            containers: engine.containers,
            runtimes: engine.runtimes,
            more: more(&settings.keys),
        })?;
        self.level.set(settings.log_level);
        if let Some((own, read)) = certificates {
            own.replace(&read);
        }
        for note in settings.notes {
            tracing::info!("{note}");
        }
        let none = |names: &[String]| match names {
            [] => "nothing".to_owned(),
            names => names.join(", "),
        };
        tracing::info!(changed = none(&changed), "Reloaded configuration");
        if !late.is_empty() {
            tracing::warn!(
                keys = late.join(", "),
                "these changes need a restart of the daemon; containers run on meanwhile"
            );
        }
        // What waits for a restart is named again as long as it waits.
        for key in &changed {
            match settings.keys.get(key) {
                Some(value) => drop(self.keys.insert(key.clone(), value.clone())),
                None => drop(self.keys.remove(key)),
            }
        }
        Ok(())
    }
}

/// Keys whose value is another one: those that are taken, and those that are not.
fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> (Vec<String>, Vec<String>) {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let different = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let taken = |key: &String| LIVE.contains(&key.as_str()) || super::others::is_known(key);
    different.cloned().partition(taken)
}

/// Of dockerd's event, what sets nothing here.
fn more(keys: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |key: &str, usual: &str| {
        let value = keys.get(key).map_or_else(|| usual.to_owned(), Value::to_string);
        (key.to_owned(), value.trim_matches('"').to_owned())
    };
    [text("shutdown-timeout", "15"), text("features", "{}")].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_taken_or_named() {
        let keys = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let before = keys(r#"{"debug":true,"labels":["a=b"],"mtu":1500,"hosts":["unix:///a"]}"#);
        let after = keys(r#"{"labels":["a=b"],"mtu":1400,"hosts":["unix:///a"],"init":true,"features":{"x":true}}"#);
        let (taken, late) = changes(&before, &after);
        assert_eq!(
            (taken, late),
            (
                ["debug", "features", "init"].map(str::to_owned).to_vec(),
                vec!["mtu".to_owned()]
            )
        );
        assert_eq!(changes(&after, &after), (Vec::new(), Vec::new()));
        assert_eq!(more(&after)["shutdown-timeout"], "15");
    }

    /// A typing error here would never be seen.
    #[test]
    fn every_key_that_is_taken_is_one() {
        for key in LIVE {
            let known = super::super::file::File::keys(key);
            assert!(known, "{key}");
        }
    }
}
