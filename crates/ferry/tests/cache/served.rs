//! The cache: `ferry registry serve`, a process of its own; and a client that sees how an answer ended.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ferry_image::Digest;
use tempfile::TempDir;

pub struct Served {
    pub address: SocketAddr,
    process: Child,
    dir: Option<TempDir>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// All that was promised has come.
    pub whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Served {
    pub fn start(args: &[&str]) -> Self {
        Self::at(tempfile::tempdir().unwrap(), args)
    }

    fn at(dir: TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"]);
        let mut process = command
            .arg(dir.path())
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the registry has ended").unwrap();
            if let Some((_, rest)) = line.split_once("the registry listens address=") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address,
            process,
            dir: Some(dir),
        }
    }

    /// As a machine that loses power would, but for what the kernel has.
    pub fn kill_and_start(mut self, args: &[&str]) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        Self::at(self.dir.take().unwrap(), args)
    }

    pub fn root(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// In its directory.
    pub fn has(&self, digest: &Digest) -> bool {
        let hex = digest.encoded();
        self.root().join("blobs/sha256").join(&hex[..2]).join(hex).exists()
    }

    pub fn open(&self, method: &str, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    pub fn ask(&self, method: &str, path: &str) -> Answer {
        let (mut bytes, mut stream) = (Vec::new(), self.open(method, path));
        // An answer that is cut may end with a reset.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut answer = Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body,
            whole: false,
        };
        answer.whole = method == "HEAD" || answer.header("content-length").parse() == Ok(answer.body.len());
        answer
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Bytes that differ from place to place.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..count).map(|_| next()).collect()
}

pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within ten seconds: {what}");
}
