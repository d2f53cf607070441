//! `stats` (docker/cli's container/stats.go and formatter_stats.go, 28.5).

use std::time::Duration;

use ferry_api::container::{CpuStats, MemoryStats, Stats, Summary};
use ferry_client::{Client, Query};
use ferry_kit::units;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::{Result, describe},
    flags::{Arity, Spec},
    format::{Listing, list, short_id},
};

pub const SPEC: Spec = Spec {
    name: "stats",
    aliases: "container stats, stats",
    synopsis: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    arity: Arity::AtLeast(0),
    flags: concat!(
        "-a, --all | Show all containers (default shows just running)\n",
        crate::flags::table_format!(),
        "\n\
--no-stream | Disable streaming stats and only pull the first result
--no-trunc | Do not truncate output"
    ),
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

/// How often the table is drawn.
const PACE: Duration = Duration::from_secs(1);
/// Containers asked about at the same time.
const AT_ONCE: usize = 16;
/// The cursor to the corner; the rest of a line, of the screen, goes.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST: &str = "\x1b[J";

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let format = match call.matches.text("format") {
        "" => call.config().stats_format.clone(),
        format => format.to_owned(),
    };
    let format = if format.is_empty() { "table".to_owned() } else { format };
    let truncate = !call.matches.switch("no-trunc");
    let mut names = call.matches.arguments.clone();
    // Of those that were named: an unknown one is a mistake. One that goes later is not.
    let named = !names.is_empty();
    if call.matches.switch("no-stream") {
        let (samples, mut failures) = look(&call, &names).await?;
        let text = shown(&format, &samples, truncate)?;
        if let Some(last) = failures.pop() {
            failures.iter().for_each(|failure| call.ui.error_line(failure));
            return Err(crate::failure::Failure::new(last));
        }
        call.ui.print(&text);
        return Ok(0);
    }
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        pace.tick().await;
        let (samples, failures) = look(&call, &names).await?;
        if first && let Some(failure) = failures.into_iter().next() {
            return Err(crate::failure::Failure::new(failure));
        }
        first = false;
        if named {
            names = samples.iter().map(|(name, _)| name.clone()).collect();
            if names.is_empty() {
                return Ok(0);
            }
        }
        let mut screen = HOME.to_owned();
        for line in shown(&format, &samples, truncate)?.lines() {
            screen.push_str(&format!("{line}{REST_OF_LINE}\n"));
        }
        screen.push_str(REST);
        call.ui.print(&screen);
    }
}

/// A sample of each container, by the name it was asked for, in that order; and what is wrong with the others.
async fn look(call: &Call<'_>, names: &[String]) -> Result<(Vec<(String, Stats)>, Vec<String>)> {
    let named = !names.is_empty();
    let names = match named {
        true => names.to_vec(),
        false => {
            let path = Query::new()
                .flag("all", call.matches.switch("all"))
                .on("/containers/json");
            let running: Vec<Summary> = call.client.get_json(&path).await?;
            running.into_iter().map(|container| container.id).collect()
        }
    };
    let sample = async |name: String| {
        let path = format!("/containers/{}/stats", Client::escape(&name));
        let stats = call
            .client
            .get_json::<Stats>(&Query::new().with("stream", "0").on(&path))
            .await;
        (name, stats)
    };
    let answers: Vec<_> = futures_util::stream::iter(names.into_iter().map(sample))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let (mut samples, mut failures) = (Vec::new(), Vec::new());
    for (name, answer) in answers {
        match answer {
            Ok(stats) => samples.push((name, stats)),
            // Removed since the list was made.
            Err(error) if !named && error.is_not_found() => {}
            Err(error) => failures.push(describe(&error)),
        }
    }
    Ok((samples, failures))
}

fn shown(format: &str, samples: &[(String, Stats)], truncate: bool) -> Result<String> {
    let rows: Vec<Value> = samples.iter().map(|(name, stats)| row(name, stats, truncate)).collect();
    let listing = Listing {
        table: TABLE,
        headings: &HEADINGS,
        type_name: "*container.statsContext",
        method: None,
    };
    list(&listing, format, &rows)
}

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
fn row(name: &str, stats: &Stats, truncate: bool) -> Value {
    let memory = memory(&stats.memory_stats) as f64;
    let limit = stats.memory_stats.limit as f64;
    let share = if limit > 0.0 { memory / limit * 100.0 } else { 0.0 };
    let bytes = |bytes: u64| units::human_size_with_precision(bytes as f64, 3);
    let networks = stats.networks.values();
    let (received, sent) = networks.fold((0, 0), |(received, sent), network| {
        (received + network.rx_bytes, sent + network.tx_bytes)
    });
    let moved = |letter: char| -> u64 {
        let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
        let of = |op: &str| {
            op.chars()
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case(&letter))
        };
        entries.filter(|entry| of(&entry.op)).map(|entry| entry.value).sum()
    };
    json!({
        "BlockIO": format!("{} / {}", bytes(moved('r')), bytes(moved('w'))),
        "CPUPerc": format!("{:.2}%", processors(&stats.cpu_stats, &stats.precpu_stats)),
        "Container": name,
        "ID": if truncate { short_id(&stats.id) } else { &stats.id },
        "MemPerc": format!("{share:.2}%"),
        "MemUsage": format!("{} / {}", units::bytes_size(memory), units::bytes_size(limit)),
        "Name": stats.name.trim_start_matches('/'),
        "NetIO": format!("{} / {}", bytes(received), bytes(sent)),
        "PIDs": stats.pids_stats.current.to_string(),
    })
}

/// Percent of one processor.
#[expect(clippy::cast_precision_loss, reason = "two digits are printed")]
fn processors(now: &CpuStats, before: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let passed = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let processors = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        online => f64::from(online),
    };
    if used > 0.0 && passed > 0.0 {
        used / passed * processors * 100.0
    } else {
        0.0
    }
}

/// Without what the kernel would give back: v1 names it with its groups below, v2 as it is.
fn memory(memory: &MemoryStats) -> u64 {
    let cache = |name: &str| memory.stats.get(name).copied().filter(|cache| *cache < memory.usage);
    let cache = match memory.stats.contains_key("total_inactive_file") {
        true => cache("total_inactive_file"),
        false => cache("inactive_file"),
    };
    memory.usage - cache.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_computed_as_docker_computes_it() {
        let stats: Stats = serde_json::from_value(json!({
            "name": "/aa", "id": "d950215b19b76698b7badb84f48f7c21f67bc846b379388c59e294a83be09dd4",
            "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 254, "minor": 0, "op": "Read", "value": 967_000},
                {"major": 254, "minor": 0, "op": "write", "value": 1},
                {"major": 254, "minor": 0, "op": "Total", "value": 5}]},
            "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000u64}, "system_cpu_usage": 12_000_000_000u64, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 1_000_000_000u64}, "system_cpu_usage": 10_000_000_000u64},
            "memory_stats": {"usage": 2_097_152, "limit": 67_108_864, "stats": {"total_inactive_file": 1_048_576, "inactive_file": 1}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 126}, "eth1": {"rx_bytes": 180, "tx_bytes": 0}},
        }))
        .unwrap();
        let text = shown("table", &[("aa".into(), stats)], true).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O         BLOCK I/O    PIDS\n\
             d950215b19b7   aa        50.00%    1MiB / 64MiB        1.56%     1.18kB / 126B   967kB / 1B   3\n"
        );
        let text = shown("json", &[("x".into(), Stats::default())], true).unwrap();
        assert_eq!(
            text,
            "{\"BlockIO\":\"0B / 0B\",\"CPUPerc\":\"0.00%\",\"Container\":\"x\",\"ID\":\"\",\"MemPerc\":\"0.00%\",\
             \"MemUsage\":\"0B / 0B\",\"Name\":\"\",\"NetIO\":\"0B / 0B\",\"PIDs\":\"0\"}\n"
        );
    }
}
