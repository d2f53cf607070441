//! The resolver under load: `cargo run --release -p ferry-supervise --example names [SECONDS]`, 60 if not given. Before that it
//! prints what a process pays for a resolver: private memory without one, with one, after 100,000 questions, and with
//! a network of 1,000 containers.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/world/mod.rs"]
mod world;

use std::io::Read as _;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ferry_dns::From;
use hickory_proto::rr::RecordType;
use world::{World, load, query, server, upstream};

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("idle") => {
            let _buffer = std::hint::black_box(vec![1_u8; 65536]);
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        Some("serve") => {
            let sockets = ferry_network::resolver::open_in_current().unwrap();
            let resolver = ferry_supervise::Resolver {
                settings: (&arguments[2]).into(),
                udp: sockets.udp,
                tcp: sockets.tcp,
            };
            ferry_supervise::shim::answer_names(resolver, std::io::stdin().as_fd()).unwrap();
        }
        seconds => {
            let seconds = seconds.map_or(60, |seconds| seconds.parse().unwrap());
            World::run(memory);
            World::run(move |world| println!("{:#?}", load::run(world, Duration::from_secs(seconds))));
        }
    }
}

fn memory(world: &mut World) {
    world.zone(
        "front",
        &[("web", &["172.18.0.2"], &["www"]), ("db", &["172.18.0.3"], &[])],
    );
    world.settings(&[server("127.0.0.53", From::Host)], true);
    // The process that serves sees the container's namespace alone.
    world.inside(|| upstream("127.0.0.53", [203, 0, 113, 1]));
    let idle = Process::start(world, &["idle"]);
    println!("without a resolver: {}", idle.private());
    let settings = world.directory.path().join("dns.json");
    let serving = Process::start(world, &["serve", settings.to_str().unwrap()]);
    println!("with one: {}", serving.private());
    world.inside(|| ask(100_000, &["web.", "www.", "db.", "none.front."]));
    println!("after 100,000 questions: {}", serving.private());
    let names: Vec<_> = (0..5000).map(|number| format!("n{number}.example.")).collect();
    world.inside(|| ask(5000, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    println!("after 5,000 names of others: {}", serving.private());
    let names: Vec<_> = (0..1000)
        .map(|number| {
            (
                format!("container-{number}"),
                format!("10.0.{}.{}", number / 250, number % 250),
            )
        })
        .collect();
    let addresses: Vec<_> = names.iter().map(|(_, address)| [address.as_str()]).collect();
    let endpoints: Vec<(&str, &[&str], &[&str])> = names
        .iter()
        .zip(&addresses)
        .map(|((name, _), address)| {
            (
                name.as_str(),
                address.as_slice(),
                ["0123456789ab", "service"].as_slice(),
            )
        })
        .collect();
    world.zone("front", &endpoints);
    world.inside(|| ask(1000, &["container-7.", "container-999."]));
    println!("in a network of 1,000 containers: {}", serving.private());
}

/// One after the other.
fn ask(count: usize, names: &[&str]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    for number in 0..count {
        socket
            .send(&query(1, names[number % names.len()], RecordType::A))
            .unwrap();
        socket.recv(&mut [0; 512]).unwrap();
    }
}

struct Process(Child);

impl Process {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new(exe);
        command.args(arguments).stdin(Stdio::piped());
        let child = world.inside(|| command.spawn().unwrap());
        std::thread::sleep(Duration::from_millis(200));
        Self(child)
    }

    /// What the kernel counts as private to it.
    fn private(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id())).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("Private")).collect();
        lines.join(", ").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
