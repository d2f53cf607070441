//! Directories from clients and to them: fsutil's ends, which block on files, and the calls between them.

use std::time::{Duration, Instant};

use ferry_build::progress::Status as Progress;
use ferry_build::{Error, Result, aside};
use ferry_buildkit::fsutil::{self, Limits, Packet, Receiver, Sender};
use ferry_buildkit::session::{FILES, RESULT};
use ferry_sys::Root;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::caller::Caller;
use super::session::refused;

/// Packets that may wait, each way. More than a receiver asks for at a time.
const WAITING: usize = 256;
/// How often is told how far it is.
const TELL: Duration = Duration::from_millis(100);

fn failure(error: &fsutil::Error) -> Error {
    match error {
        fsutil::Error::Protocol(_) | fsutil::Error::Remote(_) => Error::Invalid(error.to_string()),
        fsutil::Error::Io { source, .. } => Error::Internal(format!("{error}: {source}")),
    }
}

/// Makes `root` what the client has.
pub async fn receive(
    caller: &Caller,
    about: MetadataMap,
    root: Root,
    name: &str,
    report: &(dyn Fn(Progress) + Send + Sync),
) -> Result<()> {
    let (to_client, outgoing) = mpsc::channel(WAITING);
    let (to_writer, mut incoming) = mpsc::channel::<Packet>(WAITING);
    let (told, mut how_far) = watch::channel(0);
    let writing = aside("write a client's files", move || {
        let mut receiver = Receiver::new(root, Limits::default())?;
        let mut packets = Vec::new();
        while let Some(packet) = incoming.blocking_recv() {
            match receiver.take(packet, &mut packets) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    let _ = to_client.blocking_send(Packet::failure(&error.to_string()));
                    return Err(error);
                }
            }
            for packet in packets.drain(..) {
                if to_client.blocking_send(packet).is_err() {
                    return Ok(false);
                }
            }
            told.send_replace(receiver.received());
        }
        // The client has ended before the directory was there.
        Ok(false)
    });
    let mut progress = Progress {
        id: format!("transferring {name}:"),
        started: Some(Timestamp::now()),
        ..Progress::default()
    };
    report(progress.clone());
    let reading = async {
        let mut coming = caller
            .stream::<_, Packet>(FILES, about, ReceiverStream::new(outgoing))
            .await?;
        let mut last = Instant::now();
        while let Some(packet) = coming.message().await? {
            if to_writer.send(packet).await.is_err() {
                break;
            }
            if last.elapsed() > TELL {
                last = Instant::now();
                progress.current = *how_far.borrow_and_update();
                report(progress.clone());
            }
        }
        Ok::<_, Status>(())
    };
    let read = reading.await;
    drop(to_writer);
    let written = writing.await?;
    progress.current = *how_far.borrow();
    progress.completed = Some(Timestamp::now());
    report(progress);
    match (written, read) {
        (Ok(true), _) => Ok(()),
        (Err(error), _) => Err(failure(&error)),
        (Ok(false), Err(status)) => Err(refused(
            &format!("the client does not send its directory {name}"),
            &status,
        )),
        (Ok(false), Ok(())) => Err(Error::invalid(format!(
            "the client ended before its directory {name} was there"
        ))),
    }
}

/// Gives a client the files of a tree.
pub async fn send(caller: &Caller, about: MetadataMap, tree: Root) -> Result<()> {
    let (to_client, outgoing) = mpsc::channel(WAITING);
    let (to_reader, mut incoming) = mpsc::channel::<Packet>(WAITING);
    let reading = aside("read a result's files", move || {
        let mut sender = Sender::new(tree);
        let mut send = |packet| {
            let sent = to_client.blocking_send(packet);
            sent.map_err(|_| fsutil::Error::Remote("the client takes no more files".to_owned()))
        };
        sender.list(&mut send)?;
        while let Some(packet) = incoming.blocking_recv() {
            if sender.take(&packet, &mut send)? {
                return Ok(());
            }
        }
        Err(fsutil::Error::Remote(
            "the client ended before it had all files".to_owned(),
        ))
    });
    let writing = async {
        let mut coming = caller
            .stream::<_, Packet>(RESULT, about, ReceiverStream::new(outgoing))
            .await?;
        while let Some(packet) = coming.message().await? {
            if to_reader.send(packet).await.is_err() {
                break;
            }
        }
        // To the end, which says how it came out.
        while coming.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let written = writing.await;
    drop(to_reader);
    let read = reading.await?;
    if let Err(status) = written {
        return Err(refused("the client does not take the files", &status));
    }
    read.map_err(|error| failure(&error))
}
