//! Bodies: JSON that is read and written, and archives that stream through.

use std::io::{self, Read};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes};
use ferry_api::image::Message;
use ferry_api::json;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::failure::{Failure, Result};

/// More than any request for a container needs.
pub const JSON_MAX: usize = 16 * 1024 * 1024;

/// An answer in JSON.
pub fn answer<T: Serialize>(status: StatusCode, value: &T) -> Result<Response> {
    written(status, json::body(value))
}

/// The same, of a text that was to become JSON.
pub fn written(status: StatusCode, text: serde_json::Result<Vec<u8>>) -> Result<Response> {
    let json = HeaderValue::from_static("application/json");
    Ok((status, [(header::CONTENT_TYPE, json)], text.map_err(unwritable)?).into_response())
}

pub fn ok<T: Serialize>(value: &T) -> Result<Response> {
    answer(StatusCode::OK, value)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unwritable(error: serde_json::Error) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("write the answer: {error}"))
}

/// A stream of `application/json`, whatever its lines are.
pub fn stream(body: Body) -> Response {
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body,
    )
        .into_response()
}

/// The whole body, bounded; empty for a request without one.
pub async fn collect(body: Body) -> Result<Bytes> {
    match Limited::new(body, JSON_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body is larger than {JSON_MAX} bytes"),
        )),
        Err(error) => Err(Failure::invalid(format!("read the request's body: {error}"))),
    }
}

/// A JSON body; nothing at all is the default, as in moby's `httputils.ReadJSON`.
pub async fn read<T: DeserializeOwned + Default>(request: Request<Body>) -> Result<T> {
    let (parts, body) = request.into_parts();
    let bytes = collect(body).await?;
    check_type(&parts.headers, bytes.is_empty())?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    // Go's decoder takes `null` for the zero value.
    Ok(parse::<Option<T>>(&bytes)?.unwrap_or_default())
}

/// moby's `httputils.CheckForJSON`.
pub fn check_type(headers: &HeaderMap, empty: bool) -> Result<()> {
    let text = headers
        .get(header::CONTENT_TYPE)
        .map_or(Ok(""), HeaderValue::to_str)
        .unwrap_or("?");
    let media = text.split(';').next().unwrap_or_default().trim();
    match media {
        "" if empty => Ok(()),
        "" => Err(Failure::invalid(format!(
            "malformed Content-Type header ({text}): mime: no media type"
        ))),
        media if media.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Failure::invalid(format!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        ))),
    }
}

/// One JSON value; errors as much in Go's words as serde knows.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::invalid("invalid JSON: got EOF while reading request body"));
    }
    json::from_slice(bytes).map_err(|error| match error {
        error if error.is_eof() => Failure::invalid("invalid JSON: unexpected EOF"),
        error if error.is_syntax() && error.to_string().starts_with("trailing characters") => {
            Failure::invalid("unexpected content after JSON")
        }
        error => Failure::invalid(format!("invalid JSON: {error}")),
    })
}

/// A request's body for code that blocks: reading waits, off the runtime's workers, for what the client sends.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    handle: Handle,
    current: Bytes,
}

impl Upload {
    /// Waits for the first bytes, so that a client that wants `100 Continue` gets it before the answer begins. To be read on a
    /// blocking thread only.
    pub async fn begin(mut body: Body) -> Result<Self> {
        let current = match body.frame().await {
            None => Bytes::new(),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(Failure::invalid(format!("read the request's body: {error}"))),
        };
        Ok(Self {
            body,
            handle: Handle::current(),
            current,
        })
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.handle.block_on(self.body.frame()) {
                None => return Ok(0),
                Some(Ok(frame)) => self.current = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// How many lines may wait for a client that reads slowly.
const LINES: usize = 64;

/// Lines of progress from code that blocks, as the answer's body.
pub fn lines() -> (Lines, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES);
    let lines = ReceiverStream::new(receiver).map(Ok::<_, io::Error>);
    (Lines { sender }, Body::from_stream(lines))
}

#[derive(Debug)]
pub struct Lines {
    sender: mpsc::Sender<Bytes>,
}

impl Lines {
    /// A client that has gone misses it.
    pub fn send(&self, message: &Message) {
        let _ = self.sender.blocking_send(line(message).into());
    }
}

/// A message as docker ends it.
pub fn line(message: &Message) -> Vec<u8> {
    let mut line = json::message(message).unwrap_or_default();
    line.pop();
    line.extend_from_slice(b"\r\n");
    line
}

/// Work on a thread of its own: how long it takes is the client's choice, and the runtime's threads are few.
pub fn aside(what: &'static str, work: impl FnOnce() + Send + 'static) {
    let working = ferry_build::aside(what, work);
    tokio::spawn(async move {
        if let Err(error) = working.await {
            tracing::error!(%error, "a client was not served");
        }
    });
}

/// Pieces that may wait for a client that reads slowly.
const PIECES: usize = 4;

/// An archive from code that blocks, as the answer's body. It ends well only if [`Download::finish`] is told so.
pub fn download() -> (Download, Response) {
    let (sender, receiver) = mpsc::channel::<Piece>(PIECES);
    let pieces = futures_util::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::End(Ok(()))) => None,
            Some(Piece::End(Err(why))) => Some((Err(io::Error::other(why)), None)),
            None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"))];
    (
        Download { sender },
        (headers, Body::from_stream(pieces)).into_response(),
    )
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End(std::result::Result<(), String>),
}

#[derive(Debug)]
pub struct Download {
    sender: mpsc::Sender<Piece>,
}

impl Download {
    /// Ends the answer: after a failure in the middle of it, so that the client notices.
    pub fn finish(self, outcome: std::result::Result<(), String>) {
        // A client that has gone misses it.
        let _ = self.sender.blocking_send(Piece::End(outcome));
    }
}

impl io::Write for &Download {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.sender.blocking_send(Piece::Bytes(piece)) {
            Ok(()) => Ok(bytes.len()),
            // The client has gone.
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn message(text: &str) -> String {
        parse::<Value>(text.as_bytes()).unwrap_err().message
    }

    #[test]
    fn json_is_refused_in_dockers_words() {
        assert_eq!(message(""), "invalid JSON: got EOF while reading request body");
        assert_eq!(message(" \n"), "invalid JSON: got EOF while reading request body");
        assert_eq!(message("{"), "invalid JSON: unexpected EOF");
        assert_eq!(message("{}{}"), "unexpected content after JSON");
        assert_eq!(message("{} x"), "unexpected content after JSON");
        assert!(parse::<Value>(b"{} \n").is_ok());
    }

    #[test]
    fn content_types_are_checked_as_docker_does() {
        let check = |text: Option<&str>, empty| {
            let mut headers = HeaderMap::new();
            headers.extend(text.map(|text| (header::CONTENT_TYPE, text.parse().unwrap())));
            check_type(&headers, empty).map_err(|failure| failure.message)
        };
        assert_eq!(check(None, true), Ok(()));
        assert_eq!(check(Some("application/json; charset=utf-8"), false), Ok(()));
        assert_eq!(
            check(None, false),
            Err("malformed Content-Type header (): mime: no media type".into())
        );
        let plain = "unsupported Content-Type header (text/plain): must be 'application/json'";
        assert_eq!(check(Some("text/plain"), false), Err(plain.into()));
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused() {
        let failure = collect(Body::from(vec![b' '; JSON_MAX + 1])).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_archive_ends_well_only_if_it_was_told_to() {
        use http_body_util::BodyExt as _;
        for (outcome, ends_well) in [(Some(Ok(())), true), (Some(Err("no".to_owned())), false), (None, false)] {
            let (download, response) = download();
            aside("write an archive", move || {
                io::Write::write_all(&mut &download, b"piece").unwrap();
                if let Some(outcome) = outcome {
                    download.finish(outcome);
                }
            });
            assert_eq!(response.into_body().collect().await.is_ok(), ends_well);
        }
    }

    #[tokio::test]
    async fn an_upload_reads_in_pieces_of_any_size() {
        let pieces = ["ab", "", "cde"].map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
        let mut upload = Upload::begin(Body::from_stream(futures_util::stream::iter(pieces)))
            .await
            .unwrap();
        let text = tokio::task::spawn_blocking(move || {
            let mut first = [0; 1];
            upload.read_exact(&mut first).unwrap();
            let mut rest = String::new();
            upload.read_to_string(&mut rest).unwrap();
            (first, rest)
        });
        assert_eq!(text.await.unwrap(), ([b'a'], "bcde".to_owned()));
    }
}
