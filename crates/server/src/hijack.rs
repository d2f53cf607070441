//! Connections that stop being HTTP: attach and exec.
//!
//! ```text
//! Upgrade: tcp      101, then the client's own socket goes to the shim: nothing is copied here
//! no such header    200, the answer's body is the stream; a socket pair stands for the connection
//! ```
//! A connection that is no unix socket (TCP, with TLS or without) is bridged by a pair too: it ends with the engine.

use std::io;
use std::os::fd::OwnedFd;

use axum::body::Body;
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

/// Multiplexed streams are named as such since this version.
const NAMED: ApiVersion = ApiVersion::new(1, 42);
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
    fn of(upgraded: Upgraded, tasks: &TaskTracker) -> io::Result<Self> {
        let upgraded = match downcast::<TokioIo<UnixStream>>(upgraded) {
            Ok(parts) => {
                return Ok(Self {
                    stream: parts.io.into_inner(),
                    already_read: parts.read_buf.to_vec(),
                });
            }
            Err(upgraded) => upgraded,
        };
        let (stream, mut other) = UnixStream::pair()?;
        tasks.spawn(async move {
            // Either side may hang up; the other one then sees it.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut other).await;
        });
        Ok(Self::pair_end(stream))
    }
}

/// A request whose connection can be taken over.
#[derive(Debug)]
pub struct Hijack {
    upgrade: Option<OnUpgrade>,
}

impl Hijack {
    /// To be called before the request's body is read.
    pub fn of(request: &mut Request<Body>) -> Self {
        let wanted = request.headers().contains_key(header::UPGRADE) && request.version() == http::Version::HTTP_11;
        Self {
            upgrade: wanted.then(|| hyper::upgrade::on(request)),
        }
    }

    /// The answer after which `serve` has the connection. `media` is what an upgraded stream is called.
    pub fn answer<F, S>(self, tasks: &TaskTracker, media: &'static str, rest: Body, serve: S) -> io::Result<Response>
    where
        S: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(upgrade) = self.upgrade else {
            return bridge(tasks, rest, serve);
        };
        let tracker = tasks.clone();
        tasks.spawn(async move {
            let connection = match upgrade.await {
                Ok(upgraded) => Connection::of(upgraded, &tracker),
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

/// For clients that do not ask for an upgrade: what the request's body holds goes in, what comes is the answer's body.
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
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/vnd.docker.raw-stream");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ping pong");
    }
}
