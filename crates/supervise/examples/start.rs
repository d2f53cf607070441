//! Starts a container from a directory, without a daemon, many times, and says how long each took:
//! `start COUNT ROOT COMMAND...`. The floor that the engine's own starts are held against.

#![expect(clippy::print_stdout, reason = "it is a program whose output is its purpose")]

use std::path::Path;
use std::time::{Duration, Instant};

use ferry_runtime::Plan;
use ferry_supervise::{Event, Launch, Network, Rootfs, Stdin, Supervisor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "shim") {
        return Ok(ferry_supervise::shim::run()?);
    }
    let [_, count, root, command @ ..] = args.as_slice() else {
        return Err("start COUNT ROOT COMMAND...".into());
    };
    let dir = std::env::temp_dir().join(format!("ferry-start-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut times = Vec::new();
        for number in 0..count.parse::<u32>()? {
            let dir = dir.join(number.to_string());
            times.push(once(&dir, Path::new(root), command).await?);
            std::fs::remove_dir_all(&dir)?;
        }
        Ok::<_, Box<dyn std::error::Error>>(times)
    });
    let _ = std::fs::remove_dir_all(&dir);
    let mut times = done?;
    times.sort();
    let all: Duration = times.iter().sum();
    println!(
        "min {:?} median {:?} max {:?} sum {all:?}",
        times[0],
        times[times.len() / 2],
        times[times.len() - 1]
    );
    Ok(())
}

async fn once(dir: &Path, root: &Path, command: &[String]) -> Result<Duration, Box<dyn std::error::Error>> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    let spec = oci_spec::runtime::Spec::default();
    let mut plan = Plan::new(&spec)?;
    plan.process.args = command.to_vec();
    plan.readonly_root = false;
    plan.process.env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()];
    let launch = Launch {
        id: "0".repeat(64),
        run_dir: dir.to_owned(),
        exit_file: dir.join("exit"),
        plan,
        seccomp: Vec::new(),
        rootfs: Rootfs {
            layers: vec![root.to_owned()],
            upper,
            work,
            volatile: true,
            idmap: None,
        },
        hierarchy: ferry_cgroup::Hierarchy::detect()?,
        cgroup: format!("ferry-start-{}/c", std::process::id()),
        resources: oci_spec::runtime::LinuxResources::default(),
        stdin: Stdin::Closed,
        log: Some(ferry_supervise::LogFile {
            path: dir.join("log"),
            max_size: 0,
            max_files: 1,
        }),
        network: Network::Host,
        clients: Vec::new(),
    };
    let hierarchy = launch.hierarchy.clone();
    let supervisor = Supervisor::new()?;
    let (sender, mut events) = tokio::sync::mpsc::channel(8);
    let begin = Instant::now();
    let (task, warnings) = supervisor
        .shim()
        .await?
        .launch(launch, None, Vec::new(), async |_| Ok(()), sender)
        .await?;
    let started = begin.elapsed();
    let exit = loop {
        match events.recv().await {
            Some(Event::Exited(exit)) => break exit,
            Some(other) => println!("{other:?}"),
            None => return Err("the shim is gone".into()),
        }
    };
    let took = begin.elapsed();
    task.noted(None).await;
    while !matches!(events.recv().await, Some(Event::Lost) | None) {}
    hierarchy.remove_empty(&format!("ferry-start-{}", std::process::id()))?;
    if std::env::var_os("VERBOSE").is_some() {
        println!("started {started:?} ended {took:?} {exit:?} {warnings:?}");
        print!("{}", std::fs::read_to_string(dir.join("log"))?);
    }
    Ok(took)
}
