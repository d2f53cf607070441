//! Sockets and their owners, in network namespaces of their own. Needs root.
#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, UdpSocket};
use std::process::{Command as Program, Stdio};

use ferry_netlink::diag::{Bound, Protocol, Sockets, owner, owners};
use rustix::net::sockopt::set_ipv6_v6only;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        let status = Program::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(status.success());
        work();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn at(found: &[Bound], protocol: Protocol, port: u16) -> Vec<&Bound> {
    found
        .iter()
        .filter(|bound| bound.protocol == protocol && bound.port == port)
        .collect()
}

#[test]
fn every_kind_of_holder_of_a_port_is_found() {
    in_namespace(|| {
        let mut sockets = Sockets::open().unwrap();
        assert_eq!(sockets.bound().unwrap(), []);
        let _tcp4 = TcpListener::bind("127.0.0.1:1001").unwrap();
        let _tcp6 = TcpListener::bind("[::]:1002").unwrap();
        let only = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        set_ipv6_v6only(&only, true).unwrap();
        bind(&only, &"[::]:1003".parse::<std::net::SocketAddrV6>().unwrap()).unwrap();
        listen(&only, 1).unwrap();
        let _mapped = TcpListener::bind("[::ffff:127.0.0.1]:1004").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:1005").unwrap();
        let peer = UdpSocket::bind("127.0.0.1:1006").unwrap();
        peer.connect("127.0.0.1:1005").unwrap();
        let _established = std::net::TcpStream::connect("127.0.0.1:1001").unwrap();
        let found = sockets.bound().unwrap();
        assert_eq!(found.len(), 6, "{found:?}");
        for (protocol, port, address, v6only, connected) in [
            (Protocol::Tcp, 1001, "127.0.0.1", false, false),
            (Protocol::Tcp, 1002, "::", false, false),
            (Protocol::Tcp, 1003, "::", true, false),
            (Protocol::Tcp, 1004, "127.0.0.1", false, false),
            (Protocol::Udp, 1005, "0.0.0.0", false, false),
            (Protocol::Udp, 1006, "127.0.0.1", false, true),
        ] {
            let [bound] = at(&found, protocol, port)[..] else {
                panic!("{port}: {found:?}");
            };
            assert_eq!(bound.address, address.parse::<std::net::IpAddr>().unwrap());
            assert_eq!((bound.v6only, bound.connected), (v6only, connected), "{bound:?}");
            assert_eq!((bound.uid, bound.link), (0, None));
            let found = owner(bound.inode).unwrap();
            assert_eq!(found.pid, std::process::id());
        }
        let inodes: Vec<_> = found.iter().map(|bound| bound.inode).chain([0, 1]).collect();
        assert_eq!(owners(&inodes).len(), 6);
        assert_eq!(owner(1), None);
        drop(udp);
        assert!(at(&sockets.bound().unwrap(), Protocol::Udp, 1005).is_empty());
    });
}

#[test]
fn a_socket_of_one_link_says_which() {
    in_namespace(|| {
        let arguments = ["addr", "add", "fe80::1/64", "dev", "lo", "nodad"];
        assert!(Program::new("ip").args(arguments).status().unwrap().success());
        let address = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1001, 0, 1);
        let _listener = TcpListener::bind(address).unwrap();
        let found = Sockets::open().unwrap().bound().unwrap();
        assert_eq!((found[0].link, found[0].v6only), (Some(1), true));
    });
}

#[test]
fn another_process_is_named() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:1001").unwrap();
        let mut child = Program::new("sleep")
            .arg("60")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        // `spawn` returns when exec has closed its files, a little before the name changes.
        let comm = format!("/proc/{}/comm", child.id());
        for _ in 0..500 {
            if std::fs::read_to_string(&comm).unwrap() == "sleep\n" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let found = Sockets::open().unwrap().bound().unwrap();
        let owner = owner(found[0].inode);
        child.kill().unwrap();
        child.wait().unwrap();
        let owner = owner.unwrap();
        assert_eq!((owner.pid, owner.name.as_str()), (child.id(), "sleep"));
        assert!(Sockets::open().unwrap().bound().unwrap().is_empty());
    });
}

#[test]
fn hundreds_of_sockets_are_all_listed() {
    in_namespace(|| {
        let held: Vec<_> = (10_000..10_900)
            .map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap())
            .collect();
        let start = std::time::Instant::now();
        let found = Sockets::open().unwrap().bound().unwrap();
        println!("{} sockets: {:?}", found.len(), start.elapsed());
        assert_eq!(found.len(), held.len());
    });
}
