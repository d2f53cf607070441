//! Connections that stop being HTTP: attach and exec.
//!
//! ```text
//! Upgrade: tcp      101, then the client's own socket goes to the shim: nothing is copied here
//! no such header    a bare 200 without a length, then as above: what the client writes behind its request is input
//! a body that is input (not JSON, or in chunks), or HTTP/1.0
//!                   200, the answer's body is the stream; a socket pair stands for the connection
//! ```
//! A connection that is no unix socket (TCP, with TLS or without) is bridged by a pair too: it ends with the engine.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ferry_api::ApiVersion;
use ferry_api::system::media_type;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::body;
use crate::held::{Held, Stream, Takeover};

/// Multiplexed streams are named as such since this version.
const NAMED: ApiVersion = ApiVersion::new(1, 42);
/// How long a log waits for the client to have read the answer to its request.
const HOLD: Duration = Duration::from_millis(250);
/// How often it is looked whether it has. Nothing tells.
const LOOK: Duration = Duration::from_millis(1);
/// One read of a bridged stream.
const CHUNK: usize = 32 * 1024;

/// What a stream is called: raw with a terminal, multiplexed without.
pub fn media_type(tty: bool, version: ApiVersion) -> &'static str {
    match tty || version < NAMED {
        true => media_type::RAW_STREAM,
        false => media_type::MULTIPLEXED_STREAM,
    }
}

/// A connection as the shim wants it.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// What the client sent right behind its request.
    already_read: Vec<u8>,
}

impl Connection {
    /// One end of a pair: whoever has the other end is the client.
    pub fn pair_end(stream: UnixStream) -> Self {
        Self {
            stream,
            already_read: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Gives it away: the socket and what was read from it.
    pub fn into_parts(self) -> io::Result<(OwnedFd, Vec<u8>)> {
        Ok((self.stream.into_std()?.into(), self.already_read))
    }

    /// The client's socket itself, if it is a unix socket; else one end of a pair, the other end being copied to the client.
    /// `already_read`: what HTTP has read of it too much.
    fn of(stream: Stream, already_read: Vec<u8>, tasks: &TaskTracker) -> io::Result<Self> {
        let mut client = match stream {
            Stream::Unix(stream) => return Ok(Self { stream, already_read }),
            Stream::Other(client) => client,
        };
        let (stream, mut other) = UnixStream::pair()?;
        tasks.spawn(async move {
            // Either side may hang up; the other one then sees it.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut other).await;
        });
        Ok(Self { stream, already_read })
    }

    fn of_upgraded(upgraded: Upgraded, tasks: &TaskTracker) -> io::Result<Self> {
        let parts =
            downcast::<TokioIo<Held>>(upgraded).map_err(|_| io::Error::other("the connection is none of ours"))?;
        let stream = parts.io.into_inner().into_stream();
        let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
        Self::of(stream, parts.read_buf.to_vec(), tasks)
    }

    /// Waits until the client has read what was sent, for a while: clients that read the answer to their request through a buffer
    /// (docker-py) lose what comes together with it.
    pub async fn answered(&self) {
        let read = async {
            while ferry_sys::socket::unread(&self.stream).is_ok_and(|unread| unread > 0) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(HOLD, read).await;
    }
}

/// A request whose connection can be taken over.
#[derive(Debug)]
pub struct Hijack {
    upgrade: Option<OnUpgrade>,
    takeover: Option<Takeover>,
}

impl Hijack {
    /// To be called before the request's body is read.
    pub fn of(request: &mut Request<Body>) -> Self {
        let headers = request.headers();
        let wanted = headers.contains_key(header::UPGRADE);
        // dockerode repeats the query as JSON.
        let bare = !headers.contains_key(header::TRANSFER_ENCODING)
            && (request.body().is_end_stream() || body::check_type(headers, false).is_ok());
        let takeover = request.extensions_mut().remove::<Takeover>();
        let is_current = request.version() == http::Version::HTTP_11;
        Self {
            upgrade: (is_current && wanted).then(|| hyper::upgrade::on(request)),
            takeover: takeover.filter(|_| is_current && bare),
        }
    }

    /// The answer after which `serve` has the connection. `media` is what an upgraded stream is called.
    pub async fn answer<F, S>(
        self,
        tasks: &TaskTracker,
        media: &'static str,
        rest: Body,
        serve: S,
    ) -> io::Result<Response>
    where
        S: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(upgrade) = self.upgrade else {
            return match self.takeover {
                Some(takeover) => take_over(&takeover, tasks, rest, serve).await,
                None => bridge(tasks, rest, serve),
            };
        };
        let tracker = tasks.clone();
        tasks.spawn(async move {
            let connection = match upgrade.await {
                Ok(upgraded) => Connection::of_upgraded(upgraded, &tracker),
                Err(error) => Err(io::Error::other(error)),
            };
            match connection {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::debug!(%error, "a connection could not be taken over"),
            }
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media)),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("tcp")),
        ];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }
}

/// What Docker answers before a stream that nobody asked an upgrade for.
const BARE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

/// For clients that do not ask for an upgrade and still write input behind their request. Does not return but for errors: with the
/// connection, whoever waits for the answer is gone.
async fn take_over<F, S>(takeover: &Takeover, tasks: &TaskTracker, rest: Body, serve: S) -> io::Result<Response>
where
    S: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    axum::body::to_bytes(rest, body::JSON_MAX)
        .await
        .map_err(io::Error::other)?;
    let stream = takeover.take().ok_or(io::ErrorKind::NotConnected)?;
    let tracker = tasks.clone();
    tasks.spawn(async move {
        match Connection::of(stream, Vec::new(), &tracker) {
            Ok(mut connection) => {
                if connection.send(BARE.as_bytes()).await.is_ok() {
                    serve(connection).await;
                }
            }
            Err(error) => tracing::debug!(%error, "a connection could not be taken over"),
        }
    });
    std::future::pending().await
}

/// For input in the request's body: what the request's body holds goes in, what comes is the answer's body.
fn bridge<F, S>(tasks: &TaskTracker, input: Body, serve: S) -> io::Result<Response>
where
    S: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (stream, ours) = UnixStream::pair()?;
    let (reader, mut writer) = ours.into_split();
    tasks.spawn(serve(Connection::pair_end(stream)));
    tasks.spawn(async move {
        let mut input = input;
        // Ends with the body, which ends with the client; dropping the half says so to the other end.
        while let Some(Ok(frame)) = input.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let output = futures_util::stream::unfold(reader, |mut reader| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        match reader.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some((Ok::<_, io::Error>(Bytes::from(chunk)), reader)),
        }
    });
    let raw = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type::RAW_STREAM))];
    Ok((raw, Body::from_stream(output)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_by_terminal_and_version() {
        let named = |tty, minor| media_type(tty, ApiVersion::new(1, minor));
        assert_eq!(named(false, 51), "application/vnd.docker.multiplexed-stream");
        assert_eq!(named(false, 42), "application/vnd.docker.multiplexed-stream");
        assert_eq!(named(false, 41), "application/vnd.docker.raw-stream");
        assert_eq!(named(true, 51), "application/vnd.docker.raw-stream");
    }

    #[tokio::test]
    async fn a_client_without_upgrade_gets_the_stream_as_a_body() {
        let tasks = TaskTracker::new();
        let mut request = Request::new(Body::from("ping"));
        let hijack = Hijack::of(&mut request);
        let answer = hijack.answer(
            &tasks,
            media_type::MULTIPLEXED_STREAM,
            request.into_body(),
            |mut connection| async move {
                let mut text = String::new();
                connection.stream.read_to_string(&mut text).await.unwrap();
                connection.send(format!("{text} pong").as_bytes()).await.unwrap();
            },
        );
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/vnd.docker.raw-stream");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ping pong");
    }
}
