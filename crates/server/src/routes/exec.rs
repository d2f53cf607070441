//! Execs.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use ferry_api::exec::{Create, Start};
use ferry_api::frame::{Frame, Stream};
use ferry_engine::container::ExecStart;
use http::{Request, StatusCode};

use super::attach::cannot_take_over;
use crate::failure::{Failure, Result};
use crate::hijack::{Connection, Hijack, media_type};
use crate::query::{Query, Version};
use crate::{App, body};

pub async fn create(State(app): State<App>, Path(id): Path<String>, request: Request<Body>) -> Result<Response> {
    let create: Create = body::read(request).await?;
    if create.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::invalid("No exec command specified"));
    }
    body::answer(
        StatusCode::CREATED,
        &app.engine.containers.exec_create(&id, create).await?,
    )
}

pub async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    Version(version): Version,
    mut request: Request<Body>,
) -> Result<Response> {
    let hijack = Hijack::of(&mut request);
    let start: Start = body::read(request).await?;
    let exec = app.engine.containers.exec_start(&id, &start)?;
    if exec.detach {
        exec.run(None).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let media = media_type(exec.tty, version);
    // The request's body was the JSON.
    let serve = move |connection| async move { serve(exec, connection, &id).await };
    hijack
        .answer(&app.tasks, media, Body::empty(), serve)
        .await
        .map_err(|error| cannot_take_over(&error))
}

/// Runs it with the client's connection; that it did not start is said on the stream, as the answer has begun.
async fn serve(exec: ExecStart, connection: Connection, id: &str) {
    let tty = exec.tty;
    let parts = connection
        .into_parts()
        .and_then(|(fd, already_read)| Ok((fd.try_clone()?, fd, already_read)));
    let (spare, fd, already_read) = match parts {
        Ok(parts) => parts,
        Err(error) => {
            tracing::warn!(exec = id, %error, "cannot take the connection over");
            return;
        }
    };
    if let Err(error) = exec.run(Some((fd, already_read))).await {
        tell(spare, tty, &error.message);
    }
}

/// One short message fits into an empty socket.
fn tell(connection: OwnedFd, tty: bool, message: &str) {
    let text = format!("{message}\r\n");
    let mut bytes = Vec::new();
    match tty {
        true => bytes.extend_from_slice(text.as_bytes()),
        false => Frame {
            stream: Stream::Stdout,
            payload: text.as_bytes(),
        }
        .encode(&mut bytes),
    }
    let _ = std::os::unix::net::UnixStream::from(connection).write_all(&bytes);
}

pub async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    body::ok(&app.engine.containers.exec_inspect(&id)?)
}

pub async fn resize(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (rows, columns) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
    app.engine.containers.exec_resize(&id, rows, columns).await?;
    Ok(StatusCode::OK.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_failed_start_is_said_on_the_stream() {
        for (tty, expected) in [(true, &b"no\r\n"[..]), (false, b"\x01\0\0\0\0\0\0\x04no\r\n")] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            tell(theirs.into(), tty, "no");
            let mut bytes = Vec::new();
            ours.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, expected);
        }
    }
}
