//! A content store of the client's: a cache in one of its directories, as containerd's service of contents.

use bytes::Bytes;
use ferry_build::session::{BoxFuture, ContentStore};
use ferry_build::{Error, Result};
use ferry_buildkit::Message;
use ferry_buildkit::content::{
    InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use ferry_buildkit::session::{self as calls, metadata};
use ferry_image::Digest;
use ferry_kit::Id;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status, Streaming};

use super::caller::Caller;
use super::session::refused;
use super::streams;

/// Bytes in one message.
const CHUNK: usize = 256 * 1024;

/// A store, by the name that the client's session has for it.
#[derive(Debug)]
pub struct Content {
    caller: Caller,
    name: MetadataValue<tonic::metadata::Ascii>,
}

impl Content {
    pub fn new(caller: Caller, name: &str) -> Result<Self> {
        let wrong = |_| {
            Error::invalid(format!(
                "the directory {name:?}: its name cannot be sent; use plain letters"
            ))
        };
        Ok(Self {
            caller,
            name: MetadataValue::try_from(name).map_err(wrong)?,
        })
    }

    async fn call<Q, A>(
        &self,
        path: &'static str,
        questions: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut about = MetadataMap::new();
        about.insert(metadata::STORE, self.name.clone());
        self.caller.stream(path, about, questions).await
    }

    async fn info(&self, digest: &Digest) -> Result<Option<u64>, Status> {
        let question = InfoRequest {
            digest: digest.to_string(),
        };
        let asked = futures_util::stream::iter([question]);
        let mut answers = self.call::<_, InfoResponse>(calls::CONTENT_INFO, asked).await?;
        let info = answers.message().await?.and_then(|answer| answer.info);
        Ok(info.and_then(|info| u64::try_from(info.size).ok()))
    }

    async fn send(&self, digest: &Digest, size: u64, content: impl AsyncRead + Send + 'static) -> Result<(), Status> {
        let (reference, expected) = (format!("ferry-{}", Id::random()), digest.to_string());
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let message = move |action: WriteAction, offset: i64, data: Bytes| WriteContentRequest {
            action: action.into(),
            r#ref: reference.clone(),
            total,
            expected: expected.clone(),
            offset,
            data,
        };
        let last = message.clone();
        let mut offset = 0;
        let pieces = ReaderStream::with_capacity(content, CHUNK)
            // One that cannot be read is cut off: the client has no whole content then, and says so.
            .take_while(|piece| std::future::ready(piece.is_ok()))
            .filter_map(|piece| std::future::ready(piece.ok()))
            .map(move |piece| {
                let at = offset;
                offset += i64::try_from(piece.len()).unwrap_or_default();
                message(WriteAction::Write, at, piece)
            });
        let end = futures_util::stream::once(async move { last(WriteAction::Commit, total, Bytes::new()) });
        let mut answers = self
            .call::<_, WriteContentResponse>(calls::CONTENT_WRITE, pieces.chain(end))
            .await?;
        while let Some(answer) = answers.message().await? {
            if answer.action() == WriteAction::Commit {
                return Ok(());
            }
        }
        Err(Status::aborted("the client did not take all of it"))
    }
}

impl ContentStore for Content {
    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            match self.info(digest).await {
                Ok(size) => Ok(size),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(refused(
                    &format!("look for {digest} in the client's directory"),
                    &status,
                )),
            }
        })
    }

    fn read<'a>(&'a self, digest: &'a Digest, offset: u64) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            let question = ReadContentRequest {
                digest: digest.to_string(),
                offset: i64::try_from(offset).unwrap_or(i64::MAX),
                size: 0,
            };
            let asked = futures_util::stream::iter([question]);
            let answers = self.call::<_, ReadContentResponse>(calls::CONTENT_READ, asked).await;
            let answers =
                answers.map_err(|status| refused(&format!("read {digest} in the client's directory"), &status))?;
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(streams::reader(answers, |answer| answer.data));
            Ok(reader)
        })
    }

    fn write<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        content: Box<dyn AsyncRead + Send + Unpin>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.send(digest, size, content).await {
                Ok(()) => Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => Ok(()),
                Err(status) => Err(refused(&format!("write {digest} to the client's directory"), &status)),
            }
        })
    }

    /// The client does it itself when it is told the cache's manifest.
    fn publish<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
