//! What cannot be is refused with its cause and leaves nothing half-attached; what vanishes underneath is no end.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, wait_until};
use serde_json::{Value, json};

#[track_caller]
fn refused(daemon: &TestDaemon, line: &[&str], words: &[&str]) {
    let done = daemon.cli(line);
    assert_ne!(done.code, 0, "{line:?}");
    for word in words {
        assert!(done.stderr.contains(word), "{line:?} does not say {word:?}: {done:?}");
    }
}

/// Every link, address, neighbour and rule.
fn picture(daemon: &TestDaemon) -> String {
    let script = "ip -o link; ip -o addr; ip neigh show nud permanent; nft list ruleset";
    daemon.in_namespace(&["sh", "-c", script]).ok()
}

/// Does what is to be refused, and looks whether anything stays of it.
#[track_caller]
fn leaves_nothing(daemon: &TestDaemon, refuse: impl Fn()) {
    let before = picture(daemon);
    refuse();
    let mut after = String::new();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < end {
        after = picture(daemon);
        if after == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("something is left\n--- before\n{before}\n--- after\n{after}");
}

#[test]
fn addresses_that_are_taken_invalid_or_all_gone() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli(["network", "create", "--subnet", "10.9.9.0/30", "tiny"])
        .ok();
    daemon
        .cli([
            "network",
            "create",
            "--subnet",
            "10.9.0.0/24",
            "--subnet",
            "fd00:9::/64",
            "--ipv6",
            "n",
        ])
        .ok();
    daemon.cli(["network", "create", "own"]).ok();
    daemon.sleeper("only", &["--network", "tiny"]);
    daemon.sleeper("five", &["--network", "n", "--ip", "10.9.0.5", "--ip6", "fd00:9::5"]);
    daemon.sleeper("free", &[]);
    let run = |options: &[&str]| -> Vec<String> {
        let line = ["run", "--rm"].iter().chain(options).chain(&[BUSYBOX, "true"]);
        line.map(|word| (*word).to_owned()).collect()
    };
    leaves_nothing(&daemon, || {
        let all: [(&[&str], &[&str]); 14] = [
            (
                &["--network", "tiny"],
                &["no available IPv4 addresses on this network's address pools: tiny"],
            ),
            (
                &["--network", "n", "--ip", "10.9.0.5"],
                &["Address already in use", "10.9.0.5"],
            ),
            (
                &["--network", "n", "--ip6", "fd00:9::5"],
                &["Address already in use", "fd00:9::5"],
            ),
            // The second one fails, and the first goes back.
            (
                &["--network", "n", "--ip", "10.9.0.77", "--ip6", "fd00:9::5"],
                &["Address already in use", "fd00:9::5"],
            ),
            (
                &["--network", "n", "--ip", "10.9.0.1"],
                &["Address already in use", "10.9.0.1"],
            ),
            (&["--network", "n", "--ip", "10.9.0.0"], &["10.9.0.0"]),
            (&["--network", "n", "--ip", "10.9.0.255"], &["10.9.0.255"]),
            (
                &["--network", "n", "--ip", "10.8.0.5"],
                &["no configured subnet contains IP address 10.8.0.5"],
            ),
            (&["--network", "n", "--ip", "10.8.0.x"], &["10.8.0.x"]),
            (&["--network", "n", "--ip", "fd00:9::7"], &["fd00:9::7"]),
            (&["--network", "n", "--ip6", "10.9.0.9"], &["10.9.0.9"]),
            (
                &["--network", "n", "--mac-address", "x"],
                &["x is not a valid mac address"],
            ),
            (
                &["--network", "n", "--mac-address", "01:00:5e:00:00:01"],
                &["01:00:5e:00:00:01"],
            ),
            (
                &["--network", "n", "--mac-address", "00:00:00:00:00:00"],
                &["00:00:00:00:00:00"],
            ),
        ];
        for (options, words) in all {
            let line = run(options);
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            refused(&daemon, &line, words);
        }
        let all: [(&[&str], &[&str]); 4] = [
            (
                &["network", "connect", "tiny", "free"],
                &["no available IPv4 addresses"],
            ),
            (
                &["network", "connect", "--ip", "10.9.0.5", "n", "free"],
                &["Address already in use"],
            ),
            (&["network", "connect", "--ip", "10.8.0.5", "n", "free"], &["10.8.0.5"]),
            (
                &["network", "connect", "n", "five"],
                &["endpoint with name five already exists in network n"],
            ),
        ];
        for (line, words) in all {
            refused(&daemon, line, words);
        }
    });
    let networks = daemon.inspect("free")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().len(), 1, "{networks}");
    // What was refused was not used up.
    daemon.sleeper("again", &["--network", "n", "--ip", "10.9.0.77"]);
    daemon.cli(["rm", "-f", "only"]).ok();
    wait_until("the one address is free", || {
        daemon.cli(["network", "connect", "tiny", "free"]).code == 0
    });
}

#[test]
fn networks_that_cannot_be() {
    let daemon = TestDaemon::start();
    daemon.cli(["network", "create", "--subnet", "10.9.0.0/24", "n"]).ok();
    daemon.sleeper("on", &["--network", "n"]);
    let create = |options: &[&'static str]| {
        ["network", "create"]
            .iter()
            .chain(options)
            .chain(&["m"])
            .copied()
            .collect::<Vec<_>>()
    };
    leaves_nothing(&daemon, || {
        let all: [(&[&str], &[&str]); 14] = [
            (
                &["--subnet", "10.9.0.128/25"],
                &["Pool overlaps with other one on this address space", "network n"],
            ),
            (
                &["--subnet", "10.0.0.0/8"],
                &["Pool overlaps with other one on this address space", "network n"],
            ),
            (&["--subnet", "0.0.0.0/0"], &["0.0.0.0/0"]),
            (&["--subnet", "10.8.0.7/24"], &["10.8.0.7/24", "10.8.0.0/24"]),
            (&["--subnet", "10.8.0.0/33"], &["10.8.0.0/33"]),
            (&["--subnet", "224.0.0.0/24"], &["224.0.0.0/24"]),
            (&["--subnet", "127.5.0.0/24"], &["127.5.0.0/24"]),
            (&["--subnet", "10.8.0.0/24", "--gateway", "10.8.0.255"], &["10.8.0.255"]),
            (
                &["--subnet", "10.8.0.0/24", "--gateway", "10.8.1.1"],
                &["no matching subnet for gateway 10.8.1.1"],
            ),
            (
                &["--subnet", "10.8.0.0/24", "--ip-range", "10.8.1.0/25"],
                &["no matching subnet for range 10.8.1.0/25"],
            ),
            (&["-o", "com.docker.network.bridge.name=lo"], &["lo"]),
            (
                &["-o", "com.docker.network.bridge.name=much-too-long-a-name"],
                &["much-too-long-a-name"],
            ),
            (&["-o", "com.docker.network.driver.mtu=10"], &["10"]),
            (&["-o", "com.docker.network.driver.mtu=x"], &["x"]),
        ];
        for (options, words) in all {
            refused(&daemon, &create(options), words);
        }
        refused(
            &daemon,
            &["network", "rm", "n"],
            &["network n has active endpoints (name:\"on\""],
        );
        refused(
            &daemon,
            &["network", "rm", "host"],
            &["host is a pre-defined network and cannot be removed"],
        );
        refused(&daemon, &["network", "connect", "host", "on"], &["host"]);
        refused(&daemon, &["network", "connect", "none", "on"], &["none"]);
        refused(
            &daemon,
            &["network", "disconnect", "bridge", "on"],
            &["is not connected to network bridge"],
        );
        refused(
            &daemon,
            &["network", "disconnect", "nope", "on"],
            &["network nope not found"],
        );
        refused(&daemon, &["network", "connect", "n", "nobody"], &["nobody"]);
        daemon.cli(["network", "prune", "-f"]).ok();
    });
    assert_eq!(
        daemon
            .cli(["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"])
            .ok(),
        "n"
    );
}

/// Creates a container with these port bindings by the API, and starts it: the first answer that is no success.
fn publish(daemon: &TestDaemon, bindings: &Value) -> (u16, String) {
    let body = json!({ "Image": BUSYBOX, "Cmd": ["true"], "HostConfig": { "PortBindings": bindings } });
    let (status, said) = daemon.api("POST", "/containers/create?name=refused", Some(&body));
    if status != 201 {
        return (status, said["message"].to_string());
    }
    let (status, said) = daemon.api("POST", "/containers/refused/start", None);
    let (removed, _) = daemon.api("DELETE", "/containers/refused?force=1", None);
    assert_eq!(removed, 204);
    (status, said["message"].to_string())
}

#[test]
fn ports_that_are_taken_or_no_ports() {
    let daemon = TestDaemon::start();
    daemon.sleeper("holder", &["-p", "8000:80", "-p", "10000-10010:10000-10010/udp"]);
    let process = daemon.in_namespace(&["busybox", "nc", "-l", "-p", "8100"]).spawn();
    wait_until("a process listens", || {
        let list = daemon.in_namespace(&["cat", "/proc/net/tcp", "/proc/net/tcp6"]).ok();
        list.contains(":1FA4 ")
    });
    let pid = process.id().to_string();
    let bound = |port: &str| json!([{ "HostIp": "", "HostPort": port }]);
    leaves_nothing(&daemon, || {
        let many: Value = (1..=65535)
            .map(|port| (format!("{port}/tcp"), json!([{ "HostPort": "" }])))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let at = |ip: &str, port: &str| json!([{ "HostIp": ip, "HostPort": port }]);
        let all: Vec<(Value, u16, Vec<&str>)> = vec![
            (
                json!({ "80/tcp": bound("8000") }),
                500,
                vec![
                    "Bind for 0.0.0.0:8000 failed: port is already allocated",
                    "container holder has it",
                ],
            ),
            (
                json!({ "80/tcp": at("127.0.0.1", "8000") }),
                500,
                vec!["port is already allocated", "container holder has it"],
            ),
            (
                json!({ "81/tcp": bound("8001"), "82/tcp": bound("8000") }),
                500,
                vec!["0.0.0.0:8000", "container holder has it"],
            ),
            (
                json!({ "53/udp": bound("10005") }),
                500,
                vec!["0.0.0.0:10005", "container holder has it"],
            ),
            (
                json!({ "80/tcp": bound("8100") }),
                500,
                vec!["0.0.0.0:8100", &pid, "(busybox)"],
            ),
            (json!({ "80/tcp": bound("8100-8100") }), 500, vec!["8100"]),
            (json!({ "80/tcp": at("1.2.3.4", "8200") }), 500, vec!["1.2.3.4:8200"]),
            (json!({ "80/tcp": bound("70000") }), 400, vec!["70000"]),
            (json!({ "80/tcp": bound("65530-65540") }), 400, vec!["65530-65540"]),
            (json!({ "80/tcp": bound("9-8") }), 400, vec!["9-8"]),
            (json!({ "80/tcp": bound("-1") }), 400, vec!["-1"]),
            (json!({ "80/tcp": at("nope", "80") }), 400, vec!["nope"]),
            (json!({ "80/foo": bound("80") }), 400, vec!["foo"]),
            (json!({ "0/tcp": bound("80") }), 400, vec!["0"]),
            (json!({ "65536/tcp": bound("80") }), 400, vec!["65536"]),
            (json!({ "x": bound("80") }), 400, vec!["x"]),
            (many, 500, vec!["32768-60999"]),
        ];
        for (bindings, status, words) in all {
            let shown: String = bindings.to_string().chars().take(100).collect();
            let (was, said) = publish(&daemon, &bindings);
            assert_eq!(was, status, "{shown}: {said}");
            for word in words {
                assert!(said.contains(word), "{shown} does not say {word:?}: {said}");
            }
        }
        for (line, words) in [
            (
                ["run", "--rm", "-p", "8000-8010:80-81", BUSYBOX, "true"],
                "80-81 and 8000-8010",
            ),
            (
                ["run", "--rm", "-p", "65530-65540:80", BUSYBOX, "true"],
                "Invalid hostPort: 65530-65540",
            ),
            (
                ["run", "--rm", "-p", "80:70000", BUSYBOX, "true"],
                "Invalid containerPort: 70000",
            ),
            (["run", "--rm", "-p", "x:80:80", BUSYBOX, "true"], "x"),
        ] {
            refused(&daemon, &line, &[words]);
        }
        // Of a running one, too: what it had stays.
        refused(
            &daemon,
            &["update", "--publish-rm", "80", "--publish-add", "8100:80", "holder"],
            &["8100", &pid, "(busybox)"],
        );
    });
    assert!(daemon.cli(["port", "holder"]).ok().contains("80/tcp -> 0.0.0.0:8000"));
    drop(process);
}

fn reaches(daemon: &TestDaemon, from: &str, name: &str) -> bool {
    daemon.cli(["exec", from, "ping", "-c", "1", "-W", "1", name]).code == 0
}

/// The host's end of a container's link: all there is of that kind when there is one container.
fn host_ends(daemon: &TestDaemon) -> Vec<String> {
    let links = daemon.in_namespace(&["ip", "-o", "link", "show", "type", "veth"]).ok();
    let name = |line: &str| line.split([':', '@']).nth(1).unwrap_or_default().trim().to_owned();
    links.lines().map(name).filter(|name| name.starts_with("fe-")).collect()
}

#[test]
fn a_container_whose_link_was_deleted_is_disconnected_connected_stopped_and_started() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.cli(["network", "create", "n"]).ok();
    daemon.sleeper("victim", &["--network", "n", "-p", "8080:80"]);
    let end = host_ends(&daemon);
    daemon.sleeper("other", &["--network", "n"]);
    assert!(reaches(&daemon, "other", "victim"));
    let delete = |link: &str| drop(daemon.in_namespace(&["ip", "link", "del", link]).ok());
    delete(&end[0]);
    assert!(!reaches(&daemon, "other", "victim"));
    // Taken off and put on again while it runs.
    daemon.cli(["network", "disconnect", "n", "victim"]).ok();
    daemon.cli(["network", "connect", "n", "victim"]).ok();
    assert!(
        reaches(&daemon, "other", "victim"),
        "{}",
        daemon.inspect("victim")["NetworkSettings"]
    );
    // From inside, by one who may.
    let inside = daemon.pid("victim").to_string();
    let links = ["-t", &inside, "-n", "ip", "-o", "link", "show", "type", "veth"];
    let name = ferry_testkit::Run::new("nsenter").args(links).ok();
    let name = name.split([':', '@']).nth(1).unwrap().trim().to_owned();
    ferry_testkit::Run::new("nsenter")
        .args(["-t", &inside, "-n", "ip", "link", "del", &name])
        .ok();
    daemon.cli(["restart", "-t", "0", "victim"]).ok();
    assert!(reaches(&daemon, "other", "victim"));
    let gone: Vec<String> = host_ends(&daemon);
    for link in &gone {
        delete(link);
    }
    daemon.cli(["stop", "-t", "0", "victim"]).ok();
    daemon.cli(["start", "victim"]).ok();
    daemon.cli(["restart", "-t", "0", "other"]).ok();
    assert!(reaches(&daemon, "other", "victim"));
    daemon.cli(["rm", "-f", "victim", "other"]).ok();
    daemon.cli(["network", "rm", "n"]).ok();
}

#[test]
fn a_bridge_that_was_deleted_is_made_again_with_all_its_ports() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let name = ["-o", "com.docker.network.bridge.name=mine0"];
    daemon
        .cli(["network", "create"].iter().chain(&name).chain(&["--internal", "n"]))
        .ok();
    daemon.sleeper("one", &["--network", "n"]);
    daemon.sleeper("two", &["--network", "n"]);
    let delete = |daemon: &TestDaemon| drop(daemon.in_namespace(&["ip", "link", "del", "mine0"]).ok());
    delete(&daemon);
    wait_until("they reach each other", || reaches(&daemon, "one", "two"));
    delete(&daemon);
    daemon.sleeper("three", &["--network", "n"]);
    wait_until("all reach each other", || {
        reaches(&daemon, "one", "three") && reaches(&daemon, "two", "one")
    });
    // Everything that touches the network works without its bridge.
    delete(&daemon);
    daemon.cli(["network", "disconnect", "n", "one"]).ok();
    daemon.cli(["network", "connect", "n", "one"]).ok();
    wait_until("all reach each other", || {
        reaches(&daemon, "one", "three") && reaches(&daemon, "three", "two")
    });
    delete(&daemon);
    daemon.cli(["restart", "-t", "0", "two"]).ok();
    wait_until("they reach each other", || reaches(&daemon, "one", "two"));
    // An engine that comes finds it missing.
    daemon.kill9();
    delete(&daemon);
    daemon.start_again();
    wait_until("all reach each other", || {
        reaches(&daemon, "one", "two") && reaches(&daemon, "three", "two")
    });
    // In its place somebody else's, before the engine has made its own again.
    let engine = i32::try_from(daemon.engine_pid()).unwrap();
    let engine = rustix::process::Pid::from_raw(engine).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::STOP).unwrap();
    delete(&daemon);
    daemon
        .in_namespace(&["ip", "link", "add", "mine0", "type", "bridge"])
        .ok();
    rustix::process::kill_process(engine, rustix::process::Signal::CONT).unwrap();
    let line = ["run", "--rm", "--network", "n", BUSYBOX, "true"];
    refused(
        &daemon,
        &line,
        &["a link named mine0 exists and does not belong to this network"],
    );
    assert_eq!(host_ends(&daemon).len(), 3);
    daemon.cli(["rm", "-f", "one"]).ok();
    delete(&daemon);
    daemon.sleeper("four", &["--network", "n"]);
    assert!(reaches(&daemon, "four", "two") && reaches(&daemon, "three", "four"));
    delete(&daemon);
    daemon.cli(["rm", "-f", "two", "three", "four"]).ok();
    daemon.cli(["network", "rm", "n"]).ok();
}

#[test]
fn the_default_bridge_and_the_rules_vanish_together() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let serve = "exec nc -ll -p 80 -e echo hello";
    daemon
        .cli([
            "run", "-d", "--name", "web", "-p", "8080:80", BUSYBOX, "sh", "-c", serve,
        ])
        .ok();
    let fetch = || {
        daemon
            .in_namespace(&["sh", "-c", "busybox nc -w 1 127.0.0.1 8080 </dev/null"])
            .output()
            .stdout
            == "hello\n"
    };
    wait_until("the port answers", fetch);
    daemon
        .in_namespace(&["sh", "-c", "ip link del ferry0; nft flush ruleset"])
        .ok();
    // Whoever comes next brings all of it back.
    daemon.sleeper("next", &[]);
    wait_until("the port answers again", fetch);
    daemon.in_namespace(&["ip", "link", "set", "ferry0", "down"]).ok();
    // It may find the addresses back before it has looked whether they are gone, and say so.
    daemon.in_namespace(&["ip", "addr", "flush", "dev", "ferry0"]).output();
    daemon.cli(["restart", "-t", "0", "next"]).ok();
    daemon.cli(["rm", "-f", "web", "next"]).ok();
}

#[test]
fn a_parent_that_vanishes_takes_no_container_s_end_with_it() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let wire = || {
        let script = "ip link add wire0 type veth peer name wire1; ip link set wire0 up; ip link set wire1 up";
        daemon.in_namespace(&["sh", "-ec", script]).ok();
    };
    wire();
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=wire0",
        "--subnet",
        "10.8.0.0/24",
        "m",
    ];
    daemon.cli(create).ok();
    daemon.sleeper("box", &["--network", "m"]);
    daemon.in_namespace(&["ip", "link", "del", "wire0"]).ok();
    assert_eq!(daemon.cli(["exec", "box", "ls", "/sys/class/net"]).ok(), "lo");
    daemon.cli(["stop", "-t", "0", "box"]).ok();
    refused(&daemon, &["start", "box"], &["parent interface wire0 does not exist"]);
    wire();
    daemon.cli(["start", "box"]).ok();
    daemon.in_namespace(&["ip", "link", "del", "wire0"]).ok();
    daemon.cli(["network", "disconnect", "m", "box"]).ok();
    refused(
        &daemon,
        &["network", "connect", "m", "box"],
        &["parent interface wire0 does not exist"],
    );
    daemon.cli(["network", "connect", "bridge", "box"]).ok();
    assert_eq!(daemon.cli(["exec", "box", "ls", "/sys/class/net"]).ok(), "eth0\nlo");
    daemon.cli(["rm", "-f", "box"]).ok();
    daemon.cli(["network", "rm", "m"]).ok();
}
