//! What a container may receive and send, of all its networks together, and the token bucket that makes it so.

use std::time::Duration;

use ferry_netlink::route::{Direction, Link, Tbf};

use crate::endpoint::ALIAS;
use crate::{Error, Result};

/// In bytes a second: 8 kbit, and 10 tbit.
const LEAST: u64 = 1000;
const MOST: u64 = 1_250_000_000_000;
/// Of Ethernet, with an 802.1Q tag.
const HEADER: u64 = 18;
/// Without a burst that somebody asked for, this part of a second's worth, and two packets at least: large enough for the
/// 64 KiB that the kernel handles at once where a limit is high, too small to show where it is low.
const BURSTS_A_SECOND: u64 = 100;
const LARGEST_BURST: u64 = 256 << 20;
/// What a bucket's fields can say.
const BURST_BYTES: u64 = 1 << 31;
const BURST_SECONDS: u64 = 274;
/// How long a packet may wait, and how many packets may where that is longer: TCP needs some to go on after a loss.
const LATENCY: Duration = Duration::from_millis(50);
const WAITING: u64 = 16;

/// What the names of the links start with, by what a limited container does: receive, send.
pub(crate) const NAMES: [(Direction, &str); 2] = [(Direction::Sent, "fi-"), (Direction::Received, "fo-")];
pub(crate) const TAG: usize = 8;

/// Limits of a container's traffic, in bytes a second with all headers. `None` or 0: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub receive: Option<u64>,
    pub send: Option<u64>,
    /// Bytes that go at once after a pause, each way.
    pub burst: Option<u64>,
}

impl Limits {
    pub fn is_none(&self) -> bool {
        self.rates().next().is_none()
    }

    /// That the kernel can keep them. Bursts are judged for packets of that MTU.
    pub fn check(&self, mtu: u32) -> Result<()> {
        let unusable = |what: String, reason: String| Err(Error::Unusable { what, reason });
        for rate in self.rates() {
            if !(LEAST..=MOST).contains(&rate) {
                return unusable(
                    format!("a limit of {rate} bytes a second"),
                    format!("{LEAST} to {MOST} can be kept (8kbit to 10tbit)"),
                );
            }
            let Some(burst) = self.asked_burst() else { continue };
            let (least, most) = (frame(mtu), BURST_BYTES.min(rate.saturating_mul(BURST_SECONDS)));
            if burst < least {
                return unusable(
                    format!("a burst of {burst} bytes"),
                    format!(
                        "no packet of {least} bytes would ever pass, and with an MTU of {mtu} there are such: give {least} or more"
                    ),
                );
            }
            if burst > most {
                return unusable(
                    format!("a burst of {burst} bytes"),
                    format!("at {rate} bytes a second at most {most} can be counted"),
                );
            }
        }
        Ok(())
    }

    /// The bucket for what the host's end sends (the container receives) or receives; `None` without a limit.
    pub(crate) fn bucket(&self, direction: Direction, mtu: u32) -> Option<Tbf> {
        let rate = match direction {
            Direction::Sent => self.receive,
            Direction::Received => self.send,
        };
        let rate = rate.filter(|rate| *rate != 0)?;
        let usual = (rate / BURSTS_A_SECOND).min(LARGEST_BURST).max(2 * frame(mtu));
        let burst = u32::try_from(self.asked_burst().unwrap_or(usual)).unwrap_or(u32::MAX);
        let bucket = Tbf::with_latency(rate, burst, LATENCY);
        let waiting = u32::try_from(WAITING * frame(mtu)).unwrap_or(u32::MAX);
        Some(Tbf {
            limit: bucket.limit.max(burst.saturating_add(waiting)),
            ..bucket
        })
    }

    fn rates(&self) -> impl Iterator<Item = u64> {
        [self.receive, self.send]
            .into_iter()
            .flatten()
            .filter(|rate| *rate != 0)
    }

    fn asked_burst(&self) -> Option<u64> {
        self.burst.filter(|burst| *burst != 0)
    }
}

/// What all aliases of an engine's queues start with; the container's id follows.
pub(crate) fn alias(table: &str) -> String {
    format!("{ALIAS}{table}:")
}

/// What the name of a queue ends with.
pub(crate) fn tag_of(link: &Link) -> Option<&str> {
    let kind = link.kind.as_deref() == Some("ifb");
    let mut prefixes = NAMES.iter().filter(|_| kind).map(|(_, prefix)| prefix);
    prefixes.find_map(|prefix| link.name.strip_prefix(prefix))
}

fn frame(mtu: u32) -> u64 {
    u64::from(mtu) + HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(receive: u64, send: u64, burst: u64) -> Limits {
        Limits {
            receive: Some(receive),
            send: Some(send),
            burst: Some(burst),
        }
    }

    #[test]
    fn a_bucket_holds_a_hundredth_of_a_second_and_two_packets_at_least() {
        for (rate, burst, limit) in [
            (1000, 3036, 3036 + 16 * 1518),
            (1_250_000, 12_500, 12_500 + 62_500),
            (125_000_000, 1_250_000, 1_250_000 + 6_250_000),
            (MOST, 256 << 20, u32::MAX),
        ] {
            let bucket = limits(rate, 0, 0).bucket(Direction::Sent, 1500).unwrap();
            assert_eq!((bucket.rate, bucket.burst, bucket.limit), (rate, burst, limit));
        }
        assert_eq!(limits(5000, 0, 0).bucket(Direction::Received, 1500), None);
        let asked = limits(0, 1_250_000, 65_536).bucket(Direction::Received, 1500).unwrap();
        assert_eq!(asked.burst, 65_536);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(limits(1000, MOST, 1518).check(1500).is_ok());
        assert!(limits(0, 0, 1).check(1500).is_ok(), "a burst of no limit");
        for (wrong, mtu, part) in [
            (limits(999, 0, 0), 1500, "a limit of 999 bytes a second"),
            (limits(0, MOST + 1, 0), 1500, "1000 to 1250000000000"),
            (limits(1_000_000, 0, 1517), 1500, "give 1518 or more"),
            (limits(1_000_000, 0, 60_000), 65_535, "give 65553 or more"),
            (limits(1000, 0, 274_001), 1500, "at most 274000"),
            (limits(MOST, 0, u64::MAX), 1500, "at most 2147483648"),
        ] {
            let error = wrong.check(mtu).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_bucket_can_be_written() {
        for rate in [LEAST, 1_000_000, MOST] {
            for mtu in [68, 1500, 65_535] {
                let bucket = limits(rate, 0, 0).bucket(Direction::Sent, mtu).unwrap();
                assert!(u64::from(bucket.burst) <= rate * BURST_SECONDS && bucket.burst <= bucket.limit);
            }
        }
    }
}
