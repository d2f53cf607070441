//! CPU shares, bandwidth and real-time (scheduler/sched-bwc.rst, sched-rt-group.rst).

use oci_spec::runtime::LinuxCpu;
use rustix::io::Errno;

use crate::error::Result;
use crate::limits::Limits;

const BANDWIDTH: &str = "period and quota are at least 1000 us, the period at most 1000000 us, the burst at most the \
    quota, and their ratio within the parent group's";

pub(super) fn asked(cpu: &LinuxCpu) -> Vec<(String, String)> {
    let unsigned = [
        ("cpu.shares", cpu.shares()),
        ("cpu.period", cpu.period()),
        ("cpu.burst", cpu.burst()),
        ("cpu.realtimePeriod", cpu.realtime_period()),
    ];
    let signed = [
        ("cpu.quota", cpu.quota()),
        ("cpu.idle", cpu.idle()),
        ("cpu.realtimeRuntime", cpu.realtime_runtime()),
    ];
    let unsigned = unsigned
        .into_iter()
        .filter_map(|(name, v)| Some((name, v.filter(|v| *v != 0)?.to_string())));
    let signed = signed
        .into_iter()
        .filter_map(|(name, v)| Some((name, v.filter(|v| *v != 0)?.to_string())));
    unsigned
        .chain(signed)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(super) fn apply(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        limits.set(
            "cpu.shares",
            "cpu.shares",
            &shares.to_string(),
            "shares are 2 to 262144",
        )?;
    }
    bandwidth(limits, cpu)?;
    if let Some(idle) = cpu.idle() {
        limits.set("cpu.idle", "cpu.idle", &idle.to_string(), "idle is 0 or 1")?;
    }
    let real_time = "real-time time is within the period and what the parent group has left";
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        limits.set("cpu.realtimePeriod", "cpu.rt_period_us", &period.to_string(), real_time)?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        limits.set(
            "cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            &runtime.to_string(),
            real_time,
        )?;
    }
    Ok(())
}

/// The kernel checks each write against the values that stand, so a period or burst that only fits the new quota is
/// refused before it and taken after it.
fn bandwidth(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let settings = [
        (
            "cpu.period",
            "cpu.cfs_period_us",
            cpu.period().filter(|period| *period != 0),
        ),
        ("cpu.burst", "cpu.cfs_burst_us", cpu.burst()),
    ];
    let mut again = Vec::new();
    for (limit, file, value) in settings {
        let Some(value) = value.map(|value| value.to_string()) else {
            continue;
        };
        match limits.attempt(limit, file, &value)? {
            Ok(()) => {}
            Err(Errno::INVAL) if quota.is_some() => again.push((limit, file, value)),
            Err(e) => return Err(limits.group.refused(file, &value, BANDWIDTH, e)),
        }
    }
    if let Some(quota) = quota {
        // Any negative quota is none; the kernel shows -1.
        limits.set("cpu.quota", "cpu.cfs_quota_us", &quota.max(-1).to_string(), BANDWIDTH)?;
    }
    for (limit, file, value) in again {
        limits.set(limit, file, &value, BANDWIDTH)?;
    }
    Ok(())
}
