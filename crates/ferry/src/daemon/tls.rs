//! TLS of the API: dockerd's keys and flags, and what each combination of them means.
//!
//! | tls | tlsverify | over tcp |
//! |---|---|---|
//! | - | - | refused: who reaches the API is root |
//! | `false` | - | plain, because somebody said so |
//! | any | `false` | TLS, for whoever trusts the certificate |
//! | `true` | - | TLS, for those whose certificate the authority signed |
//! | any | `true` | the same |

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use ferry_server::{Acceptor, PROTOCOLS, Place, TlsFiles};

use super::file::File;
use super::settings::Both;

#[derive(Debug, Default, Clone, Args)]
pub struct TlsFlags {
    /// Use TLS; implied by --tlsverify
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls: Option<bool>,
    /// Use TLS and verify the remote
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tlsverify: Option<bool>,
    /// Trust certs signed only by this CA [default: ~/.docker/ca.pem]
    #[arg(long, value_name = "string")]
    pub tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file [default: ~/.docker/cert.pem]
    #[arg(long, value_name = "string")]
    pub tlscert: Option<PathBuf>,
    /// Path to TLS key file [default: ~/.docker/key.pem]
    #[arg(long, value_name = "string")]
    pub tlskey: Option<PathBuf>,
}

/// How TCP is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tls {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// `tls: false`.
    Plain,
    On(TlsFiles),
}

impl Tls {
    pub fn of(flags: TlsFlags, file: &mut File, both: &mut Both, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let tls = both.pick("tls", flags.tls, file.tls.take());
        let verify = both.pick("tlsverify", flags.tlsverify, file.tlsverify.take());
        let ca = both.pick("tlscacert", flags.tlscacert, file.tlscacert.take());
        let certificate = both.pick("tlscert", flags.tlscert, file.tlscert.take());
        let key = both.pick("tlskey", flags.tlskey, file.tlskey.take());
        let verify = verify.or_else(|| set("DOCKER_TLS_VERIFY").map(|_| true));
        let verify = match (tls, verify) {
            (_, Some(verify)) => verify,
            (Some(true), None) => true,
            (Some(false), None) => return Self::Plain,
            (None, None) => return Self::Unsaid,
        };
        let directory = match (set("DOCKER_CERT_PATH"), set("HOME")) {
            (Some(directory), _) => PathBuf::from(directory),
            (None, Some(home)) => PathBuf::from(home).join(".docker"),
            (None, None) => "/root/.docker".into(),
        };
        Self::On(TlsFiles {
            certificate: certificate.unwrap_or_else(|| directory.join("cert.pem")),
            key: key.unwrap_or_else(|| directory.join("key.pem")),
            client_ca: verify.then(|| ca.unwrap_or_else(|| directory.join("ca.pem"))),
        })
    }

    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Reads the files; fails when something is not as it must be for these places.
    pub fn acceptor(&self, places: &[Place]) -> Result<Option<Acceptor>> {
        match self {
            Self::On(files) => match Acceptor::read(files, PROTOCOLS) {
                Ok(acceptor) => Ok(Some(acceptor)),
                Err(error) => bail!("invalid TLS configuration: {error}"),
            },
            Self::Plain => Ok(None),
            Self::Unsaid => match places.iter().find_map(tcp) {
                Some(address) => bail!(
                    "refusing tcp://{address} without TLS: whoever reaches the API is root on this machine, from a browser's script on. \
                     Set --tlsverify with --tlscacert, --tlscert and --tlskey (docs/guide/daemon.md shows how to make them), reach \
                     unix:///run/ferry/ferry.sock by ssh (docker -H ssh://user@host), or say --tls=false if that is what you want"
                ),
                None => Ok(None),
            },
        }
    }

    /// What to warn of once the daemon listens there.
    pub fn warn(&self, place: &Place) {
        let verified = matches!(self, Self::On(TlsFiles { client_ca: Some(_), .. }));
        if let (Some(address), false) = (tcp(place), verified) {
            tracing::warn!(
                host = %format_args!("tcp://{address}"),
                "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network."
            );
        }
    }
}

fn tcp(place: &Place) -> Option<std::net::SocketAddr> {
    match place {
        Place::Tcp(address) => Some(*address),
        _ => None,
    }
}
