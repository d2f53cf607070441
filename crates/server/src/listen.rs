//! Where the engine listens: unix sockets, TCP with TLS or without, and sockets that somebody else opened.
//!
//! Whether TCP may be without TLS is decided by whoever calls: who reaches the API is root.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_tls::Acceptor;
use tokio::net::{TcpListener, UnixListener};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine does not listen there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host nobody knows; `reason` says what is wrong with it.
    #[error("invalid host {host:?}: {reason}")]
    Host { host: String, reason: String },
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
    #[error("cannot listen on tcp://{address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The group that was asked for is not in /etc/group.
    #[error("the group {group:?} of the socket is not there: make it with groupadd, or name another one with --group")]
    Group { group: String },
}

/// Where to listen, as `-H` and the key `hosts` say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://address:port`
    Tcp(SocketAddr),
    /// `fd://`: every socket that systemd passed; `fd://4` the one of that number.
    Inherited(Option<i32>),
}

impl Place {
    /// Of what has no port, it is the usual one: 2376 with TLS, 2375 without.
    pub fn parse(host: &str, tls: bool) -> Result<Self> {
        let refused = |reason: &str| {
            Err(Error::Host {
                host: host.to_owned(),
                reason: reason.to_owned(),
            })
        };
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", path)) if path.starts_with('@') => refused("abstract sockets have no permissions"),
            Some(("unix", "")) => refused("a unix socket needs a path: unix:///run/ferry/ferry.sock"),
            Some(("unix", _)) => refused("the path must be absolute: unix:///run/ferry/ferry.sock"),
            Some(("tcp", address)) => match tcp(address.trim_end_matches('/'), if tls { 2376 } else { 2375 }) {
                Some(address) => Ok(Self::Tcp(address)),
                None => refused("expected tcp://ADDRESS:PORT with an IP address, or localhost"),
            },
            Some(("fd", "" | "*")) => Ok(Self::Inherited(None)),
            Some(("fd", number)) => match number.parse() {
                Ok(number) if number >= FIRST_FD => Ok(Self::Inherited(Some(number))),
                _ => refused("expected fd:// for all sockets that systemd passes, or the number of one, from 3 on"),
            },
            Some((scheme, _)) => refused(&format!("unsupported proto '{scheme}': expected unix, tcp or fd")),
            None => refused("expected unix:///path, tcp://ADDRESS:PORT or fd://"),
        }
    }
}

fn tcp(address: &str, usual: u16) -> Option<SocketAddr> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (address, usual),
    };
    let host = match host {
        "" | "localhost" => "127.0.0.1",
        host => host.trim_start_matches('[').trim_end_matches(']'),
    };
    Some(SocketAddr::new(host.parse().ok()?, port))
}

/// The first of those that systemd passes (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;
/// The group of sockets, where it is there and nothing else is said.
pub const GROUP: &str = "docker";

/// A socket that is listened on. A file that was made for it goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
    /// For the log: `/run/ferry/ferry.sock`, `127.0.0.1:2376`.
    pub name: String,
    file: Option<(PathBuf, (u64, u64))>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener, Option<Acceptor>),
}

impl Listener {
    /// Listens on a path; mode 0660, with `group` (a name, or a number), or without one the group `docker` if there is one. A
    /// socket that nobody answers on is replaced.
    pub fn unix(path: &Path, group: Option<&str>) -> Result<Self> {
        let failed = |what| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        let group = match group {
            Some("") => None,
            Some(name) => Some(group_of(name).ok_or_else(|| Error::Group { group: name.to_owned() })?),
            None => group_of(GROUP),
        };
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        match fs::symlink_metadata(path) {
            Err(_) => {}
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(failed("replace")(io::Error::other("it is there, and no socket")));
            }
            Ok(_) if answers(path) => return Err(Error::InUse { path: path.to_owned() }),
            Ok(_) => fs::remove_file(path).map_err(failed("remove the stale socket"))?,
        }
        // Nobody but root until it is set up: a bind makes the file with what the umask leaves.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let socket = UnixListener::bind(path);
        rustix::process::umask(mask);
        let socket = socket.map_err(failed("listen on"))?;
        if group.is_some() {
            std::os::unix::fs::chown(path, None, group).map_err(failed("give its group"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("set the mode of"))?;
        Ok(Self {
            socket: Socket::Unix(socket),
            name: path.display().to_string(),
            file: identity(path).map(|inode| (path.to_owned(), inode)),
        })
    }

    /// Called in a runtime.
    pub fn tcp(address: SocketAddr, tls: Option<Acceptor>) -> Result<Self> {
        let failed = |source| Error::Tcp { address, source };
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        Self::inherited_tcp(socket, tls).map_err(failed)
    }

    /// A socket of systemd's: its file stays.
    pub fn inherited_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket: Socket::Unix(UnixListener::from_std(socket)?),
            name: address.as_pathname().unwrap_or(Path::new("fd")).display().to_string(),
            file: None,
        })
    }

    /// A socket that is listened on already.
    pub fn inherited_tcp(socket: std::net::TcpListener, tls: Option<Acceptor>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let name = socket.local_addr()?.to_string();
        Ok(Self {
            socket: Socket::Tcp(TcpListener::from_std(socket)?, tls),
            name,
            file: None,
        })
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
        if let Some((path, inode)) = &self.file
            && identity(path) == Some(*inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
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
    std::os::unix::fs::chown(path, None, group_of(GROUP)).map_err(failed("give the group docker the directory"))
}

/// From `/etc/group`: the binary is static and asks no name service.
fn group_of(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = fs::read_to_string("/etc/group").ok()?;
    let mut groups = text.lines().map(|line| line.split(':'));
    groups.find_map(|mut fields| {
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(directory: &Path) -> PathBuf {
        directory.join("deep/ferry.sock")
    }

    #[tokio::test]
    async fn a_socket_is_private_to_its_group_and_goes_with_its_listener() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = socket(directory.path());
        let listener = Listener::unix(&path, None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        drop(listener);
        assert!(!path.exists());
        let own = fs::metadata(directory.path()).unwrap().gid();
        let listener = Listener::unix(&path, Some(&own.to_string())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().gid(), own);
        drop(listener);
        let refused = Listener::unix(&path, Some("no-such-group")).unwrap_err();
        assert!(refused.to_string().contains("no-such-group"), "{refused}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket(directory.path());
        let mut first = Listener::unix(&path, None).unwrap();
        assert!(matches!(Listener::unix(&path, None), Err(Error::InUse { .. })));
        first.file = None;
        drop(first);
        assert!(path.exists());
        Listener::unix(&path, None).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(Listener::unix(&path, None).is_err());
        assert_eq!(fs::read(path).unwrap(), b"x");
    }

    #[test]
    fn places_read_as_dockerd_reads_them() {
        let tcp = |text: &str| Place::Tcp(text.parse().unwrap());
        for (host, tls, place) in [
            ("unix:///run/x", false, Place::Unix("/run/x".into())),
            ("tcp://0.0.0.0:1", true, tcp("0.0.0.0:1")),
            ("tcp://0.0.0.0", true, tcp("0.0.0.0:2376")),
            ("tcp://", false, tcp("127.0.0.1:2375")),
            ("tcp://:7", false, tcp("127.0.0.1:7")),
            ("tcp://localhost:7/", false, tcp("127.0.0.1:7")),
            ("tcp://[::1]", true, tcp("[::1]:2376")),
            ("fd://", false, Place::Inherited(None)),
            ("fd://*", false, Place::Inherited(None)),
            ("fd://4", false, Place::Inherited(Some(4))),
        ] {
            assert_eq!(Place::parse(host, tls).unwrap(), place, "{host}");
        }
        for host in [
            "unix://@x",
            "unix://",
            "unix://x",
            "fd://2",
            "fd://x",
            "/run/x",
            "npipe://x",
            "tcp://a.example:1",
            "tcp://0.0.0.0:99999",
        ] {
            assert!(matches!(Place::parse(host, false), Err(Error::Host { .. })), "{host}");
        }
    }
}
