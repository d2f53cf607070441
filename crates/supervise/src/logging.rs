//! Where the container's output goes, and what the files are called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::Format;

/// What becomes of the container's output, beside who is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// What can be read again.
    pub file: Option<LogFile>,
    pub syslog: Option<Syslog>,
}

/// A log file, rotated: `path`, and what is older as `path.N`, or compressed as `path.N.gz`. The greater the number, the newer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    pub path: PathBuf,
    #[serde(default)]
    pub format: Format,
    /// Bytes a file; 0 for no limit.
    pub max_size: u64,
    /// Files altogether, at least 1.
    pub max_files: u32,
    /// Of each line, where the format keeps them.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl LogFile {
    /// What the log was renamed to at a rotation.
    pub fn numbered(&self, number: u64) -> PathBuf {
        suffixed(&self.path, &format!(".{number}"))
    }

    /// The same, compressed.
    pub fn compressed(&self, number: u64) -> PathBuf {
        suffixed(&self.path, &format!(".{number}.gz"))
    }

    /// The numbers of rotated files of the log at `path`, oldest first; `None` if its directory cannot be read.
    pub fn names(path: &Path) -> Option<Vec<u64>> {
        let name = path.file_name()?.to_str()?;
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(path.parent()?).ok()?.flatten() {
            let found = entry.file_name();
            let number = found
                .to_str()
                .and_then(|found| found.strip_prefix(name)?.strip_prefix('.'));
            let number = number.map(|number| number.strip_suffix(".gz").unwrap_or(number));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Some(numbers.into_iter().collect())
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// A syslog server, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    pub address: SyslogAddress,
    /// Of [`SyslogAddress::Tcp`].
    #[serde(default)]
    pub tls: Option<SyslogTls>,
    /// 0 to 23.
    pub facility: u8,
    pub layout: SyslogLayout,
    pub tag: String,
    pub hostname: String,
    /// Bytes that may wait for the server.
    pub buffer: usize,
    /// When they do, the container waits; otherwise lines are lost.
    pub wait: bool,
}

/// Files are read when the container starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogTls {
    /// What the server's certificate is for.
    pub host: String,
    /// Authorities besides the machine's.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogAddress {
    /// The host's, wherever its socket is.
    Local,
    Unix(PathBuf),
    UnixDatagram(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogLayout {
    /// As programs of the host speak to its syslog: no host's name.
    Unix,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}
