//! Flows that are forgotten, in network namespaces of their own. Needs root.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command as Program;
use std::time::Duration;

use ferry_netlink::conntrack::{Conntrack, Flows};
use ferry_netlink::nft::{
    Base, Batch, ChainKind, CtState, Family, Field, Hook, NatKind, NatTarget, Nft, Policy, Statement, Value, priority,
};

fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        let status = Program::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(status.success());
        work();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// What is sent to UDP port 53 of any address goes to `port` of 127.0.0.1.
fn translate(nft: &mut Nft, port: u16) {
    let mut batch = Batch::replace(Family::Ip, "t", None);
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: priority::DSTNAT,
        policy: Policy::Accept,
    };
    batch.chain("c", Some(base));
    let target = NatTarget::Address {
        address: Ipv4Addr::LOCALHOST.into(),
        port: Some(port),
    };
    let kind = NatKind::Dnat;
    batch.rule(
        "c",
        vec![
            Statement::is(Field::UdpDport, Value::Ports(53, 60)),
            Statement::Nat { kind, target },
        ],
    );
    nft.commit(&batch).unwrap();
}

fn any() -> Flows {
    Flows {
        protocol: None,
        asked_by: None,
        destination: None,
        ports: None,
        answered_by: None,
    }
}

#[test]
fn a_flow_goes_the_new_way_once_it_is_forgotten() {
    in_namespace(|| {
        let (old, new) = (
            UdpSocket::bind("127.0.0.1:1001").unwrap(),
            UdpSocket::bind("127.0.0.1:1002").unwrap(),
        );
        for socket in [&old, &new] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        let (mut nft, mut conntrack) = (Nft::open().unwrap(), Conntrack::open().unwrap());
        let client = UdpSocket::bind("127.0.0.1:4000").unwrap();
        let reaches = |socket: &UdpSocket| {
            client.send_to(b"x", "127.0.0.9:53").unwrap();
            socket.recv(&mut [0]).is_ok()
        };
        translate(&mut nft, 1001);
        assert!(reaches(&old));
        translate(&mut nft, 1002);
        assert!(reaches(&old), "the flow has its translation still");
        let flows = Flows {
            protocol: Some(17),
            destination: Some("127.0.0.9".parse().unwrap()),
            ports: Some(53..=53),
            ..any()
        };
        for other in [
            Flows {
                protocol: Some(6),
                ..flows.clone()
            },
            Flows {
                destination: Some("127.0.0.8".parse().unwrap()),
                ..flows.clone()
            },
            Flows {
                ports: Some(54..=65535),
                ..flows.clone()
            },
            Flows {
                answered_by: Some("127.0.0.2".parse().unwrap()),
                ..any()
            },
            Flows {
                asked_by: Some("127.0.0.2".parse().unwrap()),
                ..any()
            },
            Flows {
                answered_by: Some("::1".parse().unwrap()),
                ..any()
            },
        ] {
            assert_eq!(conntrack.forget(std::slice::from_ref(&other)).unwrap(), 0, "{other:?}");
        }
        assert_eq!(conntrack.forget(std::slice::from_ref(&flows)).unwrap(), 1);
        assert_eq!(conntrack.forget(std::slice::from_ref(&flows)).unwrap(), 0);
        assert!(reaches(&new));
        let answered = Flows {
            answered_by: Some(Ipv4Addr::LOCALHOST.into()),
            ..any()
        };
        assert_eq!(conntrack.forget(std::slice::from_ref(&answered)).unwrap(), 1);
        assert!(reaches(&new));
        let asked = Flows {
            protocol: Some(17),
            asked_by: Some(Ipv4Addr::LOCALHOST.into()),
            ..any()
        };
        assert_eq!(conntrack.forget(std::slice::from_ref(&asked)).unwrap(), 1);
    });
}

#[test]
fn hundreds_of_flows_of_both_families_are_forgotten_and_others_are_not() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut batch = Batch::replace(Family::Inet, "t", None);
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Output,
            priority: priority::FILTER,
            policy: Policy::Accept,
        };
        batch.chain("c", Some(base));
        // Only a table that looks makes the kernel follow flows.
        batch.rule(
            "c",
            vec![Statement::is(Field::CtState, Value::CtState(vec![CtState::Invalid]))],
        );
        nft.commit(&batch).unwrap();
        let servers = [
            UdpSocket::bind("127.0.0.1:53").unwrap(),
            UdpSocket::bind("[::1]:53").unwrap(),
        ];
        let other = UdpSocket::bind("127.0.0.1:54").unwrap();
        let mut clients = Vec::new();
        for _ in 0..400 {
            for (client, server) in [("127.0.0.1:0", &servers[0]), ("[::1]:0", &servers[1])] {
                let socket = UdpSocket::bind(client).unwrap();
                socket.send_to(b"x", server.local_addr().unwrap()).unwrap();
                clients.push(socket);
            }
        }
        clients[0].send_to(b"x", other.local_addr().unwrap()).unwrap();
        let mut conntrack = Conntrack::open().unwrap();
        let v6: IpAddr = "::1".parse().unwrap();
        let mut flows = Flows {
            protocol: Some(17),
            destination: Some(v6),
            ports: Some(53..=53),
            ..any()
        };
        let start = std::time::Instant::now();
        assert_eq!(conntrack.forget(std::slice::from_ref(&flows)).unwrap(), 400);
        println!("400 of 801 flows: {:?}", start.elapsed());
        flows.destination = None;
        assert_eq!(conntrack.forget(std::slice::from_ref(&flows)).unwrap(), 400);
        assert_eq!(conntrack.forget(&[any()]).unwrap(), 1);
    });
}
