//! `cargo xtask`: every task of the repository that is more than one command.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

mod apt;
mod bench;
mod deb;
mod peer;
mod setup;
mod shell;
mod suites;
mod sweep;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "\
cargo xtask TASK

  test [--ci] [FILTER...]   set up, build once in the release profile, run every test (or those that match);
                            --ci adds the format check, tidy and clippy
  setup                     install what the tests need (Debian packages, docker CLI, docker-py, cargo-nextest)
  vm [FILTER...]            the tests that are about cgroup v2 and older kernels (or those that match) in an emulated
                            machine with Debian 12's kernel
  tidy                      the repository's rules: layers, unsafe, file lengths, links, the binary's shape
  bench [--quick] [--runtime | --registry] [--write]
                            measure beside Docker Engine and the OCI runtimes (or only these, or the registry beside the
                            CNCF's); --write puts the tables into docs/benchmarks.md
  bench --many [BINARY] [--quick] [--write]
                            measure beside Docker Engine with a log of 5 GB, a thousand containers stopped and two
                            hundred running
  bench --builds [BINARY] [--quick] [--write]
                            measure builds beside Docker Engine's BuildKit, with Ferry's command line and with Docker's
  bench --images [a,b,c] [--ops pull,again,push,save,load,rmi] [--engines ferry,ctr,podman,docker] [--rounds N] [--write]
                            measure images beside containerd, podman and Docker Engine (all, or these alone)
  soak [CYCLES [EXECS [AT-ONCE]]]
                            containers and execs of the OCI runtime (100000 each, 16 at a time), half of them killed
                            at a random moment: nothing may be left
  soak --pulls N            N pulls and N removals of images, the engine killed at a random moment of each: nothing
                            may be lost, and nothing left
  soak --kills [KILLS [CONTAINERS [SEED]]]
                            containers that write (50) and clients that work while the daemon is killed (200 times) at
                            random moments: the same processes, no ghost, no lost line, no wrong exit code, nothing left
  soak --networks [CYCLES [STARTS [NETWORKS]]]
                            places on networks given and taken (10000), containers connected and disconnected with the
                            engine killed now and then (500), networks made and pruned (2000): nothing may be left
  soak --execs [EXECS [AT-ONCE]]
                            commands through the engine (100000, 16 at a time): no byte and no exit code may be wrong,
                            and nothing grows
  suites [ARGUMENT...]      docker-py's own tests against an engine of their own; arguments are pytest's, as in -k attach
  dist                      build the binary that is shipped
  deb [BINARY]              make the Debian package of it (or of that binary) in target/deb
  sweep [--remove]          list (or remove) what test runs left on this machine
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match run(&task, &rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, rest: &[String]) -> anyhow::Result<bool> {
    let flag = |name: &str| rest.iter().any(|arg| arg == name);
    match task {
        "test" => test::run(
            &Workspace::find()?,
            flag("--ci"),
            rest.iter().filter(|arg| *arg != "--ci"),
        ),
        "setup" => setup::run(&Workspace::find()?).map(|()| true),
        "vm" => vm::run(&Workspace::find()?, rest),
        // In that machine: never called by hand.
        "vm-guest" => vm::run_guest(),
        "tidy" => tidy::run(&Workspace::find()?),
        // In a peer's network: never called by hand.
        "load" => bench::registry::load::run(rest).map(|()| true),
        "bench" if flag("--registry") => bench::registries(&Workspace::find()?, flag("--quick"), flag("--write")),
        "bench" if flag("--many") || flag("--builds") => {
            let binary = rest.iter().find(|arg| !arg.starts_with("--"));
            let run = if flag("--many") { bench::many } else { bench::builders };
            run(
                &Workspace::find()?,
                binary.map(String::as_str),
                flag("--quick"),
                flag("--write"),
            )
        }
        "bench" if flag("--images") => bench::images::run(&Workspace::find()?, rest),
        "bench" => bench::run(&Workspace::find()?, flag("--quick"), flag("--runtime"), flag("--write")),
        "soak" => {
            let (example_name, rest) = match rest {
                [pulls, rest @ ..] if pulls == "--pulls" => ("soak-pulls", rest),
                [execs, rest @ ..] if execs == "--execs" => ("soak-execs", rest),
                [kills, rest @ ..] if kills == "--kills" => ("soak-kills", rest),
                [networks, rest @ ..] if networks == "--networks" => ("soak-networks", rest),
                rest => ("soak", rest),
            };
            shell::run(example(example_name)?.args(rest)).map(|()| true)
        }
        "suites" => {
            let prepared = suites::prepare(&Workspace::find()?)?;
            shell::run(example("suites")?.args(prepared).args(rest)).map(|()| true)
        }
        "dist" => {
            let workspace = Workspace::find()?;
            let binary = workspace.build_dist()?;
            println!("{} ({:.1} MiB)", binary.display(), workspace::mebibytes(&binary)?);
            Ok(true)
        }
        "deb" => deb::run(&Workspace::find()?, rest.first().map(String::as_str)).map(|()| true),
        "sweep" => sweep::run(flag("--remove")),
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(true)
        }
        other => anyhow::bail!("no task '{other}'\n\n{USAGE}"),
    }
}

/// A program of the tests, built with the binary that it starts.
fn example(name: &str) -> anyhow::Result<std::process::Command> {
    // Both at once: of the one alone, what both stand on would be built with other features.
    let packages = ["ferry", "ferry-e2e"].map(|package| format!("--package={package}"));
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--bin", "ferry", "--example", name]);
    shell::run(cargo.args(packages))?;
    let examples = Workspace::find()?.binary("release").with_file_name("examples");
    Ok(std::process::Command::new(examples.join(name)))
}
