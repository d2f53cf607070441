//! Builds: Ferry's own command line and Docker's, on Ferry and on BuildKit in Docker Engine.

mod contexts;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::engine::{Engine, IMAGE};
use super::memory;
use super::table::{self, Bar, Row, Unit};
use crate::peer::Peer;
use crate::workspace::Workspace;
use contexts::Contexts;

/// Ferry by its own command line, BuildKit, Ferry by Docker's command line.
const BUILDERS: [&str; 3] = ["Ferry", "BuildKit", "docker build on Ferry"];
const RUNS: usize = 30;
const STAGES: usize = 8;
const SIMILAR: usize = 10;

struct Builder<'a> {
    engine: &'a Engine,
    program: PathBuf,
    /// Where Docker's command line finds its plugin.
    config: Option<PathBuf>,
}

impl Builder<'_> {
    fn run(&self, args: &[&str]) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.args(args).env("DOCKER_HOST", self.engine.host());
        if let Some(config) = &self.config {
            command.env("DOCKER_CONFIG", config);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let output = command
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        let time = started.elapsed();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: `{}` failed:\n{said}", self.engine.name, args.join(" "));
        }
        Ok(time)
    }

    /// `number` makes it another build.
    fn build(&self, context: &Path, number: usize, more: &[&str]) -> Result<Duration> {
        let (context, number) = (context.to_string_lossy(), format!("N={number}"));
        let mut args = vec!["build", "--progress", "plain", "-t", "built", "--build-arg", &number];
        args.extend(more);
        args.push(&context);
        self.run(&args)
    }

    /// Of a context that nobody has seen, when the engine is at rest. Nothing is removed before: ext4 looks long for an inode
    /// where many were freed in the last minute (`recently_deleted`, fs/ext4/ialloc.c).
    fn first(&self, context: &Path) -> Result<Duration> {
        self.engine.settle()?;
        self.build(context, 0, &[])
    }

    fn forget(&self) -> Result<()> {
        // There is none of that name the first time.
        let _ = self.run(&["image", "rm", "built"]);
        self.run(&["builder", "prune", "-af"])?;
        self.engine.settle()
    }
}

/// One row of the two tables.
struct Measured {
    what: String,
    /// Of Ferry beside BuildKit, each by its own command line.
    bar: Bar,
    samples: [Vec<f64>; 3],
}

/// Both tables.
fn page(engines: &[Engine], peer_root: &Path, quick: bool, heading: &str) -> Result<String> {
    let [ferry, docker] = engines else {
        bail!("two engines are compared");
    };
    let contexts = Contexts::make()?;
    let config = contexts.path("docker-config");
    std::fs::create_dir_all(config.join("cli-plugins"))?;
    let buildx = peer_root.join("usr/libexec/docker/cli-plugins/docker-buildx");
    symlink(&buildx, config.join("cli-plugins/docker-buildx"))?;
    let own = |engine| Builder {
        engine,
        program: Engine::cli(engine).to_owned(),
        config: None,
    };
    let by_docker = |engine| Builder {
        engine,
        program: docker.cli().to_owned(),
        config: Some(config.clone()),
    };
    let builders = [own(ferry), by_docker(docker), by_docker(ferry)];
    let bench = Bench {
        builders: &builders,
        contexts: &contexts,
        rounds: if quick { 5 } else { 11 },
    };
    let rows = bench.all()?;
    let mut page = table::page_beside(&bench.own(&rows)?, heading, "BuildKit (Docker Engine 28.5.2)");
    page += "\nThe same builds by the unmodified `docker build` (buildx) on both engines:\n\n";
    page += table::page_beside(&bench.by_docker(&rows), heading, "BuildKit (Docker Engine 28.5.2)")
        .split_once("\n\n")
        .map_or("", |(_, table)| table);
    Ok(page)
}

struct Bench<'a> {
    builders: &'a [Builder<'a>; 3],
    contexts: &'a Contexts,
    rounds: usize,
}

impl Bench<'_> {
    fn all(&self) -> Result<Vec<Measured>> {
        let small = self.rounds;
        let large = self.rounds.div_ceil(3);
        let mut rows = Vec::new();
        let ten = self.contexts.ten_instructions()?;
        for builder in self.builders {
            builder.build(&ten, 0, &[])?;
        }
        rows.push(
            self.timed("ten instructions, all cached", Bar::Times(20.0), small, |b, _| {
                b.build(&ten, 0, &[])
            })?,
        );
        let one = self.contexts.runs(1)?;
        rows.push(
            self.timed("one `RUN true` that is new", Bar::Times(10.0), small, |b, n| {
                b.build(&one, n, &[])
            })?,
        );
        let many = self.contexts.runs(RUNS)?;
        let what = format!("{RUNS} × `RUN true`, one after the other");
        rows.push(self.timed(&what, Bar::Times(20.0), large, |b, n| b.build(&many, n, &[]))?);
        let what = format!("{what}, without network");
        let alone = ["--network", "none"];
        rows.push(self.timed(&what, Bar::Times(20.0), large, |b, n| b.build(&many, n, &alone))?);
        let stages = self.contexts.stages(STAGES)?;
        let what = format!("{STAGES} stages of `RUN sleep 1` that need nothing of each other");
        rows.push(self.timed(&what, Bar::Most(1200.0), large, |b, n| b.build(&stages, n, &[]))?);
        rows.push(self.timed(
            "`COPY` of 20,000 files of 5 kB, the first time",
            Bar::Times(6.0),
            large,
            |b, _| b.first(&self.contexts.many_files()?),
        )?);
        let files = self.contexts.many_files()?;
        rows.push(
            self.timed("… with one of them changed", Bar::Times(20.0), large, |b, n| {
                b.build(&files, 0, &[])?;
                b.engine.settle()?;
                self.contexts.change_one_of(&files, n)?;
                b.build(&files, 0, &[])
            })?,
        );
        rows.push(self.timed("… with none changed", Bar::None, small, |b, _| {
            b.build(&files, 0, &[])
        })?);
        rows.push(self.timed(
            "`COPY` of 500 MB in 50 files, the first time",
            Bar::Times(3.0),
            large,
            |b, _| b.first(&self.contexts.large_files()?),
        )?);
        let written = self.contexts.written_files()?;
        rows.push(
            self.timed("a `RUN` that writes 10,000 files", Bar::Times(3.0), large, |b, n| {
                b.build(&written, n, &[])
            })?,
        );
        Ok(rows)
    }

    /// Milliseconds of every builder, taken in turns.
    fn timed(
        &self,
        what: &str,
        bar: Bar,
        rounds: usize,
        once: impl Fn(&Builder<'_>, usize) -> Result<Duration>,
    ) -> Result<Measured> {
        let mut samples = [const { Vec::new() }; 3];
        for round in 0..rounds {
            for (place, builder) in self.builders.iter().enumerate() {
                // Nobody has built it before, by whatever command line.
                let number = self.contexts.number();
                let time = once(builder, number).with_context(|| format!("{what}: {}", BUILDERS[place]))?;
                samples[place].push(time.as_secs_f64() * 1000.0);
                if round == 0 {
                    println!("{what}: {}: {:.0} ms", BUILDERS[place], time.as_secs_f64() * 1000.0);
                }
            }
        }
        Ok(Measured {
            what: what.to_owned(),
            bar,
            samples,
        })
    }

    fn own(&self, rows: &[Measured]) -> Result<Vec<Row>> {
        let row = |row: &Measured| {
            let samples = vec![row.samples[0].clone(), row.samples[1].clone()];
            Row::new(&row.what, Unit::Milliseconds, row.bar, samples)
        };
        let mut rows: Vec<Row> = rows.iter().map(row).collect();
        let engines = [self.builders[0].engine, self.builders[1].engine];
        rows.push(memory::most(
            "engine during all this, most resident",
            Bar::Most(120.0),
            &engines,
        )?);
        rows.push(self.similar()?);
        Ok(rows)
    }

    fn by_docker(&self, rows: &[Measured]) -> Vec<Row> {
        let row = |row: &Measured| {
            let samples = vec![row.samples[2].clone(), row.samples[1].clone()];
            Row::new(&row.what, Unit::Milliseconds, Bar::Times(1.0), samples)
        };
        rows.iter().map(row).collect()
    }

    /// What images take on the disk that differ in one file.
    fn similar(&self) -> Result<Row> {
        let files = self.contexts.similar_files()?;
        let mut samples = Vec::new();
        for builder in &self.builders[..2] {
            builder.forget()?;
            let before = builder.engine.disk()?;
            for number in 0..SIMILAR {
                self.contexts.change_one_of(&files, number)?;
                let (context, name) = (files.to_string_lossy(), format!("similar:{number}"));
                builder.run(&["build", "--progress", "plain", "-t", &name, &context])?;
            }
            samples.push(vec![builder.engine.disk()? - before]);
        }
        let what = format!("disk of {SIMILAR} images of 2,000 files that differ in one, 33 MB in all");
        // Each has directories of its own.
        Ok(Row::new(&what, Unit::MB, Bar::Most(40.0), samples))
    }
}

/// The peer's engine and Ferry's, with the image that all is built from.
pub fn run(workspace: &Workspace, binary: &Path, peer: Peer, quick: bool, heading: &str) -> Result<String> {
    let root = peer.root.clone();
    let mut engines = vec![Engine::docker(workspace, peer)?];
    let measured = Engine::ferry(binary).and_then(|ferry| {
        engines.insert(0, ferry);
        engines.iter().try_for_each(Engine::import_image)?;
        page(&engines, &root, quick, heading)
    });
    for engine in engines {
        engine.stop()?;
    }
    measured.with_context(|| format!("with {IMAGE}"))
}
