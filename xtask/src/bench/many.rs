//! Engines that have many containers: a thousand stopped ones, and up to two hundred that run.

use anyhow::Result;

use super::engine::{Engine, IMAGE};
use super::table::{self, Bar, Row, Unit};
use super::timed;

const STOPPED: usize = 1000;
const RUNNING: usize = 100;
const WATCHED: usize = 200;
const AT_ONCE: usize = 8;
const RESTARTS: usize = 5;

/// The table. The engines are restarted: without that, Docker's would end its containers with itself.
pub fn page(engines: &mut [Engine], rounds: usize, heading: &str) -> Result<String> {
    for engine in engines.iter_mut() {
        engine.restart()?;
        engine.many(RUNNING, AT_ONCE, &["run", "-d", IMAGE, "sleep", "100000"])?;
        engine.many(STOPPED, AT_ONCE, &["create", IMAGE, "true"])?;
    }
    let mut rows = Vec::new();
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
