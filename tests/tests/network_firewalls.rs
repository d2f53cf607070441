//! Beside others' firewalls: ufw's rules and those of a real Docker Engine, with a forward policy of drop.

use std::time::Duration;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engines, Neighbour, Output, Running, TestDaemon, wait_within};

use crate::network_programs::{SERVICES, daemon_with_services};

const SERVE: &str = "exec nc -ll -p 80 -e echo hello";
/// What an engine needs to see a change of the firewall and to answer it, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A neighbour that says `outside` at its port 99.
fn outside(daemon: &TestDaemon) -> (Neighbour, Running) {
    let neighbour = Neighbour::new(daemon, "out0", "198.51.100");
    let server = neighbour
        .run("exec busybox nc -ll -p 99 -e echo outside")
        .time(Duration::from_secs(600))
        .spawn();
    (neighbour, server)
}

fn serve(daemon: &TestDaemon, name: &str, options: &[&str]) {
    let before = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    daemon.cli(before.chain([BUSYBOX, "sh", "-c", SERVE])).ok();
}

/// What a shell's `nc` gets from there: a connection that never comes about is given up.
fn knock(address: &str, port: &str) -> String {
    format!("timeout 3 busybox nc -w 2 {address} {port} </dev/null")
}

/// Containers reach what is outside and are reached at their ports from there, from the host and from each other.
struct Ways<'a> {
    daemon: &'a TestDaemon,
    neighbour: &'a Neighbour,
}

impl Ways<'_> {
    fn from(&self, container: &str, address: &str, port: &str) -> bool {
        let asked = self.daemon.cli(["exec", container, "sh", "-c", &knock(address, port)]);
        asked.stdout == "outside\n" || asked.stdout == "hello\n"
    }

    fn blocked(&self) -> Vec<&'static str> {
        let said_hello = |done: Output| done.stdout == "hello\n";
        let host = |address: &str| {
            self.daemon
                .in_namespace(&["sh", "-c", &knock(address, "8080")])
                .output()
        };
        let mut blocked = Vec::new();
        for (what, open) in [
            ("out of the default network", self.from("client", "198.51.100.2", "99")),
            ("out of a network of one's own", self.from("web", "198.51.100.2", "99")),
            (
                "from outside to a published port",
                said_hello(self.neighbour.run(&knock("198.51.100.1", "8080")).output()),
            ),
            ("from the host to a published port", said_hello(host("127.0.0.1"))),
            (
                "from a container to the host's published port",
                self.from("client", "198.51.100.1", "8080"),
            ),
            ("by name", self.from("friend", "web", "80")),
        ] {
            if !open {
                blocked.push(what);
            }
        }
        blocked
    }

    /// Panics unless every way is open before long.
    #[track_caller]
    fn open(&self, when: &str) {
        let mut blocked = Vec::new();
        let open = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_within(SOON, when, || {
                blocked = self.blocked();
                blocked.is_empty()
            });
        }));
        let rules = || self.daemon.in_namespace(&["nft", "list", "ruleset"]).output().stdout;
        assert!(open.is_ok(), "{when}, no way {blocked:?}\n{}", rules());
    }
}

/// The containers that [`Ways`] asks.
fn start_containers(daemon: &TestDaemon) {
    daemon.busybox();
    daemon.cli(["network", "create", "own"]).ok();
    serve(daemon, "web", &["--network", "own", "-p", "8080:80"]);
    daemon.sleeper("friend", &["--network", "own"]);
    daemon.sleeper("client", &[]);
}

#[test]
fn slow_with_ufw_containers_reach_outside_and_published_ports_answer() {
    let Some(mut daemon) = daemon_with_services() else {
        return;
    };
    let (neighbour, _server) = outside(&daemon);
    start_containers(&daemon);
    let host = ["--network", "host", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    let line = ["run", "-d", "--name", "ufw"].iter().chain(&host).copied();
    daemon.cli(line.chain([SERVICES, "sleep", "1000"])).ok();
    let ufw = |daemon: &TestDaemon, args: &[&str]| {
        let line = ["exec", "ufw", "ufw"].iter().chain(args).copied();
        daemon.cli(line).ok()
    };
    let ways = |daemon: &TestDaemon, when: &str| {
        let neighbour = &neighbour;
        Ways { daemon, neighbour }.open(when);
    };
    ways(&daemon, "without a firewall");
    assert!(ufw(&daemon, &["--force", "enable"]).contains("active"));
    let rules = daemon
        .in_namespace(&["nft", "list", "chain", "ip", "filter", "FORWARD"])
        .output();
    assert!(rules.stdout.contains("policy drop"), "{rules:?}");
    // It does what it is for: what is the host's own is closed to the neighbour.
    let own = daemon
        .in_namespace(&["sh", "-c", "exec busybox nc -l -p 7777 </dev/null"])
        .spawn();
    assert_ne!(neighbour.run(&knock("198.51.100.1", "7777")).output().code, 0);
    drop(own);
    ways(&daemon, "with ufw enabled");
    ufw(&daemon, &["reload"]);
    ways(&daemon, "after ufw has loaded its rules again");
    // What an administrator denies by a rule stays denied.
    ufw(
        &daemon,
        &["route", "deny", "proto", "tcp", "to", "198.51.100.2", "port", "99"],
    );
    let there = Ways {
        daemon: &daemon,
        neighbour: &neighbour,
    };
    let denied = ["out of the default network", "out of a network of one's own"];
    wait_within(SOON, "only what is denied is blocked", || there.blocked() == denied);
    ufw(
        &daemon,
        &[
            "route",
            "delete",
            "deny",
            "proto",
            "tcp",
            "to",
            "198.51.100.2",
            "port",
            "99",
        ],
    );
    ways(&daemon, "when it is allowed again");
    // An engine that comes later, and a network that comes later.
    daemon.kill9();
    daemon.start_again();
    ways(&daemon, "with another engine");
    daemon
        .cli([
            "network",
            "create",
            "-o",
            "com.docker.network.bridge.name=late0",
            "late",
        ])
        .ok();
    let text = daemon.try_sh(&["--network", "late"], &knock("198.51.100.2", "99"));
    assert_eq!(text.stdout, "outside\n");
    ufw(&daemon, &["disable"]);
    ways(&daemon, "with ufw disabled");
    daemon.cli(["rm", "-f", "ufw"]).ok();
    for family in ["ip", "ip6"] {
        daemon.in_namespace(&["nft", "delete", "table", family, "filter"]).ok();
    }
}

/// A container of the other engine's that is reached at port 8090, and what gets out of another one.
struct Docker<'a>(&'a Engines);

impl Docker<'_> {
    fn serve(&self) {
        let line = [
            "run",
            "-d",
            "--name",
            "docker-web",
            "-p",
            "8090:80",
            "busybox",
            "sh",
            "-c",
            SERVE,
        ];
        self.0.docker(line).ok();
    }

    fn fetch(&self, address: &str, port: &str) -> String {
        self.0
            .docker(["exec", "docker-web", "sh", "-c", &knock(address, port)])
            .output()
            .stdout
    }
}

#[test]
fn slow_beside_a_docker_engine_containers_reach_outside_and_are_reached() {
    for ferry_first in [false, true] {
        let Some(machine) = Engines::start() else { return };
        let docker = Docker(&machine);
        if !ferry_first {
            machine.start_docker(&[]);
        }
        let daemon = TestDaemon::builder().beside(&machine).start();
        let (neighbour, _server) = outside(&daemon);
        start_containers(&daemon);
        let ways = Ways {
            daemon: &daemon,
            neighbour: &neighbour,
        };
        ways.open("at first");
        if ferry_first {
            machine.start_docker(&[]);
        }
        docker.serve();
        ways.open("beside Docker");
        let from_outside = |port: &str| neighbour.run(&knock("198.51.100.1", port)).output().stdout;
        wait_within(SOON, "Docker's container is reached", || {
            from_outside("8090") == "hello\n"
        });
        assert_eq!(docker.fetch("198.51.100.2", "99"), "outside\n");
        // Each other's published ports, by an address of the host.
        assert_eq!(docker.fetch("198.51.100.1", "8080"), "hello\n");
        assert!(ways.from("client", "198.51.100.1", "8090"));
        // But not each other's containers.
        let address = daemon.field("web", "/NetworkSettings/Networks/own/IPAddress");
        assert_ne!(docker.fetch(&address, "80"), "hello\n");
        // The one goes, the other stays.
        machine.docker(["rm", "-f", "docker-web"]).ok();
        ways.open("without Docker's container");
        drop(neighbour);
    }
}

#[test]
fn a_legacy_chain_that_drops_is_told_of_until_it_is_as_ferry_says() {
    let Some(machine) = Engines::start() else { return };
    let daemon = TestDaemon::builder().beside(&machine).start();
    let (neighbour, _server) = outside(&daemon);
    start_containers(&daemon);
    let ways = Ways {
        daemon: &daemon,
        neighbour: &neighbour,
    };
    ways.open("at first");
    for drop in ["-P FORWARD DROP", "-A FORWARD -j REJECT"] {
        machine.sh(&format!("iptables-legacy {drop}"));
        assert!(!ways.blocked().is_empty(), "{drop}");
        let told = daemon.cli(["run", "--rm", BUSYBOX, "true"]);
        let info = daemon.cli(["info"]);
        assert!(info.stderr.contains("iptables-legacy"), "{info:?}");
        let commands: Vec<_> = told
            .stderr
            .split('\'')
            .filter(|text| text.starts_with("iptables-legacy "))
            .collect();
        // Each way, of the default bridge and of all others.
        assert_eq!(commands.len(), 4, "{told:?}");
        for command in commands {
            machine.sh(command);
        }
        ways.open(drop);
        assert_eq!(daemon.cli(["run", "--rm", BUSYBOX, "true"]).stderr, "");
        machine.sh("iptables-legacy -F FORWARD; iptables-legacy -P FORWARD ACCEPT");
    }
    drop(neighbour);
}
