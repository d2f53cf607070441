use std::{fmt, path::PathBuf, str::FromStr};

use crate::Error;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix:///run/ferry/ferry.sock`
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2375`, without TLS; the address is an IP address and a port, or `localhost` and a port.
    Tcp(String),
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Err(Error::InvalidHost(format!("invalid bind address ({text}): {reason}")));
        match text.split_once("://") {
            Some(("unix", "")) => Ok(Self::Unix("/var/run/docker.sock".into())),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http", address)) => {
                tcp(address.trim_end_matches('/')).map_or_else(|| invalid("bad port"), Ok)
            }
            Some((scheme @ ("ssh" | "npipe" | "fd" | "https"), _)) => invalid(&format!("{scheme} is not there yet")),
            Some((scheme, _)) => invalid(&format!("unsupported proto '{scheme}'")),
            None => tcp(text).map_or_else(|| invalid("bad port"), Ok),
        }
    }
}

fn tcp(address: &str) -> Option<Host> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok()?),
        _ => (address, 2375),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Some(Host::Tcp(format!("{host}:{port}")))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for text in ["ssh://x", "foo://x", "tcp://x:y", "tcp://x:99999"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
