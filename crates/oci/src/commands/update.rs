//! `update`: other limits for a container that exists.

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::id;
use crate::cgroups;
use crate::command_line::Context;
use crate::config::{self, IntelRdt};
use crate::error::{During as _, Error, Result};
use crate::flags::{Flag, Parsed, value};
use crate::resctrl;
use crate::state::{Record, Status};

pub(super) const FLAGS: [Flag; 19] = [
    value(
        "resources",
        "r",
        "path to the file containing the resources to update or '-' to read from the standard input",
    ),
    value(
        "blkio-weight",
        "",
        "Specifies per cgroup weight, range is from 10 to 1000 (default: 0)",
    ),
    value(
        "cpu-period",
        "",
        "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default",
    ),
    value(
        "cpu-quota",
        "",
        "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period",
    ),
    value(
        "cpu-burst",
        "",
        "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst",
    ),
    value("cpu-share", "", "CPU shares (relative weight vs. other containers)"),
    value(
        "cpu-rt-period",
        "",
        "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default",
    ),
    value(
        "cpu-rt-runtime",
        "",
        "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period",
    ),
    value("cpuset-cpus", "", "CPU(s) to use"),
    value("cpuset-mems", "", "Memory node(s) to use"),
    value("memory", "", "Memory limit (in bytes)"),
    value(
        "cpu-idle",
        "",
        "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE",
    ),
    value("memory-reservation", "", "Memory reservation or soft_limit (in bytes)"),
    value(
        "memory-swap",
        "",
        "Total memory usage (memory + swap); set '-1' to enable unlimited swap",
    ),
    value("kernel-memory", "", "not used: kernels have no such limit any more"),
    value("kernel-memory-tcp", "", "not used: kernels have no such limit any more"),
    value(
        "pids-limit",
        "",
        "Maximum number of pids allowed in the container (default: 0)",
    ),
    value("l3-cache-schema", "", "The string of Intel RDT/CAT L3 cache schema"),
    value(
        "mem-bw-schema",
        "",
        "The string of Intel RDT/MBA memory bandwidth schema",
    ),
];

pub(super) fn update(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (directory, record) = context.root.load(id(parsed))?;
    if matches!(record.status(&directory), Status::Stopped | Status::Creating) {
        return Err(Error::State("container not running".to_owned()));
    }
    let mut resources: LinuxResources = match parsed.get("resources") {
        Some("-") => {
            let text = std::io::read_to_string(std::io::stdin()).during(|| "read the standard input")?;
            config::parse(text.as_bytes())?
        }
        Some(path) => config::parse(&std::fs::read(path).during(|| format!("open {path}"))?)?,
        None => of_flags(parsed)?,
    };
    let Some(cgroup) = record.cgroup()? else {
        return Err(Error::State("the container has no control group".to_owned()));
    };
    // As runc: callers send the limits of config.json again, whose rules are not all that the container has.
    resources.set_devices(None);
    cgroups::warn_of_kernel_memory(&resources, &mut context.log);
    // All or nothing: what a limit has become is put back when a later one, or the class of service, is refused.
    cgroup.update_if(&resources, |warnings| {
        cgroups::judge(warnings, &mut context.log)?;
        update_class(parsed, &record)
    })?;
    Ok(0)
}

/// `--l3-cache-schema` and `--mem-bw-schema`, for a container that is in a class of service.
fn update_class(parsed: &Parsed, record: &Record) -> Result<()> {
    let schema = |flag: &str| parsed.get(flag).filter(|text| !text.is_empty()).map(str::to_owned);
    let rdt = IntelRdt {
        l3_cache_schema: schema("l3-cache-schema"),
        mem_bw_schema: schema("mem-bw-schema"),
        ..IntelRdt::default()
    };
    match &record.class {
        _ if rdt.l3_cache_schema.is_none() && rdt.mem_bw_schema.is_none() => Ok(()),
        Some(class) => resctrl::update(&class.path, &rdt),
        None => {
            let text = "--l3-cache-schema and --mem-bw-schema need a container that was created with linux.intelRdt";
            Err(Error::Invalid(text.to_owned()))
        }
    }
}

fn of_flags(parsed: &Parsed) -> Result<LinuxResources> {
    let mut resources = Map::new();
    let numbers = [
        ("blkio-weight", "blockIO", "weight"),
        ("cpu-period", "cpu", "period"),
        ("cpu-quota", "cpu", "quota"),
        ("cpu-burst", "cpu", "burst"),
        ("cpu-share", "cpu", "shares"),
        ("cpu-rt-period", "cpu", "realtimePeriod"),
        ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
        ("cpu-idle", "cpu", "idle"),
        ("pids-limit", "pids", "limit"),
    ];
    let mut set = |section: &str, name: &str, value: Value| {
        resources.entry(section.to_owned()).or_insert_with(|| json!({}))[name] = value;
    };
    for (flag, section, name) in numbers {
        if let Some(text) = parsed.get(flag).filter(|text| !text.is_empty()) {
            let number: i64 = text
                .parse()
                .map_err(|_| Error::Invalid(format!("invalid value for {flag}: {text:?} is not a number")))?;
            // 0 is "not given", but for what has a meaning of its own.
            if number != 0 || matches!(flag, "cpu-idle" | "cpu-burst") {
                set(section, name, json!(number));
            }
        }
    }
    for (flag, name) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(text) = parsed.get(flag).filter(|text| !text.is_empty()) {
            set("cpu", name, json!(text));
        }
    }
    let sizes = [
        ("memory", "limit"),
        ("memory-reservation", "reservation"),
        ("memory-swap", "swap"),
        ("kernel-memory", "kernel"),
        ("kernel-memory-tcp", "kernelTCP"),
    ];
    for (flag, name) in sizes {
        if let Some(text) = parsed.get(flag).filter(|text| !text.is_empty()) {
            let size = size(text)
                .ok_or_else(|| Error::Invalid(format!("invalid value for {flag}: invalid size: '{text}'")))?;
            if size != 0 {
                set("memory", name, json!(size));
            }
        }
    }
    serde_json::from_value(Value::Object(resources)).map_err(|error| Error::Invalid(error.to_string()))
}

/// Bytes, with Docker's suffixes; -1 for no limit.
fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    ferry_kit::units::ram_in_bytes(text).ok()
}
