//! What processes weigh, from `/proc/PID/smaps_rollup` (proc(5)): kB, summed.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::engine::Engine;
use super::table::{Bar, Row, Unit};

/// Resident memory of the engine with an image and no container.
pub fn at_rest(engines: &[Engine]) -> Result<Row> {
    thread::sleep(Duration::from_secs(2));
    let samples = engines
        .iter()
        .map(|engine| Ok(vec![sum(&engine.processes, &["Rss"])? / 1024.0]));
    let row = Row::new(
        "engine at rest, resident",
        Unit::MiB,
        Bar::Most(20.0),
        samples.collect::<Result<Vec<Vec<f64>>>>()?,
    );
    println!("{}", row.line());
    Ok(row)
}

/// The most resident memory since the engine's start (`VmHWM`, proc(5)).
pub fn most(what: &str, bar: Bar, engines: &[&Engine]) -> Result<Row> {
    let samples = engines.iter().map(|engine| {
        let of = |pid: &u32| -> Result<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kib.ok_or_else(|| anyhow!("{pid} has no VmHWM"))
        };
        Ok(vec![engine.processes.iter().map(of).sum::<Result<f64>>()? / 1024.0])
    });
    let samples = samples.collect::<Result<Vec<Vec<f64>>>>()?;
    Ok(Row::new(what, Unit::MiB, bar, samples))
}

/// Private memory of the shim of the one container that runs.
pub fn of_a_shim(engines: &[Engine]) -> Result<Row> {
    let samples = engines.iter().map(|engine| {
        let shims = engine.shims()?;
        let shim = shims.first().ok_or_else(|| anyhow!("{} has no shim", engine.name))?;
        Ok(vec![sum(&[*shim], &["Private_Clean", "Private_Dirty"])? / 1024.0])
    });
    let row = Row::new(
        "a shim, private memory",
        Unit::MiB,
        Bar::Most(1.0),
        samples.collect::<Result<Vec<Vec<f64>>>>()?,
    );
    println!("{}", row.line());
    Ok(row)
}

/// Engine and shims while all the containers run: proportional and resident.
pub fn with_containers(engines: &[Engine]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, field, bar) in [
        (
            "engine and shims with 100 containers, proportional (PSS)",
            "Pss",
            Bar::Most(80.0),
        ),
        ("engine and shims with 100 containers, resident (RSS)", "Rss", Bar::None),
    ] {
        let samples = engines.iter().map(|engine| {
            let mut processes = engine.processes.clone();
            processes.extend(engine.shims()?);
            // MB as the issue counts them: 1,000,000 bytes.
            Ok(vec![sum(&processes, &[field])? * 1024.0 / 1e6])
        });
        let row = Row::new(what, Unit::MB, bar, samples.collect::<Result<Vec<Vec<f64>>>>()?);
        println!("{}", row.line());
        rows.push(row);
    }
    Ok(rows)
}

/// The sum of these fields over these processes, in kB.
fn sum(processes: &[u32], fields: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for process in processes {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        for field in fields {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let number = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
            sum += number.ok_or_else(|| anyhow!("{path} has no {field}"))?;
        }
    }
    Ok(sum)
}
