//! `cp`: docker's rules of what lands where (moby `pkg/archive/copy.go`).

mod paths;

use std::fs::{FileType, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use ferry_api::container::PathStat;
use ferry_archive::{ApplyOptions, CreateOptions, Owner, Whiteouts};
use ferry_client::{Body, Client, Method, Query, Response};
use ferry_kit::{error::chain, units};
use ferry_sys::Root;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::{
    commands::Call,
    failure::{Failure, Result, io_text},
    flags::{Arity, Spec},
    session::Input,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "cp",
    aliases: "container cp, cp",
    synopsis: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem\n\n\
            Use '-' as the source to read a tar archive from stdin\n\
            and extract it to a directory destination in a container.\n\
            Use '-' as the destination to stream a tar archive of a\n\
            container source to stdout.",
    arity: Arity::Exactly(2),
    flags: "\
-a, --archive | Archive mode (copy all uid/gid information)
-L, --follow-link | Always follow symbol link in SRC_PATH
-q, --quiet | Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
    ..Spec::EMPTY
};

/// Where an archive comes from, or goes to.
#[derive(Debug, Clone, Default)]
struct Place {
    path: String,
    exists: bool,
    is_dir: bool,
    /// Another name for the entry than the path's last component.
    name: Option<String>,
}

pub async fn run(call: Call<'_>) -> Result<u8> {
    let arguments = call.matches.arguments.clone();
    match (place_of(&arguments[0]), place_of(&arguments[1])) {
        ((Some(_), _), (Some(_), _)) => Err(Failure::new("copying between containers is not supported")),
        ((None, _), (None, _)) => Err(Failure::new("must specify at least one container source")),
        ((Some(container), from), (None, to)) => copy_out(call, container, from, to).await,
        ((None, from), (Some(container), to)) => copy_in(call, container, from, to).await,
    }
}

/// `CONTAINER:PATH`, or a path of this machine: an absolute one, and one that begins with a dot, has no container.
fn place_of(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((container, path)) if !argument.starts_with(['/', '.']) => (Some(container), path),
        _ => (None, argument),
    }
}

async fn copy_out(mut call: Call<'_>, container: &str, from: &str, to: &str) -> Result<u8> {
    let local = (to != "-").then(|| absolute(&call, to));
    if let Some(local) = &local {
        check_output(local)?;
    }
    let mut source = Place {
        path: from.to_owned(),
        ..Place::default()
    };
    if call.matches.switch("follow-link")
        && let Ok(stat) = stat(&call.client, container, from).await
        && let Some(target) = link_target(&stat, from)
    {
        (source.path, source.name) = paths::rebased(from, target);
    }
    let path = Query::new().with("path", source.path.as_str()).on(&archive(container));
    let mut response = call.client.request(Method::GET, &path, Body::Empty).await?;
    let Some(local) = local else {
        while let Some(chunk) = response.chunk().await? {
            // Nobody reads on: neither does this.
            if call.ui.channel(Channel::Stdout).write_slowly(&chunk).await.is_err() {
                break;
            }
        }
        return Ok(0);
    };
    let stat = decode(&response).ok_or_else(|| Failure::new("the engine did not say what it sends"))?;
    source.exists = true;
    source.is_dir = stat.mode & IS_DIR != 0;
    let target = local_destination(&local)?;
    let (directory, rename) = prepare(&source, &target)?;
    // From the last component of the path, or the name that was followed, to the one that is wanted.
    let old = paths::split(&source.path).1;
    let new = rename.or(source.name);
    let rename = new.map(|new| (PathBuf::from(old.trim_start_matches(['/', '.'])), PathBuf::from(new)));
    let (ours, theirs) = std::io::pipe().map_err(|error| Failure::new(io_text(&error)))?;
    let unpacking = tokio::task::spawn_blocking(move || {
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            owner: Owner::Unchanged,
            keep_kinds: true,
            rename,
            ..ApplyOptions::default()
        };
        unpack(ours, &directory, &options)
    });
    let sent = send(response, theirs).await;
    let copied = unpacking.await.map_err(|error| Failure::new(error.to_string()))?;
    copied.map_err(Failure::new)?;
    let bytes = sent?;
    announce(&mut call, bytes, &local);
    Ok(0)
}

async fn copy_in(mut call: Call<'_>, container: &str, from: &str, to: &str) -> Result<u8> {
    let mut target = Place {
        path: to.to_owned(),
        ..Place::default()
    };
    let mut found = stat(&call.client, container, to).await;
    if let Ok(link) = &found
        && let Some(path) = link_target(link, to)
    {
        found = stat(&call.client, container, &path).await;
        target.path = path;
    }
    if let Ok(stat) = &found {
        if stat.mode & IS_DEVICE != 0 {
            return Err(Failure::new(format!(
                "destination \"{container}:{to}\" must be a directory or a regular file: got a device"
            )));
        }
        target.exists = true;
        target.is_dir = stat.mode & IS_DIR != 0;
    }
    let (directory, body, packing) = if from == "-" {
        if !target.is_dir {
            return Err(Failure::new(format!(
                "destination \"{container}:{to}\" must be a directory"
            )));
        }
        let body = call.ui.stdin.map_or(Body::Empty, |fd| Body::reader(Input::new(fd)));
        (target.path.clone(), body, None)
    } else {
        let source = local_source(&absolute(&call, from), call.matches.switch("follow-link"))?;
        let (directory, rename) = prepare(&source, &target)?;
        let (body, packing) = pack(&source, rename)?;
        (directory, body, Some(packing))
    };
    let mut query = Query::new()
        .with("path", directory)
        .with("noOverwriteDirNonDir", "true");
    if call.matches.switch("archive") {
        query = query.with("copyUIDGID", "true");
    }
    call.client
        .request(Method::PUT, &query.on(&archive(container)), body)
        .await?;
    let bytes = match packing {
        Some(packing) => {
            let packed = packing.await.map_err(|error| Failure::new(error.to_string()))?;
            packed.map_err(Failure::new)?
        }
        None => 0,
    };
    announce(&mut call, bytes, &format!("{container}:{}", target.path));
    Ok(0)
}

/// Go's `os.FileMode`.
const IS_DIR: u32 = 1 << 31;
const IS_SYMLINK: u32 = 1 << 27;
const IS_DEVICE: u32 = 1 << 26;

fn archive(container: &str) -> String {
    format!("/containers/{}/archive", Client::escape(container))
}

async fn stat(client: &Client, container: &str, path: &str) -> ferry_client::Result<PathStat> {
    let path = Query::new().with("path", path).on(&archive(container));
    let response = client.request(Method::HEAD, &path, Body::Empty).await?;
    Ok(decode(&response).unwrap_or_default())
}

fn decode(response: &Response) -> Option<PathStat> {
    use base64::Engine as _;
    let header = response.header("x-docker-container-path-stat");
    let json = base64::engine::general_purpose::STANDARD.decode(header).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Where the link at `path` leads, if it is one.
fn link_target(stat: &PathStat, path: &str) -> Option<String> {
    let target = stat.link_target.as_str();
    (stat.mode & IS_SYMLINK != 0).then(|| match target.starts_with('/') {
        true => target.to_owned(),
        false => paths::join(&paths::split(path).0, target),
    })
}

fn absolute(call: &Call<'_>, path: &str) -> String {
    let full = match path.starts_with('/') {
        true => paths::clean(path),
        false => paths::join(&call.env.directory.display().to_string(), path),
    };
    paths::preserve_end(full, path)
}

/// docker's `ValidateOutputPath`.
fn check_output(path: &str) -> Result<()> {
    let parent = paths::dir(&paths::clean(path));
    if matches!(std::fs::metadata(&parent), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Err(Failure::new(format!(
            "invalid output path: directory \"{parent}\" does not exist"
        )));
    }
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("stat {path}: {}", io_text(&error)))),
        Ok(found) if is_device(found.file_type()) => Err(Failure::new(format!(
            "invalid output path: \"{path}\" must be a directory or a regular file: got a device"
        ))),
        Ok(_) => Ok(()),
    }
}

fn is_device(kind: FileType) -> bool {
    kind.is_block_device() || kind.is_char_device()
}

fn lstat(path: &str) -> Result<Metadata> {
    std::fs::symlink_metadata(path).map_err(|error| Failure::new(format!("lstat {path}: {}", io_text(&error))))
}

/// What an archive is unpacked to on this machine: links are followed, and what is not there needs a parent.
fn local_destination(path: &str) -> Result<Place> {
    /// Of links to links, as docker has it.
    const LINKS: usize = 10;
    let mut place = path.to_owned();
    for _ in 0..=LINKS {
        match std::fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => {
                let target = std::fs::read_link(&place)
                    .map_err(|error| Failure::new(format!("readlink {place}: {}", io_text(&error))))?;
                let target = target.display().to_string();
                place = match target.starts_with('/') {
                    true => target,
                    false => paths::join(&paths::split(&place).0, &target),
                };
            }
            Ok(found) => {
                return Ok(Place {
                    path: place,
                    exists: true,
                    is_dir: found.is_dir(),
                    name: None,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = paths::split(&place).0;
                return match std::fs::metadata(&parent) {
                    Ok(found) if found.is_dir() => Ok(Place {
                        path: place,
                        ..Place::default()
                    }),
                    Ok(_) => Err(Failure::new("not a directory")),
                    Err(error) => Err(Failure::new(format!("stat {parent}: {}", io_text(&error)))),
                };
            }
            Err(error) => return Err(Failure::new(format!("lstat {place}: {}", io_text(&error)))),
        }
    }
    Err(Failure::new(format!("too many symlinks in {path}")))
}

/// What is packed on this machine: links on the way are followed, the last one if the user says so.
fn local_source(path: &str, follow: bool) -> Result<Place> {
    let real = |path: &str| -> Result<String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the caller's own file, by the name the caller gives it"
        )]
        let real = std::fs::canonicalize(path);
        let real = real.map_err(|error| Failure::new(format!("lstat {path}: {}", io_text(&error))))?;
        Ok(real.display().to_string())
    };
    let (resolved, name) = if follow {
        paths::rebased(path, real(path)?)
    } else {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() { "/" } else { parent };
        if !last.is_empty() && last != "." {
            lstat(path)?;
        }
        let resolved = format!("{}/{last}", real(parent)?.trim_end_matches('/'));
        let moved = paths::has_trailing_separator(path) && paths::base(path) != paths::base(&resolved);
        (resolved, moved.then(|| paths::base(path).to_owned()))
    };
    let is_dir = lstat(&resolved)?.is_dir();
    Ok(Place {
        path: resolved,
        exists: true,
        is_dir,
        name,
    })
}

/// The directory to unpack into, and the entry's new name if it gets one (moby's `PrepareArchiveCopy`).
fn prepare(source: &Place, target: &Place) -> Result<(String, Option<String>)> {
    if target.exists && target.is_dir {
        return Ok((target.path.clone(), None));
    }
    if target.exists && source.is_dir {
        return Err(Failure::new("cannot copy directory"));
    }
    if !target.exists && !source.is_dir && paths::asserts_directory(&target.path) {
        return Err(Failure::new("no such directory"));
    }
    let (directory, name) = paths::split(&target.path);
    Ok((directory, Some(name)))
}

/// Writes `source` as an archive, while it is sent: the body, and the bytes it had.
fn pack(source: &Place, rename: Option<String>) -> Result<(Body, JoinHandle<std::result::Result<u64, String>>)> {
    let failed = |error: io::Error| Failure::new(io_text(&error));
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let receiver = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
    let (directory, entry) = paths::split(&source.path);
    let name = rename.or_else(|| source.name.clone()).unwrap_or_else(|| entry.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let root =
            Root::open(Path::new(&directory)).map_err(|error| format!("open {directory}: {}", io_text(&error)))?;
        let options = CreateOptions {
            name: Some(PathBuf::from(name)),
            cross_mounts: true,
            contents_only: false,
        };
        let counter = Counter {
            inner: io::BufWriter::with_capacity(CHUNK, writer),
            bytes: 0,
        };
        match ferry_archive::create(&root, Path::new(&entry), counter, &options) {
            Ok(counter) => Ok(counter.bytes),
            // The engine wanted no more, and has said why.
            Err(ferry_archive::Error::Read { .. }) => Ok(0),
            Err(error) => Err(chain(&error)),
        }
    });
    Ok((Body::reader(receiver), packing))
}

const CHUNK: usize = 256 * 1024;

fn unpack(stream: impl Read, directory: &str, options: &ApplyOptions<'_>) -> std::result::Result<(), String> {
    let root = Root::open(Path::new(directory)).map_err(|error| format!("open {directory}: {}", io_text(&error)))?;
    let stream = io::BufReader::with_capacity(CHUNK, stream);
    ferry_archive::apply(stream, &root, options)
        .map(drop)
        .map_err(|error| chain(&error))
}

/// Passes the answer's body on, and counts it.
async fn send(mut response: Response, pipe: io::PipeWriter) -> Result<u64> {
    use tokio::io::AsyncWriteExt as _;
    let mut pipe = pipe::Sender::from_owned_fd(pipe.into()).map_err(|error| Failure::new(io_text(&error)))?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len() as u64;
        // Who unpacks has given up, and says why.
        if pipe.write_all(&chunk).await.is_err() {
            break;
        }
    }
    Ok(bytes)
}

struct Counter<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// For people only: nothing is said where no terminal is.
fn announce(call: &mut Call<'_>, bytes: u64, to: &str) {
    if call.matches.switch("quiet") || !call.ui.channel(Channel::Stderr).is_terminal() {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let size = units::human_size_with_precision(bytes as f64, 3);
    call.ui.error_line(&format!("Successfully copied {size} to {to}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, exists: bool, is_dir: bool) -> Place {
        Place {
            path: path.into(),
            exists,
            is_dir,
            name: None,
        }
    }

    #[test]
    fn a_colon_names_a_container_unless_the_path_says_otherwise() {
        assert_eq!(place_of("c1:/x"), (Some("c1"), "/x"));
        assert_eq!(place_of("c1:"), (Some("c1"), ""));
        assert_eq!(place_of("/a:b"), (None, "/a:b"));
        assert_eq!(place_of("./a:b"), (None, "./a:b"));
        assert_eq!(place_of("plain"), (None, "plain"));
    }

    #[test]
    fn what_lands_where() {
        let (file, dir) = (place("/s/f", true, false), place("/s/d", true, true));
        let ok = |directory: &str, name: Option<&str>| Some((directory.to_owned(), name.map(str::to_owned)));
        let prepared = |source: &Place, target: &Place| prepare(source, target).ok();
        assert_eq!(prepared(&file, &place("/t", true, true)), ok("/t", None));
        assert_eq!(prepared(&dir, &place("/t", true, true)), ok("/t", None));
        assert_eq!(prepared(&file, &place("/t/x", true, false)), ok("/t", Some("x")));
        assert_eq!(prepared(&dir, &place("/t/x", true, false)), None);
        assert_eq!(prepared(&dir, &place("/t/new/", false, false)), ok("/t", Some("new")));
        assert_eq!(prepared(&file, &place("/t/new", false, false)), ok("/t", Some("new")));
        assert_eq!(prepared(&file, &place("/t/new/", false, false)), None);
    }
}
