//! An OCI layout in a directory of the client's: read by its descriptor where that came along, else by asking; written by the client.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use ferry_build::session::{BoxFuture, ContentStore};
use ferry_build::wire::{Answer, Asked, Question, Talk, WRITTEN};
use ferry_build::{Error, Result};
use ferry_image::Digest;
use ferry_sys::Root;
use rustix::fs::{FileType, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, DuplexStream};

use super::talk::failed;

/// The most bytes of what a client says to a content.
const SAID: u64 = 4096;

#[derive(Debug)]
pub struct Layout {
    talk: Talk,
    name: String,
    root: Option<Root>,
}

impl Layout {
    pub fn new(talk: Talk, name: &str, root: Option<Root>) -> Self {
        Self {
            talk,
            name: name.to_owned(),
            root,
        }
    }

    async fn ask(&self, asked: Asked) -> Result<(Answer, ferry_build::wire::Opened)> {
        let question = Question::Store {
            name: self.name.clone(),
            asked,
        };
        match self.talk.ask(question).await.map_err(failed("ask the client"))? {
            (Answer::Failed(why), _) => Err(Error::Invalid(why)),
            answer => Ok(answer),
        }
    }

    async fn stream(&self, asked: Asked) -> Result<Option<DuplexStream>> {
        match self.ask(asked).await? {
            (Answer::Open, opened) => Ok(Some(opened.stream())),
            _ => Ok(None),
        }
    }
}

/// A content of a directory that came along; `None` if it has none.
fn open(root: &Root, digest: &Digest) -> io::Result<Option<(File, u64)>> {
    let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.encoded());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: OwnedFd = match root.resolve_no_links(&path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no file"));
    }
    Ok(Some((File::from(file), u64::try_from(stat.st_size).unwrap_or(0))))
}

fn missing(digest: &Digest) -> Error {
    Error::NotFound(format!("{digest}: not found in the client's directory"))
}

impl ContentStore for Layout {
    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            if let Some(root) = &self.root {
                let opened = open(root, digest).map_err(|error| unreadable(digest, &error))?;
                return Ok(opened.map(|(_, size)| size));
            }
            match self.ask(Asked::Size(digest.clone())).await? {
                (Answer::Size(size), _) => Ok(Some(size)),
                _ => Ok(None),
            }
        })
    }

    fn read<'a>(&'a self, digest: &'a Digest, offset: u64) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            if let Some(root) = &self.root {
                let opened = open(root, digest).map_err(|error| unreadable(digest, &error))?;
                let (file, _) = opened.ok_or_else(|| missing(digest))?;
                let mut file = tokio::fs::File::from_std(file);
                let sought = file.seek(io::SeekFrom::Start(offset)).await;
                sought.map_err(|error| unreadable(digest, &error))?;
                return Ok(Box::new(file) as Box<dyn AsyncRead + Send + Unpin>);
            }
            let asked = Asked::Read {
                digest: digest.clone(),
                offset,
            };
            let stream = self.stream(asked).await?.ok_or_else(|| missing(digest))?;
            Ok(Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>)
        })
    }

    fn write<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        mut content: Box<dyn AsyncRead + Send + Unpin>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let asked = Asked::Write {
                digest: digest.clone(),
                size,
            };
            let stream = self.stream(asked).await?;
            let mut stream = stream.ok_or_else(|| Error::invalid("the client takes nothing for this directory"))?;
            let sent = async {
                tokio::io::copy(&mut content, &mut stream).await?;
                stream.shutdown().await
            };
            sent.await.map_err(failed("send a content to the client"))?;
            let mut said = String::new();
            let heard = stream.take(SAID).read_to_string(&mut said).await;
            match heard.map_err(failed("hear the client"))? {
                _ if said == WRITTEN => Ok(()),
                0 => Err(Error::Canceled),
                _ => Err(Error::Invalid(said)),
            }
        })
    }

    fn publish<'a>(&'a self, tag: &'a str, manifest: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let asked = Asked::Publish {
                tag: tag.to_owned(),
                manifest: manifest.to_owned(),
            };
            match self.ask(asked).await? {
                (Answer::Open, _) => Ok(()),
                _ => Err(Error::invalid("the client takes nothing for this directory")),
            }
        })
    }
}

fn unreadable(digest: &Digest, error: &io::Error) -> Error {
    Error::invalid(format!("read {digest} in the client's directory: {error}"))
}
