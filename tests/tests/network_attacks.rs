//! Family F7 of the known attacks, as far as it takes a whole engine, and what containers learn of the host's name servers. The
//! rest is in crates/network/tests/attacks.rs.

use std::path::PathBuf;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Builder, Client, Engine, Run, Running, TestDaemon, wait_until};

/// An /etc of its own, whose resolv.conf is a link as systemd-resolved's, and name servers that say who they are.
const OWN_ETC: &str = "mkdir -p $DIR/etc/up $DIR/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=$DIR/etc/up,workdir=$DIR/etc/work overlay /etc
mkdir -p /etc/resolve
echo 'nameserver 192.0.2.1' > /etc/resolve/resolv.conf
umount /etc/resolv.conf 2> /dev/null || true
rm -f /etc/resolv.conf
ln -s resolve/resolv.conf /etc/resolv.conf
for n in 1 2 3; do ip addr add 192.0.2.$n/32 dev lo; done";

/// Answers every question for an address with its own, by UDP; takes those by TCP; notes each.
const SERVER: &str = r#"
import signal, socket, sys, threading
signal.alarm(120)
own, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind((own, 53))
tcp = socket.socket(); tcp.bind((own, 53)); tcp.listen(5)
def streams():
    while True:
        connection, _ = tcp.accept()
        log.write("tcp " + repr(connection.recv(512)) + "\n")
        connection.close()
threading.Thread(target=streams, daemon=True).start()
log.write("ready\n")
while True:
    question, client = udp.recvfrom(512)
    log.write("udp " + repr(question) + "\n")
    end = question.index(b"\0", 12) + 5
    answer = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if question[end-4:end-2] == b"\0\1" else b"\0\0") + b"\0\0\0\0" + question[12:end]
    if question[end-4:end-2] == b"\0\1":
        answer += b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(own)
    udp.sendto(answer, client)
"#;

struct NameServer {
    log: PathBuf,
    _process: Running,
}

impl NameServer {
    fn start(daemon: &TestDaemon, address: &str) -> Self {
        let log = daemon.dir().join(format!("dns-{address}"));
        let process = daemon
            .in_namespace(&["python3", "-c", SERVER, address, log.to_str().unwrap()])
            .spawn();
        let server = Self { log, _process: process };
        wait_until("a name server", || server.heard().contains("ready"));
        server
    }

    fn heard(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn own_etc() -> TestDaemon {
    Builder::default().set_up(OWN_ETC).start()
}

fn resolves(engine: &Client, container: &str, name: &str, to: &str) -> bool {
    let asked = engine.cli(["exec", container, "nslookup", name]);
    asked.stdout.contains(&format!("Address: {to}\n")) || asked.stdout.contains(&format!("Address 1: {to}"))
}

#[test]
fn cve_2024_29018_no_question_leaves_an_internal_network() {
    let daemon = own_etc();
    let server = NameServer::start(&daemon, "192.0.2.1");
    daemon.cli(["network", "create", "--internal", "inner"]).ok();
    daemon.cli(["network", "create", "outer"]).ok();
    daemon.sleeper("shut", &["--network", "inner"]);
    daemon.sleeper("given", &["--network", "inner", "--dns", "192.0.2.1"]);
    daemon.sleeper("open", &["--network", "outer"]);
    // By TCP: the length, then a question for example.com.
    let by_tcp = "printf '\\000\\035\\022\\064\\001\\000\\000\\001\\000\\000\\000\\000\\000\\000\\007example\\003com\\000\\000\\001\\000\\001' | nc -w 2 127.0.0.11 53 | wc -c";
    let ask = |container: &str| {
        for name in ["leak.example.com", "leak", "1.2.0.192.in-addr.arpa"] {
            daemon.cli(["exec", container, "nslookup", name, "127.0.0.11"]);
        }
        daemon.cli(["exec", container, "sh", "-c", by_tcp]);
        daemon.cli(["exec", container, "nslookup", "leak.example.com", "192.0.2.1"]);
    };
    ask("shut");
    ask("given");
    assert_eq!(server.heard(), "ready\n");
    // The test's own way is open.
    ask("open");
    let heard = server.heard();
    assert!(heard.contains("udp ") && heard.contains("tcp "), "{heard}");
}

#[test]
fn cve_2025_9074_and_cve_2021_4024_the_engine_listens_nowhere_that_a_container_reaches() {
    let daemon = TestDaemon::start();
    daemon.cli(["network", "create", "n"]).ok();
    daemon.sleeper(
        "c1",
        &["-p", "8080:80", "-p", "127.0.0.1:8081:81/udp", "--network", "n"],
    );
    let bound = daemon.in_namespace(&["ss", "-Hlntu"]).ok();
    // What is published for IPv6 is a socket of the container's shim (ADR 11).
    let others: Vec<_> = bound.lines().filter(|line| !line.contains("[::]:8080 ")).collect();
    assert!(
        others.is_empty(),
        "somebody listens in the engine's namespace: {others:?}"
    );
    for host in ["tcp://127.0.0.1:2375", "tcp://0.0.0.0:2375"] {
        let dir = daemon.dir().join("second");
        let refused = daemon
            .in_namespace(&[
                ferry_testkit::tools::ferry().to_str().unwrap(),
                "daemon",
                "-H",
                host,
                "--exec-root",
            ])
            .args([dir.join("run")])
            .args(["--data-root"])
            .args([dir.join("data")])
            .output();
        assert!(
            refused.code != 0 && refused.stderr.contains("without TLS"),
            "{refused:?}"
        );
    }
}

#[test]
fn cve_2020_15257_no_abstract_socket_is_seen_from_the_hosts_network() {
    let engine = Engine::start();
    engine.sleeper("c1", &["-p", "8080:80"]);
    let sockets = engine.sh(&["--network", "host"], "cat /proc/net/unix");
    assert!(sockets.contains("Path"), "{sockets}");
    assert!(!sockets.contains(" @"), "{sockets}");
}

#[test]
fn cve_2023_28840_and_cve_2021_20206_drivers_that_are_not_there_are_refused() {
    let engine = Engine::start();
    for (driver, words) in [
        ("overlay", "not there yet"),
        ("../x", "not found"),
        ("/bin/sh", "not found"),
    ] {
        let refused = engine.cli(["network", "create", "-d", driver, "m"]);
        assert!(refused.code != 0 && refused.stderr.contains(words), "{refused:?}");
    }
}

/// While the engine is killed, comes back and makes its rules anew, nobody from outside gets through.
#[test]
fn cve_2025_54410_a_neighbour_reaches_no_container_while_the_engine_is_away_and_comes_back() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let target = daemon.field("c1", "/NetworkSettings/Networks/bridge/IPAddress");
    let pid = daemon.pid("c1").to_string();
    let neighbour = Run::new("unshare").args(["--net", "--", "sleep", "100"]).spawn();
    let outside = neighbour.id().to_string();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let inside = |line: &str| {
        Run::new("nsenter")
            .args(["-t", &outside, "-n", "--", "sh", "-c", line])
            .output()
    };
    daemon
        .in_namespace(&[
            "ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", &outside,
        ])
        .ok();
    daemon
        .in_namespace(&["sh", "-c", "ip addr add 198.51.100.1/24 dev out0; ip link set out0 up"])
        .ok();
    inside(&format!(
        "ip addr add 198.51.100.2/24 dev in0; ip link set in0 up; ip route add {target}/32 via 198.51.100.1"
    ));
    let received = || {
        let line = "grep ^Udp: /proc/net/snmp | tail -1 | tr -s ' ' | cut -d ' ' -f 2,3";
        Run::new("nsenter")
            .args(["-t", &pid, "-n", "--", "sh", "-c", line])
            .output()
            .stdout
    };
    let before = received();
    let sender = Run::new("nsenter")
        .args(["-t", &outside, "-n", "--", "timeout", "5", "python3", "-c"])
        .args([format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nwhile True: s.sendto(b'x', ('{target}', 80))"
        )])
        .spawn();
    for _ in 0..2 {
        daemon.kill9();
        daemon.start_again();
    }
    daemon.restart();
    sender.finish();
    assert_eq!(received(), before);
    daemon.in_namespace(&["ip", "link", "del", "out0"]).ok();
}

#[test]
fn containers_follow_the_hosts_name_servers_as_they_change() {
    let mut daemon = own_etc();
    let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| NameServer::start(&daemon, address));
    daemon.cli(["network", "create", "n"]).ok();
    daemon.sleeper("named", &["--network", "n"]);
    daemon.sleeper("plain", &[]);
    daemon.sleeper("edited", &[]);
    daemon.sleeper("given", &["--network", "n", "--dns", "192.0.2.1"]);
    daemon
        .cli(["exec", "edited", "sh", "-c", "echo '# mine' >> /etc/resolv.conf"])
        .ok();
    wait_until("the first server", || {
        resolves(&daemon, "named", "one.example.com", "192.0.2.1")
    });
    let change = |daemon: &TestDaemon, script: &str| {
        daemon.in_namespace(&["sh", "-ec", script]).ok();
    };
    // The file behind the link is replaced, as systemd-resolved does.
    change(
        &daemon,
        "echo 'nameserver 192.0.2.2' > /etc/resolve/next; mv /etc/resolve/next /etc/resolve/resolv.conf",
    );
    wait_until("the second server", || {
        resolves(&daemon, "named", "two.example.com", "192.0.2.2")
    });
    let file = |daemon: &TestDaemon, container: &str| daemon.cli(["exec", container, "cat", "/etc/resolv.conf"]).ok();
    wait_until("the file of a container without names", || {
        file(&daemon, "plain").contains("nameserver 192.0.2.2")
    });
    assert!(file(&daemon, "edited").contains("192.0.2.1\n# mine"));
    assert!(resolves(&daemon, "given", "other.example.com", "192.0.2.1"));
    // The link leads elsewhere.
    change(
        &daemon,
        "mkdir /etc/other; echo 'nameserver 192.0.2.3' > /etc/other/r; ln -s other/r /etc/next; mv -T /etc/next /etc/resolv.conf",
    );
    wait_until("the third server", || {
        resolves(&daemon, "named", "three.example.com", "192.0.2.3")
    });
    // Written in place, there.
    change(&daemon, "echo 'nameserver 192.0.2.1' > /etc/other/r");
    wait_until("the first again", || {
        resolves(&daemon, "named", "four.example.com", "192.0.2.1")
    });
    daemon.kill9();
    change(&daemon, "echo 'nameserver 192.0.2.2' > /etc/other/r");
    daemon.start_again();
    wait_until("the second again", || {
        resolves(&daemon, "named", "five.example.com", "192.0.2.2")
    });
    wait_until("the file", || file(&daemon, "plain").contains("nameserver 192.0.2.2"));
    assert!(servers.iter().all(|server| server.heard().contains("udp")));
}

#[test]
fn a_container_is_not_its_own_name_server() {
    let engine = Engine::start();
    for (server, refused) in [("127.0.0.11", true), ("::ffff:127.0.0.11", true), ("127.0.0.1", false)] {
        let done = engine.try_sh(&["--dns", server], "cat /etc/resolv.conf");
        assert_eq!(done.code != 0, refused, "{done:?}");
        assert_eq!(done.stderr.contains("which would ask itself"), refused, "{done:?}");
    }
}

#[test]
fn links_lead_to_where_the_other_is_now() {
    let engine = Engine::start();
    engine.cli(["network", "create", "n"]).ok();
    engine.sleeper("db", &["--network", "n"]);
    engine.sleeper("app", &["--network", "n", "--link", "db:database"]);
    engine.sleeper("other", &["--network", "n"]);
    let address = || engine.field("db", "/NetworkSettings/Networks/n/IPAddress");
    assert!(resolves(&engine, "app", "database", &address()));
    assert!(
        !resolves(&engine, "other", "database", &address()),
        "an alias is its container's alone"
    );
    let before = address();
    engine.cli(["stop", "-t", "0", "db"]).ok();
    assert!(!resolves(&engine, "app", "database", &before));
    engine.cli(["start", "db"]).ok();
    assert_ne!(address(), before, "addresses go round");
    assert!(resolves(&engine, "app", "database", &address()));
    // On the default bridge, in the hosts file.
    engine.sleeper("db0", &[]);
    engine.sleeper("app0", &["--link", "db0:database"]);
    let address = || engine.field("db0", "/NetworkSettings/Networks/bridge/IPAddress");
    let hosts = || engine.cli(["exec", "app0", "cat", "/etc/hosts"]).ok();
    assert!(hosts().contains(&format!("{}\tdatabase ", address())), "{}", hosts());
    engine
        .cli(["exec", "app0", "sh", "-c", "echo '192.0.2.9 mine' >> /etc/hosts"])
        .ok();
    let before = address();
    engine.cli(["stop", "-t", "0", "db0"]).ok();
    engine.cli(["start", "db0"]).ok();
    assert_ne!(address(), before);
    wait_until("the hosts file follows", || {
        let hosts = hosts();
        hosts.contains(&format!("{}\tdatabase ", address())) && !hosts.contains(&format!("{before}\t"))
    });
    assert!(hosts().contains("192.0.2.9 mine"));
}

#[test]
fn a_container_with_a_user_namespace_knows_itself_from_the_start() {
    let engine = Engine::start();
    engine.busybox();
    engine.cli(["network", "create", "n"]).ok();
    for round in 0..5 {
        let name = format!("self{round}");
        let options = ["--userns=auto", "--network", "n", "--name", &name];
        let asked = engine.try_sh(&options, &format!("nslookup {name} 127.0.0.11"));
        assert_eq!(asked.code, 0, "{asked:?}");
    }
}

#[test]
fn networks_of_daemon_json() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = r#"{"default-address-pools":[{"base":"10.200.0.0/16","size":24}],"bip":"172.30.0.1/16",
        "fixed-cidr":"172.30.8.0/24","ipv6":true,"ip":"127.0.0.1","icc":false,"host-gateway-ips":["192.0.2.1","2001:db8::1"],
        "dns":["192.0.2.53"],"dns-search":["a.example"],"dns-opts":["timeout:3"],"userland-proxy":false,
        "default-network-opts":{"bridge":{"com.docker.network.driver.mtu":"1400"}}}"#;
    std::fs::write(file.path(), settings).unwrap();
    let daemon = Builder::default()
        .arg(&format!("--config-file={}", file.path().display()))
        .start();
    let seen = daemon.sh(
        &["--add-host", "up:host-gateway"],
        "cat /etc/resolv.conf /etc/hosts; ip -o addr show eth0",
    );
    for words in [
        "nameserver 192.0.2.53\nsearch a.example\noptions timeout:3\n",
        "192.0.2.1\tup\n2001:db8::1\tup\n",
        "inet 172.30.8.",
        "inet6 fd",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    daemon.sleeper("one", &["-p", "8080:80"]);
    daemon.sleeper("two", &[]);
    assert_eq!(daemon.cli(["port", "one", "80"]).ok(), "127.0.0.1:8080");
    let address = daemon.field("one", "/NetworkSettings/Networks/bridge/IPAddress");
    assert_ne!(
        daemon.cli(["exec", "two", "ping", "-c", "1", "-W", "1", &address]).code,
        0
    );
    daemon.cli(["network", "create", "n"]).ok();
    let shown = daemon
        .cli([
            "network",
            "inspect",
            "n",
            "-f",
            "{{(index .IPAM.Config 0).Subnet}} {{json .Options}}",
        ])
        .ok();
    assert_eq!(shown, r#"10.200.0.0/24 {"com.docker.network.driver.mtu":"1400"}"#);
    let shown = daemon
        .cli([
            "network",
            "inspect",
            "bridge",
            "-f",
            r#"{{index .Options "com.docker.network.bridge.enable_icc"}}"#,
        ])
        .ok();
    assert_eq!(shown, "false");
}

#[test]
fn a_firewall_that_published_ports_go_past_is_named() {
    let engine = Engine::start();
    engine.busybox();
    let run = |publish: &str| engine.cli(["run", "--rm", "-p", publish, BUSYBOX, "true"]).stderr;
    assert_eq!(run("8080:80"), "");
    let nft = |line: &str| engine.in_namespace(&["nft", line]).ok();
    nft("add table ip filter");
    nft("add chain ip filter INPUT { type filter hook input priority 0; policy drop; }");
    let warned = run("8080:80");
    assert!(
        warned.contains("chain INPUT of table ip filter") && warned.contains("\"publish-through\": \"input\""),
        "{warned}"
    );
    assert_eq!(run("127.0.0.1:8080:80"), "");
    nft("delete table ip filter");
    // firewalld's, as far as it matters.
    nft("add table inet firewalld");
    nft("add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }");
    nft("add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited");
    engine.sleeper("c1", &[]);
    wait_until("the obstacle is seen", || {
        let info = engine.cli(["info"]);
        format!("{}{}", info.stdout, info.stderr).contains("--zone=trusted --add-interface=ferry0")
    });
    let created = engine.cli(["create", BUSYBOX]).stderr;
    assert!(created.contains("firewall-cmd --permanent --zone=trusted"), "{created}");
    nft("add chain inet firewalld filter_FORWARD_ZONES");
    nft("add rule inet firewalld filter_FORWARD_ZONES iifname ferry0 accept");
    wait_until("nothing is in the way", || {
        engine.cli(["create", BUSYBOX]).stderr.is_empty()
    });
    nft("delete table inet firewalld");
}
