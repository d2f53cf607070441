//! A resolver's sockets in real namespaces: what is asked of 127.0.0.11 reaches them, and nothing else is in the way. Needs root.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use ferry_network::namespace::{self, Namespace};
use ferry_network::resolver::{self, Sockets};
use world::World;

/// Answers one datagram and one connection with what came, in the reverse order.
fn answer(sockets: Sockets) -> std::thread::JoinHandle<()> {
    let udp = UdpSocket::from(sockets.udp);
    let tcp = TcpListener::from(sockets.tcp);
    std::thread::spawn(move || {
        udp.set_nonblocking(false).unwrap();
        tcp.set_nonblocking(false).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = udp.recv_from(&mut buffer).unwrap();
        buffer[..length].reverse();
        udp.send_to(&buffer[..length], from).unwrap();
        let (mut stream, _) = tcp.accept().unwrap();
        stream.read_exact(&mut buffer[..4]).unwrap();
        buffer[..4].reverse();
        stream.write_all(&buffer[..4]).unwrap();
    })
}

/// Asks 127.0.0.11:53 by both transports, from the calling thread's namespace.
fn ask() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Connected: an answer from any other port than 53 would not arrive.
    socket.connect("127.0.0.11:53").unwrap();
    socket.send(b"abcd").unwrap();
    let mut buffer = [0; 4];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer, b"dcba");
    let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"1234").unwrap();
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"4321");
}

#[test]
fn port_53_leads_to_the_sockets_and_a_server_of_the_containers_own_has_it_too() {
    World::run(|_| {
        let answering = answer(resolver::open_in_current().unwrap());
        let udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let tcp = TcpListener::bind("0.0.0.0:53").unwrap();
        ask();
        answering.join().unwrap();
        // Its own server is what answers at every other address.
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"own", "127.0.0.1:53").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(udp.recv_from(&mut buffer).unwrap().1, client.local_addr().unwrap());
        TcpStream::connect("127.0.0.1:53").unwrap();
        tcp.accept().unwrap();
    });
}

#[test]
fn a_living_namespace_gets_it_back_and_the_former_sockets_are_out() {
    World::run(|world| {
        let former = resolver::open_in_current().unwrap();
        let answering = answer(resolver::restore(world.host.as_fd()).unwrap());
        ask();
        answering.join().unwrap();
        let mut buffer = [0; 8];
        let udp = UdpSocket::from(former.udp);
        assert_eq!(
            udp.recv(&mut buffer).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
        let rules = world.output("nft", &["list", "table", "ip", resolver::TABLE]);
        assert_eq!(rules.matches(" set ").count(), 4, "{rules}");
        for rule in ["ip daddr 127.0.0.11 udp dport 53 udp dport set ", " tcp sport set 53"] {
            assert!(rules.contains(rule), "{rules}");
        }
    });
}

#[test]
fn it_works_beside_a_firewall_of_the_containers_that_tracks_connections() {
    World::run(|world| {
        let answering = answer(resolver::open_in_current().unwrap());
        let rules = "add table ip own
            add chain ip own out { type filter hook output priority 0; policy drop; }
            add rule ip own out ct state established accept
            add rule ip own out ip daddr 127.0.0.11 meta l4proto { tcp, udp } th dport 53 accept
            add chain ip own in { type filter hook input priority 0; policy drop; }
            add rule ip own in ct state established accept
            add rule ip own in iifname lo ct state new accept
            add chain ip own nat { type nat hook output priority -100; }";
        world.output("nft", &[rules]);
        ask();
        answering.join().unwrap();
        assert!(TcpStream::connect_timeout(&"127.0.0.1:9".parse().unwrap(), Duration::from_millis(50)).is_err());
    });
}

/// Not a benchmark, but it prints what one namespace costs with and without, and says when that is much.
#[test]
fn it_costs_a_start_little() {
    World::run(|_| {
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let mut opening = Vec::new();
        let mut ends = [Vec::new(), Vec::new()];
        for round in 0..40 {
            let with = round % 2 == 1;
            let namespace = Namespace::create().unwrap();
            let sockets = with.then(|| {
                namespace::inside(namespace.fd.as_fd(), || {
                    let before = Instant::now();
                    let sockets = resolver::open_in_current()?;
                    opening.push(before.elapsed());
                    Ok(sockets)
                })
                .unwrap()
            });
            let before = Instant::now();
            drop((namespace, sockets));
            ends[usize::from(with)].push(before.elapsed());
        }
        let (opening, [without, with]) = (median(opening), ends.map(median));
        println!("opening {opening:?}, dropping the namespace {without:?} without, {with:?} with");
        assert!(opening < Duration::from_millis(20), "{opening:?}");
    });
}
