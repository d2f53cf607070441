//! Engines that have much to look through: a log of 5 GB, a thousand stopped containers, and up to two hundred that run.

use anyhow::Result;

use super::engine::{Engine, IMAGE};
use super::table::{self, Bar, Row, Unit};
use super::timed;

const STOPPED: usize = 1000;
const RUNNING: usize = 100;
const WATCHED: usize = 200;
const AT_ONCE: usize = 8;
const RESTARTS: usize = 5;
/// Of 100 bytes, which are some 170 in json-file's format.
const LINES: usize = 30_000_000;

/// The table. The engines are restarted: without that, Docker's would end its containers with itself.
pub fn page(engines: &mut [Engine], rounds: usize, heading: &str) -> Result<String> {
    let mut rows = vec![long_log(engines, rounds)?];
    for engine in engines.iter_mut() {
        engine.restart()?;
        engine.many(RUNNING, AT_ONCE, &["run", "-d", IMAGE, "sleep", "100000"])?;
        engine.many(STOPPED, AT_ONCE, &["create", IMAGE, "true"])?;
    }
    let of = |what: &str| format!("{what}, {STOPPED} stopped and {RUNNING} running");
    let list = ["ps", "-a"];
    rows.push(timed(&of("`ps -a`"), Bar::Times(5.0), engines, rounds, |e| {
        e.time(&list)
    })?);
    let (mut up, mut pinged) = (vec![Vec::new(); engines.len()], vec![Vec::new(); engines.len()]);
    for _ in 0..RESTARTS.min(rounds) {
        for (index, engine) in engines.iter_mut().enumerate() {
            let (ping, all) = engine.restart()?;
            pinged[index].push(ping.as_secs_f64() * 1000.0);
            up[index].push(all.as_secs_f64() * 1000.0);
        }
    }
    let start = "engine killed and started again until it lists all";
    rows.push(Row::new(&of(start), Unit::Milliseconds, Bar::Times(5.0), up));
    let ping = "… until `/_ping` is answered";
    rows.push(Row::new(ping, Unit::Milliseconds, Bar::Most(300.0), pinged));
    for engine in engines.iter() {
        engine.many(WATCHED - RUNNING, AT_ONCE, &["run", "-d", IMAGE, "sleep", "100000"])?;
    }
    let stats = ["stats", "--no-stream"];
    let what = format!("`stats --no-stream`, {WATCHED} running");
    rows.push(timed(&what, Bar::Times(5.0), engines, rounds.min(7), |e| {
        e.time(&stats)
    })?);
    Ok(table::page(&rows, heading))
}

/// The end of a log that a container wrote.
fn long_log(engines: &[Engine], rounds: usize) -> Result<Row> {
    let line = "0123456789".repeat(10);
    let script = format!("busybox yes {} | busybox head -n {LINES}", &line[1..]);
    for engine in engines {
        let log = ["--log-driver", "json-file", "--log-opt", "max-size=10g"];
        let begin = ["run", "-d", "--name", "talker"].into_iter().chain(log);
        let all: Vec<&str> = begin.chain([IMAGE, "sh", "-c", &script]).collect();
        engine.time(&all)?;
        println!(
            "{} writes a log: {:.0} s",
            engine.name,
            engine.time(&["wait", "talker"])?.as_secs_f64()
        );
        engine.settle()?;
    }
    let what = format!("`logs --tail 100` of {} million lines, 5 GB", LINES / 1_000_000);
    let row = timed(&what, Bar::Times(5.0), engines, rounds, |e| {
        e.time(&["logs", "--tail", "100", "talker"])
    })?;
    engines
        .iter()
        .try_for_each(|engine| engine.time(&["rm", "talker"]).map(drop))?;
    Ok(row)
}
