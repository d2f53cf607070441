//! A link's token bucket (tc-tbf(8)): packets leave as long as there are tokens, which come at the rate and pile up to
//! the burst; others wait, until more than the limit do.
//!
//! The kernel wants no rate table when the link layer is told (Linux 3.8), so none is sent; rates from 4 GiB/s on have a
//! 64-bit attribute. The burst is told in bytes (TCA_TBF_BURST) and, as the old field has it, as the time it takes.

use std::time::Duration;

use super::redirect;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

pub const NEW_QDISC: u16 = 36;
pub const DEL_QDISC: u16 = 37;
pub const GET_QDISC: u16 = 38;
const ROOT: u32 = u32::MAX;
/// The number our buckets have, by which what is in one is told where it belongs.
pub const BUCKET: u32 = 1 << 16;
pub const TCA_KIND: u16 = 1;
pub const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const LINKLAYER_ETHERNET: u8 = 1;
/// A tick of the packet scheduler: `PSCHED_SHIFT` of net/pkt_sched.h (Linux 2.6.31).
const TICK_NANOSECONDS: u128 = 64;
const SECOND: u128 = 1_000_000_000;

/// What a link may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may be sent at once after a pause. Less than a packet, and nothing larger is ever sent.
    pub burst: u32,
    /// Bytes that may wait; what is more is dropped.
    pub limit: u32,
}

/// A token bucket as the kernel has it, and what went through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub tbf: Tbf,
    pub bytes: u64,
    pub packets: u64,
    pub dropped: u32,
    /// How often something had to wait.
    pub overlimits: u32,
    /// Bytes that wait now.
    pub backlog: u32,
}

impl Tbf {
    /// The limit so that nothing waits longer than `latency` (as tc computes it).
    pub fn with_latency(rate: u64, burst: u32, latency: Duration) -> Self {
        let waiting = u128::from(rate) * latency.as_nanos() / SECOND + u128::from(burst);
        Self {
            rate,
            burst,
            limit: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }

    /// True when the kernel, whose ticks are coarser than bytes, says `other` where it was told `self`.
    pub fn is_told_as(&self, other: &Self) -> bool {
        let tick = u64::try_from(u128::from(self.rate) * TICK_NANOSECONDS / SECOND).unwrap_or(u64::MAX);
        let apart = u64::from(self.burst.abs_diff(other.burst));
        (self.rate, self.limit) == (other.rate, other.limit) && apart <= tick.saturating_add(1)
    }

    /// Zeros, and a bucket that takes longer to fill than its field can say (274 s).
    pub(super) fn check(&self) -> Result<()> {
        if self.rate == 0 || self.burst == 0 || self.limit == 0 {
            return Err(Error::TooLong("a rate, burst or limit of 0".to_owned()));
        }
        self.ticks().map(|_| ())
    }

    fn ticks(&self) -> Result<u32> {
        let nanoseconds = u128::from(self.burst) * SECOND / u128::from(self.rate.max(1));
        u32::try_from(nanoseconds / TICK_NANOSECONDS).map_err(|_| {
            Error::TooLong(format!(
                "a burst of {} bytes at {} bytes a second (more than 274 seconds' worth)",
                self.burst, self.rate
            ))
        })
    }

    pub(super) fn write(&self, w: &mut Writer, link: u32) {
        let low = u32::try_from(self.rate).unwrap_or(u32::MAX);
        redirect::head(w, link, BUCKET, ROOT, 0);
        w.text(TCA_KIND, "tbf");
        w.nest(TCA_OPTIONS, |w| {
            w.nest_raw(TCA_TBF_PARMS, |w| {
                // struct tc_tbf_qopt: two of struct tc_ratespec, limit, buffer, mtu.
                w.put(&[0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
                w.put(&low.to_ne_bytes());
                w.put(&[0; 12]);
                w.put(&self.limit.to_ne_bytes());
                w.put(&self.ticks().unwrap_or(u32::MAX).to_ne_bytes());
                w.put(&[0; 4]);
            });
            w.u32(TCA_TBF_BURST, self.burst);
            if low == u32::MAX {
                w.attribute(TCA_TBF_RATE64, &self.rate.to_ne_bytes());
            }
        });
    }
}

/// `struct tcmsg` for what is at a link's root, whatever number it has.
pub fn head(w: &mut Writer, link: u32) {
    w.put(&[0; 4]);
    w.put(&link.to_ne_bytes());
    w.put(&[0; 4]);
    w.put(&ROOT.to_ne_bytes());
    w.put(&[0; 4]);
}

/// `None` for another kind of queue.
pub fn parse(message: Message<'_>) -> Option<Queue> {
    let attributes = message.payload.get(20..).filter(|_| message.kind == NEW_QDISC)?;
    wire::attribute(attributes, TCA_KIND).filter(|kind| wire::text(kind) == "tbf")?;
    let options = wire::attribute(attributes, TCA_OPTIONS)?;
    let parameters = wire::attribute(options, TCA_TBF_PARMS)?;
    let rate = match wire::attribute(options, TCA_TBF_RATE64) {
        Some(wide) => wire::u64_at(wide, 0)?,
        None => u64::from(wire::u32_at(parameters, 8)?),
    };
    let ticks = wire::u32_at(parameters, 28)?;
    // Rounded up: what the ticks lost in being made of bytes.
    let burst = (u128::from(ticks) * TICK_NANOSECONDS * u128::from(rate)).div_ceil(SECOND);
    let statistics = wire::attribute(attributes, TCA_STATS2).unwrap_or_default();
    let basic = wire::attribute(statistics, 1).unwrap_or_default();
    let queue = wire::attribute(statistics, 3).unwrap_or_default();
    let packets = wire::attribute(statistics, 8).and_then(|wide| wire::u64_at(wide, 0));
    Some(Queue {
        tbf: Tbf {
            rate,
            burst: u32::try_from(burst).unwrap_or(u32::MAX),
            limit: wire::u32_at(parameters, 24)?,
        },
        bytes: wire::u64_at(basic, 0).unwrap_or(0),
        packets: packets.unwrap_or_else(|| wire::u32_at(basic, 8).unwrap_or(0).into()),
        backlog: wire::u32_at(queue, 4).unwrap_or(0),
        dropped: wire::u32_at(queue, 8).unwrap_or(0),
        overlimits: wire::u32_at(queue, 16).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_from_the_latency_as_with_tc() {
        // tc qdisc add ... tbf rate 8mbit burst 32kb latency 50ms
        let tbf = Tbf::with_latency(1_000_000, 32_768, Duration::from_millis(50));
        assert_eq!(tbf.limit, 82_768);
        assert_eq!(Tbf::with_latency(u64::MAX, 1, Duration::from_secs(1)).limit, u32::MAX);
    }

    #[test]
    fn what_the_fields_cannot_say_is_refused() {
        let tbf = |rate, burst, limit| Tbf { rate, burst, limit }.check();
        assert!(tbf(1000, 274_000, 1).is_ok());
        for refused in [tbf(0, 1, 1), tbf(1, 0, 1), tbf(1, 1, 0), tbf(1000, 275_000, 1)] {
            assert!(refused.is_err());
        }
    }
}
