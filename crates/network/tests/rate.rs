//! Limits of containers' traffic, with real transfers. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod world;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use ferry_netlink::Route;
use ferry_netlink::route::{Direction, LinkId, Request, Tbf};
use ferry_network::{Attach, Config, Endpoint, Error, Limits, Live, Record, namespace};
use world::{Default, World, draft};

const GATEWAY: &str = "172.17.0.1";
/// 40 and 80 Mbit.
const RATE: u64 = 5_000_000;
const FASTER: u64 = 10_000_000;

fn limits(receive: u64, send: u64) -> Limits {
    Limits {
        receive: Some(receive),
        send: Some(send),
        burst: None,
    }
}

fn limited(id: &str, limits: Limits) -> Attach {
    Attach {
        id: id.to_owned(),
        limits,
        ..Attach::default()
    }
}

/// Bytes a second that reach the application, from a connection that sends for `length`: those after the first burst.
fn transfer(from: &OwnedFd, to: &OwnedFd, address: IpAddr, length: Duration) -> u64 {
    let listener = namespace::inside(to.as_fd(), || {
        Ok(TcpListener::bind(SocketAddr::new(address, 0)).unwrap())
    })
    .unwrap();
    let place = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let start = Instant::now();
        let (mut buffer, mut log, mut total) = (vec![0; 1 << 16], Vec::new(), 0_u64);
        while let Ok(got @ 1..) = stream.read(&mut buffer) {
            total += u64::try_from(got).unwrap();
            log.push((start.elapsed(), total));
        }
        log
    });
    let mut stream = namespace::inside(from.as_fd(), || Ok(TcpStream::connect(place).unwrap())).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    while start.elapsed() < length {
        let _ = stream.write(&[1; 16 << 10]);
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let log = reader.join().unwrap();
    // By when the reads were, not when they should have been: a reader that is kept waiting reads it all a moment later.
    let at = |time| {
        let before = log.iter().take_while(|(when, _)| *when <= time).last();
        before.copied().unwrap_or_default()
    };
    let (first, last) = (at(length / 4), at(length - Duration::from_millis(50)));
    (last.1 - first.1) * 1_000_000 / u64::try_from((last.0 - first.0).as_micros().max(1)).unwrap()
}

/// Never more than the limit and a tenth; nearly all of it in one of a few tries, since others keep the machine busy.
fn keeps_to(rate: u64, from: &OwnedFd, to: &OwnedFd, address: IpAddr) {
    let mut best = 0;
    for _ in 0..4 {
        let got = transfer(from, to, address, Duration::from_millis(1200));
        println!("{got} of {rate}");
        assert!(got <= rate * 110 / 100, "{got} of {rate}");
        best = best.max(got);
        if best >= rate * 90 / 100 {
            return;
        }
    }
    panic!("{best} of {rate}");
}

fn address(endpoint: &Endpoint) -> IpAddr {
    endpoint.ip.unwrap().into()
}

fn queues(world: &World) -> usize {
    let named = |name: &String| name.starts_with("fi-") || name.starts_with("fo-");
    world.links().iter().filter(|name| named(name)).count()
}

#[test]
fn both_directions_keep_to_their_limits_and_to_new_ones() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let (netns, endpoint) = bridge.attach(limited("c", limits(RATE, FASTER))).unwrap();
        let gateway = GATEWAY.parse().unwrap();
        keeps_to(RATE, &world.host, &netns, address(&endpoint));
        keeps_to(FASTER, &netns, &world.host, gateway);
        bridge.fabric.limit("c", limits(FASTER, RATE)).unwrap();
        keeps_to(FASTER, &world.host, &netns, address(&endpoint));
        keeps_to(RATE, &netns, &world.host, gateway);
        // Lowered while a transfer runs: what waits is larger than the new burst.
        let (host, to) = (world.host.try_clone().unwrap(), netns.try_clone().unwrap());
        let place = address(&endpoint);
        let running = std::thread::spawn(move || transfer(&host, &to, place, Duration::from_millis(1600)));
        std::thread::sleep(Duration::from_millis(300));
        bridge.fabric.limit("c", limits(RATE / 5, RATE)).unwrap();
        let got = running.join().unwrap();
        assert!((RATE * 15 / 100..=RATE * 40 / 100).contains(&got), "{got}");
        // A direction less, and then none.
        bridge.fabric.limit("c", limits(0, RATE)).unwrap();
        assert_eq!(queues(world), 1);
        let free = transfer(&world.host, &netns, address(&endpoint), Duration::from_millis(300));
        assert!(free > 2 * FASTER, "{free}");
        bridge.fabric.limit("c", Limits::default()).unwrap();
        assert_eq!(queues(world), 0);
        let free = transfer(&netns, &world.host, gateway, Duration::from_millis(300));
        assert!(free > 2 * FASTER, "{free}");
        bridge.fabric.limit("c", limits(RATE, RATE)).unwrap();
        keeps_to(RATE, &netns, &world.host, gateway);
        bridge.detach(&endpoint).unwrap();
        assert_eq!(queues(world), 0);
    });
}

#[test]
fn networks_of_a_container_share_its_limit_and_containers_do_not() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let second = bridge.fabric.create(draft("second0")).unwrap().id;
        let (netns, one) = bridge.attach(limited("c", limits(RATE, RATE))).unwrap();
        let attach = Attach {
            network: second,
            ..limited("c", limits(RATE, RATE))
        };
        let two = bridge
            .fabric
            .connect(netns.as_fd(), attach, std::slice::from_ref(&one))
            .unwrap();
        let (other, third) = bridge.attach(limited("d", limits(RATE, RATE))).unwrap();
        assert_eq!(queues(world), 4);
        let length = Duration::from_millis(1500);
        let send = |netns: &OwnedFd, to: IpAddr| {
            let (from, host) = (netns.try_clone().unwrap(), world.host.try_clone().unwrap());
            std::thread::spawn(move || transfer(&from, &host, to, length))
        };
        let gateways = [GATEWAY.parse().unwrap(), IpAddr::V4(two.gateway.unwrap())];
        let both = gateways.map(|gateway| send(&netns, gateway));
        let sum: u64 = both.into_iter().map(|sent| sent.join().unwrap()).sum();
        assert!(sum <= RATE * 110 / 100, "{sum}");
        let receive = [&one, &two].map(|endpoint| {
            let (from, to, address) = (
                world.host.try_clone().unwrap(),
                netns.try_clone().unwrap(),
                address(endpoint),
            );
            std::thread::spawn(move || transfer(&from, &to, address, length))
        });
        let sum: u64 = receive.into_iter().map(|sent| sent.join().unwrap()).sum();
        assert!(sum <= RATE * 110 / 100, "{sum}");
        let mut best = 0;
        for _ in 0..4 {
            let each = [&netns, &other].map(|netns| send(netns, gateways[0]));
            let sum: u64 = each.into_iter().map(|sent| sent.join().unwrap()).sum();
            best = best.max(sum);
            if best >= RATE * 180 / 100 {
                break;
            }
        }
        assert!((RATE * 180 / 100..=RATE * 220 / 100).contains(&best), "{best}");
        bridge
            .fabric
            .disconnect(netns.as_fd(), &one, std::slice::from_ref(&two))
            .unwrap();
        keeps_to(RATE, &netns, &world.host, gateways[1]);
        for endpoint in [two, third] {
            bridge.detach(&endpoint).unwrap();
        }
        assert_eq!(queues(world), 0);
    });
}

#[test]
fn what_a_dead_engine_left_is_found_mended_and_removed() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let (netns, kept) = bridge.attach(limited("kept", limits(RATE, RATE))).unwrap();
        let (_free, freed) = bridge.attach(limited("freed", limits(RATE, RATE))).unwrap();
        let (_gone, _) = bridge.attach(limited("gone", limits(RATE, RATE))).unwrap();
        let record = bridge.fabric.record();
        drop(bridge);
        // Somebody changed one bucket and took the other's filter away; another engine has queues of its own here.
        let mut route = Route::open().unwrap();
        let host_end = route.link(&LinkId::Name(&kept.host_ifname)).unwrap().unwrap().index;
        let sending = route.redirect(host_end, Direction::Received).unwrap().unwrap();
        let rate = Tbf::with_latency(1000, 5000, Duration::from_millis(50));
        route
            .run(&[
                Request::ReplaceRate { link: sending, rate },
                Request::DeleteRedirect {
                    link: host_end,
                    direction: Direction::Sent,
                },
            ])
            .unwrap();
        world.output("ip", &["link", "add", "fo-other", "type", "ifb"]);
        world.output("ip", &["link", "set", "fo-other", "alias", "ferry:other0:gone"]);
        let bridge = Default::new(Config::default(), record);
        let live = |endpoint: &Endpoint, limits| Live {
            holder: endpoint.id.clone(),
            endpoints: vec![endpoint.clone()],
            ports: Vec::new(),
            limits,
        };
        let all = [live(&kept, limits(RATE, RATE)), live(&freed, Limits::default())];
        bridge.fabric.reconcile(&all).unwrap();
        assert_eq!(queues(world), 3, "{:?}", world.links());
        assert_eq!(route.redirect(host_end, Direction::Received).unwrap(), Some(sending));
        assert_eq!(route.rate(sending).unwrap().unwrap().tbf.rate, RATE);
        keeps_to(RATE, &netns, &world.host, GATEWAY.parse().unwrap());
        keeps_to(RATE, &world.host, &netns, address(&kept));
        let freed_end = route.link(&LinkId::Name(&freed.host_ifname)).unwrap().unwrap().index;
        for direction in [Direction::Sent, Direction::Received] {
            assert_eq!(route.redirect(freed_end, direction).unwrap(), None);
        }
        bridge.shutdown().unwrap();
        assert_eq!(queues(world), 1, "the other engine's: {:?}", world.links());
    });
}

#[test]
fn what_cannot_be_held_is_refused_and_changes_nothing() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let tiny = Limits {
            burst: Some(100),
            ..limits(RATE, RATE)
        };
        let error = bridge.attach(limited("c", tiny)).unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("give 1518 or more"), "{error}");
        let (_netns, endpoint) = bridge.attach(limited("c", limits(RATE, 0))).unwrap();
        for wrong in [tiny, limits(1, 1)] {
            assert!(bridge.fabric.limit("c", wrong).is_err());
        }
        assert_eq!(queues(world), 1);
        bridge.detach(&endpoint).unwrap();
        assert_eq!(queues(world), 0);
        // Of a container that is on no network there is nothing to hold.
        bridge.fabric.limit("nobody", limits(RATE, RATE)).unwrap();
        assert_eq!(queues(world), 0);
    });
}

/// Where the kernel has it not, the test says as much of the default.
fn use_bbr(place: &OwnedFd) {
    namespace::inside(place.as_fd(), || {
        let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
        if known.contains("bbr") {
            std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "bbr").unwrap();
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_megabit_one_way_is_a_megabit() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let rate = 125_000;
        let (netns, endpoint) = bridge.attach(limited("c", limits(rate, rate))).unwrap();
        let ways = [
            ("out", &netns, &world.host, GATEWAY.parse().unwrap()),
            ("in", &world.host, &netns, address(&endpoint)),
        ];
        for control in ["default", "bbr"] {
            for (name, from, to, place) in ways {
                if control == "bbr" {
                    use_bbr(from);
                }
                let tries = (0..3).map(|_| transfer(from, to, place, Duration::from_millis(4000)));
                let got = tries
                    .inspect(|got| println!("{control} {name}: {got}"))
                    .find(|got| *got >= rate * 88 / 100);
                assert!(
                    got.is_some_and(|got| got <= rate * 110 / 100),
                    "{control} {name}: {got:?}"
                );
            }
        }
        bridge.detach(&endpoint).unwrap();
    });
}

/// BBR takes the microseconds of a connection that is not busy yet for the way's delay, and keeps so little under way that
/// acknowledgements which wait in the other direction's queue stop it.
#[test]
fn acknowledgements_do_not_wait_behind_the_other_direction() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        // 1 and 20 Mbit.
        for (rate, id) in [(125_000, "slow"), (2_500_000, "quick")] {
            let (netns, endpoint) = bridge.attach(limited(id, limits(rate, rate))).unwrap();
            for place in [&netns, &world.host] {
                use_bbr(place);
            }
            let ways = [
                (&netns, &world.host, GATEWAY.parse().unwrap()),
                (&world.host, &netns, address(&endpoint)),
            ];
            // Others keep the machine busy: what a reader was kept from reading is read later, and the best of a few tries counts.
            let mut least = 0;
            for _ in 0..3 {
                let transfers = ways.each_ref().map(|(from, to, place)| {
                    let (from, to, place) = (from.try_clone().unwrap(), to.try_clone().unwrap(), *place);
                    std::thread::spawn(move || transfer(&from, &to, place, Duration::from_millis(6500)))
                });
                let got = transfers.map(|transfer| transfer.join().unwrap());
                println!("{got:?} of {rate}");
                assert!(got.iter().all(|got| *got <= rate * 110 / 100), "{got:?} of {rate}");
                least = least.max(*got.iter().min().unwrap());
                if least >= rate * 88 / 100 {
                    break;
                }
            }
            assert!(least >= rate * 88 / 100, "{least} of {rate}");
            bridge.detach(&endpoint).unwrap();
        }
    });
}

#[test]
fn what_somebody_takes_of_a_limit_comes_back() {
    World::run(|world| {
        let bridge = Default::new(Config::default(), Record::default());
        let (_netns, endpoint) = bridge.attach(limited("c", limits(RATE, FASTER))).unwrap();
        let mut losses = bridge.fabric.losses().unwrap();
        let end = &endpoint.host_ifname;
        let run = |line: &str| {
            let script = std::process::Command::new("sh").args(["-ec", line]).output().unwrap();
            assert!(script.status.success(), "{line}: {script:?}");
            String::from_utf8(script.stdout).unwrap()
        };
        let shape = || {
            let queues = world
                .links()
                .into_iter()
                .filter(|name| name.starts_with("fi-") || name.starts_with("fo-"));
            let of_one = |name: String| {
                let shown = ["qdisc", "class", "filter"].map(|what| {
                    let parent = if what == "filter" { "parent 2:" } else { "" };
                    run(&format!("tc {what} show dev {name} {parent}"))
                });
                shown.concat()
            };
            let leads = run(&format!(
                "tc filter show dev {end} ingress; tc filter show dev {end} egress"
            ));
            (queues.map(of_one).collect::<Vec<_>>(), leads)
        };
        let before = shape();
        assert!(
            before.0.len() == 2
                && before
                    .0
                    .iter()
                    .all(|queue| queue.contains("tbf") && queue.contains("flowid 2:1")),
            "{before:?}"
        );
        assert_eq!(before.1.matches("mirred").count(), 2);
        for harm in [
            "for q in $(ip -br link show type ifb | cut -d' ' -f1); do ip link del $q; done",
            "for q in $(ip -br link show type ifb | cut -d' ' -f1); do tc qdisc del dev $q root; done",
            "for q in $(ip -br link show type ifb | cut -d' ' -f1); do tc qdisc del dev $q parent 1:1; done",
            "for q in $(ip -br link show type ifb | cut -d' ' -f1); do ip link set $q down; done",
            &format!("tc qdisc del dev {end} clsact"),
            &format!("tc filter del dev {end} ingress; tc filter del dev {end} egress"),
        ] {
            losses.take().unwrap();
            run(harm);
            let lost = losses.take().unwrap();
            assert!(
                bridge
                    .fabric
                    .mend_limits(lost.as_ref().map(|lost| &lost.links))
                    .unwrap(),
                "{harm}: nothing was seen of it"
            );
            let after = shape();
            assert_eq!(after.0, before.0, "{harm}");
            assert_eq!(after.1.matches("mirred").count(), 2, "{harm}: {after:?}");
            assert!(!bridge.fabric.mend_limits(None).unwrap(), "{harm}: all is well");
        }
        bridge.detach(&endpoint).unwrap();
        assert_eq!(queues(world), 0);
    });
}
