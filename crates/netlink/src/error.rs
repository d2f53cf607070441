//! What can go wrong between Ferry and the kernel's network configuration.

use rustix::io::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be opened: out of descriptors, or a kernel without this protocol.
    #[error("could not open a netlink socket")]
    Open(#[source] std::io::Error),

    /// Sending or receiving failed, for instance ENOBUFS when the answers did not fit.
    #[error("netlink {operation} failed")]
    Transport {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },

    /// The kernel refused one request. `message` is its own explanation (NETLINK_EXT_ACK) where it gives one.
    #[error("could not {operation} {object}{}", message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Kernel {
        operation: &'static str,
        object: String,
        #[source]
        errno: Errno,
        message: Option<String>,
    },

    /// The kernel did not answer `operation` on `object` at all.
    #[error("the kernel did not answer: {operation} {object}")]
    NoAnswer { operation: &'static str, object: String },

    /// An answer that does not parse.
    #[error("the kernel's answer is malformed: {0}")]
    Malformed(&'static str),

    /// A request too long for its length field (attributes: 65,535 bytes), or a name longer than the kernel takes.
    #[error("a netlink request does not fit: {0}")]
    TooLong(String),
}

impl Error {
    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// True when what was to be changed or removed does not exist.
    pub fn is_gone(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::ADDRNOTAVAIL)
        )
    }

    /// True when a link could not be made because this kernel has none of its kind.
    pub fn is_unknown_kind(&self) -> bool {
        matches!(self, Error::Kernel { operation, errno, .. } if *errno == Errno::OPNOTSUPP && operation.starts_with("create "))
    }

    /// True when what was to be made exists already.
    pub fn exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }
}
