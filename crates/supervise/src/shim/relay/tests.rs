//! Relays between real sockets, in a network namespace of their own. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Relays that are handled by a thread of their own, as the shim does it.
struct Served {
    orders: mpsc::Sender<Vec<Relay>>,
    results: mpsc::Receiver<Result<(), String>>,
    wake: OwnedFd,
}

impl Served {
    fn new() -> Self {
        let (orders, ordered) = mpsc::channel::<Vec<Relay>>();
        let (answer, results) = mpsc::channel();
        let (woken, wake) = rustix::pipe::pipe().unwrap();
        std::thread::spawn(move || {
            let mut relays = Relays::new().unwrap();
            let mut buffer = vec![0; 65536];
            loop {
                let mut fds = [PollFd::new(&relays, PollFlags::IN), PollFd::new(&woken, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                let ready = fds.each_ref().map(|fd| !fd.revents().is_empty());
                if ready[1] {
                    if rustix::io::read(&woken, &mut [0; 1]).unwrap() == 0 {
                        return;
                    }
                    answer.send(relays.set(&ordered.recv().unwrap())).unwrap();
                }
                if ready[0] {
                    relays.handle(&mut buffer);
                }
            }
        });
        Self { orders, results, wake }
    }

    fn set(&self, relays: &[Relay]) -> Result<(), String> {
        self.orders.send(relays.to_vec()).unwrap();
        rustix::io::write(&self.wake, &[1]).unwrap();
        self.results.recv_timeout(PATIENCE).unwrap()
    }
}

/// Threads are born into the namespace of the one that starts them.
fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let namespace = ferry_network::namespace::Namespace::create().unwrap();
    ferry_network::namespace::inside(std::os::fd::AsFd::as_fd(&namespace.fd), move || {
        work();
        Ok(())
    })
    .unwrap();
}

fn tcp(listen: &str, to: SocketAddr) -> Relay {
    Relay {
        protocol: RelayProtocol::Tcp,
        listen: listen.parse().unwrap(),
        to,
    }
}

fn udp(listen: &str, to: SocketAddr) -> Relay {
    Relay {
        protocol: RelayProtocol::Udp,
        ..tcp(listen, to)
    }
}

/// Says `name`, then gives back what it hears, then ends.
fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn greeting(stream: &mut TcpStream) -> String {
    let mut name = [0; 3];
    match stream.read_exact(&mut name) {
        Ok(()) => String::from_utf8_lossy(&name).into_owned(),
        Err(error) => error.kind().to_string(),
    }
}

#[test]
fn bytes_go_both_ways_and_each_end_is_told_when_the_other_has_no_more() {
    in_namespace(|| {
        let served = Served::new();
        served.set(&[tcp("[::1]:80", echo("one"))]).unwrap();
        let mut clients = Vec::new();
        for seed in 0..8_u8 {
            let mut stream = connect("[::1]:80").unwrap();
            assert_eq!(greeting(&mut stream), "one");
            let mut writer = stream.try_clone().unwrap();
            let sent: Vec<u8> = (0..5_000_000_u32)
                .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed)
                .collect();
            let expected = sent.clone();
            clients.push(std::thread::spawn(move || {
                let sender = std::thread::spawn(move || {
                    writer.write_all(&sent).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                sender.join().unwrap();
                assert!(heard == expected, "{} bytes came back", heard.len());
            }));
        }
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn who_does_not_read_keeps_nobody_waiting() {
    in_namespace(|| {
        let served = Served::new();
        served.set(&[tcp("[::1]:80", echo("one"))]).unwrap();
        let mut full = connect("[::1]:80").unwrap();
        full.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut written = 0;
        while Instant::now() < deadline {
            written += full.write(&[7; 65536]).unwrap_or(0);
        }
        assert!(written > 0);
        let start = Instant::now();
        let mut quick = connect("[::1]:80").unwrap();
        assert_eq!(greeting(&mut quick), "one");
        assert!(start.elapsed() < Duration::from_secs(2));
        // And all of it comes in the end.
        full.set_nonblocking(false).unwrap();
        full.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        full.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), written + 3);
    });
}

#[test]
fn a_change_is_whole_or_not_at_all() {
    in_namespace(|| {
        let served = Served::new();
        let (one, two) = (echo("one"), echo("two"));
        served.set(&[tcp("[::1]:80", one), tcp("[::1]:81", one)]).unwrap();
        let mut stays = connect("[::1]:80").unwrap();
        let mut goes = connect("[::1]:81").unwrap();
        assert_eq!([greeting(&mut stays), greeting(&mut goes)], ["one", "one"]);
        // A port that somebody else has.
        let _other = TcpListener::bind("[::1]:82").unwrap();
        let error = served.set(&[tcp("[::1]:82", two)]).unwrap_err();
        assert!(error.starts_with("listen at [::1]:82 (tcp): "), "{error}");
        assert_eq!(greeting(&mut connect("[::1]:81").unwrap()), "one");
        // Another container address behind the same port, and a port less.
        served.set(&[tcp("[::1]:80", one), tcp("[::1]:81", two)]).unwrap_err();
        assert_eq!(greeting(&mut connect("[::1]:81").unwrap()), "one");
        served.set(&[tcp("[::1]:80", one)]).unwrap();
        served.set(&[tcp("[::1]:80", one), tcp("[::1]:81", two)]).unwrap();
        assert_eq!(greeting(&mut connect("[::1]:81").unwrap()), "two");
        assert_eq!(goes.read(&mut [0; 8]).unwrap_or(0), 0, "what led elsewhere is over");
        stays.write_all(b"on").unwrap();
        stays.read_exact(&mut [0; 2]).unwrap();
        served.set(&[]).unwrap();
        connect("[::1]:80").unwrap_err();
        assert_eq!(stays.read(&mut [0; 8]).unwrap_or(0), 0);
        let _free = TcpListener::bind("[::1]:81").unwrap();
    });
}

#[test]
fn a_container_that_refuses_is_heard_to() {
    in_namespace(|| {
        let served = Served::new();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        served.set(&[tcp("[::1]:80", nobody)]).unwrap();
        let start = Instant::now();
        let mut stream = connect("[::1]:80").unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn an_answer_by_udp_goes_to_who_asked_from_where_it_asked() {
    in_namespace(|| {
        let served = Served::new();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            // The later of two is answered first.
            while let Ok((first, one)) = server.recv_from(&mut buffer) {
                let mut second = [0; 64];
                let (length, two) = server.recv_from(&mut second).unwrap();
                server.send_to(&second[..length], two).unwrap();
                server.send_to(&buffer[..first], one).unwrap();
            }
        });
        served.set(&[udp("[::]:53", to), udp("0.0.0.0:54", to)]).unwrap();
        for (target, local) in [
            (SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 53), "[::1]:0"),
            ("127.0.0.9:54".parse().unwrap(), "127.0.0.3:0"),
        ] {
            let clients = [(); 2].map(|()| UdpSocket::bind(local).unwrap());
            for (client, text) in clients.iter().zip(["one", "two"]) {
                // Hears nobody but whom it asked.
                client.connect(target).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.send(text.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            for (client, text) in clients.iter().zip(["one", "two"]) {
                let mut heard = [0; 16];
                let length = client.recv(&mut heard).unwrap();
                assert_eq!(&heard[..length], text.as_bytes());
            }
        }
    });
}
