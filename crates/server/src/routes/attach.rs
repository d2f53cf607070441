//! Attach: the client's connection goes to the container's shim.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use ferry_engine::container::{AttachOptions, Attachment};
use http::{Request, StatusCode};

use super::logs::{Look, encode};
use crate::App;
use crate::failure::{Failure, Result};
use crate::hijack::{Connection, Hijack, media_type};
use crate::query::{Query, Version};

pub async fn attach(
    State(app): State<App>,
    Path(id): Path<String>,
    Version(version): Version,
    query: Query,
    mut request: Request<Body>,
) -> Result<Response> {
    let hijack = Hijack::of(&mut request);
    let attachment = app.engine.containers.attach(&id, &options(&query)).await?;
    let media = media_type(attachment.tty, version);
    let serve = move |connection| async move { serve(attachment, connection, &id).await };
    hijack
        .answer(&app.tasks, media, request.into_body(), serve)
        .await
        .map_err(|error| cannot_take_over(&error))
}

pub fn options(query: &Query) -> AttachOptions {
    AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs") && (query.flag("stdout") || query.flag("stderr")),
        stream: query.flag("stream"),
        detach_keys: query.given("detachKeys").map(str::to_owned),
    }
}

/// Gives the container its client, after what its log has.
pub async fn serve(mut attachment: Attachment, mut connection: Connection, id: &str) {
    if let Some(mut replay) = attachment.replay.take() {
        connection.answered().await;
        loop {
            match replay.next().await {
                Ok(Some(entries)) => {
                    let bytes = encode(
                        &entries,
                        &Look {
                            tty: attachment.tty,
                            ..Look::default()
                        },
                    );
                    if connection.send(&bytes).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(container = id, %error, "cannot replay the log");
                    break;
                }
            }
        }
    }
    if !attachment.stream {
        return;
    }
    match connection.into_parts() {
        Ok((connection, already_read)) => attachment.connect(connection, already_read),
        Err(error) => tracing::warn!(container = id, %error, "cannot take the connection over"),
    }
}

pub fn cannot_take_over(error: &std::io::Error) -> Failure {
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("take the connection over: {error}"),
    )
}
