//! `--net-rate`: what a container may receive and send, and where that can be held.

use std::sync::Arc;

use ferry_api::container::{HostConfig, NetRate, NetRateStats, NetRateUse};
use ferry_api::network::mode;
use ferry_network::{Fabric, Limits, Queue};

use super::membership::Wanted;
use super::{Attacher, Stored};
use crate::error::{Error, Result};

/// Smaller than the frame of any network's MTU: whether a burst fits is judged where the MTU is known.
const SMALLEST_MTU: u32 = 68;

/// Reads what went through a container's limits.
#[derive(Debug)]
pub(crate) struct Meter {
    pub fabric: Arc<Fabric>,
    pub id: String,
}

impl Meter {
    /// By netlink; what cannot be read is left out.
    pub fn read(&self) -> NetRateStats {
        let shown = |queue: Queue| NetRateUse {
            rate: queue.tbf.rate,
            bytes: queue.bytes,
            packets: queue.packets,
            dropped: queue.dropped.into(),
            delayed: queue.overlimits.into(),
            waiting: queue.backlog.into(),
        };
        let [received, sent] = self.fabric.limited(&self.id).unwrap_or_default();
        NetRateStats {
            r#in: received.map(shown),
            out: sent.map(shown),
        }
    }
}

pub(crate) fn of_host(host: &HostConfig) -> Limits {
    let rate = host.net_rate.clone().unwrap_or_default();
    Limits {
        receive: rate.r#in,
        send: rate.out,
        burst: rate.burst,
    }
}

/// Puts an update over what is set: absent leaves a limit as it is, 0 takes it away.
pub(crate) fn update(host: &mut HostConfig, update: Option<&NetRate>) {
    let Some(new) = update else { return };
    let own = host.net_rate.clone().unwrap_or_default();
    let merged = NetRate {
        r#in: new.r#in.or(own.r#in),
        out: new.out.or(own.out),
        burst: new.burst.or(own.burst),
    };
    host.net_rate = Some(merged);
    tidy(host);
}

/// What is no limit is not kept: `inspect` shows limits alone.
pub(crate) fn tidy(host: &mut HostConfig) {
    let Some(rate) = &mut host.net_rate else { return };
    for field in [&mut rate.r#in, &mut rate.out, &mut rate.burst] {
        *field = field.filter(|value| *value != 0);
    }
    if rate.r#in.is_none() && rate.out.is_none() {
        host.net_rate = None;
    }
}

/// That the container has traffic of its own, on networks where it can be limited.
pub(crate) fn check(attacher: &Attacher, host: &HostConfig, wanted: &Wanted) -> Result<()> {
    let limits = of_host(host);
    if limits.is_none() {
        return Ok(());
    }
    limits
        .check(SMALLEST_MTU)
        .map_err(|error| Error::invalid(format!("--net-rate: {error}")))?;
    let refused = |text: &str| Err(Error::invalid(format!("--net-rate: {text}")));
    match host.network_mode.as_str() {
        mode::HOST => {
            return refused("with --network host the traffic is the host's: use a bridge network, or tc on the host");
        }
        mode::NONE => return refused("with --network none there is no traffic: use a bridge network"),
        mode if mode.starts_with("container:") => {
            return refused("the network is the other container's, and so is its limit: set it there");
        }
        _ => {}
    }
    // A network that is not there yet is looked at by the start.
    let mut networks = wanted.keys().filter_map(|name| attacher.find(name).ok());
    networks.try_for_each(|network| on(&limits, &network))
}

/// That the limit can be held on the network.
pub(crate) fn on(limits: &Limits, network: &Stored) -> Result<()> {
    let Some(known) = network.network.as_ref().filter(|_| !limits.is_none()) else {
        return Ok(());
    };
    if known.bridge().is_none() {
        return Err(Error::invalid(format!(
            "--net-rate: nothing on the host's side of {} {} could hold a limit: use a bridge network",
            network.driver, network.name
        )));
    }
    limits
        .check(known.mtu)
        .map_err(|error| Error::invalid(format!("--net-rate on network {}: {error}", network.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(receive: Option<u64>, send: Option<u64>, burst: Option<u64>) -> NetRate {
        NetRate {
            r#in: receive,
            out: send,
            burst,
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_zero_takes_away() {
        let mut host = HostConfig {
            net_rate: Some(rate(Some(1000), Some(2000), None)),
            ..HostConfig::default()
        };
        update(&mut host, None);
        update(&mut host, Some(&rate(Some(3000), None, Some(5000))));
        assert_eq!(host.net_rate, Some(rate(Some(3000), Some(2000), Some(5000))));
        update(&mut host, Some(&rate(Some(0), None, Some(0))));
        assert_eq!(host.net_rate, Some(rate(None, Some(2000), None)));
        update(&mut host, Some(&rate(None, Some(0), None)));
        assert_eq!(host.net_rate, None);
    }
}
