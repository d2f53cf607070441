//! The default bridge, `none` and `host`.

use std::time::Duration;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Neighbour, TestDaemon, wait_until, wait_within};

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
            "exec nc -ll -p 80 -e echo hello",
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

#[test]
fn outbound_is_masqueraded_and_inbound_dropped() {
    let daemon = TestDaemon::start();
    let outside = Neighbour::new(&daemon, "out0", "198.51.100");
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
            "exec nc -ll -p 80 -e echo hello",
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
    assert_ne!(
        outside.run(&format!("busybox ping -c 1 -W 1 {address}")).output().code,
        0
    );
}

#[test]
fn forwarding_turned_on_by_ferry_forwards_nothing_else() {
    let daemon = TestDaemon::start();
    let one = Neighbour::new(&daemon, "out0", "198.51.100");
    let two = Neighbour::new(&daemon, "out1", "203.0.113");
    two.run("ip route add default via 203.0.113.1").ok();
    one.run("ip route add default via 198.51.100.1").ok();
    let forwarded = || one.run("busybox ping -c 1 -W 1 203.0.113.2").output().code == 0;
    assert!(!forwarded());
    daemon.sleeper("c1", &[]);
    assert!(one.run("busybox ping -c 1 -W 1 198.51.100.1").output().code == 0);
    assert!(!forwarded(), "the machine became a router");
    let ip_forward = |value: &str| {
        let line = format!("echo {value} > /proc/sys/net/ipv4/ip_forward");
        daemon.in_namespace(&["sh", "-c", &line]).ok();
    };
    let out = || {
        daemon
            .cli(["exec", "c1", "ping", "-c", "1", "-W", "1", "203.0.113.2"])
            .code
            == 0
    };
    assert!(out());
    // Somebody wants it to be one, and then not.
    ip_forward("1");
    wait_within(Duration::from_secs(10), "the machine is a router", || {
        forwarded() && out()
    });
    ip_forward("0");
    wait_within(Duration::from_secs(10), "it is none any more", || out() && !forwarded());
}

/// The other one's first network by name is not the one that the link is on.
#[test]
fn a_link_s_variables_have_the_address_on_the_bridge() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.cli(["network", "create", "aaa"]).ok();
    daemon.sleeper("one", &["--expose", "80"]);
    daemon.cli(["network", "connect", "aaa", "one"]).ok();
    let script = "grep ' *other ' /etc/hosts | cut -f1; echo $OTHER_PORT_80_TCP_ADDR";
    for _ in 0..2 {
        let said = daemon.sh(&["--link", "one:other"], script);
        let addresses: Vec<&str> = said.split_whitespace().collect();
        assert!(addresses.len() == 2 && addresses[0] == addresses[1], "{said}");
    }
}
