//! A container's log as a stream.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ferry_api::frame::{Frame, Stream};
use ferry_engine::logs::{Entry, Query as LogQuery};
use http::{HeaderValue, header};

use crate::App;
use crate::failure::{Failure, Result};
use crate::hijack::media_type;
use crate::query::{Query, Version};

/// How lines look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    pub tty: bool,
    pub timestamps: bool,
    /// Attributes before each line; without any, a blank is what is left of them.
    pub details: bool,
}

pub async fn logs(
    State(app): State<App>,
    Path(id): Path<String>,
    Version(version): Version,
    query: Query,
) -> Result<Response> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    let wanted = LogQuery {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: query.time("since")?,
        until: query.time("until")?.filter(|_| query.text("until") != "0"),
        // What is no number, and what is negative, is all.
        tail: query.text("tail").parse().ok(),
    };
    let logs = app.engine.containers.logs(&id, wanted).await?;
    let look = Look {
        tty: logs.tty,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let closing = app.closing.clone();
    let pieces = futures_util::stream::unfold((logs, closing), move |(mut logs, closing)| async move {
        let entries = tokio::select! {
            entries = logs.next() => entries.transpose()?,
            () = closing.cancelled() => return None,
        };
        Some((
            entries.map(|entries| Bytes::from(encode(&entries, &look))),
            (logs, closing),
        ))
    });
    let media = HeaderValue::from_static(media_type(look.tty, version));
    Ok(([(header::CONTENT_TYPE, media)], Body::from_stream(pieces)).into_response())
}

/// Lines as Docker sends them (moby `httputils.WriteLogStream`): one frame each, or as they are from a terminal.
pub fn encode(entries: &[Entry], look: &Look) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut line = Vec::with_capacity(entry.line.len());
        if look.timestamps {
            line = format!("{} ", entry.at.0.strftime("%Y-%m-%dT%H:%M:%S.%9fZ")).into_bytes();
        }
        if look.details {
            line.extend_from_slice(details(entry).as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(&entry.line);
        let stream = if entry.stderr { Stream::Stderr } else { Stream::Stdout };
        match look.tty {
            true => bytes.extend_from_slice(&line),
            false => Frame { stream, payload: &line }.encode(&mut bytes),
        }
    }
    bytes
}

/// `key=value` pairs, escaped as in a query.
fn details(entry: &Entry) -> String {
    let escaped = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pairs = entry.attributes.iter();
    let pairs: Vec<_> = pairs
        .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stderr: bool, line: &str) -> Entry {
        let at = "2026-11-22T04:48:18.1Z".parse().unwrap();
        Entry {
            stderr,
            at,
            line: line.as_bytes().to_owned(),
            attributes: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn lines_are_framed_by_stream_unless_there_is_a_terminal() {
        let entries = [line(false, "a\n"), line(true, "b")];
        assert_eq!(
            encode(&entries, &Look::default()),
            b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x01b"
        );
        assert_eq!(
            encode(
                &entries,
                &Look {
                    tty: true,
                    ..Look::default()
                }
            ),
            b"a\nb"
        );
    }

    #[test]
    fn timestamps_have_nine_digits_and_details_leave_a_blank() {
        let look = Look {
            tty: true,
            timestamps: true,
            details: true,
        };
        assert_eq!(
            encode(&[line(false, "a\n")], &look),
            b"2026-11-22T04:48:18.100000000Z  a\n"
        );
    }
}
