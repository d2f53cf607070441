//! What builds fetch by themselves: files by HTTP, and repositories.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ferry_build::frontend::{self, Sent};
use ferry_build::graph::{Git, Http};
use ferry_build::workspace::{Draft as _, Fetched, Workspace as _};
use ferry_build::{Error, Result, Session};
use ferry_image::{Digest, Hasher};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::repository;
use super::workshop::{Draft, Workshop};

/// The most bytes of a file.
const LIMIT: u64 = 64 << 30;

/// A context: a repository, or what a URL has.
pub(super) async fn context(shop: &Workshop, url: &str, session: &Arc<dyn Session>) -> Result<Sent> {
    if ferry_dockerfile::instruction::is_git(url) {
        let git = Git::parse(url)?;
        let fetched = self::git(shop, &git, session).await?;
        return Ok(Sent::Files(frontend::directory_of(fetched.draft)?));
    }
    if !ferry_dockerfile::instruction::is_http(url) {
        return Err(Error::invalid(format!(
            "unable to prepare context: {url}: give a directory, an http:// or https:// URL, or a git repository"
        )));
    }
    let downloaded = shop.draft().await?;
    let (file, _) = download(shop, url, "context", &downloaded, session).await?;
    let draft = shop.draft().await?;
    ferry_build::blocking("unpack the build context", move || {
        let sent = frontend::unpack(file, draft);
        drop(downloaded);
        sent
    })
    .await?
}

/// A file, with the mode, owner and time that BuildKit gives it.
pub(super) async fn file(shop: &Workshop, http: &Http, session: &Arc<dyn Session>) -> Result<Fetched<Workshop>> {
    let draft = shop.draft().await?;
    let (_, digest) = download(shop, &http.url, &http.name, &draft, session).await?;
    let identity = digest.to_string();
    if let Some(wanted) = &http.checksum
        && *wanted != identity
    {
        return Err(Error::invalid(format!("digest mismatch {identity}: {wanted}")));
    }
    Ok(Fetched { draft, identity })
}

/// The file, at its beginning, and the digest of its content.
async fn download(
    shop: &Workshop,
    url: &str,
    name: &str,
    draft: &Draft,
    session: &Arc<dyn Session>,
) -> Result<(File, Digest)> {
    let failed = |error: std::io::Error| Error::internal(format!("write {name}"), &error);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let opened: OwnedFd = draft.root().create(name, flags, Mode::from(0o600)).map_err(failed)?;
    let mut file = File::from(opened);
    let authorization = authorization(url, session).await?;
    let client = shop.world.live.get().client.clone();
    let mut hash = Hasher::default();
    let written = client.download(url, authorization.as_deref(), LIMIT, |piece| {
        hash.update(piece);
        file.write_all(piece)
    });
    let downloaded = written.await.map_err(|error| {
        let why = ferry_kit::error::chain(&error);
        match &error {
            ferry_distribution::Error::Refused { answer, .. } if answer.status == 404 => Error::NotFound(why),
            _ => Error::Invalid(why),
        }
    })?;
    let seconds = downloaded
        .last_modified
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(&file, &times).map_err(|error| failed(error.into()))?;
    file.rewind().map_err(failed)?;
    Ok((file, hash.finish()))
}

/// What the client wants to be shown to a host: a secret of its name.
async fn authorization(url: &str, session: &Arc<dyn Session>) -> Result<Option<String>> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    for name in [format!("HTTP_AUTH_HEADER_{host}"), "HTTP_AUTH_HEADER".to_owned()] {
        if let Some(header) = session.secret(&name).await? {
            return Ok(Some(String::from_utf8_lossy(&header).trim().to_owned()));
        }
    }
    for name in [format!("HTTP_AUTH_TOKEN_{host}"), "HTTP_AUTH_TOKEN".to_owned()] {
        if let Some(token) = session.secret(&name).await? {
            return Ok(Some(format!("Bearer {}", String::from_utf8_lossy(&token).trim())));
        }
    }
    Ok(None)
}

/// The files of a repository at a commit.
pub(super) async fn git(shop: &Workshop, git: &Git, session: &Arc<dyn Session>) -> Result<Fetched<Workshop>> {
    let work = shop.draft().await?;
    let agent = match git.is_ssh() {
        true => repository::agent(shop, session).await?,
        false => None,
    };
    let token = authorization_of_git(git, session).await?;
    let commit = repository::check_out(git, work.draft.upper(), agent.as_ref(), token).await?;
    let draft = shop.draft().await?;
    let (upper, keep, directory) = (work.draft.upper(), git.keep_git_dir, git.subdirectory.clone());
    let moved = tokio::task::spawn_blocking(move || {
        let moved = repository::move_files(&upper, &directory, keep, draft.root());
        drop(work);
        moved.map(|()| draft)
    });
    let draft = moved
        .await
        .map_err(|error| Error::internal("check a repository out", &error))??;
    Ok(Fetched {
        draft,
        identity: commit,
    })
}

/// As BuildKit looks for it: a header, or a token for the user `x-access-token`.
async fn authorization_of_git(git: &Git, session: &Arc<dyn Session>) -> Result<Option<String>> {
    use base64::Engine as _;
    let Some(host) = git.host() else { return Ok(None) };
    for name in [format!("GIT_AUTH_HEADER.{host}"), "GIT_AUTH_HEADER".to_owned()] {
        if let Some(header) = session.secret(&name).await? {
            return Ok(Some(String::from_utf8_lossy(&header).trim().to_owned()));
        }
    }
    for name in [format!("GIT_AUTH_TOKEN.{host}"), "GIT_AUTH_TOKEN".to_owned()] {
        if let Some(token) = session.secret(&name).await? {
            let pair = format!("x-access-token:{}", String::from_utf8_lossy(&token).trim());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            return Ok(Some(format!("basic {encoded}")));
        }
    }
    Ok(None)
}

/// Reads a small file to its end, for messages.
pub(super) fn text_of(mut file: impl std::io::Read) -> String {
    const MOST: u64 = 8 << 10;
    let mut text = Vec::new();
    let _ = file.by_ref().take(MOST).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim().to_owned()
}
