//! A client of BuildKit's protocol that can say anything: calls as bytes, and a session whose answers are given.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_buildkit::Message;
use ferry_buildkit::fsutil::{Packet, PacketType, Stat};
use ferry_buildkit::session::{self as calls, header, metadata};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long a session waits for the end of what it is asked.
const ENOUGH: Duration = Duration::from_millis(300);

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Of HTTP.
    pub http: u16,
    /// Of gRPC; `None`: it said none.
    pub code: Option<i32>,
    pub message: String,
    pub body: Bytes,
}

/// Asks for an upgrade; the connection, and the head of the answer.
pub async fn upgrade(socket: &Path, path: &str, headers: &str) -> io::Result<(UnixStream, String)> {
    let mut stream = UnixStream::connect(socket).await?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: d\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
}

pub const H2C: &str = "Connection: Upgrade\r\nUpgrade: h2c\r\n";

/// A message as gRPC frames it.
pub fn framed(message: &impl Message) -> Bytes {
    let content = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    frame.extend(content);
    frame.into()
}

/// A connection to `/grpc`.
pub struct Client(hyper::client::conn::http2::SendRequest<Full<Bytes>>);

impl Client {
    pub async fn connect(socket: &Path) -> Self {
        let (stream, head) = upgrade(socket, "/grpc", H2C).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Any request; the answer within twenty seconds.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Ended {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.0.send_request(request));
        let (parts, body) = answer.await.expect("an answer in time").unwrap().into_parts();
        let collected = tokio::time::timeout(Duration::from_secs(20), body.collect()).await;
        let collected = collected.expect("an end in time").unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let text = |name: &str| {
            let value = trailers.get(name).or_else(|| parts.headers.get(name))?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ended {
            http: parts.status.as_u16(),
            code: text("grpc-status").and_then(|code| code.parse().ok()),
            message: decoded(&text("grpc-message").unwrap_or_default()),
            body: collected.to_bytes(),
        }
    }

    pub async fn call_raw(&mut self, path: &str, body: Bytes) -> Ended {
        let request = Request::post(format!("http://d{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        self.send(request.body(Full::new(body)).unwrap()).await
    }

    pub async fn call(&mut self, path: &str, message: &impl Message) -> Ended {
        self.call_raw(path, framed(message)).await
    }
}

/// What gRPC escapes of messages.
fn decoded(text: &str) -> String {
    let (bytes, mut at, mut found) = (text.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                found.push(byte);
                at += 3;
            }
            (byte, _) => {
                found.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&found).into_owned()
}

/// What a session answers to whoever wants the directory of that name.
pub type Answers = Arc<dyn Fn(&str) -> Vec<Bytes> + Send + Sync>;

/// Serves a session of this id until the connection ends.
pub async fn serve(socket: &Path, id: &str, answers: Answers) {
    let methods = [calls::FILES, calls::HEALTH, calls::SECRET];
    let mut headers = format!("{H2C}{}: {id}\r\n", header::ID);
    for method in methods {
        headers.push_str(&format!("{}: {method}\r\n", header::METHOD));
    }
    let (stream, head) = upgrade(socket, "/session", &headers).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(request, &*answers)) }
    });
    let served =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::spawn(served);
}

fn answer(request: Request<Incoming>, answers: &(dyn Fn(&str) -> Vec<Bytes> + Send + Sync)) -> Response<Body> {
    let name = request.headers().get(metadata::DIRECTORY);
    let name = name.and_then(|name| name.to_str().ok()).unwrap_or_default();
    let frames = match request.uri().path() {
        calls::FILES => answers(name),
        // It serves (field 1, a number: 1).
        calls::HEALTH => vec![Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])],
        _ => answers(request.uri().path()),
    };
    let mut ok = http::HeaderMap::new();
    ok.insert("grpc-status", "0".parse().unwrap());
    let frames = futures_util::stream::iter(frames).map(Frame::data);
    let end = async move {
        // Whoever asked says when it has all; who is told too little never does.
        let _ = tokio::time::timeout(ENOUGH, request.into_body().collect()).await;
        Frame::trailers(ok)
    };
    let body = StreamBody::new(frames.chain(futures_util::stream::once(end)).map(Ok));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body.boxed_unsync()).unwrap()
}

pub fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

pub fn entry(path: &str, mode: u32) -> Stat {
    Stat {
        path: path.to_owned(),
        mode,
        ..Stat::default()
    }
}

pub fn announced(stat: Stat) -> Packet {
    Packet {
        stat: Some(stat),
        ..packet(PacketType::PacketStat)
    }
}

pub fn data(number: u32, bytes: &[u8]) -> Packet {
    Packet {
        id: number,
        data: bytes.to_vec().into(),
        ..packet(PacketType::PacketData)
    }
}

/// A directory with one file, whole.
pub fn one_file(name: &str, content: &[u8]) -> Vec<Bytes> {
    let stat = Stat {
        size: content.len() as i64,
        ..entry(name, 0o644)
    };
    let packets = [
        announced(stat),
        packet(PacketType::PacketStat),
        data(0, content),
        data(0, b""),
        packet(PacketType::PacketFin),
    ];
    packets.iter().map(framed).collect()
}
