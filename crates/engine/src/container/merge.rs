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
    // `-e NAME` without a value, for a variable the client does not have, takes it away.
    own.retain(|entry| entry.contains('='));
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
