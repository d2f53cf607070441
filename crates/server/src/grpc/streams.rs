//! Bytes in messages of a call, as streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ferry_buildkit::Message;
use ferry_buildkit::filesync::BytesMessage;
use ferry_buildkit::session::RESULT;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::PollSender;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::caller::Caller;

/// Messages that may wait to be sent.
const WAITING: usize = 16;
/// Bytes in one.
const CHUNK: usize = 64 * 1024;

/// What comes, read.
pub fn reader<M>(coming: Streaming<M>, data: fn(M) -> Bytes) -> impl AsyncRead + Send + Unpin
where
    M: Message + Default + 'static,
{
    StreamReader::new(coming.map(move |message| message.map(data).map_err(io::Error::other)))
}

/// What is read, to be sent. Ends with it, or with its failure.
pub fn messages<M: Send + 'static>(
    reader: impl AsyncRead + Send + 'static,
    message: impl Fn(Bytes) -> M + Send + 'static,
) -> impl Stream<Item = M> + Send + 'static {
    ReaderStream::with_capacity(reader, CHUNK)
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| std::future::ready(piece.ok()))
        .map(message)
}

/// Writes what comes, to the end of one of both.
pub async fn pump<M>(mut coming: Streaming<M>, data: fn(M) -> Bytes, mut writer: impl AsyncWrite + Unpin)
where
    M: Message + Default + 'static,
{
    while let Ok(Some(message)) = coming.message().await {
        if writer.write_all(&data(message)).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// An archive on its way to a client. Its shutdown waits until the client has all of it.
#[derive(Debug)]
pub struct Archive {
    sender: PollSender<BytesMessage>,
    sending: JoinHandle<Result<(), Status>>,
}

impl Archive {
    pub fn new(caller: Caller, about: MetadataMap) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let sending = tokio::spawn(async move {
            let pieces = ReceiverStream::new(receiver);
            let mut answer = caller.stream::<_, BytesMessage>(RESULT, about, pieces).await?;
            while answer.message().await?.is_some() {}
            Ok(())
        });
        Self {
            sender: PollSender::new(sender),
            sending,
        }
    }

    /// Why the client takes no more.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sending).poll(context).map(|ended| match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(io::Error::other(status.message().to_owned())),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

impl AsyncWrite for Archive {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = &bytes[..bytes.len().min(CHUNK)];
        match self.sender.poll_reserve(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                let message = BytesMessage {
                    data: Bytes::copy_from_slice(piece),
                };
                match self.sender.send_item(message) {
                    Ok(()) => Poll::Ready(Ok(piece.len())),
                    Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            Poll::Ready(Err(_)) => self.poll_end(context).map(|ended| {
                ended?;
                Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the client takes no more of the archive",
                ))
            }),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.close();
        self.poll_end(context)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // Half an archive is none.
        self.sending.abort();
    }
}
