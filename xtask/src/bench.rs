//! `cargo xtask bench`: Ferry beside Docker Engine, in pairs, in one run. Each engine with its own command line, from
//! outside its namespaces, over its unix socket; the same root file system; A B A B …, so that a noisy moment of the
//! machine hits both.

mod builds;
mod engine;
pub mod images;
mod many;
mod memory;
pub mod registry;
mod runtime;
mod table;
mod throughput;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::peer::Peer;
use crate::shell;
use crate::workspace::{Workspace, mebibytes};
use engine::{Engine, IMAGE};
use table::{Bar, Row, Unit};

const PEER: &str = "ferry-bench";

/// Everything, or the OCI runtimes alone.
pub fn run(workspace: &Workspace, quick: bool, only_runtimes: bool, write: bool) -> Result<bool> {
    let binary = workspace.build_dist()?;
    let rounds = if quick { 5 } else { 21 };
    let document = workspace.root.join("docs/benchmarks.md");
    let mut peer = Peer::start(workspace, PEER)?;
    if let Some(running) = &peer {
        let page = runtime::page(workspace, &binary, running, rounds, &heading()?);
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                peer.take().map_or(Ok(()), Peer::stop)?;
                return Err(error);
            }
        };
        println!("{page}");
        if write {
            table::write(&document, "bench:runtime", &page)?;
        }
    } else {
        println!("nothing to compare with: the peers are not set up");
    }
    if only_runtimes {
        peer.map_or(Ok(()), Peer::stop)?;
        return Ok(true);
    }
    let mut engines = vec![Engine::ferry(&binary)?];
    let page = measure(workspace, &binary, peer, &mut engines, rounds);
    for engine in engines {
        engine.stop()?;
    }
    let page = page?;
    if write {
        table::write(&document, "bench", &page)?;
    }
    Ok(true)
}

/// The table of engines that have many containers; of that binary, or of the one that is shipped.
pub fn many(workspace: &Workspace, binary: Option<&str>, quick: bool, write: bool) -> Result<bool> {
    let binary = binary.map_or_else(|| workspace.build_dist(), |path| Ok(std::path::absolute(path)?))?;
    let Some(peer) = Peer::start(workspace, PEER)? else {
        println!("nothing to compare with: the peers are not set up");
        return Ok(false);
    };
    let mut engines = vec![Engine::docker(workspace, peer)?];
    let page = match Engine::ferry(&binary) {
        Ok(ferry) => {
            engines.insert(0, ferry);
            let imported = engines.iter().try_for_each(Engine::import_image);
            let rounds = if quick { 5 } else { 21 };
            imported.and_then(|()| many::page(&mut engines, rounds, &heading()?))
        }
        Err(error) => Err(error),
    };
    for engine in engines {
        engine.stop()?;
    }
    let page = page?;
    println!("\n{page}");
    if write {
        table::write(&workspace.root.join("docs/benchmarks.md"), "bench:many", &page)?;
    }
    Ok(true)
}

/// The builders' tables; of that binary, or of the one that is shipped.
pub fn builders(workspace: &Workspace, binary: Option<&str>, quick: bool, write: bool) -> Result<bool> {
    let binary = binary.map_or_else(|| workspace.build_dist(), |path| Ok(std::path::absolute(path)?))?;
    let Some(peer) = Peer::start(workspace, PEER)? else {
        println!("nothing to compare with: the peers are not set up");
        return Ok(false);
    };
    let page = builds::run(workspace, &binary, peer, quick, &heading()?)?;
    println!("\n{page}");
    if write {
        table::write(&workspace.root.join("docs/benchmarks.md"), "bench:builds", &page)?;
    }
    Ok(true)
}

/// The registries' table.
pub fn registries(workspace: &Workspace, quick: bool, write: bool) -> Result<bool> {
    let binary = workspace.build_dist()?;
    let Some(peer) = Peer::start(workspace, PEER)? else {
        println!("nothing to compare with: the peers are not set up");
        return Ok(false);
    };
    let rounds = if quick { 1 } else { 5 };
    let page = registry::page(&binary, &peer, rounds, &heading()?);
    peer.stop()?;
    let page = page?;
    println!("\n{page}");
    if write {
        table::write(&workspace.root.join("docs/benchmarks.md"), "bench:registry", &page)?;
    }
    Ok(true)
}

/// The engines' table. Whatever was started is in `engines`, also on failure.
fn measure(
    workspace: &Workspace,
    binary: &Path,
    peer: Option<Peer>,
    engines: &mut Vec<Engine>,
    rounds: usize,
) -> Result<String> {
    if let Some(peer) = peer {
        engines.push(Engine::docker(workspace, peer)?);
    }
    let engines: &[Engine] = engines;
    for engine in engines {
        engine.import_image()?;
    }
    let mut rows = Vec::new();
    // Both warm up once, so that no first time is in a sample.
    for engine in engines {
        engine.time(&["run", "--rm", IMAGE, "true"])?;
    }
    rows.push(memory::at_rest(engines)?);
    let on_bridge = ["run", "--rm", IMAGE, "true"];
    rows.push(timed(
        "`run --rm IMAGE true`, default bridge",
        Bar::Times(20.0),
        engines,
        rounds,
        |e| e.time(&on_bridge),
    )?);
    let alone = ["run", "--rm", "--network", "none", IMAGE, "true"];
    rows.push(timed(
        "`run --rm IMAGE true`, `--network none`",
        Bar::Times(20.0),
        engines,
        rounds,
        |e| e.time(&alone),
    )?);
    rows.push(of_the_bridge(engines, rounds)?);
    rows.push(throughput::row(workspace, engines, rounds.min(10))?);
    for engine in engines {
        engine.time(&["run", "-d", "--name", "box", IMAGE, "sleep", "100000"])?;
    }
    rows.push(timed("`exec true`", Bar::Times(20.0), engines, rounds, |e| {
        e.time(&["exec", "box", "true"])
    })?);
    rows.push(memory::of_a_shim(engines)?);
    for engine in engines {
        engine.time(&["rm", "-f", "box"])?;
    }
    let removal = |engine: &Engine| {
        engine.time(&["run", "-d", "--name", "victim", IMAGE, "sleep", "100000"])?;
        engine.time(&["rm", "-f", "victim"])
    };
    rows.push(timed(
        "`rm -f` of a running container",
        Bar::Times(15.0),
        engines,
        rounds,
        removal,
    )?);
    let (starts, total) = hundred_starts(engines, if rounds < 10 { 1 } else { 3 })?;
    rows.push(starts);
    rows.extend(total);
    let size = mebibytes(binary)?;
    rows.push(Row::new("the binary", Unit::MiB, Bar::Most(25.0), vec![vec![size]]));

    let page = table::page(&rows, &heading()?);
    println!("\n{page}");
    Ok(page)
}

/// Milliseconds of every engine, taken in turns.
fn timed(
    what: &str,
    bar: Bar,
    engines: &[Engine],
    rounds: usize,
    once: impl Fn(&Engine) -> Result<Duration>,
) -> Result<Row> {
    let mut samples = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (engine, samples) in engines.iter().zip(&mut samples) {
            let time = once(engine).with_context(|| format!("{what} on {}", engine.name))?;
            samples.push(time.as_secs_f64() * 1000.0);
        }
    }
    let row = Row::new(what, Unit::Milliseconds, bar, samples);
    println!("{}", row.line());
    Ok(row)
}

/// What attaching to the default bridge and detaching from it add, each sample the difference of two runs in a row.
fn of_the_bridge(engines: &[Engine], rounds: usize) -> Result<Row> {
    let mut samples = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (engine, samples) in engines.iter().zip(&mut samples) {
            let attached = engine.time(&["run", "--rm", IMAGE, "true"])?;
            let alone = engine.time(&["run", "--rm", "--network", "none", IMAGE, "true"])?;
            samples.push((attached.as_secs_f64() - alone.as_secs_f64()) * 1000.0);
        }
    }
    let what = "what the default bridge adds to `run --rm`";
    let row = Row::new(what, Unit::Milliseconds, Bar::Most(8.0), samples);
    println!("{}", row.line());
    Ok(row)
}

/// `run -d` a hundred times, sixteen at a time; while they run, what the engines and their shims weigh.
fn hundred_starts(engines: &[Engine], rounds: usize) -> Result<(Row, Vec<Row>)> {
    let mut samples = vec![Vec::new(); engines.len()];
    let mut weights = Vec::new();
    for _ in 0..rounds {
        for (engine, samples) in engines.iter().zip(&mut samples) {
            let started = Instant::now();
            engine.many(100, 16, &["run", "-d", IMAGE, "sleep", "100000"])?;
            samples.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        weights = memory::with_containers(engines)?;
        for engine in engines {
            engine.remove_all()?;
        }
    }
    let row = Row::new(
        "100 × `run -d`, 16 at a time",
        Unit::Milliseconds,
        Bar::Times(10.0),
        samples,
    );
    println!("{}", row.line());
    Ok((row, weights))
}

/// Date, kernel and processor of the table.
fn heading() -> Result<String> {
    let date = shell::output(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let kernel = shell::output(std::process::Command::new("uname").arg("-r"))?;
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!(
        "{}, Linux {}, {count} × {}",
        date.trim(),
        kernel.trim(),
        model.unwrap_or("?")
    ))
}
