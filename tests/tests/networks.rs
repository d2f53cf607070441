//! Networks of one's own, names, published ports, as a user of the command line sees them.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, TestDaemon, wait_until};

const SERVE: &str = "exec nc -ll -p 80 -e echo hello";

fn serve(engine: &Engine, name: &str, options: &[&str]) {
    engine.busybox();
    let before = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    engine.cli(before.chain([BUSYBOX, "sh", "-c", SERVE])).ok();
}

fn fetch(engine: &Engine, address: &str, port: &str) -> bool {
    let done = engine
        .in_namespace(&["busybox", "nc", "-w", "1", address, port])
        .input("")
        .output();
    done.stdout == "hello\n"
}

#[track_caller]
fn answers(engine: &Engine, address: &str, port: &str) {
    wait_until("the port answers", || fetch(engine, address, port));
}

#[test]
fn containers_of_a_network_know_each_other_by_name_and_alias() {
    let engine = Engine::start();
    engine.cli(["network", "create", "front"]).ok();
    serve(&engine, "web", &["--network", "front", "--network-alias", "www"]);
    let id = engine.field("web", "/Id");
    for name in ["web", "www", "web.front", &id[..12]] {
        let text = engine.sh(&["--network", "front"], &format!("nc -w 2 {name} 80 < /dev/null"));
        assert_eq!(text, "hello", "{name}");
    }
    // Not from the default bridge, nor from another network.
    engine.cli(["network", "create", "back"]).ok();
    for network in ["bridge", "back"] {
        let done = engine.try_sh(&["--network", network], "nc -w 1 web 80 < /dev/null");
        assert_ne!(done.stdout, "hello\n", "{network}");
        let address = engine.field("web", "/NetworkSettings/Networks/front/IPAddress");
        let done = engine.try_sh(&["--network", network], &format!("nc -w 1 {address} 80 < /dev/null"));
        assert_ne!(done.stdout, "hello\n", "{network}");
    }
    let resolv = engine.sh(&["--network", "front"], "cat /etc/resolv.conf");
    assert!(
        resolv.contains("nameserver 127.0.0.11") && resolv.contains("ndots:0"),
        "{resolv}"
    );
}

/// Neither a link without a carrier yet nor an address that is being looked at swallows what a container says first.
#[test]
fn the_first_packet_through_a_new_network_arrives() {
    let engine = TestDaemon::start();
    engine.busybox();
    let mut lost = Vec::new();
    for round in 0..12 {
        let (v4, v6) = (format!("10.77.{round}"), format!("fd77:{round}:"));
        let subnets = [format!("--subnet={v4}.0/24"), format!("--subnet={v6}:/64")];
        let network = format!("n{round}");
        engine
            .cli(["network", "create", "--ipv6", &subnets[0], &subnets[1], &network])
            .ok();
        // Its reply goes over the bridge itself, the peer's over two ports.
        let peer = format!("{v4}.77");
        let to = [format!("{v4}.1"), format!("{v6}:1"), peer.clone(), format!("{v6}:77")];
        let to = &to[round % 4];
        if round % 4 > 1 {
            let peer6 = format!("{v6}:77");
            engine.sleeper("peer", &["--network", &network, "--ip", &peer, "--ip6", &peer6]);
        }
        let line = [
            "run",
            "--rm",
            "--network",
            &network,
            BUSYBOX,
            "ping",
            "-c",
            "1",
            "-W",
            "1",
            to,
        ];
        let said = engine.cli(line);
        if said.code != 0 {
            lost.push(format!("{said:?}"));
        }
        engine.cli(["rm", "-f", "peer"]);
        engine.cli(["network", "rm", &network]).ok();
    }
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn names_resolve_as_soon_as_the_start_returns_and_while_the_daemon_is_dead() {
    let mut daemon = TestDaemon::start();
    let engine = &daemon;
    engine.cli(["network", "create", "n"]).ok();
    engine.sleeper("asker", &["--network", "n"]);
    for round in 0..20 {
        let name = format!("c{round}");
        engine.sleeper(&name, &["--network", "n"]);
        let asked = engine.cli(["exec", "asker", "nslookup", &name, "127.0.0.11"]);
        let address = engine.field(&name, "/NetworkSettings/Networks/n/IPAddress");
        assert!(asked.stdout.contains(&address), "{name}: {asked:?}");
        engine.cli(["rm", "-f", &name]).ok();
        let gone = engine.cli(["exec", "asker", "nslookup", &name, "127.0.0.11"]);
        assert!(!gone.stdout.contains(&address), "{gone:?}");
    }
    // Not through the daemon: it is dead while the question is asked.
    let pid = engine.pid("asker").to_string();
    engine.sleeper("other", &["--network", "n"]);
    let other = engine.field("other", "/NetworkSettings/Networks/n/IPAddress");
    daemon.kill9();
    let asked = ferry_testkit::Run::new("nsenter")
        .args(["-t", &pid, "-n", "busybox", "nslookup", "other", "127.0.0.11"])
        .output();
    assert!(asked.stdout.contains(&other), "{asked:?}");
    daemon.start_again();
    let engine = &daemon;
    engine.sleeper("after", &["--network", "n"]);
    let asked = engine.cli(["exec", "asker", "nslookup", "after", "127.0.0.11"]).ok();
    assert!(
        asked.contains(&engine.field("after", "/NetworkSettings/Networks/n/IPAddress")),
        "{asked}"
    );
    assert!(
        engine
            .cli(["exec", "after", "nslookup", "asker", "127.0.0.11"])
            .ok()
            .contains("asker")
    );
}

#[test]
fn a_published_port_is_shown_reached_and_free_again() {
    let engine = Engine::start();
    serve(
        &engine,
        "web",
        &["-p", "8080:80", "-p", "127.0.0.1:9000-9002:9000-9002/udp"],
    );
    answers(&engine, "127.0.0.1", "8080");
    answers(&engine, &engine.field("web", "/NetworkSettings/Gateway"), "8080");
    assert_eq!(engine.cli(["port", "web", "80"]).ok(), "0.0.0.0:8080\n[::]:8080");
    let ports = engine.cli(["ps", "--format", "{{.Ports}}"]).ok();
    assert_eq!(
        ports,
        "127.0.0.1:9000-9002->9000-9002/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    );
    let taken = engine.cli(["run", "--rm", "-p", "8080:80", BUSYBOX, "true"]);
    assert_eq!(taken.code, 125, "{taken:?}");
    assert!(
        taken
            .stderr
            .contains("Bind for 0.0.0.0:8080 failed: port is already allocated: container web has it"),
        "{taken:?}"
    );
    engine.cli(["rm", "-f", "web"]).ok();
    assert!(!fetch(&engine, "127.0.0.1", "8080"));
    serve(&engine, "again", &["-p", "8080:80"]);
    answers(&engine, "127.0.0.1", "8080");
}

#[test]
fn a_port_of_a_running_container_is_published_and_taken_back() {
    let engine = Engine::start();
    serve(&engine, "web", &[]);
    engine.cli(["update", "--publish-add", "8081:80", "web"]).ok();
    answers(&engine, "127.0.0.1", "8081");
    engine.cli(["update", "--publish-rm", "80", "web"]).ok();
    assert!(!fetch(&engine, "127.0.0.1", "8081"));
    engine.cli(["update", "--publish-add", "8082:80", "web"]).ok();
    engine.cli(["restart", "-t", "0", "web"]).ok();
    wait_until("the port answers after a restart", || {
        fetch(&engine, "127.0.0.1", "8082")
    });
    let held = engine.cli(["ports"]).ok();
    assert!(held.contains("8082") && held.contains("web"), "{held}");
}

#[test]
fn a_port_of_ipv6_addresses_reaches_a_container_without_one() {
    let mut engine = Engine::Ferry(Box::new(TestDaemon::start()));
    serve(&engine, "web", &["-p", "8080:80", "-p", "[::1]:8081:80"]);
    answers(&engine, "::1", "8080");
    answers(&engine, "::1", "8081");
    assert!(!fetch(&engine, "127.0.0.1", "8081"));
    // By no process of its own, and nobody who watches takes its socket for a stranger's.
    let held = engine.cli(["ports"]).ok();
    assert!(held.contains("[::]") || held.contains("::"), "{held}");
    assert!(!held.contains("ferry-shim"), "{held}");
    let other = engine.cli(["run", "--rm", "-p", "[::]:8080:80", BUSYBOX, "true"]);
    assert!(other.stderr.contains("container web has it"), "{other:?}");
    // Not through the daemon.
    let daemon = |engine: &mut Engine, action: fn(&mut TestDaemon)| match engine {
        Engine::Ferry(daemon) => action(daemon),
        Engine::Docker(_) => unreachable!(),
    };
    daemon(&mut engine, TestDaemon::kill9);
    answers(&engine, "::1", "8080");
    daemon(&mut engine, TestDaemon::start_again);
    answers(&engine, "::1", "8080");
    engine.cli(["restart", "-t", "0", "web"]).ok();
    answers(&engine, "::1", "8080");
    // Taken back and published while it runs, and moved to another network.
    engine.cli(["update", "--publish-rm", "80", "web"]).ok();
    assert!(!fetch(&engine, "::1", "8080") && !fetch(&engine, "::1", "8081"));
    engine.cli(["update", "--publish-add", "8082:80", "web"]).ok();
    answers(&engine, "::1", "8082");
    engine.cli(["network", "create", "n"]).ok();
    engine.cli(["network", "connect", "n", "web"]).ok();
    engine.cli(["network", "disconnect", "bridge", "web"]).ok();
    answers(&engine, "::1", "8082");
    answers(&engine, "127.0.0.1", "8082");
    engine.cli(["rm", "-f", "web"]).ok();
    serve(&engine, "again", &["-p", "8082:80", "--userns", "auto"]);
    answers(&engine, "::1", "8082");
}

/// With `br_netfilter`, what is translated is handed back to the bridge, which gives it to no neighbour.
#[test]
fn neighbours_apart_are_reached_by_published_ports_alone() {
    for filtered in ["0", "1"] {
        let mut engine = Engine::Ferry(Box::new(TestDaemon::start()));
        let set = format!(
            "cd /proc/sys/net/bridge 2> /dev/null || exit 0; for f in iptables ip6tables; do echo {filtered} > bridge-nf-call-$f; done"
        );
        engine.in_namespace(&["sh", "-c", &set]).ok();
        engine
            .cli([
                "network",
                "create",
                "-o",
                "com.docker.network.bridge.enable_icc=false",
                "--ipv6",
                "apart",
            ])
            .ok();
        engine.cli(["network", "create", "other"]).ok();
        serve(
            &engine,
            "web",
            &["--network", "apart", "-p", "8080:80", "-p", "127.0.0.1:8081:80"],
        );
        answers(&engine, "127.0.0.1", "8080");
        for (name, network) in [("one", "apart"), ("two", "other")] {
            engine.sleeper(name, &["--network", network]);
        }
        let field = |name: &str, key: &str| engine.field("web", &format!("/NetworkSettings/Networks/{name}/{key}"));
        let (own, gateway) = (field("apart", "IPAddress"), field("apart", "Gateway"));
        let (own6, gateway6) = (field("apart", "GlobalIPv6Address"), field("apart", "IPv6Gateway"));
        let reached = |engine: &Engine, from: &str, address: &str, port: &str| {
            let done = engine.cli([
                "exec",
                from,
                "sh",
                "-c",
                &format!("nc -w 2 {address} {port} < /dev/null"),
            ]);
            done.stdout == "hello\n"
        };
        let check = |engine: &Engine, from: &[&str]| {
            for from in from {
                for address in [&own, &own6] {
                    assert!(!reached(engine, from, address, "80"), "{filtered}: {from} to {address}");
                }
                assert!(!reached(engine, from, &gateway, "8081"), "{filtered}: {from}");
            }
            for address in [&gateway, &gateway6] {
                wait_until("a neighbour is answered", || reached(engine, "one", address, "8080"));
            }
            wait_until("another network is answered", || {
                reached(engine, "two", &gateway, "8080")
            });
        };
        check(&engine, &["one", "two"]);
        let Engine::Ferry(daemon) = &mut engine else {
            unreachable!()
        };
        daemon.kill9();
        daemon.start_again();
        check(&engine, &["one"]);
        engine.cli(["rm", "-f", "web"]).ok();
        assert!(!reached(&engine, "one", &gateway, "8080"));
        let rules = engine.in_namespace(&["nft", "list", "ruleset"]).ok();
        assert!(!rules.contains("8080"), "{rules}");
    }
}

#[test]
fn a_port_of_ipv6_addresses_that_cannot_be_is_refused_by_name() {
    let engine = Engine::start();
    engine.busybox();
    let refused = |ports: &str| {
        let done = engine.cli(["run", "--rm", "-p", ports, BUSYBOX, "true"]);
        assert_eq!(done.code, 125, "{done:?}");
        done.stderr
    };
    assert!(refused("[::1]:20000-21999:20000-21999/udp").contains("at most 1024 ports"));
    assert!(refused("[::1]:9:9/sctp").contains("sctp"));
    // An address that the host does not have.
    let foreign = refused("[2001:db8::9]:8080:80");
    assert!(foreign.contains("[2001:db8::9]:8080"), "{foreign}");
    assert_eq!(engine.cli(["ps", "-aq"]).ok(), "");
}

#[test]
fn exposed_ports_are_published_at_free_ones() {
    let engine = Engine::start();
    serve(
        &engine,
        "web",
        &["-P", "--expose", "80", "--expose", "90-91/udp", "-p", "9000:9000/sctp"],
    );
    let shown = engine.cli(["port", "web"]).ok();
    let lines: Vec<_> = shown.lines().collect();
    let ports: Vec<_> = lines.iter().filter_map(|line| line.split_once(" -> ")).collect();
    let of = |port: &str| -> Vec<&str> {
        let found = ports.iter().filter(|(known, _)| *known == port);
        found.map(|(_, address)| *address).collect()
    };
    assert_eq!(of("9000/sctp"), ["0.0.0.0:9000"], "{shown}");
    for port in ["80/tcp", "90/udp", "91/udp"] {
        assert_eq!(of(port).len(), 2, "{shown}");
    }
    let (address, port) = of("80/tcp")[0].split_once(':').unwrap();
    assert_eq!(address, "0.0.0.0");
    answers(&engine, "127.0.0.1", port);
    let taken = engine.cli(["run", "--rm", "-p", "9000:1/sctp", BUSYBOX, "true"]);
    assert!(taken.stderr.contains("container web has it"), "{taken:?}");
}

#[test]
fn a_container_that_joins_another_ones_network_has_its_names() {
    let engine = Engine::start();
    engine.cli(["network", "create", "n"]).ok();
    serve(&engine, "db", &["--network", "n"]);
    engine.sleeper(
        "web",
        &["--network", "n", "--hostname", "shop", "--add-host", "other:10.1.2.3"],
    );
    engine.sleeper("job", &["--network", "container:web"]);
    let read = |container: &str| {
        let script = "cat /etc/resolv.conf /etc/hosts /etc/hostname; hostname";
        engine.cli(["exec", container, "sh", "-c", script]).ok()
    };
    let (own, joined) = (read("web"), read("job"));
    assert_eq!(own, joined);
    assert!(
        own.contains("127.0.0.11") && own.contains("10.1.2.3") && own.ends_with("shop\nshop"),
        "{own}"
    );
    assert_eq!(engine.field("web", "/HostsPath"), engine.field("job", "/HostsPath"));
    wait_until("the database is reached by name", || {
        let asked = engine.cli(["exec", "job", "sh", "-c", "nc -w 1 db 80 < /dev/null"]);
        asked.stdout == "hello\n"
    });
    // What it is connected to later is known to both.
    engine.cli(["network", "create", "late"]).ok();
    engine.cli(["network", "connect", "late", "web"]).ok();
    assert_eq!(read("web"), read("job"));
}

#[test]
fn a_network_takes_its_configuration_from_another() {
    let engine = Engine::start();
    let create = |arguments: &str| engine.cli(["network", "create"].into_iter().chain(arguments.split(' ')));
    create("--config-only --subnet 10.9.0.0/24 --internal -o com.docker.network.driver.mtu=1400 base").ok();
    create("--config-from base real").ok();
    let inside = engine.sh(
        &["--network", "real"],
        "ip -o -4 addr show eth0; cat /sys/class/net/eth0/mtu",
    );
    assert!(
        inside.contains("inet 10.9.0.2/24") && inside.ends_with("1400"),
        "{inside}"
    );
    let on_it = engine.try_sh(&["--network", "base"], "true");
    assert_ne!(on_it.code, 0, "{on_it:?}");
    assert!(on_it.stderr.contains("base"), "{on_it:?}");
    let other = create("--config-from real another");
    assert!(other.stderr.contains("is not a config-only network"), "{other:?}");
}

#[test]
fn ports_pass_the_hosts_own_rules_when_told_so() {
    let drop = [
        "add table inet host",
        "add chain inet host input { type filter hook input priority 0; policy accept; }",
        "add rule inet host input tcp dport 8080 drop",
    ];
    for (through, reached) in [("forward", true), ("input", false)] {
        let through = format!("--publish-through={through}");
        let engine = Engine::Ferry(Box::new(TestDaemon::builder().arg(&through).start()));
        for line in drop {
            engine.in_namespace(&["nft", line]).ok();
        }
        serve(&engine, "web", &["-p", "8080:80", "-p", "8081:80"]);
        answers(&engine, "127.0.0.1", "8081");
        assert_eq!(fetch(&engine, "127.0.0.1", "8080"), reached, "{through}");
        answers(&engine, "::1", "8081");
        let gateway = engine.field("web", "/NetworkSettings/Gateway");
        wait_until("another container is answered", || {
            let ask = format!("nc -w 1 {gateway} 8081 < /dev/null");
            engine.try_sh(&[], &ask).stdout == "hello\n"
        });
        assert_eq!(engine.cli(["port", "web", "80/tcp"]).ok().lines().count(), 4);
        engine.in_namespace(&["nft", "delete table inet host"]).ok();
    }
}

#[test]
fn networks_are_joined_and_left_while_the_container_runs() {
    let engine = Engine::start();
    engine.cli(["network", "create", "back"]).ok();
    serve(&engine, "db", &["--network", "back"]);
    engine.sleeper("app", &[]);
    let ask = || {
        engine
            .cli(["exec", "app", "sh", "-c", "nc -w 1 db 80 < /dev/null"])
            .stdout
    };
    assert_ne!(ask(), "hello\n");
    engine
        .cli(["network", "connect", "--alias", "application", "back", "app"])
        .ok();
    wait_until("the database is reached by name", || ask() == "hello\n");
    let shown = engine
        .cli(["network", "inspect", "back", "-f", "{{len .Containers}}"])
        .ok();
    assert_eq!(shown, "2");
    let twice = engine.cli(["network", "connect", "back", "app"]);
    assert!(
        twice
            .stderr
            .contains("endpoint with name app already exists in network back"),
        "{twice:?}"
    );
    let busy = engine.cli(["network", "rm", "back"]);
    assert!(
        busy.stderr
            .contains("error while removing network: network back has active endpoints (name:\""),
        "{busy:?}"
    );
    engine.cli(["network", "disconnect", "back", "app"]).ok();
    assert_ne!(ask(), "hello\n");
    engine.cli(["rm", "-f", "db"]).ok();
    engine.cli(["network", "rm", "back"]).ok();
    let gone = engine.cli(["network", "inspect", "back"]);
    assert!(gone.stderr.contains("network back not found"), "{gone:?}");
}

#[test]
fn an_internal_network_keeps_names_and_leaks_no_question() {
    let engine = Engine::start();
    engine.cli(["network", "create", "--internal", "inner"]).ok();
    engine.sleeper("one", &["--network", "inner"]);
    engine.sleeper("two", &["--network", "inner"]);
    assert!(
        engine
            .cli(["exec", "one", "nslookup", "two", "127.0.0.11"])
            .ok()
            .contains("Name:")
    );
    let route = engine.cli(["exec", "one", "ip", "route"]).ok();
    assert!(!route.contains("default"), "{route}");
    let outside = engine.cli(["exec", "one", "nslookup", "example.com", "127.0.0.11"]);
    assert_ne!(outside.code, 0, "{outside:?}");
}

#[test]
fn what_somebody_flushed_or_deleted_is_back_within_a_second() {
    let engine = Engine::start();
    serve(&engine, "web", &["-p", "8080:80"]);
    answers(&engine, "127.0.0.1", "8080");
    for line in [&["nft", "flush", "ruleset"][..], &["ip", "link", "del", "ferry0"]] {
        engine.in_namespace(line).ok();
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(fetch(&engine, "127.0.0.1", "8080"), "{line:?}");
    }
}

#[test]
fn a_firewall_that_begins_to_drop_does_not_cut_containers_off() {
    let engine = Engine::start();
    serve(&engine, "web", &[]);
    engine.sleeper("client", &[]);
    let nft = |line: &str| engine.in_namespace(&["nft", line]).ok();
    nft("add table ip filter");
    nft("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
    wait_until("the chain lets our bridge pass", || {
        let rules = engine.in_namespace(&["nft", "list chain ip filter FORWARD"]).ok();
        rules.matches("accept").count() == 2
    });
    engine
        .cli(["network", "create", "-o", "com.docker.network.bridge.name=mine0", "n"])
        .ok();
    let rules = engine.in_namespace(&["nft", "list chain ip filter FORWARD"]).ok();
    assert!(rules.contains("mine0"), "{rules}");
    nft("delete table ip filter");
}

#[test]
fn networks_outlive_the_daemon_and_bad_ones_are_refused() {
    let mut daemon = TestDaemon::start();
    let engine = &daemon;
    engine
        .cli([
            "network",
            "create",
            "--subnet",
            "10.9.0.0/24",
            "--ip-range",
            "10.9.0.128/25",
            "--label",
            "a=b",
            "n",
        ])
        .ok();
    engine.sleeper("fixed", &["--network", "n", "--ip", "10.9.0.7"]);
    engine.sleeper("next", &["--network", "n"]);
    assert_eq!(
        engine.field("fixed", "/NetworkSettings/Networks/n/IPAddress"),
        "10.9.0.7"
    );
    assert_eq!(
        engine.field("next", "/NetworkSettings/Networks/n/IPAddress"),
        "10.9.0.128"
    );
    let refused = |line: &[&str], words: &str| {
        let done = engine.cli(line);
        assert_ne!(done.code, 0, "{line:?}");
        assert!(done.stderr.contains(words), "{line:?}: {done:?}");
    };
    refused(&["network", "create", "n"], "network with name n already exists");
    refused(
        &["network", "create", "bridge"],
        "operation is not permitted on predefined bridge network",
    );
    refused(
        &["network", "create", "--subnet", "10.9.0.0/16", "m"],
        "Pool overlaps with other one on this address space",
    );
    refused(
        &["network", "create", "-d", "overlay", "m"],
        "overlay driver is not there yet",
    );
    refused(&["network", "create", "-d", "../x", "m"], "not found");
    refused(
        &["network", "create", "-d", "macvlan", "-o", "parent=nope", "m"],
        "nope",
    );
    refused(
        &["network", "rm", "bridge"],
        "bridge is a pre-defined network and cannot be removed",
    );
    refused(
        &["run", "--rm", "--network", "n", "--ip", "10.9.0.7", BUSYBOX, "true"],
        "Address already in use",
    );
    refused(
        &["run", "--rm", "--network", "nope", BUSYBOX, "true"],
        "network nope not found",
    );
    assert_eq!(
        engine
            .cli(["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"])
            .ok(),
        "n"
    );
    daemon.kill9();
    daemon.start_again();
    let engine = &daemon;
    assert_eq!(engine.cli(["network", "inspect", "n", "-f", "{{.Labels.a}}"]).ok(), "b");
    let asked = engine
        .cli(["exec", "next", "ping", "-c", "1", "-W", "2", "10.9.0.7"])
        .ok();
    assert!(asked.contains("1 packets received"), "{asked}");
    engine.cli(["rm", "-f", "fixed", "next"]).ok();
    engine.cli(["network", "prune", "-f"]).ok();
    assert_eq!(engine.cli(["network", "ls", "--filter", "type=custom", "-q"]).ok(), "");
}
