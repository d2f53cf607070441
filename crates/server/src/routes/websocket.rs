//! Attach over a websocket: what a browser has instead of a connection that it can take over.

use std::io;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use ferry_api::frame::Decoder;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use super::attach;
use crate::App;
use crate::failure::{Failure, Result};
use crate::hijack::Connection;
use crate::query::Query;

/// One read of what the container says.
const CHUNK: usize = 32 * 1024;
/// One message of a client's, which is what somebody types or pastes.
const MESSAGE_MAX: usize = 1024 * 1024;

/// Both outputs come as they are, without frames, each piece a binary message; every message of the client's is input.
pub async fn attach(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|rejection| Failure::new(rejection.status(), rejection.body_text()))?;
    let attachment = app.engine.containers.attach(&id, &attach::options(&query)).await?;
    let tty = attachment.tty;
    let (theirs, ours) = UnixStream::pair().map_err(|error| attach::cannot_take_over(&error))?;
    let tasks = app.tasks.clone();
    let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        tasks.spawn(async move { attach::serve(attachment, Connection::pair_end(theirs), &id).await });
        bridge(socket, ours, tty).await;
    }))
}

/// Until the container has said its last, or the client is gone.
async fn bridge(socket: WebSocket, container: UnixStream, tty: bool) {
    let (mut to_client, mut from_client) = socket.split();
    let (output, input) = container.into_split();
    let say = async {
        let done = say(output, tty, &mut to_client).await;
        let _ = to_client.close().await;
        done
    };
    let listen = async {
        // None when the container takes no more of it; the client may go on watching.
        let mut input = Some(input);
        while let Some(Ok(message)) = from_client.next().await {
            let bytes = match message {
                Message::Text(text) => Bytes::from(text),
                Message::Binary(bytes) => bytes,
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => break,
            };
            if let Some(open) = &mut input
                && open.write_all(&bytes).await.is_err()
            {
                input = None;
            }
        }
    };
    tokio::select! {
        done = say => if let Err(error) = done {
            tracing::debug!(%error, "a websocket has ended");
        },
        () = listen => {}
    }
}

async fn say(
    mut output: OwnedReadHalf,
    tty: bool,
    client: &mut (impl futures_util::Sink<Message, Error = axum::Error> + Unpin),
) -> io::Result<()> {
    let mut frames = Decoder::default();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        if output.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        let payload = match tty {
            true => chunk,
            false => {
                let mut payload = Vec::with_capacity(chunk.len());
                let mut rest = &chunk[..];
                while let Some(frame) = frames.next(&mut rest).map_err(io::Error::other)? {
                    payload.extend_from_slice(frame.payload);
                }
                payload
            }
        };
        if !payload.is_empty() {
            let message = Message::Binary(Bytes::from(payload));
            client.send(message).await.map_err(io::Error::other)?;
        }
    }
}
