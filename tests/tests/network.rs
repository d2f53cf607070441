//! The default bridge, `none` and `host`; what is not there yet is refused by name.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Run, TestDaemon, wait_until};

fn address(engine: &Engine, name: &str) -> String {
    engine.field(name, "/NetworkSettings/Networks/bridge/IPAddress")
}

#[test]
fn a_container_on_the_bridge_has_an_address_and_a_gateway() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let address = address(&engine, "c1");
    let links = engine.cli(["exec", "c1", "ls", "/sys/class/net"]).ok();
    assert_eq!(links, "eth0\nlo");
    let shown = engine
        .cli([
            "exec",
            "c1",
            "sh",
            "-c",
            "ip -o -4 addr show eth0; ip route; cat /sys/class/net/eth0/mtu",
        ])
        .ok();
    assert!(shown.contains(&format!("inet {address}/16")), "{shown}");
    let gateway = engine.field("c1", "/NetworkSettings/Gateway");
    assert!(shown.contains(&format!("default via {gateway} dev eth0")), "{shown}");
    assert!(shown.ends_with("\n1500"), "{shown}");
    let mac = engine.field("c1", "/NetworkSettings/MacAddress");
    assert!(engine.cli(["exec", "c1", "cat", "/sys/class/net/eth0/address"]).ok() == mac);
    engine.cli(["exec", "c1", "ping", "-c", "1", "-W", "2", &gateway]).ok();
    engine
        .cli(["exec", "c1", "ping", "-c", "1", "-W", "2", "127.0.0.1"])
        .ok();
}

#[test]
fn containers_and_the_host_reach_each_other() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "server",
            BUSYBOX,
            "sh",
            "-c",
            "while true; do echo hello | nc -l -p 80; done",
        ])
        .ok();
    let server = address(&engine, "server");
    let fetch = || engine.try_sh(&[], &format!("nc -w 2 {server} 80 < /dev/null"));
    wait_until("the other container answers", || fetch().stdout == "hello\n");
    let from_host = || {
        engine
            .in_namespace(&["busybox", "nc", "-w", "2", &server, "80"])
            .input("")
            .output()
            .stdout
    };
    wait_until("it answers the host", || from_host() == "hello\n");
    let addresses: Vec<String> = (0..5)
        .map(|n| {
            engine.sleeper(&format!("c{n}"), &[]);
            address(&engine, &format!("c{n}"))
        })
        .collect();
    let unique: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert_eq!(unique.len(), 5, "{addresses:?}");
}

#[test]
fn none_has_only_the_loopback() {
    let engine = Engine::start();
    let seen = engine.sh(
        &["--network", "none"],
        "ls /sys/class/net; ip route | wc -l; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up",
    );
    assert_eq!(seen, "lo\n0\nup");
}

#[test]
fn host_is_the_engine_s_own() {
    let engine = Engine::start();
    engine.sleeper("on-bridge", &[]);
    let inside = engine.sh(&["--network", "host"], "ls /sys/class/net | wc -l; hostname");
    let links: u32 = inside.lines().next().unwrap().parse().unwrap();
    assert!(links >= 3, "lo, the bridge, a veth: {inside}");
}

#[test]
fn the_resolver_is_written_and_the_host_s_addresses_filtered() {
    let engine = Engine::start();
    let text = engine.sh(&[], "cat /etc/resolv.conf");
    assert!(text.contains("nameserver "), "{text}");
    assert!(!text.contains("nameserver 127."), "{text}");
}

/// A namespace beside the daemon's, joined to it by a veth pair: 198.51.100.1 is the daemon's side, .2 the outside's.
struct Outside(std::process::Child);

impl Outside {
    fn new(daemon: &TestDaemon) -> Self {
        let child = std::process::Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let outside = Self(child);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("a namespace", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link != own)
        });
        for line in [
            format!("ip link add out0 type veth peer name in0 netns {pid}"),
            "ip addr add 198.51.100.1/24 dev out0".to_owned(),
            "ip link set out0 up".to_owned(),
        ] {
            daemon.in_namespace(&line.split(' ').collect::<Vec<_>>()).ok();
        }
        outside.run("ip addr add 198.51.100.2/24 dev in0").ok();
        outside.run("ip link set in0 up").ok();
        outside.run("ip link set lo up").ok();
        outside
    }

    fn run(&self, line: &str) -> Run {
        Run::new("nsenter").args(["--target", &self.0.id().to_string(), "--net", "--", "sh", "-c", line])
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn outbound_is_masqueraded_and_inbound_dropped() {
    let daemon = TestDaemon::start();
    let outside = Outside::new(&daemon);
    daemon.busybox();
    daemon
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "while true; do echo hello | nc -l -p 80; done",
        ])
        .ok();
    // The outside has no route back to the bridge: an answer comes only through masquerade.
    daemon
        .cli(["exec", "c1", "ping", "-c", "1", "-W", "2", "198.51.100.2"])
        .ok();
    let server = outside.run("sleep 2 | busybox nc -l -p 99; true").spawn();
    wait_until("a connection goes out", || {
        daemon
            .cli(["exec", "c1", "sh", "-c", "echo out | nc -w 1 198.51.100.2 99"])
            .code
            == 0
    });
    assert_eq!(server.finish().stdout, "out\n");

    let address = daemon.field("c1", "/NetworkSettings/Networks/bridge/IPAddress");
    wait_until("it answers the host", || {
        daemon
            .in_namespace(&["busybox", "nc", "-w", "2", &address, "80"])
            .input("")
            .output()
            .stdout
            == "hello\n"
    });
    outside.run("ip route add 172.16.0.0/12 via 198.51.100.1").ok();
    let reached = outside.run(&format!("busybox nc -w 2 {address} 80")).input("").output();
    assert_eq!(reached.stdout, "", "a connection from outside reached the container");
    assert_ne!(outside.run(&format!("ping -c 1 -W 1 {address}")).output().code, 0);
    daemon.in_namespace(&["ip", "link", "del", "out0"]).ok();
}

#[test]
fn forwarding_turned_on_by_ferry_forwards_nothing_else() {
    let daemon = TestDaemon::start();
    let (one, two) = (
        Outside::new(&daemon),
        std::process::Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .spawn()
            .unwrap(),
    );
    let two = Outside(two);
    let pid = two.0.id().to_string();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    wait_until("a namespace", || {
        std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link != own)
    });
    for line in [
        format!("ip link add out1 type veth peer name in1 netns {pid}"),
        "ip addr add 203.0.113.1/24 dev out1".into(),
        "ip link set out1 up".into(),
    ] {
        daemon.in_namespace(&line.split(' ').collect::<Vec<_>>()).ok();
    }
    two.run("ip addr add 203.0.113.2/24 dev in1; ip link set in1 up; ip route add default via 203.0.113.1")
        .ok();
    one.run("ip route add default via 198.51.100.1").ok();
    let forwarded = || one.run("ping -c 1 -W 1 203.0.113.2").output().code == 0;
    assert!(!forwarded());
    daemon.sleeper("c1", &[]);
    assert_eq!(daemon.in_namespace(&["cat", "/proc/sys/net/ipv4/ip_forward"]).ok(), "1");
    assert!(!forwarded(), "the machine became a router");
    for link in ["out0", "out1"] {
        daemon.in_namespace(&["ip", "link", "del", link]).ok();
    }
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    for (options, named) in [(&["-p", "8080:80"][..], "-p"), (&["--network", "mine"], "mine")] {
        for program in [ferry_testkit::Program::Ferry, ferry_testkit::Program::Docker] {
            let args = ["run", "--rm"].iter().chain(options).chain(&[BUSYBOX, "true"]);
            let output = daemon.command(program).args(args).output();
            assert_eq!(output.code, 125, "{output:?}");
            assert!(
                output.stderr.contains(named) || output.stderr.contains("port"),
                "{options:?}: {output:?}"
            );
            assert_eq!(
                daemon.cli(["ps", "-aq"]).ok(),
                "",
                "nothing is left of the refused container"
            );
        }
    }
}
