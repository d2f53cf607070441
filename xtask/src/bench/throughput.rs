//! How fast data moves from one container to another on the default bridge, by Debian's iperf3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::engine::Engine;
use super::table::{Bar, Row, Unit};
use crate::apt::Apt;
use crate::shell;
use crate::workspace::Workspace;

const IMAGE: &str = "bench-iperf:latest";
/// iperf3 and what it is linked with.
const PACKAGES: [&str; 5] = ["iperf3", "libiperf0", "libsctp1", "libssl3", "libc6"];

/// A second of TCP with one connection, in turns; servers and clients live through all of it.
pub fn row(workspace: &Workspace, engines: &[Engine], pairs: usize) -> Result<Row> {
    let tar = root(workspace)?;
    let mut servers = Vec::new();
    for engine in engines {
        engine.import(&tar, IMAGE)?;
        engine.time(&["run", "-d", "--name", "iperf-server", IMAGE, "/usr/bin/iperf3", "-s"])?;
        // It has something to do that lasts until it is removed: another server.
        engine.time(&["run", "-d", "--name", "iperf-client", IMAGE, "/usr/bin/iperf3", "-s"])?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        servers.push(
            engine
                .output(&["inspect", "-f", format, "iperf-server"])?
                .trim()
                .to_owned(),
        );
    }
    thread::sleep(Duration::from_millis(500));
    let mut samples = vec![Vec::new(); engines.len()];
    for _ in 0..pairs {
        for ((engine, server), samples) in engines.iter().zip(&servers).zip(&mut samples) {
            samples.push(gigabits(engine, server)?);
        }
    }
    for engine in engines {
        engine.time(&["rm", "-f", "iperf-server", "iperf-client"])?;
    }
    let row = Row::new(
        "iperf3 from container to container, default bridge",
        Unit::Gigabits,
        Bar::Share(0.9),
        samples,
    );
    println!("{}", row.line());
    Ok(row)
}

fn gigabits(engine: &Engine, server: &str) -> Result<f64> {
    let report = engine.output(&["exec", "iperf-client", "/usr/bin/iperf3", "-c", server, "-t", "1", "-J"])?;
    let report: Value = serde_json::from_str(&report).context("read iperf3's report")?;
    let received = &report["end"]["sum_received"]["bits_per_second"];
    let bits = received
        .as_f64()
        .ok_or_else(|| anyhow!("{}: iperf3 says {report}", engine.name))?;
    Ok(bits / 1e9)
}

/// A root with these packages alone, kept below `target/fixtures`.
fn root(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.target.join("fixtures");
    let tar = place.join("bench-iperf.tar");
    if tar.is_file() {
        return Ok(tar);
    }
    let (lists, fresh) = (workspace.tools().join("apt/iperf"), place.join("bench-iperf.new"));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("create {}", fresh.display()))?;
    let apt = Apt::update(&lists, "bookworm")?;
    for package in PACKAGES {
        apt.unpack(package, &fresh)?;
    }
    pack(&fresh, &tar)?;
    fs::remove_dir_all(&fresh).context("remove what is packed")?;
    fs::remove_dir_all(lists).context("remove the package lists")?;
    Ok(tar)
}

fn pack(root: &Path, tar: &Path) -> Result<()> {
    // iperf3 keeps what it sends in a file there.
    fs::create_dir_all(root.join("tmp"))?;
    shell::run(
        Command::new("tar")
            .arg("-C")
            .arg(root)
            .args(["--exclude=./usr/share", "-cf"])
            .arg(tar)
            .arg("."),
    )
}
