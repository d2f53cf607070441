//! `--net-rate` and its like, as transfers meet them.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferry_testkit::{TestDaemon, wait_until};

/// 20 and 40 Mbit.
const RATE: u64 = 2_500_000;
const FASTER: u64 = 5_000_000;

/// A program, and those it starts, that end with the test.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// In the network namespace of a process, with the host's files.
fn beside(pid: u32, script: &str) -> Busy {
    let child = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    Busy(child.unwrap())
}

/// Bytes that a link has received, as a process sees its namespace.
fn received(pid: u32, link: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn bytes_a_second(pid: u32, link: &str) -> u64 {
    let (start, before) = (Instant::now(), received(pid, link));
    std::thread::sleep(Duration::from_millis(1000));
    let got = u128::from(received(pid, link) - before);
    u64::try_from(got * 1000 / start.elapsed().as_millis()).unwrap()
}

/// Never more than the limit and a tenth; nine tenths in one of a few tries, since others keep the machine busy.
#[track_caller]
fn keeps_to(rate: u64, pid: u32, link: &str) {
    std::thread::sleep(Duration::from_millis(100));
    let mut best = 0;
    for _ in 0..5 {
        let got = bytes_a_second(pid, link);
        assert!(got <= rate * 110 / 100, "{got} of {rate}");
        best = best.max(got);
        if best >= rate * 90 / 100 {
            return;
        }
    }
    panic!("{best} of {rate}");
}

/// In, out and burst, as `inspect` has them.
fn shown(daemon: &TestDaemon, container: &str) -> [Option<u64>; 3] {
    let inspect = daemon.inspect(container);
    ["In", "Out", "Burst"].map(|key| inspect["HostConfig"]["NetRate"][key].as_u64())
}

/// A connection each way between the host and the container that never stops sending: host's process, and all programs.
struct Transfers {
    host: u32,
    container: u32,
    _programs: Vec<Busy>,
}

impl Transfers {
    fn start(daemon: &TestDaemon, container: &str, port: u16) -> Self {
        // A process that outlives the engine.
        let host: u32 = daemon
            .network()
            .iter()
            .nth(2)
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let container_pid = daemon.pid(container);
        for pid in [host, container_pid] {
            // One that goes by loss: BBR takes the microseconds of a connection that is not limited yet for the way's delay, and
            // sends a fifth of the rate when acknowledgements then wait in the other direction's queue.
            let script = "echo reno > /proc/sys/net/ipv4/tcp_congestion_control";
            let line = ["-t", &pid.to_string(), "-n", "sh", "-c", script];
            ferry_testkit::Run::new("nsenter").args(line).ok();
        }
        let address = daemon.field(container, "/NetworkSettings/Networks/bridge/IPAddress");
        let gateway = daemon.field(container, "/NetworkSettings/Networks/bridge/Gateway");
        let listen = |pid| beside(pid, &format!("sleep 600 | busybox nc -l -p {port} > /dev/null"));
        let send = |pid, to: &str| {
            let script = format!("while ! busybox nc {to} {port} < /dev/zero; do sleep 0.05; done");
            beside(pid, &script)
        };
        let programs = vec![
            listen(host),
            listen(container_pid),
            send(host, &address),
            send(container_pid, &gateway),
        ];
        let before = (received(host, "ferry0"), received(container_pid, "eth0"));
        wait_until("both transfers run", || {
            received(host, "ferry0") > before.0 + 200_000 && received(container_pid, "eth0") > before.1 + 200_000
        });
        Self {
            host,
            container: container_pid,
            _programs: programs,
        }
    }

    #[track_caller]
    fn keep_to(&self, receive: u64, send: u64) {
        keeps_to(receive, self.container, "eth0");
        keeps_to(send, self.host, "ferry0");
    }
}

#[test]
fn both_directions_keep_to_limits_that_change_while_transfers_run_and_outlive_the_engine() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--net-rate-in", "20mbit", "--net-rate-out", "40mbit"]);
    let transfers = Transfers::start(&daemon, "c1", 9000);
    transfers.keep_to(RATE, FASTER);
    let used = || daemon.api("GET", "/containers/c1/stats?stream=false", None).1["net_rate"].clone();
    let before = used();
    wait_until("what waits and is dropped is counted", || {
        let now = used();
        let grows = |way: &str, key: &str| now[way][key].as_u64() > before[way][key].as_u64();
        ["in", "out"].iter().all(|way| {
            let delayed = ["bytes", "packets", "delayed"].iter().all(|key| grows(way, key));
            delayed && now[way]["waiting"].is_u64() && now[way]["dropped"].is_u64()
        })
    });
    assert_eq!(before["in"]["rate"], RATE);
    assert_eq!(before["out"]["rate"], FASTER);
    daemon.cli(["update", "--net-rate-in", "40mbit", "c1"]).ok();
    transfers.keep_to(FASTER, FASTER);
    daemon.cli(["update", "--net-rate", "20mbit", "c1"]).ok();
    transfers.keep_to(RATE, RATE);
    daemon.kill9();
    transfers.keep_to(RATE, RATE);
    daemon.start_again();
    transfers.keep_to(RATE, RATE);
    daemon.cli(["update", "--net-rate-out", "40mbit", "c1"]).ok();
    transfers.keep_to(RATE, FASTER);
    daemon.cli(["update", "--net-rate", "0", "c1"]).ok();
    assert_eq!(shown(&daemon, "c1"), [None; 3]);
    let used = || daemon.api("GET", "/containers/c1/stats?stream=false", None).1;
    wait_until("no limit is shown", || used().get("net_rate").is_none());
    wait_until("no limit", || bytes_a_second(transfers.container, "eth0") > 2 * FASTER);
    let queues = daemon.in_namespace(&["ip", "-o", "link", "show", "type", "ifb"]).ok();
    assert_eq!(queues, "");
}

#[test]
fn containers_have_limits_of_their_own_that_net_admin_cannot_lift() {
    let daemon = TestDaemon::start();
    daemon.sleeper("one", &["--net-rate", "20mbit", "--cap-add", "NET_ADMIN"]);
    daemon.sleeper("two", &["--net-rate", "20mbit"]);
    let one = Transfers::start(&daemon, "one", 9001);
    keeps_to(RATE, one.container, "eth0");
    let two = Transfers::start(&daemon, "two", 9002);
    // Half each, were it one limit.
    keeps_to(2 * RATE, one.host, "ferry0");
    keeps_to(RATE, one.container, "eth0");
    drop(two);
    daemon
        .cli([
            "exec",
            "one",
            "sh",
            "-c",
            "tc qdisc show; tc qdisc del dev eth0 root; tc qdisc del dev eth0 clsact; tc qdisc add dev eth0 root pfifo; \
             ip link set eth0 mtu 9000; ip link set eth0 down && ip link set eth0 mtu 1500 up; true",
        ])
        .ok();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for (pid, link) in [(one.container, "eth0"), (one.host, "ferry0")] {
            let got = bytes_a_second(pid, link);
            assert!(got <= RATE * 110 / 100, "{got}");
        }
    }
}

#[test]
fn a_limit_that_somebody_takes_away_is_back_within_a_second() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--net-rate", "20mbit"]);
    let transfers = Transfers::start(&daemon, "c1", 9004);
    transfers.keep_to(RATE, RATE);
    let queues = "$(ip -br link show type ifb | cut -d' ' -f1)";
    let end = "$(ip -br link show type veth | grep -o '^fe-[^@ ]*')";
    for harm in [
        format!("for q in {queues}; do ip link del $q; done"),
        format!("for q in {queues}; do tc qdisc del dev $q root; done"),
        format!("tc qdisc del dev {end} clsact"),
    ] {
        daemon.in_namespace(&["sh", "-ec", &harm]).ok();
        std::thread::sleep(Duration::from_secs(1));
        transfers.keep_to(RATE, RATE);
    }
    daemon.cli(["rm", "-f", "c1"]).ok();
}

#[test]
fn what_was_asked_is_kept_for_the_next_start_and_goes_with_the_container() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--net-rate", "20mbit", "--net-burst", "64k"]);
    assert_eq!(shown(&daemon, "c1"), [Some(RATE), Some(RATE), Some(65_536)]);
    daemon.cli(["stop", "-t", "0", "c1"]).ok();
    let queues = || {
        daemon
            .in_namespace(&["ip", "-o", "link", "show", "type", "ifb"])
            .ok()
            .lines()
            .count()
    };
    wait_until("its queues are gone", || queues() == 0);
    daemon
        .cli(["update", "--net-rate-out", "40mbit", "--net-burst", "0", "c1"])
        .ok();
    assert_eq!(shown(&daemon, "c1"), [Some(RATE), Some(FASTER), None]);
    daemon.cli(["start", "c1"]).ok();
    assert_eq!(queues(), 2);
    Transfers::start(&daemon, "c1", 9003).keep_to(RATE, FASTER);
    daemon.cli(["network", "create", "n"]).ok();
    daemon.cli(["network", "connect", "n", "c1"]).ok();
    assert_eq!(queues(), 2, "both networks go over the same");
    daemon.cli(["rm", "-f", "c1"]).ok();
    wait_until("its queues are gone", || queues() == 0);
}

#[test]
fn what_cannot_be_limited_is_refused_with_what_to_do() {
    let daemon = TestDaemon::start();
    daemon.sleeper("other", &[]);
    let veth = ["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1"];
    daemon.in_namespace(&veth).ok();
    daemon
        .cli(["network", "create", "-d", "macvlan", "-o", "parent=wire0", "wire"])
        .ok();
    let create = |options: &[&str]| {
        let line = ["create", "--net-rate", "20mbit"].iter().chain(options);
        daemon
            .cli(line.chain(&[ferry_testkit::images::BUSYBOX, "true"]))
            .fails(1)
    };
    for (options, part) in [
        (
            &["--network", "host"][..],
            "with --network host the traffic is the host's",
        ),
        (&["--network", "none"], "with --network none there is no traffic"),
        (&["--network", "container:other"], "set it there"),
        (&["--network", "wire"], "could hold a limit: use a bridge network"),
        (&["--net-burst", "100"], "give 1518 or more"),
    ] {
        let said = create(options);
        assert!(said.contains(part), "{options:?}: {said}");
    }
    daemon.sleeper("lone", &["--network", "none"]);
    let said = daemon.cli(["update", "--net-rate", "20mbit", "lone"]).fails(1);
    assert!(said.contains("with --network none"), "{said}");
    let said = daemon
        .cli(["update", "--net-rate", "20mbit", "--net-burst", "1k", "other"])
        .fails(1);
    assert!(said.contains("give 1518 or more"), "{said}");
    assert_eq!(shown(&daemon, "other"), [None; 3]);
    daemon.sleeper("limited", &["--net-rate", "20mbit"]);
    let said = daemon.cli(["network", "connect", "wire", "limited"]).fails(1);
    assert!(said.contains("could hold a limit: use a bridge network"), "{said}");
    // What it says of no limit is fine everywhere.
    let free = [
        "create",
        "--net-rate",
        "0",
        "--network",
        "host",
        ferry_testkit::images::BUSYBOX,
        "true",
    ];
    daemon.cli(free).ok();
    daemon.in_namespace(&["ip", "link", "del", "wire0"]).ok();
}
