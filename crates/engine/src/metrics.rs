//! What Prometheus reads of the engine (`metrics-addr`): dockerd's own metrics, and what containers use under the names that
//! cAdvisor gives it, since dashboards ask for these.
//!
//! Nothing is gathered while nobody asks: what is counted is counted where it happens, and a scrape takes the samples of
//! [`Sampler`](crate::stats::Sampler), which it shares with everybody else who watches.

mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::usage::Usage;
use crate::container::Status;
use crate::world::World;

/// As Go's client library has them by default.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// What is timed of containers (moby `daemon/metrics.go`).
const ACTIONS: [&str; 5] = ["changes", "commit", "create", "delete", "start"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Action {
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct About {
    architecture: &'static str,
    daemon_id: String,
    graphdriver: &'static str,
    kernel: String,
    os: String,
    os_type: &'static str,
    os_version: String,
    version: &'static str,
}

/// What is counted as it happens.
pub(crate) struct Counts {
    actions: Family<Action, Histogram, fn() -> Histogram>,
    checks: Counter,
    failed_checks: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        let actions: Family<Action, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        for action in ACTIONS {
            drop(actions.get_or_create(&Action { action }));
        }
        Self {
            actions,
            checks: Counter::default(),
            failed_checks: Counter::default(),
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

impl Counts {
    /// One of [`ACTIONS`] was done.
    pub fn action(&self, action: &'static str, taken: Duration) {
        self.actions
            .get_or_create(&Action { action })
            .observe(taken.as_secs_f64());
    }

    pub fn health_check(&self, failed: bool) {
        self.checks.inc();
        if failed {
            self.failed_checks.inc();
        }
    }
}

/// All of them, in the text format of Prometheus ([`prometheus_text::CONTENT_TYPE`]).
pub(crate) async fn text(world: &Arc<World>) -> String {
    let mut registry = Registry::default();
    of_engine(world, &mut registry);
    registry.register_collector(Box::new(Usage::gather(world).await));
    let mut out = String::new();
    // A String takes everything.
    let _ = prometheus_text::encode(&mut out, &registry);
    out
}

fn of_engine(world: &World, registry: &mut Registry) {
    let gauge = |value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let counts = &world.counts;
    let states = Family::<State, Gauge>::default();
    for state in ["paused", "running", "stopped"] {
        drop(states.get_or_create(&State { state }));
    }
    for handle in world.containers.all() {
        let state = match handle.snapshot().record.run.status {
            Status::Running | Status::Restarting => "running",
            Status::Paused => "paused",
            _ => "stopped",
        };
        states.get_or_create(&State { state }).inc();
    }
    let about = Family::<About, Gauge>::default();
    let own = About {
        architecture: std::env::consts::ARCH,
        daemon_id: world.networks.engine_id().to_owned(),
        graphdriver: "overlay2",
        kernel: world.host.kernel_release.clone(),
        os: world.host.os_name.clone(),
        os_type: "linux",
        os_version: world.host.os_version.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    about.get_or_create(&own).set(1);
    let (events, listeners) = world.events.counts();
    registry.register(
        "engine_daemon_container_actions_seconds",
        "The number of seconds it takes to process each container action",
        counts.actions.clone(),
    );
    registry.register(
        "engine_daemon_container_states_containers",
        "The count of containers in various states",
        states,
    );
    registry.register(
        "engine_daemon_engine_cpus_cpus",
        "The number of cpus that the host system of the engine has",
        gauge(u64::try_from(world.host.cpus).unwrap_or(u64::MAX)),
    );
    registry.register(
        "engine_daemon_engine_info",
        "The information related to the engine and the OS it is running on",
        about,
    );
    registry.register(
        "engine_daemon_engine_memory_bytes",
        "The number of bytes of memory that the host system of the engine has",
        gauge(world.host.memory),
    );
    registry.register(
        "engine_daemon_events_subscribers_total",
        "The number of current subscribers to events",
        gauge(u64::try_from(listeners).unwrap_or(u64::MAX)),
    );
    registry.register(
        "engine_daemon_events",
        "The number of events logged",
        ConstCounter::new(events),
    );
    registry.register(
        "engine_daemon_health_checks",
        "The total number of health checks",
        counts.checks.clone(),
    );
    registry.register(
        "engine_daemon_health_checks_failed",
        "The total number of failed health checks",
        counts.failed_checks.clone(),
    );
}
