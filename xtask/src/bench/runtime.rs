//! `ferry runtime` beside runc and crun: the same bundle, in turns, inside the peers' root, where those two are at home.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::peer::Peer;
use crate::shell;
use crate::workspace::Workspace;

const RUNTIMES: [(&str, &str); 4] = [
    ("Ferry", "/host/ferry-bench runtime"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("Debian 12's crun", "/host/ferry-crun/crun"),
];
/// Commands a sample, so that entering the namespaces weighs little.
const REPEAT: u32 = 10;

/// The script's `$R` is a runtime with a root of its own; its bundle is the working directory, and `$I` its name, for the names
/// of containers: one name is one control group. crun refuses a hybrid machine, so the second hierarchy goes in a mount
/// namespace of the script's own.
const PREPARE: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; mkdir -p /tmp/rb-$I/rootfs/bin; cd /tmp/rb-$I; \
    [ -f rootfs/bin/busybox ] || cp /bin/busybox rootfs/bin/; ln -sf busybox rootfs/bin/true; ln -sf busybox rootfs/bin/sleep; rm -f config.json; runc spec; \
    sed -i 's/\"ociVersion\": \"[^\"]*\"/\"ociVersion\": \"1.0.2\"/; s/\"terminal\": true/\"terminal\": false/' config.json; ";

struct Line {
    what: &'static str,
    unit: &'static str,
    samples: [Vec<f64>; RUNTIMES.len()],
}

/// How many containers run while the cycle is measured once more.
const CROWD: u32 = 1000;

/// The tables in Markdown.
pub fn page(workspace: &Workspace, binary: &Path, peer: &Peer, rounds: usize, heading: &str) -> Result<String> {
    let share = &peer.share;
    shell::run(shell::cargo().args(["build", "--release", "--package", "ferry-e2e", "--example", "floor"]))?;
    std::fs::copy(binary, share.join("ferry-bench")).context("copy the binary to the peers")?;
    let floor = workspace.binary("release").with_file_name("examples/floor");
    std::fs::copy(floor, share.join("ferry-floor")).context("copy the floor to the peers")?;
    let old = share.join("ferry-crun");
    std::fs::create_dir_all(&old).context("make a place for the old crun")?;
    for file in ["bin/crun", "lib/x86_64-linux-gnu/libyajl.so.2"].map(Path::new) {
        let from = workspace.root.join("target/tools/runtimes/usr").join(file);
        let to = old.join(file.file_name().unwrap_or_default());
        std::fs::copy(from, to).context("copy the old crun to the peers (`cargo xtask setup` downloads it)")?;
    }
    let page = tables(peer, rounds, heading);
    for name in ["ferry-bench", "ferry-floor"] {
        let _ = std::fs::remove_file(share.join(name));
    }
    let _ = std::fs::remove_dir_all(old);
    page
}

fn tables(peer: &Peer, rounds: usize, heading: &str) -> Result<String> {
    let cycle = "sed -i 's/\"sh\"/\"\\/bin\\/true\"/' config.json; for i in $(seq N); do $R create b$I </dev/null >/dev/null 2>&1; \
                 $R start b$I; $R delete --force b$I; done";
    let exec = "for i in $(seq N); do $R exec e$I /bin/true </dev/null; done";
    let up = "sed -i 's/\"sh\"/\"\\/bin\\/sleep\",\"1000\"/' config.json; $R delete --force e$I 2>/dev/null; \
              $R create e$I </dev/null >/dev/null 2>&1; $R start e$I";
    let mut lines = vec![
        measure("create + start + delete of `true`", peer, rounds, "", cycle, "")?,
        measure(
            "`exec true`",
            peer,
            rounds,
            up,
            exec,
            "$R delete --force e$I; cd /; rm -rf /tmp/rb-$I",
        )?,
        peak(peer)?,
    ];
    let floor = floor(peer)?;
    lines.insert(1, crowded(peer, rounds, cycle)?);
    let versions = versions(peer)?;
    let mut page = format!(
        "Measured {heading}: Ferry, {versions}. Median (least).\n\n| what | {} |\n|{}\n",
        RUNTIMES.map(|(name, _)| name).join(" | "),
        "---|".repeat(RUNTIMES.len() + 1)
    );
    for line in &mut lines {
        let _ = write!(page, "| {} ", line.what);
        for samples in &mut line.samples {
            samples.sort_by(f64::total_cmp);
            let (least, middle) = (samples[0], samples[samples.len() / 2]);
            let _ = write!(page, "| **{middle:.2}** {} ({least:.2}) ", line.unit);
        }
        page.push_str("|\n");
    }
    page.push('\n');
    page.push_str(&floor);
    Ok(page)
}

fn versions(peer: &Peer) -> Result<String> {
    let script = "for r in runc crun '/host/ferry-crun/crun'; do LD_LIBRARY_PATH=/host/ferry-crun $r --version | head -n 1 \
                  | sed 's/ version//'; done";
    let text = shell::output(peer.command().args(["sh", "-c", script]))?;
    Ok(text.trim().replace('\n', ", "))
}

/// The cycle while a thousand others run, which are Ferry's for all three: what is measured is how each copes.
fn crowded(peer: &Peer, rounds: usize, cycle: &str) -> Result<Line> {
    let (_, ferry) = RUNTIMES[0];
    let crowd = |work: &str| script(peer, ferry, "crowd", &work.replace("COUNT", &CROWD.to_string()));
    crowd(
        "sed -i 's/\"sh\"/\"\\/bin\\/sleep\",\"10000\"/' config.json; \
         for i in $(seq COUNT); do $R create k$i </dev/null >/dev/null 2>&1; $R start k$i; done",
    )?;
    let line = measure(
        "the same, with 1,000 containers running",
        peer,
        rounds.min(11),
        "",
        cycle,
        "",
    );
    crowd("for i in $(seq COUNT); do $R delete --force k$i; done; cd /; rm -rf /tmp/rb-crowd")?;
    line
}

/// Where the time of a cycle goes: the bare system calls, and three starts of a program that does nothing.
fn floor(peer: &Peer) -> Result<String> {
    let work =
        "for d in proc sys dev; do mkdir -p rootfs/$d; done; /host/ferry-floor $PWD/rootfs 200 /host/ferry-bench";
    let text = script(peer, "true", "floor", work)?;
    let number = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        Ok(line.with_context(|| format!("no {name} in {text:?}"))?.parse::<f64>()? / 1000.0)
    };
    let (groups, container, removal) = (number("mkdir")?, number("container")?, number("rmdir")?);
    let start = number("start")?;
    Ok(format!(
        "The floor of a cycle, of the same system calls without anything around them (medians of 200):\n\n\
         | what | ms |\n|---|---|\n\
         | control groups made | {groups:.2} |\n\
         | clone, mounts, devices, pivot_root, execve of a static `true`, its end | {container:.2} |\n\
         | control groups removed | {removal:.2} |\n\
         | three starts of Ferry's binary (`--version`: {start:.2} each) | {:.2} |\n\
         | together | {:.2} |\n",
        3.0 * start,
        groups + container + removal + 3.0 * start
    ))
}

fn script(peer: &Peer, runtime: &str, name: &str, text: &str) -> Result<String> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let libraries = if runtime.starts_with("/host/ferry-crun") {
        "export LD_LIBRARY_PATH=/host/ferry-crun;"
    } else {
        ""
    };
    let text = format!(
        "I={name}; {libraries} {PREPARE} R=\"{runtime} --root /tmp/rb-{name}/state\"; {}",
        text.replace('N', &REPEAT.to_string())
    );
    shell::output(peer.command().args(["unshare", "-m", "sh", "-c", &text]))
}

fn measure(what: &'static str, peer: &Peer, rounds: usize, before: &str, work: &str, after: &str) -> Result<Line> {
    let mut samples: [Vec<f64>; RUNTIMES.len()] = Default::default();
    for (name, runtime) in RUNTIMES {
        script(peer, runtime, name, before)?;
    }
    for _ in 0..rounds {
        for ((name, runtime), samples) in RUNTIMES.iter().zip(&mut samples) {
            let empty = Instant::now();
            script(peer, runtime, name, "true")?;
            let overhead = empty.elapsed();
            let started = Instant::now();
            script(peer, runtime, name, work)?;
            let took = started.elapsed().saturating_sub(overhead);
            samples.push(took.as_secs_f64() * 1000.0 / f64::from(REPEAT));
        }
    }
    for (name, runtime) in RUNTIMES {
        script(peer, runtime, name, after)?;
    }
    Ok(Line {
        what,
        unit: "ms",
        samples,
    })
}

/// The largest resident set of `create`, as its parent is told (wait4(2)).
fn peak(peer: &Peer) -> Result<Line> {
    let work = "busybox time -v -o time $R create m$I </dev/null >/dev/null 2>&1; $R delete --force m$I; \
                sed -n 's/.*Maximum resident.*: //p' time";
    let mut samples: [Vec<f64>; RUNTIMES.len()] = Default::default();
    for ((name, runtime), samples) in RUNTIMES.iter().zip(&mut samples) {
        let text = script(peer, runtime, name, work)?;
        let kilobytes: f64 = text.trim().parse().with_context(|| format!("{name} said {text:?}"))?;
        samples.push(kilobytes / 1024.0);
    }
    Ok(Line {
        what: "most memory of `create`, resident",
        unit: "MiB",
        samples,
    })
}
