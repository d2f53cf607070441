//! The command line of `ferry registry`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use ferry_registry::Collection;

use super::upstream::Given;

/// An OCI registry: push to it and pull from it with docker, podman, skopeo, oras, containerd and Ferry
#[derive(Debug, Parser)]
#[command(name = "ferry registry", disable_version_flag = true, disable_help_subcommand = true)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a directory until SIGTERM or SIGINT
    Serve(Box<Serve>),
    /// Remove what nothing refers to, now, also while the directory is being served
    Gc(Gc),
}

#[derive(Debug, Default, Args)]
pub struct Serve {
    /// Directory of the registry; made if it is not there
    #[arg(long, value_name = "dir")]
    pub root: Option<PathBuf>,
    /// Address and port to listen on; several are possible [default: 127.0.0.1:5000]
    #[arg(long, value_name = "address:port")]
    pub listen: Vec<SocketAddr>,
    /// Address and port for /metrics
    #[arg(long, value_name = "address:port")]
    pub metrics_listen: Option<SocketAddr>,
    /// Configuration file: these options, rights and token issuers as JSON
    #[arg(long, value_name = "file")]
    pub config: Option<PathBuf>,
    /// Nothing can be pushed or deleted, and nothing is collected unless --gc-interval says so
    #[arg(long)]
    pub read_only: bool,
    /// Tags, manifests and blobs can be deleted
    #[arg(long)]
    pub allow_delete: bool,
    /// Be a cache of another registry: of all names, or with "docker.io=https://registry-1.docker.io" of docker.io's; several
    /// are possible
    #[arg(long, value_name = "[host=]url")]
    pub upstream: Vec<Given>,
    /// Repositories at and below this are no upstream's, and can be pushed to
    #[arg(long, value_name = "repository")]
    pub upstream_except: Vec<String>,
    /// Who this registry is at its one upstream; the configuration file has users for several
    #[arg(long, value_name = "name", requires = "upstream_password_file")]
    pub upstream_user: Option<String>,
    /// File with the password for it
    #[arg(long, value_name = "file", requires = "upstream_user")]
    pub upstream_password_file: Option<PathBuf>,
    /// Who gives tokens for the one upstream, where that is not of its own domain
    #[arg(long, value_name = "host")]
    pub upstream_token_server: Option<String>,
    /// For how long a tag is believed before the upstream is asked again [default: 1m]
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub upstream_ttl: Option<Duration>,
    /// Keep at most so much of what came from upstreams: what was not asked for longest goes first ("20GB")
    #[arg(long, value_name = "size", value_parser = size)]
    pub cache_size: Option<u64>,
    /// Users and bcrypt hashes, as `htpasswd -B` writes them
    #[arg(long, value_name = "file")]
    pub htpasswd: Option<PathBuf>,
    /// Certificate chain (PEM): serve HTTPS
    #[arg(long, value_name = "file", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "file", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Clients must have a certificate signed by one of these (PEM)
    #[arg(long, value_name = "file", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// How often to remove what nothing refers to; 0 for never [default: 1h; never with --read-only]
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub gc_interval: Option<Duration>,
    /// For how long what was pushed, or promised to somebody who pushes, stays without a manifest that names it [default: 1h]
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub gc_grace: Option<Duration>,
    /// Manifests that lose their last tag are removed, but for parts of an index and referrers of what stays
    #[arg(long)]
    pub gc_untagged: bool,
    /// An upload to which nothing is added for so long is removed [default: 24h]
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub upload_expiry: Option<Duration>,
    /// Uploads that send at the same time [default: 256]
    #[arg(long, value_name = "number")]
    pub max_uploads: Option<usize>,
    /// Connections at the same time [default: 2048]
    #[arg(long, value_name = "number")]
    pub max_connections: Option<usize>,
    /// How long a connection may wait for its next request [default: 1m30s]
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub idle_timeout: Option<Duration>,
    /// No line for each request
    #[arg(long)]
    pub no_access_log: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error") [default: info]
    #[arg(short = 'l', long, value_name = "string")]
    pub log_level: Option<String>,
}

#[derive(Debug, Args)]
pub struct Gc {
    /// Directory of the registry
    #[arg(long, value_name = "dir")]
    pub root: PathBuf,
    /// What is younger stays
    #[arg(long, value_name = "duration", value_parser = duration, default_value = "1h")]
    pub grace: Duration,
    /// Manifests without a tag go, but for parts of an index and referrers of what stays
    #[arg(long)]
    pub untagged: bool,
    /// An upload to which nothing was added for so long goes
    #[arg(long, value_name = "duration", value_parser = duration, default_value = "24h")]
    pub upload_expiry: Duration,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}

impl Gc {
    pub fn collection(&self) -> Result<Collection> {
        Ok(Collection {
            grace: self.grace,
            keep_untagged: !self.untagged,
            upload_expiry: self.upload_expiry,
            dry_run: self.dry_run,
        })
    }
}

/// `20GB`, or `20g`, as everywhere in Docker's world.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: 500MB and 20GB are");
    let parsed = ferry_kit::units::ram_in_bytes(text).map_err(|_| wrong())?;
    match u64::try_from(parsed).map_err(|_| wrong())? {
        0 => Err("0 keeps nothing: leave it out for no bound".to_owned()),
        size => Ok(size),
    }
}

/// `1h30m`, as everywhere in Docker's world.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = ferry_kit::duration::parse_go(text).map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| format!("{text:?} is negative"))
}
