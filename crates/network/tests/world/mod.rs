//! A machine for a test: a network namespace of its own, in which the test's thread runs.
#![allow(dead_code)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferry_netlink::Route;
use ferry_netlink::route::{Change, LinkId, Request};
use ferry_network::network::{Bridge, Driver, Gateway, Range};
use ferry_network::{Attach, Config, Draft, Endpoint, Fabric, Limits, Live, Plan, Record, Result, namespace};

/// The machine outside, and the host as it sees it; see [`outside`].
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const NEAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// An engine without a network.
pub fn fabric() -> Fabric {
    Fabric::new(Config::default(), Record::default()).unwrap()
}

pub fn network(fabric: &Fabric, draft: Draft) -> String {
    fabric.create(draft).unwrap().id
}

pub fn on(network: &str) -> Attach {
    Attach {
        network: network.to_owned(),
        ..Attach::default()
    }
}

pub fn join(fabric: &Fabric, network: &str) -> (OwnedFd, Endpoint) {
    let (netns, mut endpoints) = fabric.attach(vec![on(network)]).unwrap();
    (netns, endpoints.remove(0))
}

/// A network with a bridge named so, and subnets that are chosen.
pub fn draft(name: &str) -> Draft {
    Draft {
        id: format!("id of {name}"),
        name: name.to_owned(),
        driver: Driver::Bridge(options(name)),
        v4: true,
        v6: false,
        ranges: Vec::new(),
        internal: false,
        mtu: 1500,
        prefix: "eth".to_owned(),
        automatic: false,
    }
}

pub fn options(link: &str) -> Bridge {
    Bridge {
        link: link.to_owned(),
        icc: true,
        masquerade: true,
        source: None,
        binding: None,
        gateway4: Gateway::Nat,
        gateway6: Gateway::Nat,
    }
}

/// An engine with the one network `ferry0`, 172.17.0.0/16.
pub struct Default {
    pub fabric: Fabric,
    id: String,
}

impl Default {
    pub fn new(config: Config, record: Record) -> Self {
        Self::of(config, record, draft("ferry0"))
    }

    pub fn of(config: Config, record: Record, draft: Draft) -> Self {
        let fabric = Fabric::new(config, record).unwrap();
        let range = Range {
            subnet: "172.17.0.0/16".parse().unwrap(),
            gateway: None,
            pool: None,
            reserved: Vec::new(),
        };
        let draft = Draft {
            ranges: vec![range],
            automatic: true,
            ..draft
        };
        let id = fabric.create(draft).unwrap().id;
        Self { fabric, id }
    }

    pub fn attach(&self, attach: Attach) -> Result<(OwnedFd, Endpoint)> {
        let (netns, mut endpoints) = self.fabric.attach(vec![self.on(attach)])?;
        Ok((netns, endpoints.remove(0)))
    }

    pub fn configure(&self, netns: BorrowedFd<'_>, attach: Attach) -> Result<Endpoint> {
        Ok(self.fabric.configure(netns, vec![self.on(attach)])?.remove(0))
    }

    pub fn detach(&self, endpoint: &Endpoint) -> Result<()> {
        self.fabric.detach(endpoint)
    }

    pub fn reconcile(&self, endpoints: &[Endpoint]) -> Result<Plan> {
        self.fabric.reconcile(&[Live {
            holder: "c".to_owned(),
            endpoints: endpoints.to_vec(),
            ports: Vec::new(),
            limits: Limits::default(),
        }])
    }

    pub fn shutdown(&self) -> Result<()> {
        self.fabric.shutdown()
    }

    fn on(&self, attach: Attach) -> Attach {
        Attach {
            network: self.id.clone(),
            ..attach
        }
    }
}

pub struct World {
    pub host: OwnedFd,
}

impl World {
    /// Runs `test` on a thread in a fresh namespace with `lo` up.
    pub fn run(test: impl FnOnce(&World) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            ferry_sys::ns::unshare_network().unwrap();
            let change = Change {
                up: Some(true),
                ..Change::default()
            };
            Route::open()
                .unwrap()
                .run(&[Request::ChangeLink {
                    link: LinkId::Name("lo"),
                    change,
                }])
                .unwrap();
            test(&World {
                host: namespace::current().unwrap(),
            });
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    pub fn links(&self) -> Vec<String> {
        Route::open()
            .unwrap()
            .links()
            .unwrap()
            .into_iter()
            .map(|link| link.name)
            .collect()
    }

    /// What a program prints that runs in the calling thread's namespace.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Stops its listener when dropped.
pub struct Server(Arc<AtomicBool>, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Listens inside `netns`, telling each client the address it was seen with.
pub fn listen(netns: &OwnedFd, address: impl Into<IpAddr>, port: u16) -> (Server, ()) {
    let address = SocketAddr::new(address.into(), port);
    let listener = namespace::inside(netns.as_fd(), || Ok(TcpListener::bind(address).unwrap())).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((mut stream, peer)) => drop(stream.write_all(peer.ip().to_string().as_bytes())),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    (Server(stop, address), ())
}

/// Connects from inside `netns` and returns the address the server saw.
pub fn connect(netns: &OwnedFd, address: impl Into<IpAddr>, port: u16) -> Result<Ipv4Addr, std::io::Error> {
    let address = SocketAddr::new(address.into(), port);
    namespace::inside(netns.as_fd(), || {
        Ok(
            TcpStream::connect_timeout(&address, Duration::from_millis(500)).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text.parse().unwrap())
            }),
        )
    })
    .unwrap()
}

/// A machine of its own on a wire to the host: `outside0` (198.51.100.1) there, `wire0` (198.51.100.2) here.
pub fn outside() -> OwnedFd {
    use ferry_netlink::route::{Peer, Veth};
    let mut far = namespace::Namespace::create().unwrap();
    let mut here = Route::open().unwrap();
    let up = Change {
        up: Some(true),
        ..Change::default()
    };
    let peer = Peer {
        name: "wire0",
        mac: None,
        netns: far.fd.as_fd(),
    };
    here.run(&[
        Request::CreateVeth(Veth {
            name: "outside0",
            mtu: 1500,
            master: None,
            peer,
        }),
        Request::ChangeLink {
            link: LinkId::Name("outside0"),
            change: up,
        },
    ])
    .unwrap();
    let near = here.link(&LinkId::Name("outside0")).unwrap().unwrap().index;
    here.run(&[Request::AddAddress {
        link: near,
        address: "198.51.100.1".parse().unwrap(),
        prefix: 24,
    }])
    .unwrap();
    let wire = far.route.link(&LinkId::Name("wire0")).unwrap().unwrap().index;
    far.route
        .run(&[
            Request::AddAddress {
                link: wire,
                address: "198.51.100.2".parse().unwrap(),
                prefix: 24,
            },
            Request::ChangeLink {
                link: LinkId::Index(wire),
                change: up,
            },
        ])
        .unwrap();
    // Until the kernel has noticed its carrier, a packet would be lost and sent again a second later.
    let works = |route: &mut Route, link| route.link(&link).unwrap().unwrap().operational;
    while !works(&mut here, LinkId::Index(near)) || !works(&mut far.route, LinkId::Index(wire)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    far.fd
}

/// Runs a program inside `netns`.
pub fn output_in(netns: &OwnedFd, program: &str, arguments: &[&str]) -> String {
    namespace::inside(netns.as_fd(), || {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout).unwrap())
    })
    .unwrap()
}

pub fn sysctl(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{key}"))
        .unwrap()
        .trim_end()
        .to_owned()
}
