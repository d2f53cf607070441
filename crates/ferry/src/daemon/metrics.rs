//! `metrics-addr`: where Prometheus reads. It is a port of its own, without the API, and treats clients as the registry's does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ferry_engine::Engine;
use ferry_registry::{Limits, Listener};
use tokio_util::sync::CancellationToken;

/// Some scrapers, and somebody who looks.
const CONNECTIONS: usize = 32;
/// Between two scrapes a connection may stay.
const IDLE: Duration = Duration::from_secs(90);
/// For a scrape under way when the engine ends.
const GRACE: Duration = Duration::from_secs(1);

/// `ADDRESS:PORT`; `:PORT` is every address, as in dockerd.
pub fn parse(text: &str) -> Result<SocketAddr> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = match host {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
        };
        Some(SocketAddr::new(host, port.parse().ok()?))
    });
    parsed.with_context(|| {
        format!("metrics-addr: {text:?} is no address: give an IP address and a port, as in 127.0.0.1:9323")
    })
}

/// Takes the port. Called in a runtime.
pub fn listen(address: SocketAddr) -> Result<Listener> {
    let listener = Listener::bind(address, None).with_context(|| {
        format!("metrics-addr: cannot listen on {address}: give a free port of an address of this machine")
    })?;
    let address = listener.address().context("read the port that was given")?;
    match address.ip().is_loopback() {
        true => tracing::info!(%address, "metrics are served"),
        false => tracing::warn!(%address, "metrics are served to everybody who reaches this port, containers included"),
    }
    Ok(listener)
}

/// Until the engine ends.
pub async fn serve(listener: Listener, engine: Engine, closing: CancellationToken) {
    let limits = Limits {
        connections: CONNECTIONS,
        idle: IDLE,
        grace: GRACE,
        ..Limits::default()
    };
    let router = ferry_server::metrics(engine);
    ferry_registry::serve(vec![listener], router, limits, Arc::default(), closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        let parsed = |text| parse(text).unwrap().to_string();
        assert_eq!(parsed("127.0.0.1:9323"), "127.0.0.1:9323");
        assert_eq!(parsed("localhost:1"), "127.0.0.1:1");
        assert_eq!(parsed(":9323"), "0.0.0.0:9323");
        assert_eq!(parsed("[::1]:9323"), "[::1]:9323");
        for wrong in ["", "9323", "127.0.0.1", "web:9323", "127.0.0.1:port", "127.0.0.1:99999"] {
            let error = format!("{:#}", parse(wrong).unwrap_err());
            assert!(
                error.contains("metrics-addr") && error.contains("127.0.0.1:9323"),
                "{error}"
            );
        }
    }
}
