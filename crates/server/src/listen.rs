//! Where the engine listens: unix sockets. TCP comes with TLS or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine does not listen there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host nobody knows; `reason` says what is wrong with it.
    #[error("invalid host {host:?}: {reason}")]
    Host { host: String, reason: String },
    /// Anybody who reaches the API is root.
    #[error(
        "refusing tcp:// without TLS ({host}): whoever reaches the API is root on this machine, and TLS is not there yet; \
         listen on unix:///path and reach it from elsewhere through ssh, for instance \
         ssh -L /tmp/ferry.sock:/run/ferry/ferry.sock"
    )]
    PlainTcp { host: String },
    /// Another engine answers there.
    #[error("{} is in use: another engine answers there", path.display())]
    InUse { path: PathBuf },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A socket that is listened on. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: UnixListener,
    pub path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `unix:///path`; mode 0660, group `docker` if there is one. A socket that nobody answers on is replaced.
    pub fn bind(host: &str) -> Result<Self> {
        let path = parse(host)?;
        let failed = |what| {
            let path = path.clone();
            move |source| Error::Io { what, path, source }
        };
        let group = docker_group();
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        match fs::symlink_metadata(&path) {
            Err(_) => {}
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(failed("replace")(io::Error::other("it is there, and no socket")));
            }
            Ok(_) if answers(&path) => return Err(Error::InUse { path }),
            Ok(_) => fs::remove_file(&path).map_err(failed("remove the stale socket"))?,
        }
        // Nobody but root until it is set up: a bind makes the file with what the umask leaves.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let socket = UnixListener::bind(&path);
        rustix::process::umask(mask);
        let socket = socket.map_err(failed("listen on"))?;
        if group.is_some() {
            std::os::unix::fs::chown(&path, None, group).map_err(failed("give the group docker"))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(failed("set the mode of"))?;
        let inode = identity(&path);
        Ok(Self { socket, path, inode })
    }
}

/// Whether somebody has the socket open. A child of an engine that was killed has it too, until it is another program: it is
/// asked again for a while.
fn answers(path: &Path) -> bool {
    const TRIES: u32 = 25;
    const PAUSE: Duration = Duration::from_millis(20);
    for attempt in 0..TRIES {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {}
            // What is full has somebody behind it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not another engine's.
        if self.inode.is_some() && identity(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The path of a `unix://` host; what is refused, and why.
fn parse(host: &str) -> Result<PathBuf> {
    let refused = |reason: &str| {
        Err(Error::Host {
            host: host.to_owned(),
            reason: reason.to_owned(),
        })
    };
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("unix", path)) if path.starts_with('@') => refused("abstract sockets have no permissions"),
        Some(("unix", "")) => refused("a unix socket needs a path: unix:///run/ferry/ferry.sock"),
        Some(("unix", _)) => refused("the path must be absolute: unix:///run/ferry/ferry.sock"),
        Some(("tcp" | "http" | "https", _)) => Err(Error::PlainTcp { host: host.to_owned() }),
        Some(("fd", _)) => refused("socket activation is not there yet"),
        _ => refused("expected unix:///path"),
    }
}

/// Makes the directory of a socket if it is not there; mode 0750, group `docker` if there is one.
pub fn make_directory(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let failed = |what| {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(failed("make the directory"))?;
    std::os::unix::fs::chown(path, None, docker_group()).map_err(failed("give the group docker the directory"))
}

/// From `/etc/group`: the binary is static and asks no name service.
fn docker_group() -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    let mut groups = text.lines().map(|line| line.split(':'));
    groups.find_map(|mut fields| {
        (fields.next() == Some("docker"))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(directory: &Path) -> String {
        format!("unix://{}/deep/ferry.sock", directory.display())
    }

    #[tokio::test]
    async fn a_socket_is_private_to_its_group_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&host(directory.path())).unwrap();
        let mode = fs::metadata(&listener.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        let path = listener.path.clone();
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        let mut first = Listener::bind(&host).unwrap();
        assert!(matches!(Listener::bind(&host), Err(Error::InUse { .. })));
        first.inode = None;
        let path = first.path.clone();
        drop(first);
        assert!(path.exists());
        Listener::bind(&host).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(Listener::bind(&format!("unix://{}", path.display())).is_err());
        assert_eq!(fs::read(path).unwrap(), b"x");
    }

    #[test]
    fn tcp_is_refused_and_the_error_says_what_to_do() {
        let error = parse("tcp://127.0.0.1:2375").unwrap_err().to_string();
        assert!(
            error.starts_with("refusing tcp:// without TLS") && error.contains("ssh"),
            "{error}"
        );
        for host in ["unix://@x", "unix://", "unix://x", "fd://", "/run/x", "npipe://x"] {
            assert!(matches!(parse(host), Err(Error::Host { .. })), "{host}");
        }
    }
}
