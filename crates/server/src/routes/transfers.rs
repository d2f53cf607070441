//! Pull and push: an engine's steps become Docker's messages while they happen.

use std::future::Future;
use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use ferry_api::image::{Aux, Descriptor, Message, Platform, Progress};
use ferry_engine::images::{LayerState, Reporter, Step, Steps};
use ferry_kit::units;
use tokio_util::task::AbortOnDropHandle;

use crate::body;
use crate::failure::{Failure, Result};

/// Answers with the steps of `work`, which ends when the client goes. What fails before the first step has a status of its own.
pub async fn answer<F, W>(work: F) -> Result<Response>
where
    F: FnOnce(Reporter) -> W,
    W: Future<Output = ferry_engine::Result<()>> + Send + 'static,
{
    let (reporter, mut steps) = Reporter::new();
    let mut task = AbortOnDropHandle::new(tokio::spawn(work(reporter)));
    let first = steps.recv().await;
    if first.is_none() {
        // The reporter is gone, and so is the work.
        outcome((&mut task).await)?;
    }
    let running = Running {
        steps,
        task: Some(task),
        waiting: first.map(lines).unwrap_or_default(),
    };
    let lines = futures_util::stream::unfold(running, |mut running| async move {
        let bytes = running.next().await?;
        Some((Ok::<_, io::Error>(bytes), running))
    });
    Ok(body::stream(Body::from_stream(lines)))
}

#[derive(Debug)]
struct Running {
    steps: Steps,
    task: Option<AbortOnDropHandle<ferry_engine::Result<()>>>,
    waiting: Vec<u8>,
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.waiting.is_empty() {
            return Some(std::mem::take(&mut self.waiting).into());
        }
        if let Some(step) = self.steps.recv().await {
            return Some(lines(step).into());
        }
        match outcome(self.task.take()?.await) {
            Ok(()) => None,
            Err(failure) => Some(body::line(&Message::error(failure.message)).into()),
        }
    }
}

fn outcome(done: std::result::Result<ferry_engine::Result<()>, tokio::task::JoinError>) -> Result<()> {
    match done {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(Failure::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("the transfer ended: {error}"),
        )),
    }
}

fn lines(step: Step) -> Vec<u8> {
    messages(step).iter().flat_map(body::line).collect()
}

/// Docker's words (moby 28.5 `distribution`).
fn messages(step: Step) -> Vec<Message> {
    let one = |status: String| vec![Message::status(status)];
    match step {
        Step::Pulling { repository, tag } => vec![Message {
            id: tag,
            ..Message::status(format!("Pulling from {repository}"))
        }],
        Step::Pushing { repository } => one(format!("The push refers to repository [{repository}]")),
        Step::Layer { id, state } => layer(&id, state),
        Step::Digest(digest) => one(format!("Digest: {digest}")),
        Step::Pulled { reference, newer: true } => one(format!("Status: Downloaded newer image for {reference}")),
        Step::Pulled {
            reference,
            newer: false,
        } => one(format!("Status: Image is up to date for {reference}")),
        Step::Pushed { tag, digest, size } => {
            let size = signed(size);
            vec![
                Message::status(format!("{tag}: digest: {digest} size: {size}")),
                Message {
                    progress: Some(Progress::default()),
                    aux: Some(Aux::Pushed {
                        tag,
                        digest: digest.to_string(),
                        size,
                    }),
                    ..Message::default()
                },
            ]
        }
        Step::OnlyPlatform { index, selected } => vec![Message {
            progress: Some(Progress::default()),
            aux: Some(Aux::OnlyPlatform {
                manifest_pushed_instead_of_index: true,
                original_index: Box::new(shown(*index)),
                selected_manifest: Box::new(shown(*selected)),
            }),
            ..Message::default()
        }],
        Step::OtherPlatform {
            reference,
            found,
            wanted,
        } => one(format!(
            "WARNING: image with reference {reference} was found but its platform ({found}) does not match the specified \
             platform ({wanted})"
        )),
    }
}

fn shown(descriptor: ferry_engine::images::Descriptor) -> Descriptor {
    let platform = descriptor.platform.map(|platform| Platform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version.unwrap_or_default(),
        os_features: platform.os_features.unwrap_or_default(),
        variant: platform.variant.unwrap_or_default(),
    });
    Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        urls: descriptor.urls,
        annotations: descriptor.annotations,
        platform,
        artifact_type: descriptor.artifact_type.unwrap_or_default(),
        ..Descriptor::default()
    }
}

fn layer(id: &str, state: LayerState) -> Vec<Message> {
    let message = |status: String| Message {
        id: id.to_owned(),
        progress: Some(Progress::default()),
        ..Message::status(status)
    };
    let plain = |status: &str| vec![message(status.to_owned())];
    let moving = |status: &str, current, total| {
        vec![Message {
            progress: Some(Progress {
                current: signed(current),
                total: signed(total),
                ..Progress::default()
            }),
            progress_message: bar(current, total),
            ..message(status.to_owned())
        }]
    };
    match state {
        LayerState::Wanted => plain("Pulling fs layer"),
        LayerState::Exists => plain("Already exists"),
        LayerState::Fetching { current, total } => moving("Downloading", current, total),
        LayerState::Fetched => vec![
            message("Verifying Checksum".to_owned()),
            message("Download complete".to_owned()),
        ],
        LayerState::Unpacked => plain("Pull complete"),
        LayerState::Preparing => plain("Preparing"),
        LayerState::Sending { current, total } => moving("Pushing", current, total),
        LayerState::Sent => plain("Pushed"),
        LayerState::Kept => plain("Layer already exists"),
        LayerState::Mounted { from } => plain(&format!("Mounted from {from}")),
    }
}

pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `[==>   ]  1.2MB/3.4MB`, 50 wide (moby `jsonmessage`).
pub fn bar(current: u64, total: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let size = |bytes: u64| units::human_size(bytes as f64);
    if total == 0 || current > total {
        return format!("{:>8}", size(current));
    }
    let done = usize::try_from(u128::from(current) * 50 / u128::from(total)).unwrap_or(50);
    let arrow = format!("{}>", "=".repeat(done));
    format!("[{arrow:<51}] {:>8}/{}", size(current), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(step: Step) -> String {
        String::from_utf8(lines(step)).unwrap()
    }

    #[test]
    fn progress_is_drawn_as_docker_draws_it() {
        assert_eq!(bar(0, 100), format!("[>{}]       0B/100B", " ".repeat(50)));
        assert_eq!(
            bar(50, 100),
            format!("[{}>{}]      50B/100B", "=".repeat(25), " ".repeat(25))
        );
        assert_eq!(bar(100, 100), format!("[{}>]     100B/100B", "=".repeat(50)));
        assert_eq!(bar(3, 0), "      3B");
    }

    #[test]
    fn steps_are_dockers_lines() {
        let of = |state| {
            text(Step::Layer {
                id: "cd18ed06467e".to_owned(),
                state,
            })
        };
        assert_eq!(
            text(Step::Pulling {
                repository: "team/app".to_owned(),
                tag: "1".to_owned()
            }),
            "{\"status\":\"Pulling from team/app\",\"id\":\"1\"}\r\n"
        );
        assert_eq!(
            of(LayerState::Wanted),
            "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"cd18ed06467e\"}\r\n"
        );
        assert_eq!(
            of(LayerState::Fetching {
                current: 36445,
                total: 1_137_031
            }),
            "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":36445,\"total\":1137031},\"progress\":\"[=\\u003e                                                 ]  36.45kB/1.137MB\",\"id\":\"cd18ed06467e\"}\r\n"
        );
        let digest: ferry_image::Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(
            text(Step::Pushed {
                tag: "1".to_owned(),
                digest: digest.clone(),
                size: 950
            }),
            format!(
                "{{\"status\":\"1: digest: {digest} size: 950\"}}\r\n{{\"progressDetail\":{{}},\"aux\":{{\"Tag\":\"1\",\"Digest\":\"{digest}\",\"Size\":950}}}}\r\n"
            )
        );
    }
}
