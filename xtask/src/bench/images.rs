//! `cargo xtask bench --images`: images moved by Ferry, containerd's `ctr`, podman and Docker Engine. Every engine begins with
//! an empty store on a file system that was made for it; the engines take turns, so that a noisy moment hits all.

mod blob;
mod content;
mod engines;
mod layer;
mod make;
mod options;
mod process;
mod results;
mod stage;
mod walk;

use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::table;
use crate::workspace::Workspace;
use engines::{Engine, SAVED, SOURCE, TARGET};
use make::Image;
use options::{Op, Options};
use process::Daemon;
use results::{Results, Sample};
use stage::{HERE, MEMORY, STORE, Stage, Usage};

/// Files that an engine may still have of an image that was removed: its own records.
const RECORDS: u64 = 100;

pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    let options = Options::parse(arguments)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => workspace.build_dist()?,
    };
    let Some(mut stage) = Stage::set_up(workspace)? else {
        bail!("nothing to compare with: the peers are not set up (FERRY_PEERS names their script)");
    };
    let page = stage
        .show(&binary, "ferry")
        .and_then(|()| measure(workspace, &mut stage, &options));
    let struck = stage.strike();
    let page = page?;
    struck?;
    println!("\n{page}");
    if options.write {
        table::write(&workspace.root.join("docs/benchmarks.md"), "bench:images", &page)?;
    }
    Ok(true)
}

fn measure(workspace: &Workspace, stage: &mut Stage, options: &Options) -> Result<String> {
    let source = stage.registry("source", SOURCE)?;
    stage.keep(source);
    let mut all = Vec::new();
    for &image in &options.images {
        let layout = make::image(workspace, &stage.peer()?.root, image, options.scale)?;
        println!("{}", layout.line(image));
        offer(stage, options, image, &layout)?;
        all.push((image, layout));
    }
    let mut results = Results::new(&options.engines);
    for round in 0..options.rounds {
        for (image, made) in &all {
            for engine in Engine::turns(&options.engines, round) {
                let image = *image;
                let mut turn = Turn {
                    stage,
                    engine,
                    image,
                    bytes: made.gzip.min(made.tar) / 10 * 9,
                    round,
                    results: &mut results,
                };
                turn.take(options)
                    .with_context(|| format!("image ({}) with {}", image.letter(), engine.name()))?;
            }
        }
    }
    let versions = engines::versions(stage, &options.engines)?;
    let heading = super::heading()?;
    let rounds = options.rounds;
    Ok(format!(
        "Measured {heading}: Ferry, {versions}. Median of {rounds} (least–most).\n\nThe images: {}.\n\n{}",
        all.iter()
            .map(|(image, made)| made.line(*image))
            .collect::<Vec<_>>()
            .join("; "),
        results.table()
    ))
}

/// Puts an image into the registry and, where it will be loaded, into an archive, both in memory.
fn offer(stage: &Stage, options: &Options, image: Image, made: &make::Made) -> Result<()> {
    let name = image.letter();
    stage.show(&made.layout, name)?;
    let copy = format!("skopeo copy --insecure-policy -q oci:{HERE}/{name}:1");
    let reference = reference(SOURCE, image);
    stage.shell(&format!("{copy} --dest-tls-verify=false docker://{reference}"))?;
    if options.does(image, Op::Load) {
        stage.shell(&format!("{copy} docker-archive:{}:{reference}", archive(image)))?;
    }
    Ok(())
}

fn reference(port: u16, image: Image) -> String {
    format!("127.0.0.1:{port}/img/{}:1", image.letter())
}

fn archive(image: Image) -> String {
    format!("{MEMORY}/{}.tar", image.letter())
}

/// One engine with one image in one round.
struct Turn<'a> {
    stage: &'a Stage,
    engine: Engine,
    image: Image,
    /// A little less than its layers take compressed: no engine can have it in so few.
    bytes: u64,
    round: usize,
    results: &'a mut Results,
}

impl Turn<'_> {
    fn take(&mut self, options: &Options) -> Result<()> {
        let image = self.image;
        let does = |op| options.does(image, op);
        let (first_life, load) = (Op::ALL.into_iter().any(|op| op != Op::Load && does(op)), does(Op::Load));
        let after: Vec<Op> = Op::AFTER_A_PULL.into_iter().filter(|op| does(*op)).collect();
        if first_life {
            self.live(|turn, daemon| turn.pull_and(daemon, does(Op::Pull), &after))?;
        }
        if load {
            self.live(|turn, daemon| {
                let empty = turn.stage.usage()?;
                let command = turn.engine.load(&archive(turn.image));
                turn.time(daemon, Op::Load, &command, None)?;
                turn.must_have(&empty)
            })?;
        }
        Ok(())
    }

    /// From an empty disk to the end of the engine.
    fn live(&mut self, work: impl FnOnce(&mut Self, Option<&Daemon>) -> Result<()>) -> Result<()> {
        self.stage.fresh_disk()?;
        let mut daemon = self.engine.start(self.stage)?;
        self.stage.sync()?;
        work(self, daemon.as_ref())?;
        if let Some(daemon) = &mut daemon
            && !daemon.alive()?
        {
            bail!("the daemon did not survive it");
        }
        Ok(())
    }

    /// The pull, which what follows needs, and what follows.
    fn pull_and(&mut self, daemon: Option<&Daemon>, record: bool, after: &[Op]) -> Result<()> {
        let image = reference(SOURCE, self.image);
        let empty = self.stage.usage()?;
        let pull = self.engine.pull(&image);
        if record {
            self.time(daemon, Op::Pull, &pull, None)?;
        } else {
            self.stage.spend(&pull)?;
            self.stage.sync()?;
        }
        self.must_have(&empty)?;
        for op in after {
            match op {
                Op::Again => self.time(daemon, Op::Again, &pull, None)?,
                Op::Push => self.push(daemon, &image)?,
                Op::Save => {
                    self.time(daemon, Op::Save, &self.engine.save(&image), None)?;
                    self.stage
                        .shell(&format!("test -s {STORE}/{SAVED} && rm {STORE}/{SAVED}"))?;
                    self.stage.sync()?;
                }
                Op::Remove => {
                    let command = self.engine.remove(&image);
                    self.time(daemon, Op::Remove, &command, Some(empty.files + RECORDS))?;
                }
                Op::Pull | Op::Load => {}
            }
        }
        Ok(())
    }

    /// To a registry that has nothing.
    fn push(&mut self, daemon: Option<&Daemon>, image: &str) -> Result<()> {
        let registry = self.stage.registry("target", TARGET)?;
        let to = reference(TARGET, self.image);
        let (prepare, push) = self.engine.push(image, &to);
        self.stage.spend(&prepare)?;
        self.time(daemon, Op::Push, &push, None)?;
        let manifest = format!("http://127.0.0.1:{TARGET}/v2/img/{}/manifests/1", self.image.letter());
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
        self.stage
            .shell(&format!("curl -sfI -H 'Accept: {accept}' {manifest}"))?;
        // So that the image has one name again, as before.
        self.stage.spend(&self.engine.remove(&to))?;
        self.stage.sync()?;
        drop(registry);
        self.stage.shell(&format!("rm -rf {MEMORY}/target")).map(drop)
    }

    /// The engine says that it has the image, and the disk is as full as it must be then.
    fn must_have(&self, empty: &Usage) -> Result<()> {
        let check = self.engine.has(&reference(SOURCE, self.image));
        self.stage.shell(&check).context("the image is not there")?;
        let (bytes, least) = (self.stage.usage()?.bytes.saturating_sub(empty.bytes), self.bytes);
        if bytes < least {
            bail!("the disk holds {bytes} bytes more than before, and the image needs {least}");
        }
        Ok(())
    }

    /// Runs a command of the engine and keeps what it took. With `files`, it is settled when no more than these are left.
    fn time(&mut self, daemon: Option<&Daemon>, op: Op, command: &str, files: Option<u64>) -> Result<()> {
        let before = daemon.map_or(0.0, Daemon::cpu);
        daemon.map_or(Ok(()), Daemon::forget_peak)?;
        let started = Instant::now();
        let (wall, spent) = self.stage.spend(command)?;
        let between = started.elapsed() - wall;
        if let Some(most) = files {
            self.stage.wait_for_files(most)?;
        }
        self.stage.sync()?;
        let settled = started.elapsed() - between;
        let sample = Sample {
            wall: wall.as_secs_f64(),
            settled: settled.as_secs_f64(),
            cpu: daemon.map_or(0.0, Daemon::cpu) - before + spent.cpu,
            peak: daemon.map_or(spent.peak, Daemon::peak),
        };
        println!(
            "round {}: {} of ({}) by {}: {sample}",
            self.round + 1,
            op.name(),
            self.image.letter(),
            self.engine.name()
        );
        self.results.add(self.image, op, self.engine, sample);
        Ok(())
    }
}
