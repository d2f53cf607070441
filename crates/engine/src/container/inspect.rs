//! A container as `inspect` shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_api::Timestamp;
use ferry_api::container::{GraphDriver, Inspect, State};
use ferry_api::network::NetworkSettings;

use super::handle::Snapshot;
use super::health;
use super::record::Record;
use super::state::Status;
use super::{files, links};
use crate::error::Result;
use crate::networks;
use crate::world::World;

/// The name scripts expect of an overlay store.
const DRIVER: &str = "overlay2";

pub(super) async fn inspect(world: &Arc<World>, snapshot: &Snapshot, size: bool) -> Result<Inspect> {
    let record = &snapshot.record;
    let file = |name: &str| files::path(record, world, name).to_string_lossy().into_owned();
    let usage = match size {
        true => Some(world.store.snapshots.usage(&record.id).await?),
        false => None,
    };
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut host_config = record.host_config.clone();
    if let Some(links) = links::shown(record, world) {
        host_config.links = Some(links);
    }
    host_config.binds = host_config.binds.filter(|binds| !binds.is_empty());
    Ok(Inspect {
        id: record.id.clone(),
        created: Timestamp(record.created),
        path: record.path.clone(),
        args: Some(record.args.clone()),
        state: Some(state(record)),
        image: record.image.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: crate::logs::options::shown_path(record, world),
        name: format!("/{}", record.name),
        restart_count: i64::from(record.run.restarts),
        driver: DRIVER.to_owned(),
        platform: record.platform.clone(),
        app_armor_profile: world.apparmor.shown(record),
        exec_ids: (!snapshot.execs.is_empty()).then(|| snapshot.execs.clone()),
        host_config: Some(host_config),
        graph_driver: graph_driver(world, record),
        size_rw: usage.map(|usage| bytes(usage.rw)),
        size_root_fs: usage.map(|usage| bytes(usage.root_fs)),
        mounts: Some(super::point::shown(&record.mounts)),
        config: Some(record.config.clone()),
        network_settings: Some(network_settings(world, record)),
        ..Inspect::default()
    })
}

fn state(record: &Record) -> State {
    let run = &record.run;
    let at = |at: Option<jiff::Timestamp>| at.map_or(Timestamp::ZERO, Timestamp);
    State {
        status: run.status.name().to_owned(),
        // As in Docker, a paused and a restarting container count as running.
        running: run.status.is_live() || run.status == Status::Restarting,
        paused: run.status == Status::Paused,
        restarting: run.status == Status::Restarting,
        oom_killed: run.oom_killed,
        dead: run.status == Status::Dead,
        pid: i64::from(run.pid),
        exit_code: i64::from(run.exit_code),
        error: run.error.clone(),
        started_at: at(run.started_at),
        finished_at: at(run.finished_at),
        health: run.health.as_ref().map(health::shown),
    }
}

fn graph_driver(world: &World, record: &Record) -> GraphDriver {
    let mut data = BTreeMap::from([("ID".to_owned(), record.id.clone())]);
    if let Ok(snapshot) = world.store.snapshots.get(&record.id) {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let lower: Vec<String> = snapshot.layers.iter().map(|path| text(path)).collect();
        data.insert("LowerDir".to_owned(), lower.join(":"));
        data.insert("UpperDir".to_owned(), text(&snapshot.upper));
        data.insert("WorkDir".to_owned(), text(&snapshot.work));
        // Never mounted on the host: the container's own view is the only one.
        data.insert(
            "MergedDir".to_owned(),
            text(&world.container_dir(&record.id).join("merged")),
        );
    }
    GraphDriver {
        data: Some(data),
        name: DRIVER.to_owned(),
    }
}

fn network_settings(world: &World, record: &Record) -> NetworkSettings {
    let endpoint = networks::main_settings(world, record);
    let running = record.run.status.is_live();
    let mut settings = NetworkSettings {
        ports: Some(networks::publish::shown(record)),
        ..NetworkSettings::default()
    };
    if running {
        settings.sandbox_id.clone_from(&record.id);
        settings.sandbox_key = format!("/proc/{}/ns/net", record.run.pid);
    }
    let kind = networks::kind_of(record);
    if kind == ferry_api::network::mode::BRIDGE {
        settings.endpoint_id.clone_from(&endpoint.endpoint_id);
        settings.gateway.clone_from(&endpoint.gateway);
        settings.ip_address.clone_from(&endpoint.ip_address);
        settings.ip_prefix_len = endpoint.ip_prefix_len;
        settings.mac_address.clone_from(&endpoint.mac_address);
    }
    settings.networks = Some(networks::membership::shown(world, record));
    settings
}
