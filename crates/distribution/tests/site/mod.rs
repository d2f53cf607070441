//! Servers of a test: one that answers as it is told, Ferry's own registry, and a proxy that cuts connections.
#![allow(dead_code, clippy::print_stderr)] // each test uses a part; what is skipped says so

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferry_distribution::{Client, Credentials, Descriptor, Limits, Options};
use ferry_image::{Digest, Reference};
use ferry_registry::{Auth, FileSystem, FileSystemOptions, Registry};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub type Body = BoxBody<Bytes, std::io::Error>;
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// First byte of a range, if one is asked for.
    pub fn from(&self) -> Option<u64> {
        let range = self.header("range").strip_prefix("bytes=")?.to_owned();
        range.split('-').next()?.parse().ok()
    }
}

/// A server that does what it is told, and remembers what it was asked.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    stop: CancellationToken,
}

impl Server {
    pub async fn start(answer: impl Fn(Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_tls(None, answer).await
    }

    pub async fn start_tls(
        tls: Option<tokio_rustls::TlsAcceptor>,
        answer: impl Fn(Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        // One server for all tests' answers: each of its own would be compiled again.
        let answer: Arc<dyn Fn(Asked) -> Answer + Send + Sync> = Arc::new(answer);
        let (remembered, ended) = (log.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = ended.cancelled() => return,
                };
                let (log, answer, ended, tls) = (remembered.clone(), answer.clone(), ended.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| one(request, log.clone(), answer.clone()));
                    let builder = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => {
                            tokio::select! {
                                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                                () = ended.cancelled() => {}
                            }
                        }
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                tokio::select! {
                                    _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                                    () = ended.cancelled() => {}
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { address, log, stop }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn one(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<dyn Fn(Asked) -> Answer + Send + Sync>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default(),
    };
    log.lock().unwrap().push(asked.clone());
    Ok(answer(asked).await)
}

pub fn full(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    respond(status, headers, body)
}

/// Chunks, one after the other, each after a while.
pub fn chunks(
    status: u16,
    headers: &[(&str, &str)],
    pause: Duration,
    chunks: impl Iterator<Item = Bytes> + Send + Sync + 'static,
) -> Response<Body> {
    let stream = futures_util::stream::unfold(chunks, move |mut chunks| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let next = chunks.next()?;
        Some((Ok(Frame::data(next)), chunks))
    });
    respond(status, headers, StreamBody::new(stream).boxed())
}

fn respond(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

pub fn ready(response: Response<Body>) -> Answer {
    Box::pin(std::future::ready(response))
}

/// A blob as an honest server gives it.
pub fn blob(asked: &Asked, bytes: &Bytes) -> Response<Body> {
    match asked.from() {
        None => full(200, &[], bytes.clone()),
        Some(from) => {
            let size = bytes.len();
            let end = asked
                .header("range")
                .rsplit('-')
                .next()
                .and_then(|end| end.parse().ok())
                .unwrap_or(size - 1);
            let range = format!("bytes {from}-{end}/{size}");
            full(
                206,
                &[("content-range", &range)],
                bytes.slice(usize::try_from(from).unwrap()..=end),
            )
        }
    }
}

pub fn limits() -> Limits {
    Limits {
        pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        stall: Duration::from_millis(400),
        answer: Duration::from_secs(3),
        ..Limits::default()
    }
}

pub fn options() -> Options {
    Options {
        limits: limits(),
        ..Options::default()
    }
}

pub fn client() -> Client {
    Client::new(options()).unwrap()
}

pub fn reference(address: SocketAddr, rest: &str) -> Reference {
    format!("{address}/{rest}").parse().unwrap()
}

pub fn anonymous() -> Credentials {
    Credentials::Anonymous
}

/// Bytes that do not repeat soon.
pub fn noise(size: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}

/// A manifest of these.
pub fn image(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layer = |bytes: &&[u8]| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config).to_string(),
            "size": config.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// Ferry's own registry, served on loopback.
pub struct Own {
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Own {
    pub async fn start() -> Self {
        Self::start_with(Auth::open()).await
    }

    pub async fn start_with(auth: Auth) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileSystem::open(dir.path(), FileSystemOptions::default()).unwrap();
        let options = ferry_registry::Options {
            delete: true,
            ..ferry_registry::Options::default()
        };
        let registry = Registry::new(storage, auth, options);
        let listener = ferry_registry::Listener::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
        let metrics = Arc::new(ferry_registry::Metrics::default());
        tokio::spawn(ferry_registry::serve(
            vec![listener],
            ferry_registry::router(registry),
            ferry_registry::Limits::default(),
            metrics,
            stop.clone(),
        ));
        Self { address, dir, stop }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Passes connections on, and cuts each after so many bytes of answers (or of requests).
pub struct Cutter {
    pub address: SocketAddr,
    /// To the client.
    pub down: Arc<AtomicU64>,
    /// From the client.
    pub up: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Cutter {
    pub async fn start(to: SocketAddr, most_down: u64, most_up: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counters = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let [down, up, connections] = counters.clone();
        let stop = CancellationToken::new();
        let ended = stop.clone();
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = ended.cancelled() => return,
                };
                connections.fetch_add(1, Ordering::Relaxed);
                let (down, up, ended) = (down.clone(), up.clone(), ended.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(to).await.unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = copy(from_client, to_server, most_up, up) => {}
                        () = copy(from_server, to_client, most_down, down) => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        let [down, up, connections] = counters;
        Self {
            address,
            down,
            up,
            connections,
            stop,
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    most: u64,
    counter: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut left = most;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
        left -= count as u64;
        if left == 0 {
            return;
        }
    }
}

/// An HTTP proxy for TLS: whatever host is asked for, the connection goes to one place.
pub async fn tunnel(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let lines = lines.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = client.read_u8().await else { return };
                    head.push(byte);
                }
                let line = String::from_utf8_lossy(&head)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                lines.lock().unwrap().push(line);
                client
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await
                    .unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, log)
}

/// A certificate, its key, and the certificate of who signed it, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub authority: String,
}

pub fn certificate(name: &str, years: std::ops::Range<i32>) -> Pair {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("authority of {name}"));
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    Pair {
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
        authority,
    }
}

/// As `openssl req -x509` makes it: it may sign others, and signed itself.
pub fn self_signed(name: &str) -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    Pair {
        authority: certificate.clone(),
        certificate,
        key: key.serialize_pem(),
    }
}

/// A server's side. `clients` sign the certificates that clients must have.
pub fn acceptor(pair: &Pair, clients: Option<&Pair>) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(pair.authority.as_bytes()).unwrap())
                .unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// Most memory this process ever had, in MiB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The CNCF registry 2.8.3 of the peers' root, on loopback, with a configuration of its own.
pub struct Cncf {
    pub address: SocketAddr,
    child: std::process::Child,
    _dir: tempfile::TempDir,
}

impl Cncf {
    /// `None`, saying so, where the peers are not set up. `more` is added to its configuration, with `DIR` for the directory
    /// that has `files`; `http` to its `http` section.
    pub async fn start(files: &[(&str, &str)], http: &str, more: &str) -> Option<Self> {
        let home = std::env::var_os("HOME").unwrap_or_default();
        let root = std::env::var_os("PEERS_ROOT").map(std::path::PathBuf::from);
        let root = root.unwrap_or_else(|| std::path::Path::new(&home).join(".cache/ferry-peers/root"));
        if !root.join("usr/bin/docker-registry").is_file() {
            eprintln!("skipped: no real registry here (`peers setup` makes one)");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("ferry-distribution")
            .tempdir_in(root.join("tmp"))
            .unwrap();
        let inside = format!("/{}", dir.path().strip_prefix(&root).unwrap().display());
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: DIR/data}}, delete: {{enabled: true}}}}\nhttp:\n  addr: {address}\n{http}\n{more}\n"
        );
        std::fs::write(dir.path().join("config.yml"), config.replace("DIR", &inside)).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = std::process::Command::new("chroot")
            .arg(&root)
            .args(["/usr/bin/docker-registry", "serve", &format!("{inside}/config.yml")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self {
            address,
            child,
            _dir: dir,
        };
        for _ in 0..100 {
            if TcpStream::connect(address).await.is_ok() {
                return Some(started);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "docker-registry did not start: {}",
            std::fs::read_to_string(started._dir.path().join("log")).unwrap()
        );
    }
}

impl Drop for Cncf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
