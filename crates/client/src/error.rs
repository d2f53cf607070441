use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A `-H` or `DOCKER_HOST` value that names no endpoint; worded as docker words it.
    #[error("{0}")]
    InvalidHost(String),
    /// Nobody answers there. `host` is as given: `unix:///run/ferry/ferry.sock`.
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: io::Error,
    },
    /// No safe connection; `reason` as Go words it.
    #[error("no TLS connection to {host}: {reason}")]
    Tls { host: String, reason: String },
    /// The daemon says no; `message` is its own text.
    #[error("{message}")]
    Api { status: u16, message: String },
    /// An upgrade was answered with something else than 101.
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded { status: u16 },
    #[error("the connection to the daemon broke")]
    Transport(#[from] hyper::Error),
    #[error("cannot read the request's body")]
    Upload(#[source] io::Error),
    #[error("the daemon's answer is no valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("invalid request")]
    Request(#[from] http::Error),
}

impl Error {
    /// The HTTP status of an answer that says no.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } | Self::NotUpgraded { status } => Some(*status),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}
