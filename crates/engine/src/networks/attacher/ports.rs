//! Published ports of containers that run: moved, changed, taken back, listed.

use std::sync::Arc;

use ferry_api::network::HeldPort;
use ferry_network::ports::{Mapping, Publish};
use ferry_supervise::Task;

use super::{Attacher, out};
use crate::container::Record;
use crate::error::{Error, Result};
use crate::networks::failure::{blocking, explain, run};
use crate::networks::publish;
use crate::world::World;

impl Attacher {
    /// Publishes ports at the endpoint that is the way out now, if they are at another one.
    pub(super) async fn move_ports(&self, world: &Arc<World>, record: &mut Record, task: &Task) -> Result<()> {
        let endpoint = out(&record.endpoints);
        let right = |mapping: &Mapping| {
            endpoint.is_some_and(|endpoint| endpoint.addresses().any(|(address, _)| address == mapping.to))
        };
        if record.ports.iter().all(right) {
            return Ok(());
        }
        let requests = match endpoint {
            Some(_) => publish::again(&record.ports),
            None => Vec::new(),
        };
        let old = record.ports.clone();
        self.exchange(world, record, task, old, Vec::new(), requests).await
    }

    /// Takes the container's ports back: when this returns, they are free.
    pub async fn unpublish(&self, record: &mut Record) {
        let ports = std::mem::take(&mut record.ports);
        let Some(fabric) = self.fabric.clone().filter(|_| !ports.is_empty()) else {
            return;
        };
        let id = record.id.clone();
        if let Err(error) = run("take back the container's ports", move || fabric.close(&id, &ports)).await {
            tracing::warn!(container = record.id, %error, "cannot take back the container's ports");
        }
    }

    pub async fn ports(&self, world: &Arc<World>) -> Result<Vec<HeldPort>> {
        let Some(fabric) = self.fabric.clone() else {
            return Ok(Vec::new());
        };
        let (published, sockets) = run("look up the host's ports", move || {
            let sockets = fabric.sockets()?;
            let inodes: Vec<_> = sockets.iter().map(|socket| socket.inode).collect();
            let owners = ferry_network::ports::owners(&inodes);
            Ok((fabric.published(), publish::with_owners(sockets, &owners)))
        })
        .await?;
        let name = |id: &str| {
            let found = world.containers.find(id);
            found
                .map(|handle| handle.snapshot().record.name.clone())
                .unwrap_or_default()
        };
        Ok(publish::held(&published, &sockets, name))
    }

    /// Ports more, and ports less, of a container that runs: all of that or nothing. Connections of others go on.
    pub async fn republish(
        &self,
        world: &Arc<World>,
        record: &mut Record,
        task: &Task,
        add: Vec<Publish>,
        remove: &[Publish],
    ) -> Result<()> {
        let (mut gone, mut left) = (Vec::new(), Vec::new());
        for mapping in &record.ports {
            let rest = publish::without(mapping, remove);
            if !matches!(rest.as_slice(), [whole] if whole == mapping) {
                gone.push(*mapping);
                left.extend(rest);
            }
        }
        self.exchange(world, record, task, gone, left, add).await
    }

    /// Ports of the container's go, but for what is left of them, and others come: all of that or nothing.
    async fn exchange(
        &self,
        world: &Arc<World>,
        record: &mut Record,
        task: &Task,
        gone: Vec<Mapping>,
        left: Vec<Mapping>,
        add: Vec<Publish>,
    ) -> Result<()> {
        let endpoint = out(&record.endpoints).cloned();
        if endpoint.is_none() && !add.is_empty() {
            return Err(Error::conflict(format!(
                "container {} is on no network that ports could be published at",
                record.name
            )));
        }
        let before = publish::relays(&record.ports);
        let kept: Vec<_> = record
            .ports
            .iter()
            .filter(|port| !gone.contains(port))
            .chain(&left)
            .copied()
            .collect();
        let kept_relays = publish::relays(&kept);
        // Its own sockets are not to be in the way of what comes.
        if kept_relays != before {
            task.relay(kept_relays.clone()).await?;
        }
        let (fabric, id) = (self.fabric()?, record.id.clone());
        let changed = {
            let (fabric, id, gone, left) = (Arc::clone(&fabric), id.clone(), gone.clone(), left.clone());
            blocking(move || {
                fabric.reduce(&id, &gone, &left)?;
                match endpoint.filter(|_| !add.is_empty()) {
                    Some(endpoint) => fabric.publish(&id, &endpoint, &add),
                    None => Ok(Vec::new()),
                }
            })
            .await?
        };
        let (added, failed) = match changed {
            Ok(added) => {
                let all = [kept.as_slice(), &added].concat();
                let relays = publish::relays(&all);
                let told = match relays != kept_relays {
                    true => task.relay(relays).await.map_err(Error::from),
                    false => Ok(()),
                };
                match told {
                    Ok(()) => {
                        record.ports = all;
                        return Ok(());
                    }
                    Err(error) => (added, error),
                }
            }
            Err(error) => (Vec::new(), explain(world, record, &error)),
        };
        // What was there before is there again; if even that fails, the first failure is what is told.
        record.ports.retain(|port| !gone.contains(port));
        let endpoint = out(&record.endpoints).cloned();
        let restored = blocking(move || {
            fabric.unpublish(&id, &added)?;
            fabric.unpublish(&id, &left)?;
            match endpoint {
                Some(endpoint) => fabric.publish(&id, &endpoint, &publish::again(&gone)),
                None => Ok(Vec::new()),
            }
        });
        record.ports.extend(restored.await?.unwrap_or_default());
        let _ = task.relay(publish::relays(&record.ports)).await;
        Err(failed)
    }
}
