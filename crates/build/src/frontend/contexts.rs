//! Directories that steps copy from: the build's context, and those with names.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use ferry_archive::{ApplyOptions, Whiteouts, apply, decompress};
use ferry_dockerfile::{Ignore, Range};
use ferry_sys::Root;
use rustix::fs::OFlags;
use tokio_util::io::SyncIoBridge;

use super::{Job, Making, describe};
use crate::aside::{Awaiting, aside};
use crate::error::{Error, Result};
use crate::graph::{Action, Context, Copy, Files, Op, Step, StepId};
use crate::request::{Location, Named};
use crate::session::{Directory, Wanted};
use crate::workspace::Workspace;

/// The most bytes of a Dockerfile.
pub const MAX_DOCKERFILE: u64 = 16 << 20;
/// Of an archive.
const BLOCK: usize = 512;

/// Directories that are open, by name.
pub type Contexts = HashMap<String, Opened>;

/// A directory that is here.
#[derive(Debug, Clone)]
pub struct Opened {
    pub directory: Arc<Directory>,
    pub ignore: Arc<Ignore>,
}

impl Opened {
    pub fn new(directory: Directory, ignore: Ignore) -> Self {
        Self {
            directory: Arc::new(directory),
            ignore: Arc::new(ignore),
        }
    }
}

/// What a client sent, or a URL had.
#[derive(Debug)]
pub enum Sent {
    Files(Directory),
    Dockerfile(Vec<u8>),
}

/// Unpacks what a client sends instead of a directory; what is no archive is a Dockerfile.
pub async fn receive<W: Workspace>(job: &Job<W>, name: &str) -> Result<Sent> {
    let stream = job.session.upload(name).await?;
    unpack_directory(stream, job.workspace.draft().await?).await
}

/// The same, of an archive alone, or nothing at all; in the words of Go's package `tar`.
pub async fn receive_archive<W: Workspace>(job: &Job<W>, name: &str) -> Result<Sent> {
    match receive(job, name).await? {
        Sent::Dockerfile(bytes) if (1..BLOCK).contains(&bytes.len()) => Err(Error::invalid("unexpected EOF")),
        Sent::Dockerfile(bytes) if !bytes.is_empty() => Err(Error::invalid("archive/tar: invalid tar header")),
        sent => Ok(sent),
    }
}

/// The same of a stream.
pub async fn unpack_directory<D: crate::workspace::Draft>(
    stream: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    draft: D,
) -> Result<Sent> {
    let bridge = SyncIoBridge::new(stream);
    aside("receive the build context", move || unpack(bridge, draft)).await?
}

/// Writes a directory as an archive.
pub async fn send_directory(root: Root, stream: impl tokio::io::AsyncWrite + Send + Unpin + 'static) -> Result<()> {
    let sent = aside("send the files", move || {
        use std::io::Write as _;
        let options = ferry_archive::CreateOptions {
            contents_only: true,
            ..ferry_archive::CreateOptions::default()
        };
        let bridge = SyncIoBridge::new(stream);
        let wrong = |error: &(dyn std::error::Error + 'static)| Error::internal("send the files", error);
        let written = ferry_archive::create(&root, std::path::Path::new(""), bridge, &options);
        let mut bridge = written.map_err(|error| wrong(&error))?;
        bridge
            .flush()
            .and_then(|()| bridge.shutdown())
            .map_err(|error| wrong(&error))
    });
    sent.await?
}

/// Unpacks an archive, which may be compressed, into a draft; what is none is a Dockerfile. Blocks.
pub fn unpack<D: crate::workspace::Draft>(stream: impl Read + Send, draft: D) -> Result<Sent> {
    let wrong = |error: ferry_archive::Error| {
        let why = ferry_kit::error::chain(&error);
        Error::invalid(format!("the build context cannot be read: {why}"))
    };
    let mut reader = BufReader::with_capacity(64 << 10, Awaiting(decompress(stream).map_err(wrong)?));
    let mut head = Vec::new();
    let read = |error: std::io::Error| Error::invalid(format!("the build context cannot be read: {error}"));
    (&mut reader).take(BLOCK as u64).read_to_end(&mut head).map_err(read)?;
    if !is_tar(&head) {
        (&mut reader)
            .take(MAX_DOCKERFILE)
            .read_to_end(&mut head)
            .map_err(read)?;
        if head.len() as u64 > MAX_DOCKERFILE {
            let what = format!("the Dockerfile is longer than {MAX_DOCKERFILE} bytes, and no archive");
            return Err(Error::Invalid(what));
        }
        return Ok(Sent::Dockerfile(head));
    }
    let options = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        ..ApplyOptions::default()
    };
    apply(head.as_slice().chain(reader), draft.root(), &options).map_err(wrong)?;
    directory_of(draft).map(Sent::Files)
}

/// A draft's files as a context's.
pub fn directory_of<D: crate::workspace::Draft>(draft: D) -> Result<Directory> {
    let root = draft.root().resolve("", OFlags::PATH | OFlags::DIRECTORY);
    Ok(Directory {
        root: Root::from_fd(root.map_err(|error| Error::internal("open the build context", &error))?),
        whole: true,
        key: None,
        hold: Box::new(draft),
    })
}

/// A header with a right checksum, or the end of an archive.
fn is_tar(block: &[u8]) -> bool {
    let Some(sum) = block.get(148..156).filter(|_| block.len() == BLOCK) else {
        return false;
    };
    if block.iter().all(|&byte| byte == 0) {
        return true;
    }
    let text: String = sum.iter().map(|&byte| char::from(byte)).collect();
    let said = u64::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    let counted: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u64::from(byte) })
        .sum();
    said == Ok(counted)
}

/// The patterns of a directory's `.dockerignore`.
pub async fn ignored<W: Workspace>(job: &Job<W>, name: &str) -> Result<Vec<String>> {
    const FILE: &str = ".dockerignore";
    let wanted = Wanted {
        paths: vec![FILE.to_owned()],
        exclude: Vec::new(),
    };
    let directory = job.session.directory(name, &wanted, &|_| ()).await?;
    Ok(ignore_file(&directory.root, FILE)?.unwrap_or_default())
}

/// The patterns of a file of ignored paths. One that is no file is none, as in BuildKit; one that is too long is not passed over, for
/// what it names might be a secret.
pub fn ignore_file(root: &Root, path: &str) -> Result<Option<Vec<String>>> {
    const MOST: usize = ferry_dockerfile::ignore::MAX_FILE;
    match root.read(path, MOST as u64) {
        Ok(bytes) => patterns(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            Err(Error::invalid(format!("{path} is longer than {MOST} bytes")))
        }
        Err(_) => Ok(None),
    }
}

/// Checked, line by line.
fn patterns(bytes: &[u8]) -> Result<Vec<String>> {
    Ignore::lines(bytes).map_err(|error| Error::invalid(format!("failed parsing .dockerignore: {error}")))
}

impl<W: Workspace> Making<'_, W> {
    /// The step with the files of the build's context; `path` is what of it is used.
    pub fn context(&mut self, path: &str) -> StepId {
        let location = self.job.request.context.clone();
        let step = self.location(&location, "[internal] load build context");
        self.use_path(step, path);
        step
    }

    /// The step with a directory's files.
    fn location(&mut self, location: &Location, title: &str) -> StepId {
        let name = describe(location).to_owned();
        let key = format!("files {name}");
        if let Some(step) = self.sources.get(&key) {
            return *step;
        }
        let exclude = self.excluded.get(&name).cloned().unwrap_or_default();
        let step = self.add(Step {
            op: Op::Context(Context {
                name,
                paths: Vec::new(),
                exclude,
            }),
            inputs: Vec::new(),
            name: title.to_owned(),
            ranges: Vec::new(),
            no_cache: false,
        });
        self.sources.insert(key, step);
        step
    }

    /// Notes that a path of a context is used.
    pub fn use_path(&mut self, step: StepId, path: &str) {
        let Some(step) = self.graph.steps.get_mut(step.0) else {
            return;
        };
        if let Op::Context(context) = &mut step.op
            && !context.paths.iter().any(|known| known == path)
        {
            context.paths.push(path.to_owned());
        }
    }

    pub fn is_context(&self, step: StepId) -> bool {
        let step = self.graph.steps.get(step.0);
        step.is_some_and(|step| matches!(step.op, Op::Context(_)))
    }

    /// The files of a named context that is no image.
    pub async fn named_files(&mut self, name: &str) -> Result<Option<StepId>> {
        match self.named(name).cloned() {
            Some(Named::Files(location)) => {
                let place = describe(&location).to_owned();
                if let Location::Directory(directory) = &location
                    && !self.excluded.contains_key(&place)
                {
                    let patterns = ignored(self.job, directory).await?;
                    self.excluded.insert(place, patterns);
                }
                let title = format!("[context {name}] load from client");
                Ok(Some(self.location(&location, &title)))
            }
            Some(Named::Result(id)) => {
                let key = format!("result {id}");
                if let Some(step) = self.sources.get(&key) {
                    return Ok(Some(*step));
                }
                let step = self.add(Step {
                    op: Op::Result(id),
                    inputs: Vec::new(),
                    name: format!("[context {name}] load from another build"),
                    ranges: Vec::new(),
                    no_cache: false,
                });
                self.sources.insert(key, step);
                Ok(Some(step))
            }
            Some(Named::Image(_) | Named::Layout(_)) | None => Ok(None),
        }
    }

    /// A context's files, or what is at a path in it, as a tree.
    pub fn as_tree(&mut self, step: StepId, path: &str, range: Range) -> StepId {
        if !self.is_context(step) {
            return step;
        }
        self.use_path(step, path);
        let copy = Copy {
            input: 0,
            sources: vec![path.to_owned()],
            destination: path.to_owned(),
            literal: true,
            ..Copy::default()
        };
        self.add(Step {
            op: Op::Files(Files {
                base: None,
                actions: vec![Action::Copy(copy)],
            }),
            inputs: vec![step],
            name: format!("[internal] copy {path} of the context"),
            ranges: vec![range],
            no_cache: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_checksum() {
        let mut header = [0_u8; 512];
        header[..4].copy_from_slice(b"file");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_tar(&header));
        header[0] = b'F';
        assert!(!is_tar(&header));
        assert!(is_tar(&[0; 512]));
        assert!(!is_tar(b"FROM scratch\n"));
        assert!(!is_tar(&[b' '; 512]));
    }
}
