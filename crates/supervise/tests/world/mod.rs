//! A host with a container's network namespace, servers on both, and the shim's resolver between them.
#![allow(dead_code)]

pub mod load;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ferry_dns::{Endpoint, From, Server, Settings, Zone, ZoneFile};
use ferry_netlink::Route;
use ferry_netlink::route::{Change, LinkId, Request};
use ferry_network::namespace::{self, Namespace};
use ferry_network::resolver;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

pub struct World {
    pub directory: tempfile::TempDir,
    pub container: Namespace,
    stop: Option<OwnedFd>,
    serving: Option<JoinHandle<()>>,
}

impl World {
    /// Runs `test` on a thread whose namespace is the host's.
    pub fn run(test: impl FnOnce(&mut World) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            ferry_sys::ns::unshare_network().unwrap();
            let change = Change {
                up: Some(true),
                ..Change::default()
            };
            let link = LinkId::Name("lo");
            Route::open()
                .unwrap()
                .run(&[Request::ChangeLink { link, change }])
                .unwrap();
            let mut world = World {
                directory: tempfile::tempdir().unwrap(),
                container: Namespace::create().unwrap(),
                stop: None,
                serving: None,
            };
            test(&mut world);
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// Starts the resolver, with what is in the files by then.
    pub fn serve(&mut self) {
        let sockets = self.inside(|| resolver::open_in_current().unwrap());
        let (stop, until) = rustix::pipe::pipe().unwrap();
        let (until, stop) = (stop, until);
        let settings = self.settings_file();
        self.stop = Some(stop);
        self.serving = Some(std::thread::spawn(move || {
            let resolver = ferry_supervise::Resolver {
                settings,
                udp: sockets.udp,
                tcp: sockets.tcp,
            };
            ferry_supervise::shim::answer_names(resolver, until.as_fd()).unwrap();
        }));
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        namespace::inside(self.container.fd.as_fd(), || Ok(work())).unwrap()
    }

    fn settings_file(&self) -> PathBuf {
        self.directory.path().join("dns.json")
    }

    pub fn settings(&self, servers: &[Server], forward: bool) {
        let zone = |network: &str| ZoneFile {
            path: self.directory.path().join(network),
            network: network.to_owned(),
        };
        let settings = Settings {
            zones: vec![zone("front"), zone("back")],
            links: Vec::new(),
            servers: servers.to_vec(),
            forward,
            options: ferry_dns::Options::default(),
        };
        replace(&self.settings_file(), &settings.to_bytes());
    }

    pub fn zone(&self, network: &str, endpoints: &[(&str, &[&str], &[&str])]) {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(name, addresses, aliases)| Endpoint {
                name: (*name).to_owned(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                aliases: aliases.iter().map(ToString::to_string).collect(),
            })
            .collect();
        replace(&self.directory.path().join(network), Zone::write(&endpoints).as_bytes());
    }

    /// Runs a shell command in the container's network, with a resolv.conf as Docker writes it.
    pub fn shell(&self, command: &str) -> Output {
        let file = self.directory.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.11\nsearch front\noptions ndots:0\n").unwrap();
        let script = format!("mount --bind {} /etc/resolv.conf && {command}", file.display());
        self.inside(|| {
            Command::new("unshare")
                .args(["-m", "sh", "-c", &script])
                .output()
                .unwrap()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take()
            && serving.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the resolver panicked");
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, path).unwrap();
}

pub fn server(address: &str, from: From) -> Server {
    Server::new(address.parse().unwrap(), from)
}

pub fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// Asks 127.0.0.11 by UDP from the calling thread's namespace.
pub fn ask(name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket.send(&query(9, name, kind)).unwrap();
    let mut buffer = [0; 65535];
    let length = socket
        .recv(&mut buffer)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    Message::from_vec(&buffer[..length]).unwrap()
}

/// Asks by TCP, all on one connection.
pub fn ask_by_tcp(names: &[(&str, RecordType)]) -> Vec<Message> {
    let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let mut bytes = Vec::new();
    for (id, (name, kind)) in names.iter().enumerate() {
        let query = query(u16::try_from(id).unwrap(), name, *kind);
        bytes.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
        bytes.extend(query);
    }
    // In two pieces that cut a message.
    let (front, back) = bytes.split_at(bytes.len() - 5);
    stream.write_all(front).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    stream.write_all(back).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers: Vec<_> = names.iter().map(|_| read_message(&mut stream)).collect();
    answers.sort_by_key(|answer| answer.metadata.id);
    assert_eq!(
        stream.read(&mut [0]).unwrap(),
        0,
        "the connection ends when all is answered"
    );
    answers
}

fn read_message(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).unwrap();
    Message::from_vec(&bytes).unwrap()
}

pub fn addresses(message: &Message) -> Vec<String> {
    let mut addresses: Vec<_> = message
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .map(|address: IpAddr| address.to_string())
        .collect();
    addresses.sort();
    addresses
}

/// A name server for all the world, by UDP and TCP, in the calling thread's namespace until the process ends. Counts what it is
/// asked.
pub fn upstream(address: &str, says: [u8; 4]) -> Arc<AtomicUsize> {
    let address = SocketAddr::new(address.parse().unwrap(), 53);
    let udp = UdpSocket::bind(address).unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = udp.send_to(&say(&buffer[..length], says, false), from);
        }
    });
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            let query = read_message(&mut stream).to_vec().unwrap();
            let answer = say(&query, says, true);
            // Piece by piece, as a slow server's may come.
            let mut bytes = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(answer);
            for piece in bytes.chunks(997) {
                stream.write_all(piece).unwrap();
            }
        }
    });
    asked
}

/// `large.example.` has answers of 3 kB, which need TCP; `none.example.` is not there.
fn say(query: &[u8], says: [u8; 4], tcp: bool) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    message.metadata.recursion_available = true;
    let name = message.queries[0].name().clone();
    match name.to_ascii().to_ascii_lowercase().as_str() {
        // Also with a search domain behind it.
        name if name.starts_with("none.example.") => message.metadata.response_code = ResponseCode::NXDomain,
        "large.example." if !tcp => message.metadata.truncation = true,
        "large.example." => {
            for number in 0..12 {
                let text = TXT::new(vec![format!("{number}").repeat(120)]);
                message.add_answer(Record::from_rdata(name.clone(), 60, RData::TXT(text.clone())));
                message.add_answer(Record::from_rdata(name.clone(), 60, RData::TXT(text)));
            }
        }
        _ => {
            let [a, b, c, d] = says;
            message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(a, b, c, d))));
        }
    }
    message.to_vec().unwrap()
}

/// A server that never answers: it takes packets and connections, and that is all.
pub fn silent(address: &str) -> (UdpSocket, TcpListener) {
    let address = SocketAddr::new(address.parse().unwrap(), 53);
    (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap())
}
