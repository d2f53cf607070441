//! Git, as a program: its protocols are its own, and a host that builds from repositories has it.
//!
//! A repository is not trusted. No configuration, hook, helper or prompt of the host's or of the repository's is used, only
//! network protocols are allowed (CVE-2022-39253: not the host's own files), and every word that comes from a user stands behind
//! `--` or in a place where no option is read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ferry_build::graph::Git;
use ferry_build::{Error, Result, Session};
use ferry_sys::Root;
use rustix::fs::OFlags;
use tokio::process::Command;

use super::agent::Agent;
use super::workshop::Workshop;

const GIT_DIR: &str = ".git";
/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Configuration of every command.
const SETTINGS: [&str; 12] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "safe.directory=*",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "gc.auto=0",
];

/// A socket of the client's agent, if it has one.
pub(super) async fn agent(shop: &Workshop, session: &Arc<dyn Session>) -> Result<Option<Agent>> {
    if session.ssh("").await?.is_none() {
        return Ok(None);
    }
    Agent::listen(&shop.world, Arc::clone(session), String::new(), (0o600, 0, 0)).map(Some)
}

/// Checks a commit out into an empty directory, with `.git`; the commit.
pub(super) async fn check_out(
    git: &Git,
    dir: PathBuf,
    agent: Option<&Agent>,
    authorization: Option<String>,
) -> Result<String> {
    let runner = Runner {
        dir,
        socket: agent.map(|agent| agent.path().to_owned()),
        header: authorization.map(|value| (git.remote.clone(), format!("Authorization: {value}"))),
    };
    runner.run(["init", "--quiet"]).await?;
    let wanted = match (&git.checksum, git.reference.as_str()) {
        (Some(commit), "") => commit.clone(),
        (_, "") => "HEAD".to_owned(),
        (_, reference) => reference.to_owned(),
    };
    let fetched = runner
        .run([
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--end-of-options",
            &git.remote,
            &wanted,
        ])
        .await;
    if fetched.is_err() {
        // A server may not give a commit alone, or know a short name only when it has told all.
        runner
            .run([
                "fetch",
                "--quiet",
                "--tags",
                "--end-of-options",
                &git.remote,
                "+refs/heads/*:refs/remotes/origin/*",
            ])
            .await?;
    }
    let commit = match fetched {
        Ok(_) => {
            runner
                .run(["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"])
                .await?
        }
        Err(first) => runner.find(&wanted).await.ok_or(first)?,
    };
    if let Some(checksum) = &git.checksum
        && !commit.starts_with(&checksum.to_ascii_lowercase())
    {
        return Err(Error::invalid(format!(
            "expected checksum to match {checksum}, got {commit}"
        )));
    }
    runner
        .run(["checkout", "--quiet", "--force", "--detach", &commit])
        .await?;
    if git.submodules && runner.dir.join(".gitmodules").exists() {
        runner
            .run(["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])
            .await?;
    }
    Ok(commit)
}

/// Moves what is checked out, or a directory of it, to where it is wanted. Blocks.
pub(super) fn move_files(from: &Path, subdirectory: &str, keep_git_dir: bool, to: &Root) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal("move a repository's files", &error);
    let root = Root::open(from).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    // No link leads out of it, whatever the repository has there.
    let source = root
        .resolve_no_links(subdirectory.trim_matches('/'), flags)
        .map_err(|error| Error::NotFound(format!("{subdirectory:?} is no directory of the repository: {error}")))?;
    let target = to.resolve("", flags).map_err(failed)?;
    for name in ferry_archive::tree::names(std::os::fd::AsFd::as_fd(&source)).map_err(failed)? {
        if name.as_bytes() == GIT_DIR.as_bytes() && !keep_git_dir {
            continue;
        }
        rustix::fs::renameat(&source, &name, &target, &name).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

struct Runner {
    dir: PathBuf,
    socket: Option<PathBuf>,
    /// For a remote, of HTTP.
    header: Option<(String, String)>,
}

impl Runner {
    /// Runs git; what it says, without the last end of a line.
    async fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new("git");
        command.env_clear().current_dir(&self.dir);
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("LC_ALL", "C"),
            (
                "GIT_SSH_COMMAND",
                "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null",
            ),
        ] {
            command.env(name, value);
        }
        if let Some(socket) = &self.socket {
            command.env("SSH_AUTH_SOCK", socket);
        }
        let mut settings: Vec<(String, String)> = SETTINGS
            .iter()
            .filter_map(|setting| setting.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if let Some((remote, header)) = &self.header {
            settings.push((format!("http.{remote}.extraHeader"), header.clone()));
        }
        // By the environment, where nobody sees them who lists processes.
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let missing = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::invalid(
                "git is not installed on the engine's host: install it, or give the files by other means",
            ),
            _ => Error::internal("run git", &error),
        };
        let running = command.spawn().map_err(missing)?.wait_with_output();
        let late = |_| Error::invalid(format!("git did not end in {} seconds", PATIENCE.as_secs()));
        let output = tokio::time::timeout(PATIENCE, running).await.map_err(late)?;
        let output = output.map_err(|error| Error::internal("run git", &error))?;
        if !output.status.success() {
            let why = super::fetch::text_of(output.stderr.as_slice());
            return Err(Error::invalid(format!("git: {why}")));
        }
        Ok(super::fetch::text_of(output.stdout.as_slice()))
    }

    /// A commit by any of the names it may have.
    async fn find(&self, name: &str) -> Option<String> {
        for candidate in [
            format!("refs/remotes/origin/{name}"),
            format!("refs/tags/{name}"),
            name.to_owned(),
        ] {
            let commit = format!("{candidate}^{{commit}}");
            let found = self.run(["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]);
            if let Ok(found) = found.await {
                return Some(found.lines().last().unwrap_or_default().to_owned());
            }
        }
        None
    }
}
