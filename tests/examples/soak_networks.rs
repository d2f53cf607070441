//! `cargo xtask soak --networks`: containers' places on networks, given and taken back without end, and then what is left:
//! nothing.
//!
//! ```text
//! fabric    attach to one network or two, publish, often connect and disconnect one more, unpublish, detach; four at a
//!           time, and every other time the container's namespace ends before its links are taken away
//! engine    run with a published port, connect, disconnect, rm; of every tenth the engine is killed at some moment
//! ```
//! What is compared with the beginning, before the first container and after the last: links, addresses, routes, neighbours
//! and the whole ruleset with all elements, word by word; open files of who did it; network namespaces of the machine.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferry_network::network::{Bridge, Driver, Gateway, Range};
use ferry_network::ports::{Protocol, Publish};
use ferry_network::{Attach, Config, Draft, Fabric, Record};
use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, wait_within};

const USAGE: &str = "soak --networks [CYCLES [STARTS [NETWORKS]]]";
const AT_ONCE: u64 = 4;
/// The kernel takes namespaces apart in its own time, one after another.
const SETTLE: Duration = Duration::from_secs(60);
/// Namespaces that others on this machine may have made meanwhile.
const TOLERATED: u64 = 64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let (Ok(cycles), Ok(starts), Ok(networks)) = (number(0, 10_000), number(1, 500), number(2, 2_000)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let before = namespaces();
    // A thread in a namespace of its own: what it starts is there, too.
    std::thread::spawn(move || through_the_fabric(cycles)).join().unwrap();
    through_the_engine(starts);
    many_networks(networks);
    wait_within(SETTLE, "network namespaces end", || namespaces() <= before + TOLERATED);
    println!(
        "network namespaces: {before} before, {} after; nothing was left behind",
        namespaces()
    );
    ExitCode::SUCCESS
}

/// All that a network can leave in the calling thread's namespace; `enter` goes before each command.
fn picture(enter: &[&str]) -> String {
    let look = |line: &str| {
        let words: Vec<&str> = enter.iter().copied().chain(line.split(' ')).collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    [
        "ip -o link",
        "ip -o addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh show nud permanent",
        "nft list ruleset",
    ]
    .map(look)
    .join("\n")
    .lines()
    .map(without_carrier)
    // Elements of a set are listed as it pleases the kernel, several a line.
    .flat_map(|line| line.split([',', '{', '}']).map(str::to_owned).collect::<Vec<_>>())
    .map(|line| line.trim().trim_start_matches("elements = ").to_owned())
    .filter(|line| !line.starts_with("multicast "))
    .collect::<Vec<_>>()
    .join("\n")
}

/// The line without what depends on whether anybody is at the other end right now.
fn without_carrier(line: &str) -> String {
    let line = match line.split_once('<').zip(line.split_once('>')) {
        Some(((before, _), (_, after))) if line.contains(" mtu ") => format!("{before}{after}"),
        _ => line.to_owned(),
    };
    [" state UP", " state DOWN", " linkdown", "NO-CARRIER"]
        .iter()
        .fold(line, |line, word| line.replace(word, ""))
}

#[track_caller]
fn assert_settles(what: &str, before: &str, look: impl Fn() -> String) {
    let end = Instant::now() + SETTLE;
    loop {
        let after = look();
        let missing = |one: &str, other: &str| -> Vec<String> {
            let kept: Vec<&str> = other.lines().collect();
            let missing = one.lines().filter(|line| !kept.contains(line));
            missing.map(str::to_owned).collect()
        };
        let (gone, new) = (missing(before, &after), missing(&after, before));
        if gone.is_empty() && new.is_empty() {
            return;
        }
        assert!(
            Instant::now() < end,
            "{what}: not there any more {gone:#?}, and new {new:#?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn namespaces() -> u64 {
    let slabs = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = slabs.lines().find_map(|line| line.strip_prefix("net_namespace"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn draft(name: &str, v6: bool) -> Draft {
    Draft {
        id: format!("id of {name}"),
        name: name.to_owned(),
        driver: Driver::Bridge(Bridge {
            link: name.to_owned(),
            icc: true,
            masquerade: true,
            source: None,
            binding: None,
            gateway4: Gateway::Nat,
            gateway6: Gateway::Nat,
        }),
        v4: true,
        v6,
        ranges: vec![range("10.77.0.0/16", name)],
        internal: false,
        mtu: 1500,
        prefix: "eth".to_owned(),
        automatic: false,
    }
}

/// Of each network another part of it.
fn range(base: &str, name: &str) -> Range {
    let third = name.bytes().last().unwrap_or_default();
    Range {
        subnet: base.replace(".0.0/16", &format!(".{third}.0/24")).parse().unwrap(),
        gateway: None,
        pool: None,
        reserved: Vec::new(),
    }
}

fn through_the_fabric(cycles: u64) {
    ferry_sys::ns::unshare_network().unwrap();
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let empty = picture(&["env"]);
    let fabric = Fabric::new(
        Config {
            pool: 2,
            ..Config::default()
        },
        Record::default(),
    )
    .unwrap();
    let ids: Vec<String> = [("soak-1", false), ("soak-2", true), ("soak-3", true)]
        .iter()
        .map(|(name, v6)| fabric.create(draft(name, *v6)).unwrap().id)
        .collect();
    for id in &ids {
        fabric.raise(id).unwrap();
    }
    one_place(&fabric, &ids, 0);
    let (before, files) = (picture(&["env"]), open_files(std::process::id()));
    let (begin, done) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= cycles {
                        return;
                    }
                    one_place(&fabric, &ids, number);
                    if cycles >= 10 && number % (cycles / 10) == 0 {
                        println!("{:>6.1} s  {number} cycles", begin.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    assert_settles("something is left of the cycles", &before, || picture(&["env"]));
    let now = open_files(std::process::id());
    assert!(now <= files + 8, "open files: {files} before, {now} after");
    assert!(fabric.published().is_empty());
    fabric.shutdown().unwrap();
    assert_settles("something is left after the end", &empty, || picture(&["env"]));
    println!("{cycles} attached and detached in {seconds:.1} s; links, addresses, neighbours and rules are as before");
}

fn one_place(fabric: &Fabric, ids: &[String], number: u64) {
    let on = |network: &String| Attach {
        network: network.clone(),
        id: format!("c{number}"),
        ..Attach::default()
    };
    let attaches = match number % 3 {
        0 => vec![on(&ids[0])],
        1 => vec![on(&ids[1])],
        _ => vec![on(&ids[0]), on(&ids[1])],
    };
    let (namespace, mut endpoints) = fabric.attach(attaches).unwrap();
    let holder = format!("c{number}");
    let publish = |protocol, container: (u16, u16), host| Publish {
        protocol,
        container,
        host,
        address: None::<IpAddr>,
    };
    let requests = [
        publish(Protocol::Tcp, (80, 80), None),
        publish(Protocol::Udp, (5000, 5009), None),
    ];
    let ports = fabric.publish(&holder, &endpoints[0], &requests).unwrap();
    if number.is_multiple_of(2) {
        let more = fabric.connect(namespace.as_fd(), on(&ids[2]), &endpoints).unwrap();
        if number.is_multiple_of(4) {
            fabric.disconnect(namespace.as_fd(), &more, &endpoints).unwrap();
        } else {
            endpoints.push(more);
        }
    }
    fabric.unpublish(&holder, &ports).unwrap();
    let mut namespace = Some(namespace);
    if number % 2 == 1 {
        // Its links go with it, in the kernel's own time.
        namespace = None;
    }
    for endpoint in &endpoints {
        fabric.detach(endpoint).unwrap();
    }
    drop(namespace);
}

fn through_the_engine(starts: u64) {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    for network in ["one", "two"] {
        daemon.cli(["network", "create", "--ipv6", network]).ok();
    }
    let start = [
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "one",
        "-p",
        "80",
        "-p",
        "7000-7009:7000-7009/udp",
    ];
    let line: Vec<&str> = start.iter().copied().chain([BUSYBOX, "sleep", "1000"]).collect();
    // Somebody is on every network all the while: one that nobody is on need not be on the host.
    daemon.sleeper("anchor", &[]);
    for network in ["one", "two"] {
        daemon.cli(["network", "connect", network, "anchor"]).ok();
    }
    let enter = daemon.network();
    let net = format!("--net={}", enter.display());
    let look = || picture(&["nsenter", &net, "--"]);
    let (before, files) = (look(), open_files(daemon.engine_pid()));
    let (begin, mut killed) = (Instant::now(), 0_u32);
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..starts {
        if number % 10 == 9 {
            chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let client = daemon.run(line.iter()).spawn();
            std::thread::sleep(Duration::from_micros((chance >> 33) % 60_000));
            daemon.kill9();
            drop(client);
            daemon.start_again();
            killed += 1;
            // Whether there is one depends on when it was killed.
            daemon.cli(["rm", "-f", "box"]);
        } else {
            daemon.cli(line.iter()).ok();
            daemon.cli(["network", "connect", "two", "box"]).ok();
            daemon
                .cli([
                    "network",
                    "disconnect",
                    if number % 2 == 0 { "one" } else { "two" },
                    "box",
                ])
                .ok();
            daemon.cli(["rm", "-f", "box"]).ok();
        }
        if starts >= 10 && number % (starts / 10) == 0 {
            println!("{:>6.1} s  {number} starts", begin.elapsed().as_secs_f64());
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    assert_settles("something is left of the containers", &before, look);
    let now = open_files(daemon.engine_pid());
    assert!(
        now <= files + 16,
        "the engine's open files: {files} before, {now} after"
    );
    daemon.cli(["rm", "-f", "anchor"]).ok();
    daemon.cli(["network", "rm", "one", "two"]).ok();
    println!("{starts} containers, the engine killed {killed} times, in {seconds:.1} s; all is as before");
    // Nothing at all may be left of it: no link, rule, control group, process, file.
    daemon.finish();
}

/// Networks from the pools, each with its bridge.
fn many_networks(count: u64) {
    let daemon = TestDaemon::start();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.engine_pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .map(str::trim);
        line.unwrap_or_default().to_owned()
    };
    let (before, begin) = (memory(), Instant::now());
    for number in 0..count {
        let body = serde_json::json!({ "Name": format!("n{number}") });
        let (status, said) = daemon.api("POST", "/networks/create", Some(&body));
        assert_eq!(status, 201, "network {number}: {said}");
    }
    let made = begin.elapsed().as_secs_f64();
    let links = daemon
        .in_namespace(&["ip", "-o", "link", "show", "type", "bridge"])
        .ok();
    assert_eq!(links.lines().count() as u64, count);
    let full = memory();
    let last = format!("n{}", count.saturating_sub(1));
    if count > 0 {
        let begin = Instant::now();
        daemon.sh(&["--network", &last], "ip route | grep default");
        println!(
            "a container on the last of them: {:.0} ms",
            begin.elapsed().as_secs_f64() * 1000.0
        );
    }
    let begin = Instant::now();
    daemon
        .run(["network", "prune", "-f"])
        .time(Duration::from_secs(300))
        .output()
        .ok();
    println!(
        "{count} networks made in {made:.1} s and pruned in {:.1} s; the engine's memory {before} before, {full} with them, {} \
         after",
        begin.elapsed().as_secs_f64(),
        memory()
    );
    daemon.finish();
}
