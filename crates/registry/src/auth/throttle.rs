//! Wrong passwords cost time: after some of them from one address, it has to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES: usize = 10_000;

#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Throttle {
    /// For how many seconds an address has to wait.
    pub fn blocked(&self, address: Option<IpAddr>) -> Option<u32> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (failures, since) = counts.get(&whole(address?))?;
        let left = WINDOW.checked_sub(since.elapsed())?;
        (*failures >= FAILURES).then(|| u32::try_from(left.as_secs()).unwrap_or(0) + 1)
    }

    pub fn failed(&self, address: Option<IpAddr>) {
        let Some(address) = address.map(whole) else { return };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, (_, since)| since.elapsed() < WINDOW);
            if counts.len() >= ADDRESSES {
                counts.clear();
            }
        }
        let entry = counts.entry(address).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}

/// A host has at least a /64 of IPv6.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_its_own_failures() {
        let throttle = Throttle::default();
        let (bad, good): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for _ in 0..FAILURES {
            assert_eq!(throttle.blocked(Some(bad)), None);
            throttle.failed(Some(bad));
        }
        assert!(
            throttle
                .blocked(Some("2001:db8::2".parse().unwrap()))
                .is_some_and(|seconds| seconds <= 60)
        );
        assert_eq!(throttle.blocked(Some(good)), None);
        assert_eq!(throttle.blocked(None), None);
    }
}
