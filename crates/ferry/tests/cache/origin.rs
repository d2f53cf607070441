//! The upstream of a test: it does what it is told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ferry_image::Digest;

/// An answer, and how it is spoiled.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `Content-Length` is left out.
    pub silent: bool,
    /// The connection ends after so many bytes of the body.
    pub cut: usize,
    /// After so many bytes it waits for the gate.
    pub gate: Option<(usize, Arc<Gate>)>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            silent: false,
            cut: usize::MAX,
            gate: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Opens once.
#[derive(Default)]
pub struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.lock().unwrap();
        let _open = self
            .1
            .wait_timeout_while(open, Duration::from_secs(20), |open| !*open)
            .unwrap();
    }
}

/// What is at which path. A HEAD is answered as a GET without a body; ranges to the end are known.
pub type Content = Arc<Mutex<BTreeMap<String, Reply>>>;

pub struct Origin {
    pub address: SocketAddr,
    pub content: Content,
    asked: Arc<Mutex<Vec<String>>>,
    dead: Arc<AtomicBool>,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self {
            address,
            content: Content::default(),
            asked: Arc::default(),
            dead: Arc::default(),
        };
        let (content, asked, dead) = (origin.content.clone(), origin.asked.clone(), origin.dead.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if dead.load(Ordering::SeqCst) {
                    return;
                }
                let (content, asked) = (content.clone(), asked.clone());
                std::thread::spawn(move || stream.map(|stream| answer(stream, &content, &asked)));
            }
        });
        origin
    }

    pub fn put(&self, path: &str, reply: Reply) {
        self.content.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub fn take(&self, path: &str) {
        self.content.lock().unwrap().remove(path);
    }

    pub fn blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.put(&format!("/v2/{repository}/blobs/{digest}"), Reply::new(200, content));
        digest
    }

    /// A manifest of one layer, under a tag and its digest.
    pub fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        let (config, layer_digest) = (self.blob(repository, b"{}"), self.blob(repository, layer));
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"{config}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":{},"digest":"{layer_digest}"}}]}}"#,
            layer.len()
        );
        let digest = Digest::of(&manifest);
        let reply = Reply::new(200, manifest)
            .header("content-type", media)
            .header("docker-content-digest", &digest.to_string());
        for name in [tag.to_owned(), digest.to_string()] {
            self.put(&format!("/v2/{repository}/manifests/{name}"), reply.clone());
        }
        digest
    }

    /// How often something was asked for: `GET /v2/…`.
    pub fn count(&self, begin: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(begin)).count()
    }

    /// From now on nobody answers.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        while TcpStream::connect(self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn answer(mut stream: TcpStream, content: &Content, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?, words.next()?.split('?').next()?);
    let mut from = 0;
    for line in lines {
        let line = line.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.split('-').next()?.parse().ok()?;
        }
    }
    asked.lock().unwrap().push(format!("{method} {path}"));
    let known = content.lock().unwrap().get(path).cloned();
    let mut reply = known.unwrap_or_else(|| Reply::new(404, ""));
    let total = reply.body.len();
    if from > 0 && reply.status == 200 {
        reply.status = 206;
        reply.body.drain(..from);
        reply = reply.header("content-range", &format!("bytes {from}-{}/{total}", total - 1));
    }
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    if !reply.silent {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if method == "HEAD" {
        return Some(());
    }
    let end = reply.cut.min(reply.body.len());
    let gate = reply.gate.as_ref().map_or(0, |(at, _)| (*at).min(end));
    stream.write_all(&reply.body[..gate]).ok()?;
    if let Some((_, gate)) = &reply.gate {
        gate.pass();
    }
    stream.write_all(&reply.body[gate..end]).ok()
}
