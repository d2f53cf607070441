//! `events`: what a container uses, once or again and again, and when it runs out of memory.

use std::time::{Duration, Instant};

use ferry_cgroup::{BlockIoEntry, Cgroup, Charge, Cpu, Cpuset, HugePages, Stall, Stats};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde_json::{Map, Value, json};

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
    let version = cgroup.version();
    emit("stats", id, Some(&data(&cgroup.stats()?, version)));
    if parsed.is_set("stats") {
        return Ok(0);
    }
    watch(id, &cgroup, version, &record, interval)
}

fn watch(id: &str, cgroup: &Cgroup, version: u8, record: &crate::state::Record, interval: Duration) -> Result<u8> {
    let out_of_range = || Error::Invalid("duration out of range".to_owned());
    let oom = cgroup.oom_watch()?;
    let mut kills = cgroup.oom_kills()?;
    let after = |now: Instant| now.checked_add(interval).ok_or_else(out_of_range);
    let mut next = after(Instant::now())?;
    while let Some(process) = record.process() {
        let rest = next.saturating_duration_since(Instant::now());
        let rest = Timespec::try_from(rest).map_err(|_| out_of_range())?;
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&oom, PollFlags::IN)];
        poll(&mut fds, Some(&rest)).during(|| "wait for events")?;
        if !fds[1].revents().is_empty() {
            let mut buffer = [0; 4096];
            let _ = rustix::io::read(&oom, &mut buffer);
            let now = kills_after(cgroup, version, kills);
            if now > kills {
                emit("oom", id, None);
            }
            kills = now;
        }
        if Instant::now() < next {
            continue;
        }
        next = after(Instant::now())?;
        match cgroup.stats() {
            Ok(stats) => emit("stats", id, Some(&data(&stats, version))),
            Err(ferry_cgroup::Error::NotFound(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

/// v1 gives notice before it kills and counts: shortly after, the count has risen, or the group is gone. v2 also gives
/// notice of limits that were met and did not kill.
fn kills_after(cgroup: &Cgroup, version: u8, before: u64) -> u64 {
    let rounds = if version == 1 { 50 } else { 1 };
    for round in 0..rounds {
        match cgroup.oom_kills() {
            Ok(kills) if kills > before => return kills,
            Ok(_) if round + 1 < rounds => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    before
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

/// runc's `types.Stats`; what is left out there when it is zero is left out here.
fn data(stats: &Stats, version: u8) -> Value {
    let memory = &stats.memory;
    let mut cpu = json!({ "usage": cpu_usage(&stats.cpu), "throttling": {} });
    for (name, value) in [
        ("periods", stats.cpu.periods),
        ("throttledPeriods", stats.cpu.throttled_periods),
        ("throttledTime", stats.cpu.throttled_time),
    ] {
        put(&mut cpu["throttling"], name, value);
    }
    // No limit is the largest number of pages on v1 and the largest number on v2.
    let unlimited = if version == 1 {
        9_223_372_036_854_771_712
    } else {
        u64::MAX
    };
    let limit = |limit: Option<u64>| limit.unwrap_or(unlimited);
    let swap = match memory.swap_usage {
        None => entry(0, 0, 0, 0),
        Some(usage) if version == 1 => entry(limit(memory.swap_limit), usage, 0, 0),
        // v2 counts swap alone, and callers expect both together.
        Some(usage) => {
            let together = memory.swap_limit.zip(memory.limit).map(|(swap, memory)| swap + memory);
            entry(limit(together), usage + memory.usage, 0, 0)
        }
    };
    let charge = |charge: &Charge| entry(charge.limit, charge.usage, charge.max_usage, charge.failures);
    let mut of_memory = json!({});
    let cache = memory.stat.get("cache").or_else(|| memory.stat.get("file"));
    put(&mut of_memory, "cache", cache.copied().unwrap_or_default());
    of_memory["usage"] = entry(limit(memory.limit), memory.usage, memory.max_usage, memory.failures);
    of_memory["swap"] = swap;
    of_memory["kernel"] = charge(&memory.kernel);
    of_memory["kernelTCP"] = charge(&memory.kernel_tcp);
    if !memory.stat.is_empty() {
        of_memory["raw"] = json!(memory.stat);
    }
    let mut block_io = json!({});
    for (name, entries) in [
        ("ioServiceBytesRecursive", &stats.block_io.service_bytes),
        ("ioServicedRecursive", &stats.block_io.serviced),
    ] {
        if !entries.is_empty() {
            block_io[name] = entries.iter().map(io).collect();
        }
    }
    let mut pids = json!({});
    put(&mut pids, "current", stats.pids.current);
    put(&mut pids, "limit", stats.pids.limit.unwrap_or_default());
    for (place, of) in [
        (&mut cpu, &stats.cpu.pressure),
        (&mut of_memory, &memory.pressure),
        (&mut block_io, &stats.block_io.pressure),
    ] {
        if let Some(of) = of {
            place["psi"] = json!({ "some": stall(&of.some), "full": stall(&of.full) });
        }
    }
    let pages: Map<String, Value> = stats.huge_pages.iter().map(huge_pages).collect();
    json!({
        "cpu": cpu,
        "cpuset": cpuset(stats.cpuset.as_ref()),
        "memory": of_memory,
        "pids": pids,
        "blkio": block_io,
        "hugetlb": pages,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// Puts what is not zero.
fn put(place: &mut Value, name: &str, value: u64) {
    if value != 0 {
        place[name] = json!(value);
    }
}

fn cpu_usage(cpu: &Cpu) -> Value {
    let mut usage = json!({});
    put(&mut usage, "total", cpu.total);
    for (name, list) in [
        ("percpu", &cpu.per_cpu),
        ("percpu_kernel", &cpu.per_cpu_kernel),
        ("percpu_user", &cpu.per_cpu_user),
    ] {
        if !list.is_empty() {
            usage[name] = json!(list);
        }
    }
    usage["kernel"] = json!(cpu.kernel);
    usage["user"] = json!(cpu.user);
    usage
}

fn entry(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
    let mut entry = json!({ "limit": limit });
    put(&mut entry, "usage", usage);
    put(&mut entry, "max", max);
    entry["failcnt"] = json!(failures);
    entry
}

/// Operations as v1 spells them.
fn io(of: &BlockIoEntry) -> Value {
    let mut entry = json!({});
    put(&mut entry, "major", of.major);
    put(&mut entry, "minor", of.minor);
    entry["op"] = match of.operation.as_str() {
        "read" => json!("Read"),
        "write" => json!("Write"),
        other => json!(other),
    };
    put(&mut entry, "value", of.value);
    entry
}

fn huge_pages((size, of): (&String, &HugePages)) -> (String, Value) {
    let mut entry = json!({});
    put(&mut entry, "usage", of.usage);
    put(&mut entry, "max", of.max_usage);
    entry["failcnt"] = json!(of.failures);
    (size.clone(), entry)
}

/// The averages are decimals.
fn stall(of: &Stall) -> Value {
    let average = |text: &str| json!(text.parse::<f64>().unwrap_or_default());
    json!({
        "avg10": average(&of.avg10), "avg60": average(&of.avg60), "avg300": average(&of.avg300), "total": of.total,
    })
}

/// All zero where the container is in no cpuset of its own.
fn cpuset(of: Option<&Cpuset>) -> Value {
    let mut set = json!({});
    let list = |list: Option<&Vec<u32>>| list.filter(|list| !list.is_empty()).cloned();
    let switch = |name: &str| of.and_then(|of| of.switches.get(name).copied()).unwrap_or_default();
    if let Some(cpus) = list(of.map(|of| &of.cpus)) {
        set["cpus"] = json!(cpus);
    }
    set["cpu_exclusive"] = json!(switch("cpu_exclusive"));
    if let Some(mems) = list(of.map(|of| &of.mems)) {
        set["mems"] = json!(mems);
    }
    for name in [
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        set[name] = json!(switch(name));
    }
    set
}
