//! What Prometheus reads. No label names a repository or a user: there may be any number of them.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::backend::{Collected, Trimmed};

/// The OpenMetrics text format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const SECONDS: [f64; 9] = [0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    route: &'static str,
}

pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Place, Histogram, fn() -> Histogram>,
    sent: Counter,
    received: Counter,
    pub(crate) connections: Gauge,
    pub(crate) stale: Counter,
    fetched: Counter,
    collections: Counter,
    collected_blobs: Counter,
    collected_bytes: Counter,
    cached: Gauge,
    trimmed: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ferry_registry");
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            sent: Counter::default(),
            received: Counter::default(),
            connections: Gauge::default(),
            stale: Counter::default(),
            fetched: Counter::default(),
            collections: Counter::default(),
            collected_blobs: Counter::default(),
            collected_bytes: Counter::default(),
            cached: Gauge::default(),
            trimmed: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Requests by route, method and status",
            metrics.requests.clone(),
        );
        let name = "Seconds from a request's head to its answer's head";
        registry.register("request_duration_seconds", name, metrics.durations.clone());
        registry.register(
            "sent_bytes",
            "Bytes of blobs and manifests in answers",
            metrics.sent.clone(),
        );
        registry.register("received_bytes", "Bytes of blobs taken", metrics.received.clone());
        registry.register("connections", "Connections that are open", metrics.connections.clone());
        registry.register(
            "upstream_bytes",
            "Bytes of blobs and manifests fetched from upstream",
            metrics.fetched.clone(),
        );
        registry.register(
            "upstream_stale",
            "Answers from the cache for want of one from upstream",
            metrics.stale.clone(),
        );
        registry.register("collections", "Runs of the collector", metrics.collections.clone());
        registry.register(
            "collected_blobs",
            "Blobs and manifests the collector removed",
            metrics.collected_blobs.clone(),
        );
        registry.register(
            "collected_bytes",
            "Bytes the collector removed",
            metrics.collected_bytes.clone(),
        );
        registry.register(
            "cache_bytes",
            "Bytes of copies of what upstreams have, as they were counted last where there is a bound",
            metrics.cached.clone(),
        );
        registry.register(
            "trimmed_bytes",
            "Bytes of copies that went because the cache was full",
            metrics.trimmed.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    pub fn request(&self, route: &'static str, method: &Method, status: StatusCode, taken: Duration) {
        let label = Request {
            route,
            method: known(method),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&label).inc();
        self.durations
            .get_or_create(&Place { route })
            .observe(taken.as_secs_f64());
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    pub(crate) fn fetched(&self, bytes: usize) {
        self.fetched.inc_by(u64::try_from(bytes).unwrap_or(0));
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    pub fn collected(&self, collected: &Collected) {
        self.collections.inc();
        self.collected_blobs.inc_by(collected.blobs);
        self.collected_bytes.inc_by(collected.bytes);
    }

    pub(crate) fn trimmed(&self, trimmed: &Trimmed) {
        self.cached.set(i64::try_from(trimmed.left).unwrap_or(i64::MAX));
        self.trimmed.inc_by(trimmed.bytes);
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // A String takes everything.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// A client may call a method anything: what is not known is one label.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_written() {
        let metrics = Metrics::default();
        metrics.request("blob", &Method::GET, StatusCode::OK, Duration::from_millis(3));
        metrics.request(
            "blob",
            &Method::from_bytes(b"ODD").unwrap(),
            StatusCode::NOT_FOUND,
            Duration::ZERO,
        );
        metrics.sent(7);
        let text = metrics.text();
        for line in [
            "ferry_registry_requests_total{route=\"blob\",method=\"GET\",status=\"200\"} 1",
            "ferry_registry_requests_total{route=\"blob\",method=\"other\",status=\"404\"} 1",
            "ferry_registry_request_duration_seconds_count{route=\"blob\"} 2",
            "ferry_registry_sent_bytes_total 7",
            "# EOF",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}
