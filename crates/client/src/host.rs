use std::{fmt, path::PathBuf, str::FromStr};

use crate::Error;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix:///run/ferry/ferry.sock`
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2375`: an IP address or a name, and a port.
    Tcp(String),
    /// `ssh://user@host:22/run/ferry/ferry.sock`: by the `ssh` program, with its configuration and keys; the path is the socket over
    /// there, when it is not the usual one.
    Ssh(Ssh),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// `user@host`, or the host alone.
    pub destination: String,
    pub port: Option<u16>,
    pub socket: String,
}

/// Where engines listen without TLS, and with it.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text, false)
    }
}

impl Host {
    /// Without a port it is the usual one, which is another one with TLS.
    pub fn parse(text: &str, tls: bool) -> Result<Self, Error> {
        let tcp = |address: &str| tcp(address, if tls { TLS_PORT } else { PORT });
        let invalid = |reason: &str| Err(Error::InvalidHost(format!("invalid bind address ({text}): {reason}")));
        match text.split_once("://") {
            Some(("unix", "")) => Ok(Self::Unix("/var/run/docker.sock".into())),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http", address)) => {
                tcp(address.trim_end_matches('/')).map_or_else(|| invalid("bad port"), Ok)
            }
            Some(("ssh", rest)) => ssh(rest).map_or_else(|| invalid("want ssh://[user@]host[:port][/path]"), Ok),
            Some((scheme, _)) => invalid(&format!("unsupported proto '{scheme}'")),
            None => tcp(text).map_or_else(|| invalid("bad port"), Ok),
        }
    }
}

fn tcp(address: &str, usual: u16) -> Option<Host> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok()?),
        _ => (address, usual),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Some(Host::Tcp(format!("{host}:{port}")))
}

/// What `ssh` would take for an option of its own is no destination.
fn ssh(rest: &str) -> Option<Host> {
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    let (user, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fine = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:%".contains(&byte);
        !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain)
    };
    if !fine(host) || !user.is_none_or(fine) {
        return None;
    }
    let socket = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    let quotable = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !socket.bytes().all(quotable) {
        return None;
    }
    Some(Host::Ssh(Ssh {
        destination: user.map_or(host.to_owned(), |user| format!("{user}@{host}")),
        port,
        socket,
    }))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Ssh(ssh) => {
                write!(f, "ssh://{}", ssh.destination)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(&ssh.socket)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_a_destination_and_perhaps_a_port_and_a_socket() {
        for text in ["ssh://h", "ssh://u@h", "ssh://u@h.example:2222/run/ferry/ferry.sock"] {
            let host = text.parse::<Host>().unwrap();
            assert_eq!(host.to_string(), text);
        }
        let Ok(Host::Ssh(ssh)) = "ssh://u@[::1]:22/run/x.sock".parse() else {
            panic!("no ssh");
        };
        assert_eq!(
            (ssh.destination.as_str(), ssh.port, ssh.socket.as_str()),
            ("u@::1", Some(22), "/run/x.sock")
        );
    }

    #[test]
    fn hosts_read_as_docker_reads_them() {
        for (text, host) in [
            ("unix:///run/x.sock", Host::Unix("/run/x.sock".into())),
            ("unix://", Host::Unix("/var/run/docker.sock".into())),
            ("tcp://127.0.0.1:1", Host::Tcp("127.0.0.1:1".into())),
            ("tcp://[::1]:5", Host::Tcp("[::1]:5".into())),
            ("tcp://[::1]", Host::Tcp("[::1]:2375".into())),
            ("tcp://", Host::Tcp("127.0.0.1:2375".into())),
            ("foo", Host::Tcp("foo:2375".into())),
            ("http://h:80/", Host::Tcp("h:80".into())),
        ] {
            assert_eq!(text.parse::<Host>().unwrap(), host, "{text}");
        }
        assert_eq!(Host::parse("tcp://h", true).unwrap(), Host::Tcp("h:2376".into()));
        for text in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://u@-x",
            "ssh://h/a;b",
            "ssh://h:x",
            "foo://x",
            "tcp://x:y",
            "tcp://x:99999",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
