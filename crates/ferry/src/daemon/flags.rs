//! The daemon's flags: dockerd's, as far as Ferry has what they set.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser};

use super::defaults::DefaultFlags;
use super::networks::NetworkFlags;
use super::others::OtherFlags;
use super::runtimes::RuntimeFlags;
use super::tls::TlsFlags;

/// A self-sufficient engine for containers
#[derive(Debug, Default, Clone, Parser)]
#[command(name = "ferry daemon", disable_version_flag = true)]
pub struct Flags {
    /// Daemon socket(s) to connect to: unix:///run/ferry/ferry.sock, tcp://0.0.0.0:2376, fd:// for those of systemd
    #[arg(short = 'H', long = "host", value_name = "list")]
    pub hosts: Vec<String>,
    /// Group for the unix socket; "" for none [default: docker, where there is one]
    #[arg(short = 'G', long, value_name = "string")]
    pub group: Option<String>,
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Root directory of persistent state [default: /var/lib/ferry]
    #[arg(short = 'g', long, value_name = "string")]
    pub data_root: Option<PathBuf>,
    /// Root directory for execution state files [default: /run/ferry]
    #[arg(long, value_name = "string")]
    pub exec_root: Option<PathBuf>,
    /// Path to use for daemon PID file [default: /run/ferry.pid]
    #[arg(short = 'p', long, value_name = "string")]
    pub pidfile: Option<PathBuf>,
    /// Daemon configuration file [default: /etc/ferry/daemon.json]
    #[arg(long, value_name = "string")]
    pub config_file: Option<PathBuf>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    pub debug: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal") [default: info]
    #[arg(short = 'l', long, value_name = "string")]
    pub log_level: Option<String>,
    /// Set the logging format ("text"|"json") [default: text]
    #[arg(long, value_name = "string")]
    pub log_format: Option<String>,
    /// Logs without ANSI coloring
    #[arg(long)]
    pub raw_logs: bool,
    /// Default driver for container logs [default: json-file]
    #[arg(long, value_name = "string")]
    pub log_driver: Option<String>,
    /// Default log driver options for containers
    #[arg(long = "log-opt", value_name = "key=value")]
    pub log_options: Vec<String>,
    /// Address and port to serve metrics for Prometheus on, as in 127.0.0.1:9323
    #[arg(long, value_name = "string")]
    pub metrics_addr: Option<String>,
    /// Set parent cgroup for all containers [default: ferry]
    #[arg(long, value_name = "string")]
    pub cgroup_parent: Option<String>,
    #[command(flatten)]
    pub networks: NetworkFlags,
    #[command(flatten)]
    pub containers: DefaultFlags,
    #[command(flatten)]
    pub runtimes: RuntimeFlags,
    #[command(flatten)]
    pub others: OtherFlags,
    /// Preferred registry mirror, in place of docker.io; daemon.json has "mirrors" for any registry
    #[arg(long = "registry-mirror", value_name = "list")]
    pub registry_mirrors: Vec<String>,
    /// Registry (host, host:port or CIDR block) that may have no valid certificate, or speak plain HTTP
    #[arg(long = "insecure-registry", value_name = "list")]
    pub insecure_registries: Vec<String>,
    /// Set the max concurrent downloads of layers [default: 3]
    #[arg(long, value_name = "int")]
    pub max_concurrent_downloads: Option<usize>,
    /// Set the max concurrent uploads of layers [default: 5]
    #[arg(long, value_name = "int")]
    pub max_concurrent_uploads: Option<usize>,
    /// Set the max download attempts for each pull [default: 5]
    #[arg(long, value_name = "int")]
    pub max_download_attempts: Option<u32>,
    /// HTTP proxy URL to use for outgoing traffic [default: $HTTP_PROXY]
    #[arg(long, value_name = "string")]
    pub http_proxy: Option<String>,
    /// HTTPS proxy URL to use for outgoing traffic [default: $HTTPS_PROXY]
    #[arg(long, value_name = "string")]
    pub https_proxy: Option<String>,
    /// Comma-separated list of hosts or IP addresses for which the proxy is skipped [default: $NO_PROXY]
    #[arg(long, value_name = "string")]
    pub no_proxy: Option<String>,
    /// Serve a registry on this address and port; daemon.json has "registry" for its options
    #[arg(long = "registry", value_name = "address:port")]
    pub registry: Vec<SocketAddr>,
    /// Set key=value labels to the daemon
    #[arg(long = "label", value_name = "list")]
    pub labels: Vec<String>,
    /// Print version information and quit
    #[arg(short = 'v', long, action = ArgAction::SetTrue)]
    pub version: bool,
    /// Validate daemon configuration and exit
    #[arg(long)]
    pub validate: bool,
    /// End the engine after so many seconds without containers and clients; 0 for never [default of an engine on demand: 300]
    #[arg(long, hide = true, value_name = "seconds", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "absent, without a value, with one")]
    pub idle_exit: Option<Option<u64>>,
}
