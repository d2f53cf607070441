//! `attach` over a websocket (RFC 6455): what a browser and docker-py's `attach_socket(ws=True)` speak.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ferry_testkit::TestDaemon;
use ferry_testkit::images::BUSYBOX;

struct Socket(UnixStream);

impl Socket {
    /// The answer's head, and the connection behind it.
    fn open(engine: &TestDaemon, path: &str) -> (String, Self) {
        let mut stream = UnixStream::connect(engine.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        (String::from_utf8(head).unwrap(), Self(stream))
    }

    /// Opcode and payload.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 15, payload)
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap()];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).unwrap();
    }

    /// All output up to the close.
    fn rest(&mut self) -> String {
        let mut text = Vec::new();
        loop {
            match self.next() {
                (2, payload) => text.extend(payload),
                (8, _) => return String::from_utf8(text).unwrap(),
                (other, _) => panic!("a frame of type {other}"),
            }
        }
    }
}

const ALL: &str = "logs=1&stream=1&stdin=1&stdout=1&stderr=1";

#[test]
fn both_ways_without_frames() {
    let engine = TestDaemon::start();
    engine.busybox();
    for tty in [false, true] {
        let name = if tty { "t1" } else { "c1" };
        let mut args = vec!["run", "-d", "-i", "--name", name];
        args.extend(tty.then_some("-t"));
        args.extend([
            BUSYBOX,
            "sh",
            "-c",
            "echo first; read line; echo got $line; echo err >&2; exit 3",
        ]);
        engine.cli(args).ok();
        std::thread::sleep(Duration::from_millis(300));
        let (head, mut socket) = Socket::open(&engine, &format!("/v1.51/containers/{name}/attach/ws?{ALL}"));
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(
            head.to_lowercase()
                .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        socket.send(if tty { 1 } else { 2 }, b"hello\n");
        let text = socket.rest().replace("\r\n", "\n");
        let expected = if tty {
            "first\nhello\ngot hello\nerr\n"
        } else {
            "first\ngot hello\nerr\n"
        };
        assert_eq!(text, expected);
    }
}

#[test]
fn a_client_that_goes_hurts_nobody() {
    let engine = TestDaemon::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "-i",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "read line; echo got $line; sleep 1000",
        ])
        .ok();
    let (_, mut first) = Socket::open(&engine, &format!("/containers/c1/attach/ws?{ALL}"));
    first.send(8, &[]);
    let (_, second) = Socket::open(&engine, &format!("/containers/c1/attach/ws?{ALL}"));
    drop(second);
    let (_, mut third) = Socket::open(&engine, &format!("/containers/c1/attach/ws?{ALL}"));
    third.send(2, b"still\n");
    assert_eq!(third.next(), (2, b"got still\n".to_vec()));
    // Against the protocol: a frame without a mask.
    third.0.write_all(b"\x82\x05hello").unwrap();
    assert_eq!(engine.field("c1", "/State/Running"), "true");
}

#[test]
fn what_is_wrong_is_said_before_the_upgrade() {
    let engine = TestDaemon::start();
    let (head, rest) = Socket::open(&engine, "/containers/nobody/attach/ws?stream=1");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let mut body = String::new();
    let length = "{\"message\":\"No such container: nobody\"}\n".len();
    (&rest.0).take(length as u64).read_to_string(&mut body).unwrap();
    assert_eq!(body, "{\"message\":\"No such container: nobody\"}\n");
    let (status, _) = engine.api("GET", "/containers/nobody/attach/ws", None);
    assert_eq!(status, 400);
}
