//! `events`: what a container uses, once or again and again, and when it runs out of memory.

use std::time::Duration;

use ferry_cgroup::{Cgroup, Stats};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde_json::{Value, json};

use super::id;
use crate::command_line::{Context, print};
use crate::error::{During as _, Error, Result};
use crate::flags::Parsed;
use crate::state::Status;

pub(super) fn events(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let id = id(parsed);
    let (directory, record) = context.root.load(id)?;
    let interval = match parsed.get("interval") {
        None => Duration::from_secs(5),
        Some(text) => interval(text)?,
    };
    if matches!(record.status(&directory), Status::Stopped | Status::Creating) {
        return Err(Error::State(format!("container with id {id} is not running")));
    }
    let Some(cgroup) = record.cgroup()? else {
        return Err(Error::State("the container has no control group".to_owned()));
    };
    emit("stats", id, Some(&data(&cgroup.stats()?)));
    if parsed.is_set("stats") {
        return Ok(0);
    }
    watch(id, &cgroup, &record, interval)
}

fn watch(id: &str, cgroup: &Cgroup, record: &crate::state::Record, interval: Duration) -> Result<u8> {
    let limit = Timespec::try_from(interval).map_err(|_| Error::Invalid("duration out of range".to_owned()))?;
    let oom = cgroup.oom_watch()?;
    let mut kills = cgroup.oom_kills()?;
    while let Some(process) = record.process() {
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&oom, PollFlags::IN)];
        poll(&mut fds, Some(&limit)).during(|| "wait for events")?;
        if !fds[1].revents().is_empty() {
            let mut buffer = [0; 4096];
            let _ = rustix::io::read(&oom, &mut buffer);
            let now = cgroup.oom_kills().unwrap_or(kills);
            if now > kills {
                emit("oom", id, None);
            }
            kills = now;
        }
        match cgroup.stats() {
            Ok(stats) => emit("stats", id, Some(&data(&stats))),
            Err(ferry_cgroup::Error::NotFound(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

fn interval(text: &str) -> Result<Duration> {
    let duration = ferry_kit::duration::parse_go(text).map_err(|error| Error::Invalid(error.to_string()))?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::Invalid("duration interval must be greater than 0".to_owned()))
}

fn emit(kind: &str, id: &str, data: Option<&Value>) {
    let mut event = json!({ "type": kind, "id": id });
    if let Some(data) = data {
        event["data"] = data.clone();
    }
    print(&format!("{event}\n"));
}

/// runc's `types.Stats`; what is zero there and left out is left out here.
fn data(stats: &Stats) -> Value {
    const UNLIMITED: u64 = 9_223_372_036_854_771_712;
    let cpu = &stats.cpu;
    let memory = &stats.memory;
    let mut usage = json!({ "total": cpu.total, "kernel": cpu.kernel, "user": cpu.user });
    if !cpu.per_cpu.is_empty() {
        usage["percpu"] = json!(cpu.per_cpu);
    }
    let mut throttling = json!({});
    for (name, value) in [
        ("periods", cpu.periods),
        ("throttledPeriods", cpu.throttled_periods),
        ("throttledTime", cpu.throttled_time),
    ] {
        if value != 0 {
            throttling[name] = json!(value);
        }
    }
    let entry = |limit: Option<u64>, usage: u64, max: u64, failures: u64| {
        let mut entry = json!({ "limit": limit.unwrap_or(UNLIMITED), "failcnt": failures });
        for (name, value) in [("usage", usage), ("max", max)] {
            if value != 0 {
                entry[name] = json!(value);
            }
        }
        entry
    };
    let io = |entries: &[ferry_cgroup::BlockIoEntry]| {
        entries
            .iter()
            .map(|entry| {
                json!({ "major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value })
            })
            .collect::<Vec<_>>()
    };
    let mut block_io = json!({});
    for (name, entries) in [
        ("ioServiceBytesRecursive", &stats.block_io.service_bytes),
        ("ioServicedRecursive", &stats.block_io.serviced),
    ] {
        if !entries.is_empty() {
            block_io[name] = json!(io(entries));
        }
    }
    let mut pids = json!({ "current": stats.pids.current });
    if let Some(limit) = stats.pids.limit {
        pids["limit"] = json!(limit);
    }
    let swap = entry(memory.swap_limit, memory.swap_usage.unwrap_or(0), 0, 0);
    json!({
        "cpu": { "usage": usage, "throttling": throttling },
        "cpuset": {},
        "memory": {
            "cache": memory.stat.get("cache").or_else(|| memory.stat.get("file")).copied().unwrap_or(0),
            "usage": entry(memory.limit, memory.usage, memory.max_usage, memory.failures),
            "swap": swap,
            "kernel": entry(None, 0, 0, 0),
            "kernelTCP": entry(None, 0, 0, 0),
            "raw": memory.stat,
        },
        "pids": pids,
        "blkio": block_io,
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
