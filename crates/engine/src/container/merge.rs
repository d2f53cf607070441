//! A container's configuration: what the request says over what the image says (moby `daemon/commit.go`, `merge`).

use std::collections::BTreeMap;

use ferry_api::Empty;
use ferry_api::container::{Config, HealthCheck};
use ferry_storage::Image;

use crate::error::{Error, Result};

/// The image's configuration in the API's shape, from its JSON: the API's is a superset of OCI's.
pub(crate) fn image_config(image: &Image) -> Result<Config> {
    let raw: serde_json::Value = serde_json::from_slice(&image.raw_config)
        .map_err(|error| Error::internal(format!("read the configuration of image {}", image.id), &error))?;
    let config = raw.get("config").cloned().unwrap_or_default();
    if config.is_null() {
        return Ok(Config::default());
    }
    serde_json::from_value(config)
        .map_err(|error| Error::internal(format!("read the configuration of image {}", image.id), &error))
}

/// Fills in what the request leaves to the image.
pub(crate) fn merge(config: &mut Config, image: Config) {
    if config.user.is_empty() {
        config.user = image.user;
    }
    for (port, value) in image.exposed_ports {
        config.exposed_ports.entry(port).or_insert(value);
    }
    merge_env(config, image.env);
    if let Some(labels) = image.labels {
        let own = config.labels.get_or_insert_default();
        for (key, value) in labels {
            own.entry(key).or_insert(value);
        }
    }
    // An entrypoint of the request's own takes the image's command away.
    if config.entrypoint.as_ref().is_none_or(|words| words.is_empty()) {
        if config.cmd.as_ref().is_none_or(|words| words.is_empty()) {
            config.cmd = image.cmd;
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint;
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir;
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal;
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    if config.shell.is_none() {
        config.shell = image.shell;
    }
    if let Some(volumes) = image.volumes {
        let own: &mut BTreeMap<String, Empty> = config.volumes.get_or_insert_default();
        for (path, value) in volumes {
            own.entry(path).or_insert(value);
        }
    }
    config.volumes = config.volumes.take().filter(|volumes| !volumes.is_empty());
    merge_health(&mut config.healthcheck, image.healthcheck);
}

fn merge_env(config: &mut Config, image: Option<Vec<String>>) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let own = config.env.get_or_insert_default();
    let names: Vec<String> = own.iter().map(|entry| name(entry)).collect();
    own.extend(
        image
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| !names.contains(&name(entry))),
    );
}

/// Puts `entries` into an environment as Docker does (moby `container.ReplaceOrAppendEnvVars`): one takes the place of another of
/// its name, and a name without a value (`-e NAME` of a variable that the client does not have) takes it away.
pub(super) fn overlay_env(env: &mut Vec<String>, entries: impl IntoIterator<Item = String>) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in entries {
        let known = env.iter().position(|known| name(known) == name(&entry));
        match (known, entry.contains('=')) {
            (Some(place), true) => env[place] = entry,
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry),
            (None, false) => {}
        }
    }
}

fn merge_health(own: &mut Option<HealthCheck>, image: Option<HealthCheck>) {
    let Some(image) = image else { return };
    match own {
        None => {
            *own = Some(HealthCheck {
                // What becomes of a container is not for its image to say.
                on_failure: String::new(),
                ..image
            });
        }
        Some(own) => {
            if own.test.is_empty() {
                own.test = image.test;
            }
            for (own, image) in [
                (&mut own.interval, image.interval),
                (&mut own.timeout, image.timeout),
                (&mut own.start_period, image.start_period),
                (&mut own.start_interval, image.start_interval),
                (&mut own.retries, image.retries),
            ] {
                if *own == 0 {
                    *own = image;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_value_is_kept_and_takes_the_variable_away() {
        let owned = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>();
        let mut config = Config {
            env: Some(owned(&["GONE", "B="])),
            ..Config::default()
        };
        merge_env(&mut config, Some(owned(&["GONE=image", "KEPT=image"])));
        let own = config.env.unwrap();
        assert_eq!(own, ["GONE", "B=", "KEPT=image"]);
        let mut env = owned(&["PATH=/bin", "GONE=default"]);
        overlay_env(&mut env, own.into_iter().chain(owned(&["PATH=/own"])));
        assert_eq!(env, ["PATH=/own", "B=", "KEPT=image"]);
    }
}
