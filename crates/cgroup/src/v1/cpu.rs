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
    if let Some(idle) = cpu.idle() {
        limits.set("cpu.idle", "cpu.idle", &idle.to_string(), "idle is 0 or 1")?;
    }
    // An idle group has the least weight there is, and the kernel takes no other for it.
    let shares = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1));
    if let Some(shares) = shares {
        limits.set(
            "cpu.shares",
            "cpu.shares",
            &shares.to_string(),
            "shares are 2 to 262144, and not to be changed while the group is idle",
        )?;
    }
    bandwidth(limits, cpu)?;
    real_time(limits, cpu)
}

/// A period that only fits the new runtime is refused before it and taken after it.
fn real_time(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    const MEANING: &str = "real-time time is within the period and what the parent group has left";
    const PERIOD: (&str, &str) = ("cpu.realtimePeriod", "cpu.rt_period_us");
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let mut period = cpu
        .realtime_period()
        .filter(|period| *period != 0)
        .map(|period| period.to_string());
    if let Some(value) = &period {
        match limits.attempt(PERIOD.0, PERIOD.1, value)? {
            Ok(()) => period = None,
            Err(Errno::INVAL) if runtime.is_some() => {}
            Err(e) => return Err(limits.group.refused(PERIOD.1, value, MEANING, e)),
        }
    }
    if let Some(runtime) = runtime {
        limits.set(
            "cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            &runtime.to_string(),
            MEANING,
        )?;
    }
    match period {
        Some(value) => limits.set(PERIOD.0, PERIOD.1, &value, MEANING),
        None => Ok(()),
    }
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
