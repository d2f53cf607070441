//! Many questions a second, and what the slowest of them took, beside a bare echo of datagrams.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ferry_dns::From;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::{World, query, server, silent, upstream};

const RATE: u32 = 5000;

#[derive(Debug)]
pub struct Times {
    pub median: Duration,
    pub p99: Duration,
    pub worst: Duration,
    pub lost: usize,
}

#[derive(Debug)]
pub struct Report {
    pub own: Times,
    pub echo: Times,
    /// Names of others, asked meanwhile; the first ones meet the dead servers.
    pub outside: Times,
    pub failed: usize,
}

/// Asks for own names, and for others ten times a second, for so long, with two of three servers dead.
pub fn run(world: &mut World, time: Duration) -> Report {
    let _dead = [silent("127.0.0.61"), silent("127.0.0.62")];
    upstream("127.0.0.53", [203, 0, 113, 1]);
    world.zone(
        "front",
        &[
            ("web", &["172.18.0.2", "fd00::2"], &["www"]),
            ("db", &["172.18.0.3"], &["all"]),
        ],
    );
    world.zone("back", &[("cache", &["172.19.0.2"], &["all"])]);
    let servers = ["127.0.0.61", "127.0.0.62", "127.0.0.53"].map(|address| server(address, From::Host));
    world.settings(&servers, true);
    world.serve();
    // The load begins while the servers are not yet known to be dead: own names do not wait for them.
    let outside = std::thread::scope(|scope| {
        let names = scope.spawn(|| {
            world.inside(|| {
                let mut times = Vec::new();
                let mut failed = 0;
                let mut lost = 0;
                let end = Instant::now() + time;
                let mut number = 0;
                while Instant::now() < end {
                    number += 1;
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
                    socket.connect("127.0.0.11:53").unwrap();
                    let start = Instant::now();
                    socket
                        .send(&query(1, &format!("n{number}.example."), RecordType::A))
                        .unwrap();
                    let mut buffer = [0; 512];
                    match socket.recv(&mut buffer) {
                        Ok(length) => {
                            times.push(start.elapsed());
                            let code = Message::from_vec(&buffer[..length]).unwrap().metadata.response_code;
                            failed += usize::from(code != ResponseCode::NoError);
                        }
                        Err(_) => lost += 1,
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                (summary(times, lost), failed)
            })
        });
        let names_of_ours = ["web.", "www.", "db.", "all.", "cache.back.", "WEB.front."];
        let packets: Vec<_> = names_of_ours.iter().map(|name| query(0, name, RecordType::A)).collect();
        let own = world.inside(|| drive("127.0.0.11:53", &packets, time));
        let echo = echo(&packets, (time / 4).max(Duration::from_secs(1)));
        (own, echo, names.join().unwrap())
    });
    let ((own, failed), (echo, _), (outside, failed_outside)) = outside;
    Report {
        own,
        echo,
        outside,
        failed: failed + failed_outside,
    }
}

/// The same packets to a thread that sends them back.
fn echo(packets: &[Vec<u8>], time: Duration) -> (Times, usize) {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap().to_string();
    echo.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    drive(&address, packets, time)
}

/// Sends at the rate, a number a packet, and takes the answers on another thread. Also counts answers that are no success.
fn drive(to: &str, packets: &[Vec<u8>], time: Duration) -> (Times, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    let count = usize::try_from(u128::from(RATE) * time.as_millis() / 1000).unwrap();
    let start = Instant::now();
    let sent = std::sync::Mutex::new(vec![Duration::ZERO; 65536]);
    std::thread::scope(|scope| {
        let receiver = socket.try_clone().unwrap();
        let sent = &sent;
        let taking = scope.spawn(move || {
            receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut buffer = [0; 1024];
            let mut times = Vec::with_capacity(count);
            let mut failed = 0;
            while times.len() < count {
                let Ok(length) = receiver.recv(&mut buffer) else { break };
                let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                times.push(start.elapsed().saturating_sub(sent.lock().unwrap()[id]));
                // A success of ours has an answer; the echo is no response at all.
                let response = buffer[2] & 0x80 != 0;
                failed += usize::from(response && (buffer[3] & 15 != 0 || buffer[7] == 0 || length < 12));
            }
            (times, failed)
        });
        let mut bytes = packets.to_vec();
        for number in 0..count {
            let due = Duration::from_secs(1) * u32::try_from(number).unwrap() / RATE;
            let early = due.saturating_sub(start.elapsed());
            if early > Duration::from_micros(60) {
                std::thread::sleep(early);
            }
            let packet = &mut bytes[number % packets.len()];
            let id = u16::try_from(number % 65536).unwrap();
            packet[..2].copy_from_slice(&id.to_be_bytes());
            sent.lock().unwrap()[usize::from(id)] = start.elapsed();
            socket.send(packet).unwrap();
        }
        let (times, failed) = taking.join().unwrap();
        let lost = count - times.len();
        (summary(times, lost), failed)
    })
}

fn summary(mut times: Vec<Duration>, lost: usize) -> Times {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Times {
        median: at(50),
        p99: at(99),
        worst: times.last().copied().unwrap_or_default(),
        lost,
    }
}
