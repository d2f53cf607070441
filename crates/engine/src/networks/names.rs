//! What containers' resolvers know: a zone file a network, a settings file a container, read by the shims (ADR 9).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ferry_dns::{Link, Settings, ZoneFile};

use super::membership::{dns_names, wanted};
use crate::container::Record;
use crate::world::World;

/// The zones of all networks, written whenever one changes.
#[derive(Debug)]
pub(crate) struct Names {
    dir: PathBuf,
    /// By network, by endpoint.
    zones: Mutex<BTreeMap<String, BTreeMap<String, ferry_dns::Endpoint>>>,
}

impl Names {
    pub fn new(exec_root: &Path) -> Self {
        Self {
            dir: exec_root.join("networks"),
            zones: Mutex::default(),
        }
    }

    fn zone(&self, network: &str) -> PathBuf {
        self.dir.join(network).join("zone")
    }

    /// Makes the container's endpoints known: when this returns, its neighbours resolve its names.
    pub fn publish(&self, world: &World, record: &Record) {
        for (name, settings) in wanted(record) {
            let Ok(network) = world.networks.find(&name) else {
                continue;
            };
            let Some(names) = dns_names(record, &network.name, &settings) else {
                continue;
            };
            let Some(endpoint) = record
                .endpoints
                .iter()
                .find(|endpoint| endpoint.network_id == network.id)
            else {
                continue;
            };
            let mut names = names.into_iter().filter(|name| ferry_dns::is_name(name));
            let known = ferry_dns::Endpoint {
                name: names.next().unwrap_or_default(),
                aliases: names.collect(),
                addresses: endpoint.addresses().map(|(address, _)| address).collect(),
            };
            self.change(&network.id, |zone| {
                zone.insert(endpoint.endpoint_id.clone(), known);
            });
        }
    }

    pub fn forget(&self, network: &str, endpoint: &str) {
        self.change(network, |zone| {
            zone.remove(endpoint);
        });
    }

    pub fn remove_network(&self, network: &str) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.remove(network);
        let _ = std::fs::remove_dir_all(self.dir.join(network));
    }

    fn change(&self, network: &str, change: impl FnOnce(&mut BTreeMap<String, ferry_dns::Endpoint>)) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = zones.entry(network.to_owned()).or_default();
        change(zone);
        let text = ferry_dns::Zone::write(zone.values());
        // Under the lock, so that an older state never replaces a newer one.
        if let Err(error) = replace(&self.zone(network), text.as_bytes()) {
            tracing::error!(network, %error, "cannot write the network's names");
        }
    }

    /// What the container's resolver is to do.
    pub fn settings(&self, world: &World, record: &Record) -> Settings {
        let mut zones = Vec::new();
        let mut links = Vec::new();
        let mut forward = false;
        let mut wanted: Vec<_> = wanted(record).into_iter().collect();
        // As the way out is chosen: by priority, then by name.
        wanted.sort_by_key(|(_, settings)| std::cmp::Reverse(settings.gw_priority));
        for (name, settings) in &wanted {
            let Ok(network) = world.networks.find(name) else {
                continue;
            };
            forward |= !network.internal;
            zones.push(ZoneFile {
                path: self.zone(&network.id),
                network: network.name.clone(),
            });
            let of_network = settings.links.iter().flatten().filter_map(|link| {
                let (target, alias) = super::link_parts(link);
                // An id is known by its first digits.
                let found = world.containers.find(target).ok();
                let target = found.map_or_else(|| target.to_owned(), |handle| handle.snapshot().record.name.clone());
                ferry_dns::is_name(alias).then(|| Link {
                    alias: alias.to_owned(),
                    target,
                    network: network.name.clone(),
                })
            });
            links.extend(of_network);
        }
        links.truncate(ferry_dns::MAX_LINKS);
        let host = world.networks.host.get();
        let mut servers = host.upstreams(record);
        servers.truncate(ferry_dns::MAX_SERVERS);
        let given = host.asked(&record.host_config.dns_options, &host.dns.options);
        let option = |wanted: &str| {
            let mut values = given
                .into_iter()
                .flatten()
                .filter_map(|option| option.split_once(':').filter(|(name, _)| *name == wanted));
            values.find_map(|(_, value)| value.parse().ok())
        };
        Settings {
            zones,
            links,
            servers,
            forward,
            options: ferry_dns::Options {
                ndots: option("ndots"),
                timeout: option("timeout"),
                attempts: option("attempts"),
            },
        }
    }

    /// Whether the container that runs has a resolver.
    pub fn has_resolver(world: &World, record: &Record) -> bool {
        settings_path(world, record).exists()
    }

    /// Writes the settings to the container's run directory, and says where they are.
    pub fn write_settings(&self, world: &World, record: &Record) -> io::Result<PathBuf> {
        let path = settings_path(world, record);
        let settings = serde_json::to_vec(&self.settings(world, record))?;
        // A resolver that reads them again forgets what it was told.
        if std::fs::read(&path).ok().as_ref() != Some(&settings) {
            replace(&path, &settings)?;
        }
        Ok(path)
    }
}

fn settings_path(world: &World, record: &Record) -> PathBuf {
    world.run_dir(&record.id).join("dns.json")
}

/// The file appears whole or not at all. It is the run's: nothing of it need survive a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let next = path.with_extension("next");
    std::fs::write(&next, bytes)?;
    std::fs::rename(next, path)
}
