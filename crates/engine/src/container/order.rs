//! In which order containers come back with the engine: what compose says of its services, in labels that were given when
//! the container was made. Labels of an image never count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ferry_supervise::HealthStatus;

use super::handle::{Handle, Snapshot};
use super::record::Record;
use super::state::Status;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// How long a container waits for those it depends on; then it is started all the same.
const PATIENCE: Duration = Duration::from_secs(120);

/// What has to be true of a container that another one depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Started,
    Healthy,
    Completed,
}

/// A container's place among others.
#[derive(Debug)]
pub(crate) struct Place {
    id: String,
    /// Project and service.
    service: Option<(String, String)>,
    depends_on: Vec<(String, Wanted)>,
}

/// By container: those that it waits for.
type Waits = BTreeMap<String, Vec<(String, Wanted)>>;

impl Place {
    pub fn of(record: &Record) -> Self {
        let label = |name: &str| {
            let given = record.given_labels.iter().any(|given| given == name);
            let labels = record.config.labels.as_ref().filter(|_| given);
            labels.and_then(|labels| labels.get(name)).map(String::as_str)
        };
        Self {
            id: record.id.clone(),
            service: label(PROJECT)
                .zip(label(SERVICE))
                .map(|(project, service)| (project.to_owned(), service.to_owned())),
            depends_on: label(DEPENDS_ON).map(parse).unwrap_or_default(),
        }
    }
}

/// `db:service_healthy:true,cache:service_started:false`. What cannot be read is left out.
fn parse(label: &str) -> Vec<(String, Wanted)> {
    let one = |entry: &str| {
        let mut parts = entry.split(':');
        let service = parts.next().filter(|service| !service.is_empty())?;
        let wanted = match parts.next() {
            None | Some("service_started") => Wanted::Started,
            Some("service_healthy") => Wanted::Healthy,
            Some("service_completed_successfully") => Wanted::Completed,
            Some(_) => return None,
        };
        Some((service.to_owned(), wanted))
    };
    label.split(',').filter_map(one).collect()
}

/// Who waits for whom. Of services that depend on each other in a circle none waits.
fn waits(places: &[Place]) -> Waits {
    let mut services: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for place in places {
        if let Some((project, service)) = &place.service {
            services.entry((project, service)).or_default().push(&place.id);
        }
    }
    let mut waits = Waits::new();
    for place in places {
        let Some((project, own)) = &place.service else { continue };
        for (service, wanted) in place.depends_on.iter().filter(|(service, _)| service != own) {
            for id in services
                .get(&(project.as_str(), service.as_str()))
                .into_iter()
                .flatten()
            {
                waits
                    .entry(place.id.clone())
                    .or_default()
                    .push(((*id).to_owned(), *wanted));
            }
        }
    }
    // What is left when everybody has gone whose wait can end is a circle, or waits for one.
    let mut left: BTreeSet<String> = waits.keys().cloned().collect();
    loop {
        let free: Vec<String> = left
            .iter()
            .filter(|id| {
                waits
                    .get(*id)
                    .into_iter()
                    .flatten()
                    .all(|(other, _)| !left.contains(other))
            })
            .cloned()
            .collect();
        if free.is_empty() {
            break;
        }
        for id in free {
            left.remove(&id);
        }
    }
    for id in &left {
        if let Some(others) = waits.get_mut(id) {
            others.retain(|(other, _)| !left.contains(other));
        }
    }
    waits
}

fn is_met(snapshot: &Arc<Snapshot>, wanted: Wanted) -> bool {
    let run = &snapshot.record.run;
    // One that does not come up is waited for no longer, whatever is wanted of it.
    let failed = snapshot.removed || (snapshot.ended.count > 0 && run.status == Status::Exited);
    failed
        || match wanted {
            Wanted::Started => run.status.is_live(),
            // Without a check there is nothing to wait for.
            Wanted::Healthy => {
                run.status.is_live()
                    && run
                        .health
                        .as_ref()
                        .is_none_or(|health| health.status == HealthStatus::Healthy)
            }
            Wanted::Completed => run.status == Status::Exited && run.exit_code == 0,
        }
}

/// Starts these containers, each as soon as what it depends on is there. `all`: everybody's places.
pub(crate) fn start(places: &[Place], again: Vec<Handle>, all: &[Handle], spawn: impl Fn(Start)) {
    let mut waits = waits(places);
    let by_id: BTreeMap<&str, &Handle> = all.iter().map(|handle| (handle.id(), handle)).collect();
    let coming: BTreeSet<String> = again.iter().map(|handle| handle.id().to_owned()).collect();
    for handle in again {
        let others = waits.remove(handle.id()).unwrap_or_default();
        let others = others.into_iter().filter_map(|(id, wanted)| {
            let other = by_id.get(id.as_str())?;
            let runs = other.snapshot().record.run.status.is_live();
            // One that neither runs nor is about to is not going to.
            (runs || coming.contains(&id)).then(|| ((*other).clone(), wanted))
        });
        spawn(Start {
            others: others.collect(),
            handle,
        });
    }
}

/// A start that waits for others.
pub(crate) struct Start {
    handle: Handle,
    others: Vec<(Handle, Wanted)>,
}

impl Start {
    pub async fn run(self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for (other, wanted) in self.others {
            let mut published = other.watch();
            let met = published.wait_for(|snapshot| is_met(snapshot, wanted));
            if tokio::time::timeout_at(deadline, met).await.is_err() {
                tracing::warn!(
                    container = self.handle.id(),
                    waits_for = other.id(),
                    "started although what it depends on is not there"
                );
            }
        }
        if let Err(error) = self.handle.start().await {
            tracing::error!(container = self.handle.id(), %error, "cannot start the container again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: &str, project: &str, service: &str, depends_on: &str) -> Place {
        Place {
            id: id.to_owned(),
            service: Some((project.to_owned(), service.to_owned())),
            depends_on: parse(depends_on),
        }
    }

    #[test]
    fn services_wait_for_those_of_their_own_project() {
        let places = [
            place("1", "p", "db", ""),
            place("2", "p", "db", ""),
            place(
                "3",
                "p",
                "web",
                "db:service_healthy:true,gone:service_started:false,db2",
            ),
            place("4", "q", "web", "db:service_started:false"),
            place(
                "5",
                "p",
                "job",
                "web:service_completed_successfully:false,x:nonsense,,:",
            ),
        ];
        let waits = waits(&places);
        let text: Vec<_> = waits
            .iter()
            .map(|(id, others)| {
                (
                    id.as_str(),
                    others
                        .iter()
                        .map(|(other, wanted)| (other.as_str(), *wanted))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            text,
            [
                ("3", vec![("1", Wanted::Healthy), ("2", Wanted::Healthy)]),
                ("5", vec![("3", Wanted::Completed)]),
            ]
        );
    }

    #[test]
    fn a_circle_waits_for_nobody_in_it() {
        let places = [
            place("1", "p", "a", "b"),
            place("2", "p", "b", "a,c"),
            place("3", "p", "c", ""),
            place("4", "p", "self", "self"),
        ];
        let waits = waits(&places);
        assert!(waits["1"].is_empty());
        assert_eq!(waits["2"], [("3".to_owned(), Wanted::Started)]);
        assert!(!waits.contains_key("4"));
    }
}
