//! Containers as `ps` shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::container::{HostConfigSummary, NetworkSettingsSummary, Summary, health_status, status};
use ferry_kit::units;
use jiff::Timestamp;

use super::handle::Snapshot;
use super::health;
use super::record::Record;
use super::state::Status;
use super::{ListOptions, links};
use crate::error::{Error, Result};
use crate::images;
use crate::networks;
use crate::world::World;

const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "kind",
    "mount",
];

pub(super) async fn list(world: &Arc<World>, options: &ListOptions, mut take: impl FnMut(Summary)) -> Result<()> {
    let filters = &options.filters;
    let invalid = |error: ferry_api::Error| Error::invalid(error.to_string());
    filters.validate(&FILTERS).map_err(invalid)?;
    let wanted = Wanted::parse(world, filters)?;
    let mut snapshots: Vec<Arc<Snapshot>> = world.containers.all().iter().map(super::Handle::snapshot).collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.record.created));
    let all = options.all || options.limit > 0 || filters.contains("status") || filters.contains("exited");
    let linked = links::names(world);
    let mut count = 0;
    for snapshot in snapshots {
        let record = &snapshot.record;
        let shown = all || record.run.status.is_live() || record.run.status == Status::Restarting;
        if !shown || !wanted.matches(world, record) {
            continue;
        }
        let mut summary = summary(world, record, options.size).await?;
        if let (Some(names), Some(links)) = (&mut summary.names, linked.get(&record.id)) {
            names.extend(links.iter().cloned());
        }
        take(summary);
        count += 1;
        if options.limit > 0 && count == options.limit {
            break;
        }
    }
    Ok(())
}

/// The filters, read once.
struct Wanted<'a> {
    filters: &'a Filters,
    exited: Vec<i32>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    ancestors: Option<Vec<String>>,
}

impl<'a> Wanted<'a> {
    fn parse(world: &World, filters: &'a Filters) -> Result<Self> {
        for value in filters.values("status") {
            if !status::ALL.contains(&value) {
                return Err(Error::invalid(format!(
                    "invalid filter 'status={value}': invalid value for state ({value}): must be one of {}",
                    status::ALL.join(", ")
                )));
            }
        }
        for value in filters.values("health") {
            if !health_status::ALL.contains(&value) {
                return Err(Error::invalid(format!(
                    "invalid filter 'health={value}': invalid value for health ({value}): must be one of {}",
                    health_status::ALL.join(", ")
                )));
            }
        }
        let code = |value: &str| {
            value
                .parse()
                .map_err(|_| Error::invalid(format!("invalid filter 'exited={value}': want an exit code")))
        };
        let created = |key: &str| -> Result<Option<Timestamp>> {
            let name = filters.values(key).next();
            name.map(|name| Ok(world.containers.find(name)?.snapshot().record.created))
                .transpose()
        };
        // An ancestor is an image, or any image that has its layers at the bottom.
        let ancestors = filters.contains("ancestor").then(|| {
            let found = filters
                .values("ancestor")
                .filter_map(|name| images::find(world, name).ok());
            let bases: Vec<_> = found.collect();
            let is_descendant = |image: &ferry_storage::Image| {
                let chain = |image: &ferry_storage::Image| {
                    image
                        .layers
                        .iter()
                        .map(|layer| layer.chain_id.clone())
                        .collect::<Vec<_>>()
                };
                let own = chain(image);
                bases
                    .iter()
                    .any(|base| base.id == image.id || own.starts_with(&chain(base)))
            };
            world
                .store
                .images
                .list()
                .iter()
                .filter(|image| is_descendant(image))
                .map(|image| image.id.to_string())
                .collect()
        });
        Ok(Self {
            filters,
            exited: filters.values("exited").map(code).collect::<Result<_>>()?,
            before: created("before")?,
            since: created("since")?,
            ancestors,
        })
    }

    fn matches(&self, world: &World, record: &Record) -> bool {
        let filters = self.filters;
        let empty = BTreeMap::new();
        let name = filters.pattern("name", &format!("/{}", record.name)) || filters.pattern("name", &record.name);
        let network = || {
            let shown = networks::membership::shown(world, record);
            let is = |value: &str| {
                shown.iter().any(|(name, settings)| {
                    let id = settings.as_ref().map_or("", |settings| settings.network_id.as_str());
                    name == value || (!id.is_empty() && id == value)
                }) || networks::kind_of(record) == value
            };
            filters.values("network").any(is)
        };
        let volume = || {
            filters.values("volume").any(|value| {
                record
                    .mounts
                    .iter()
                    .any(|point| point.destination == value || point.source == value || point.name == value)
            })
        };
        name && filters.prefix("id", &record.id)
            && filters.labels("label", record.config.labels.as_ref().unwrap_or(&empty))
            && filters.exact("status", record.run.status.name())
            && (self.exited.is_empty()
                || record.run.status == Status::Exited && self.exited.contains(&record.run.exit_code))
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (!filters.contains("network") || network())
            && (!filters.contains("volume") || volume())
            && filters.exact("health", health::status(record))
            && (!filters.contains("publish") || publishes(filters, record))
            && !(filters.contains("is-task") && filters.flag("is-task", false).unwrap_or(false))
            && (!filters.contains("expose")
                || record
                    .config
                    .exposed_ports
                    .keys()
                    .any(|port| filters.exact("expose", port)))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&record.image))
    }
}

/// `--filter publish=80`, `80/udp`, `80-90`: a published port of the container's.
fn publishes(filters: &Filters, record: &Record) -> bool {
    let wanted = |value: &str| {
        let (ports, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return false;
        };
        record.ports.iter().any(|mapping| {
            mapping.protocol.name() == protocol
                && mapping.to_port <= last
                && first <= mapping.to_port.saturating_add(mapping.count.saturating_sub(1))
        })
    };
    filters.values("publish").any(wanted)
}

async fn summary(world: &Arc<World>, record: &Record, size: bool) -> Result<Summary> {
    let usage = match size {
        true => Some(world.store.snapshots.usage(&record.id).await?),
        false => None,
    };
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let words = std::iter::once(&record.path).chain(&record.args);
    let quoted = |word: &String| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    };
    let command: Vec<String> = words.map(quoted).collect();
    Ok(Summary {
        id: record.id.clone(),
        names: Some(vec![format!("/{}", record.name)]),
        image: shown_image(world, record),
        image_id: record.image.clone(),
        command: command.join(" "),
        created: record.created.as_second(),
        ports: Some(networks::publish::summary(record)),
        size_rw: usage.map_or(0, |usage| bytes(usage.rw)),
        size_root_fs: usage.map_or(0, |usage| bytes(usage.root_fs)),
        labels: Some(record.config.labels.clone().unwrap_or_default()),
        state: record.run.status.name().to_owned(),
        status: status_text(record, Timestamp::now()),
        host_config: HostConfigSummary {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: Some(NetworkSettingsSummary {
            networks: Some(networks::membership::shown(world, record)),
        }),
        mounts: Some(super::point::shown(&record.mounts)),
        ..Summary::default()
    })
}

/// The name the user gave, unless it means another image by now.
fn shown_image(world: &World, record: &Record) -> String {
    match world.store.images.resolve(&record.image_name) {
        Ok(image) if image.id.to_string() == record.image => record.image_name.clone(),
        _ => record.image.clone(),
    }
}

/// `Up 3 minutes (Paused)`, `Exited (0) 2 hours ago`.
fn status_text(record: &Record, now: Timestamp) -> String {
    let run = &record.run;
    let ago = |at: Option<Timestamp>| {
        let seconds = at.map_or(0, |at| now.duration_since(at).as_secs().max(0));
        units::human_duration(seconds as f64)
    };
    match run.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}{}", ago(run.started_at), health::suffix(record)),
        Status::Paused => format!("Up {} (Paused)", ago(run.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", run.exit_code, ago(run.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited if run.finished_at.is_none() => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", run.exit_code, ago(run.finished_at)),
    }
}
