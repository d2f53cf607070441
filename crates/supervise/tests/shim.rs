//! Real shims with resolvers: from the launch on, later, without a daemon, and under another one. Needs root and Debian's
//! busybox-static.
//!
//! A shim is started from the program that the daemon is, which here is this one: hence a `main` of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod world;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_cgroup::Hierarchy;
use ferry_dns::From;
use ferry_network::namespace::{self, Namespace};
use ferry_network::resolver;
use ferry_runtime::Plan;
use ferry_runtime::plan::{Namespaces, Process};
use ferry_supervise::{Event, Launch, LogFile, Logging, Network, Resolver, Rootfs, Shim, Stdin, Supervisor, Task};
use hickory_proto::rr::RecordType;
use tokio::sync::mpsc;
use world::{World, addresses, ask, server, upstream};

const NAME: &str = "root_a_shim_answers_from_the_launch_on_and_without_a_daemon";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "shim") {
        ferry_supervise::shim::run().unwrap();
        return;
    }
    // As test programs talk to nextest.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if !names.is_empty() && !names.iter().any(|name| NAME.contains(name.as_str())) {
        return;
    }
    World::run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(world));
    });
}

async fn test(world: &mut World) {
    world.zone("front", &[("web", &["172.18.0.2"], &["www"])]);
    upstream("127.0.0.53", [203, 0, 113, 1]);
    world.settings(&[server("127.0.0.53", From::Host)], true);
    let supervisor = Supervisor::new().unwrap();

    let with = Container::start(
        world,
        &supervisor,
        "with",
        true,
        "nslookup www; nslookup example.com; exec sleep 1000",
    )
    .await;
    with.until_logged("172.18.0.2").await;
    with.until_logged("203.0.113.1").await;
    let without = Container::start(world, &supervisor, "without", false, "exec sleep 1000").await;
    let before = private(&without.task);
    println!(
        "private memory of a shim: {before} without a resolver, {} with one",
        private(&with.task)
    );
    // A server of the container's own is no hindrance; see tests/names.rs.
    with.ask(world, "web.", "172.18.0.2").await;

    // A network it is connected to while it runs.
    let sockets = resolver::restore(without.namespace.fd.as_fd()).unwrap();
    without.task.resolver(world_resolver(world, sockets)).await.unwrap();
    without.ask(world, "web.", "172.18.0.2").await;
    without.ask(world, "example.org.", "203.0.113.1").await;

    for round in 0..20 {
        without.ask_often(5000).await;
        if round % 10 == 9 {
            println!("after {} questions: {}", (round + 1) * 5000, private(&without.task));
        }
    }

    // The daemon goes, the answers stay.
    let (run_dir, namespace, pid) = with.abandon();
    assert_eq!(addresses(&inside(&namespace, "web.")), ["172.18.0.2"]);
    world.zone("front", &[("web", &["172.18.0.9"], &[])]);
    assert_eq!(addresses(&inside(&namespace, "web.")), ["172.18.0.9"]);

    // Another daemon finds it, and repairs it.
    let (sender, mut events) = mpsc::unbounded_channel();
    let (task, state) = supervisor.adopt(&run_dir, sender).await.unwrap();
    let state = state.unwrap();
    assert!(state.resolver && task.pid() == pid);
    let sockets = resolver::restore(namespace.fd.as_fd()).unwrap();
    task.resolver(world_resolver(world, sockets)).await.unwrap();
    assert_eq!(addresses(&inside(&namespace, "web.")), ["172.18.0.9"]);

    // What is broken is refused, and leaves the resolver that there was.
    let broken = Resolver {
        settings: PathBuf::from("/nowhere"),
        udp: std::fs::File::open("/dev/null").unwrap().into(),
        tcp: std::fs::File::open("/dev/null").unwrap().into(),
    };
    task.resolver(broken).await.unwrap_err();
    assert_eq!(addresses(&inside(&namespace, "web.")), ["172.18.0.9"]);

    end(&task, &mut events, &run_dir).await;
    without.end().await;
}

struct Container {
    task: Task,
    namespace: Namespace,
    directory: PathBuf,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Container {
    async fn start(world: &World, supervisor: &Supervisor, name: &str, resolving: bool, script: &str) -> Self {
        let directory = world.directory.path().join(name);
        for part in ["root/bin", "root/etc", "root/proc", "upper", "work", "run"] {
            std::fs::create_dir_all(directory.join(part)).unwrap();
        }
        std::fs::copy("/bin/busybox", directory.join("root/bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "nslookup"] {
            std::os::unix::fs::symlink("busybox", directory.join("root/bin").join(applet)).unwrap();
        }
        std::fs::write(
            directory.join("root/etc/resolv.conf"),
            "nameserver 127.0.0.11\noptions ndots:0\n",
        )
        .unwrap();
        let namespace = Namespace::create().unwrap();
        let create = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let plan = Plan {
            namespaces: Namespaces {
                create: u64::try_from(create).unwrap(),
                ..Namespaces::default()
            },
            process: Process {
                args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".into(),
                ..Process::default()
            },
            ..Plan::default()
        };
        let launch = Launch {
            id: "0".repeat(64),
            run_dir: directory.join("run"),
            exit_file: directory.join("exit"),
            plan,
            seccomp: Vec::new(),
            rootfs: Rootfs {
                layers: vec![directory.join("root")],
                upper: directory.join("upper"),
                work: directory.join("work"),
                volatile: true,
                idmap: None,
            },
            hierarchy: Hierarchy::detect().unwrap(),
            cgroup: format!("ferry-names-{}-{name}", std::process::id()),
            resources: serde_json::from_str("{}").unwrap(),
            stdin: Stdin::Closed,
            log: Some(Logging {
                file: Some(LogFile {
                    path: directory.join("log"),
                    max_files: 1,
                    ..LogFile::default()
                }),
                syslog: None,
            }),
            network: Network::Given,
            clients: Vec::new(),
            resolver: None,
            relays: Vec::new(),
            health: None,
            runtime: None,
        };
        let mut shim: Shim = supervisor.shim().await.unwrap();
        if resolving {
            let sockets = resolver::restore(namespace.fd.as_fd()).unwrap();
            shim = shim.with_resolver(world_resolver(world, sockets));
        }
        let (sender, events) = mpsc::unbounded_channel();
        let network = namespace.fd.try_clone().unwrap();
        let configure = async |_| Ok(());
        let (task, _) = shim
            .launch(launch, Some(network), Vec::new(), configure, sender)
            .await
            .unwrap();
        Self {
            task,
            namespace,
            directory,
            events,
        }
    }

    async fn until_logged(&self, text: &str) {
        let path = self.directory.join("log");
        let start = Instant::now();
        loop {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            if log.contains(text) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "no {text}: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, _world: &World, name: &str, expected: &str) {
        assert_eq!(addresses(&inside(&self.namespace, name)), [expected]);
    }

    async fn ask_often(&self, count: usize) {
        namespace::inside(self.namespace.fd.as_fd(), || {
            for _ in 0..count / 100 {
                ask("web.", RecordType::A);
            }
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            let query = world::query(1, "web.", RecordType::A);
            for _ in 0..count {
                socket.send(&query).unwrap();
                socket.recv(&mut [0; 512]).unwrap();
            }
            Ok(())
        })
        .unwrap();
    }

    /// As a daemon does that dies: its end of the connection goes.
    fn abandon(self) -> (PathBuf, Namespace, i32) {
        (self.directory.join("run"), self.namespace, self.task.pid())
    }

    async fn end(mut self) {
        end(&self.task, &mut self.events, &self.directory.join("run")).await;
    }
}

async fn end(task: &Task, events: &mut mpsc::UnboundedReceiver<Event>, run_dir: &Path) {
    task.kill(None, 9).await.unwrap();
    let exited = tokio::time::timeout(Duration::from_secs(10), events.recv())
        .await
        .unwrap();
    assert!(matches!(exited, Some(Event::Exited(_))), "{exited:?}");
    task.noted(None).await;
    let lost = tokio::time::timeout(Duration::from_secs(10), events.recv())
        .await
        .unwrap();
    assert!(matches!(lost, Some(Event::Lost) | None), "{lost:?}");
    assert!(!run_dir.join(ferry_supervise::shim::SOCKET).exists());
}

fn world_resolver(world: &World, sockets: resolver::Sockets) -> Resolver {
    Resolver {
        settings: world.directory.path().join("dns.json"),
        udp: sockets.udp,
        tcp: sockets.tcp,
    }
}

fn inside(namespace: &Namespace, name: &str) -> hickory_proto::op::Message {
    namespace::inside(namespace.fd.as_fd(), || Ok(ask(name, RecordType::A))).unwrap()
}

/// Of the container's shim, by the kernel's count.
fn private(task: &Task) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", task.pid())).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .to_owned();
    let text = std::fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap();
    let kilobytes: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    format!("{kilobytes} kB")
}
