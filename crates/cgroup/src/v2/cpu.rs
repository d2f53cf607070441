//! CPU weight and bandwidth.

use oci_spec::runtime::LinuxCpu;
use rustix::io::Errno;

use crate::error::Result;
use crate::limits::Limits;

const MAX: &str = "cpu.max";
const BURST: &str = "cpu.max.burst";
const BANDWIDTH: &str =
    "period and quota are at least 1000 us, the period at most 1000000 us, the burst at most the quota";

pub(super) fn apply(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        limits.set("cpu.idle", "cpu.idle", &idle.to_string(), "idle is 0 or 1")?;
    }
    // An idle group has the least weight there is, and the kernel takes no other for it.
    let shares = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1));
    if let Some(shares) = shares {
        limits.set(
            "cpu.shares",
            "cpu.weight",
            &weight(shares).to_string(),
            "a weight is 1 to 10000, and not to be changed while the group is idle",
        )?;
    }
    bandwidth(limits, cpu)?;
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        limits.of_v1("cpu.realtimeRuntime", &runtime);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        limits.of_v1("cpu.realtimePeriod", &period);
    }
    Ok(())
}

/// A burst that fits only the new quota is refused before it and taken after it.
fn bandwidth(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let mut burst = cpu.burst().map(|burst| burst.to_string());
    if let Some(value) = &burst {
        match limits.attempt("cpu.burst", BURST, value)? {
            Ok(()) => burst = None,
            Err(Errno::INVAL) if quota.is_some() => {}
            Err(e) => return Err(limits.group.refused(BURST, value, BANDWIDTH, e)),
        }
    }
    let quota = quota.map(|quota| if quota > 0 { quota.to_string() } else { "max".to_owned() });
    let line = match (quota, period) {
        (None, None) => None,
        // The period stays as it is.
        (Some(quota), None) => Some(quota),
        (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
        (None, Some(period)) => {
            let held = limits.group.read(MAX).unwrap_or_default();
            Some(format!("{} {period}", held.split_whitespace().next().unwrap_or("max")))
        }
    };
    if let Some(line) = line {
        limits.put("cpu.quota", MAX, &line, BANDWIDTH)?;
    }
    match burst {
        Some(value) => limits.set("cpu.burst", BURST, &value, BANDWIDTH),
        None => Ok(()),
    }
}

/// Shares (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100): the quadratic in the logarithm that fits
/// minimum, default and maximum, as runc has it since 1.3.2.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weight_agree_at_both_ends_and_the_default() {
        assert_eq!(
            [1, 2, 1024, 262_144, 1_000_000].map(weight),
            [1, 1, 100, 10_000, 10_000]
        );
        assert_eq!([3, 100, 512, 2048, 100_000].map(weight), [2, 17, 59, 174, 4_340]);
    }
}
