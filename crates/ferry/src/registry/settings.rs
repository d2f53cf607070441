//! What flags and file together mean.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ferry_registry::{AuthConfig, Caching, Collection, FileSystemOptions, Limits, Options, TlsFiles};
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use super::flags::{Serve, duration, size};
use super::upstream::Given;

/// Between two collections.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The file's keys: the flags', and what does not fit a flag. One that Ferry does not know is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub root: Option<PathBuf>,
    pub listen: Option<Vec<SocketAddr>>,
    upstreams: Option<Vec<Given>>,
    upstream_except: Option<Vec<String>>,
    upstream_ttl: Option<String>,
    cache_size: Option<String>,
    metrics_listen: Option<SocketAddr>,
    read_only: Option<bool>,
    allow_delete: Option<bool>,
    tls: Option<TlsFiles>,
    gc_interval: Option<String>,
    gc_grace: Option<String>,
    gc_untagged: Option<bool>,
    upload_expiry: Option<String>,
    max_uploads: Option<usize>,
    max_connections: Option<usize>,
    max_blob_bytes: Option<u64>,
    cache_bytes: Option<usize>,
    idle_timeout: Option<String>,
    access_log: Option<bool>,
    pub log_level: Option<String>,
    auth: Option<AuthConfig>,
}

/// How this registry is served.
#[derive(Debug)]
pub struct Settings {
    pub root: PathBuf,
    pub listen: Vec<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    pub auth: Option<AuthConfig>,
    pub upstreams: Vec<Given>,
    /// Repositories that are no upstream's.
    pub upstream_except: Vec<String>,
    pub upstream_ttl: Duration,
    /// Bytes of what came from upstreams.
    pub cache_size: Option<u64>,
    pub options: Options,
    pub limits: Limits,
    pub storage: FileSystemOptions,
    pub collection: Collection,
    /// Between two collections; `None` for no collections.
    pub interval: Option<Duration>,
    pub log_level: LevelFilter,
}

impl Settings {
    pub fn merge(flags: Serve) -> Result<Self> {
        let file = match &flags.config {
            None => File::default(),
            Some(path) => read(path)?,
        };
        Self::of(flags, file)
    }

    /// A flag is stronger than the file.
    pub fn of(flags: Serve, file: File) -> Result<Self> {
        let Some(root) = flags.root.or(file.root) else {
            bail!("--root is missing: the directory of the registry");
        };
        let tls = match (flags.tls_cert, flags.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                client_ca: flags.tls_client_ca,
            }),
            _ => file.tls,
        };
        let mut auth = file.auth;
        if let Some(path) = flags.htpasswd {
            auth.get_or_insert_default().htpasswd = Some(path);
        }
        let mut upstreams = match flags.upstream.is_empty() {
            true => file.upstreams.unwrap_or_default(),
            false => flags.upstream,
        };
        if let Some(user) = flags.upstream_user {
            let upstream = only(&mut upstreams, "--upstream-user")?;
            (upstream.user, upstream.password_file) = (Some(user), flags.upstream_password_file);
        }
        if let Some(server) = flags.upstream_token_server {
            only(&mut upstreams, "--upstream-token-server")?.token_server = Some(server);
        }
        let except = Some(flags.upstream_except).filter(|list| !list.is_empty());
        let cache_size = match (flags.cache_size, file.cache_size) {
            (None, Some(text)) => match size(&text) {
                Ok(size) => Some(size),
                Err(error) => bail!("cache-size: {error}"),
            },
            (flag, _) => flag,
        };
        if cache_size.is_some() && upstreams.is_empty() {
            bail!("cache-size is for what comes from upstreams, of which there are none: give --upstream as well");
        }
        let ttl = time("upstream-ttl", flags.upstream_ttl, file.upstream_ttl)?;
        let defaults = (Options::default(), Limits::default(), FileSystemOptions::default());
        let read_only = flags.read_only || file.read_only.unwrap_or(false);
        // Where nothing changes, nothing is removed that nobody has asked for.
        let default = if read_only { Duration::ZERO } else { INTERVAL };
        let interval = time("gc-interval", flags.gc_interval, file.gc_interval)?.unwrap_or(default);
        let grace = time("gc-grace", flags.gc_grace, file.gc_grace)?.unwrap_or(defaults.2.grace);
        let idle = time("idle-timeout", flags.idle_timeout, file.idle_timeout)?.unwrap_or(defaults.1.idle);
        if idle < Duration::from_secs(1) {
            bail!("idle-timeout: less than a second cuts every client");
        }
        let connections = flags
            .max_connections
            .or(file.max_connections)
            .unwrap_or(defaults.1.connections);
        let uploads = flags.max_uploads.or(file.max_uploads).unwrap_or(defaults.0.uploads);
        if connections == 0 || uploads == 0 {
            bail!("max-connections and max-uploads: 0 lets nobody in; --read-only is for no uploads");
        }
        let expiry = time("upload-expiry", flags.upload_expiry, file.upload_expiry)?;
        let listen = Some(flags.listen).filter(|list| !list.is_empty()).or(file.listen);
        Ok(Self {
            root,
            listen: listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 5000))]),
            metrics_listen: flags.metrics_listen.or(file.metrics_listen),
            tls,
            auth,
            upstreams,
            upstream_except: except.or(file.upstream_except).unwrap_or_default(),
            upstream_ttl: ttl.unwrap_or(Caching::default().ttl),
            cache_size,
            options: Options {
                read_only,
                delete: flags.allow_delete || file.allow_delete.unwrap_or(false),
                uploads,
                access_log: !flags.no_access_log && file.access_log.unwrap_or(true),
                ..Options::default()
            },
            limits: Limits {
                connections,
                idle,
                ..defaults.1
            },
            storage: FileSystemOptions {
                grace,
                blob_max: file.max_blob_bytes.unwrap_or(defaults.2.blob_max),
                cache: file.cache_bytes.unwrap_or(defaults.2.cache),
                ..defaults.2
            },
            collection: Collection {
                grace,
                keep_untagged: !(flags.gc_untagged || file.gc_untagged.unwrap_or(false)),
                upload_expiry: expiry.unwrap_or(Collection::default().upload_expiry),
                dry_run: false,
            },
            interval: (!interval.is_zero()).then_some(interval),
            log_level: level(flags.log_level.or(file.log_level).as_deref().unwrap_or("info"))?,
        })
    }
}

/// The upstream that a flag is for.
fn only<'a>(upstreams: &'a mut [Given], flag: &str) -> Result<&'a mut Given> {
    let count = upstreams.len();
    match upstreams {
        [upstream] => Ok(upstream),
        _ => bail!("{flag} is for one upstream, and there are {count}: the file has it for each of several"),
    }
}

fn read(path: &Path) -> Result<File> {
    let what = || format!("read the configuration file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    serde_json::from_str(&text).with_context(what)
}

fn time(key: &str, flag: Option<Duration>, file: Option<String>) -> Result<Option<Duration>> {
    match (flag, file) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, Some(text)) => match duration(&text) {
            Ok(duration) => Ok(Some(duration)),
            Err(error) => bail!("{key}: {error}"),
        },
        (None, None) => Ok(None),
    }
}

fn level(text: &str) -> Result<LevelFilter> {
    match text {
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" => Ok(LevelFilter::WARN),
        "error" => Ok(LevelFilter::ERROR),
        _ => bail!("invalid logging level: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::flags::{Command, Flags};
    use super::*;

    fn settings(line: &str, file: &str) -> Result<Settings> {
        let flags = Flags::try_parse_from(["r", "serve"].into_iter().chain(line.split_whitespace()))?;
        let Command::Serve(flags) = flags.command else {
            bail!("no serve")
        };
        Settings::of(*flags, serde_json::from_str(file)?)
    }

    #[test]
    fn nothing_given_is_a_registry_for_this_machine() {
        let settings = settings("--root /r", "{}").unwrap();
        assert_eq!(settings.listen, ["127.0.0.1:5000".parse().unwrap()]);
        assert!(settings.auth.is_none() && settings.tls.is_none() && !settings.options.delete);
        assert!(settings.collection.keep_untagged && settings.interval == Some(INTERVAL));
    }

    #[test]
    fn a_registry_that_is_read_only_collects_only_when_that_is_asked_for() {
        let interval = |line: &str, file: &str| settings(line, file).unwrap().interval;
        assert_eq!(interval("--root /r --read-only", "{}"), None);
        assert_eq!(interval("--root /r", r#"{"read-only":true}"#), None);
        let ten = Some(Duration::from_secs(600));
        assert_eq!(interval("--root /r --read-only --gc-interval 10m", "{}"), ten);
        assert_eq!(interval("--root /r", r#"{"read-only":true,"gc-interval":"10m"}"#), ten);
    }

    #[test]
    fn upstreams_are_given_by_flags_or_the_file() {
        let file = r#"{"upstreams":[{"name":"quay.io","url":"https://quay.io"}],"upstream-except":["own"],"upstream-ttl":"5m"}"#;
        let of_file = settings("--root /r", file).unwrap();
        assert_eq!(of_file.upstreams[0].name.as_deref(), Some("quay.io"));
        assert_eq!(
            (&*of_file.upstream_except, of_file.upstream_ttl),
            (&["own".to_owned()][..], Duration::from_secs(300))
        );
        let line = "--root /r --upstream http://a.b --upstream-user u --upstream-password-file /p --upstream-ttl 0";
        let of_flags = settings(line, file).unwrap();
        assert_eq!((of_flags.upstreams.len(), of_flags.upstream_ttl), (1, Duration::ZERO));
        assert_eq!(of_flags.upstreams[0].user.as_deref(), Some("u"));
        let line = "--root /r --upstream http://a.b --upstream-token-server c.d:1 --cache-size 20GB";
        let of_flags = settings(line, r#"{"cache-size":"1m"}"#).unwrap();
        assert_eq!(of_flags.upstreams[0].token_server.as_deref(), Some("c.d:1"));
        assert_eq!(of_flags.cache_size, Some(20 << 30));
        let of_file = settings("--root /r --upstream http://a.b", r#"{"cache-size":"1m"}"#).unwrap();
        assert_eq!(of_file.cache_size, Some(1 << 20));
    }

    #[test]
    fn flags_are_stronger_than_the_file_and_both_are_checked() {
        let file = r#"{"root":"/f","gc-grace":"2h","listen":["[::1]:1"],"auth":{"rights":[{"who":["anonymous"],"repositories":["**"],"allow":["pull"]}]}}"#;
        let merged = settings("--root /r --gc-interval 0 --htpasswd /h --allow-delete", file).unwrap();
        assert_eq!(merged.root, Path::new("/r"));
        assert_eq!(
            (merged.interval, merged.collection.grace),
            (None, Duration::from_secs(7200))
        );
        let auth = merged.auth.unwrap();
        assert!(auth.htpasswd.is_some() && auth.rights.is_some() && merged.options.delete);
        for (line, file) in [
            ("", "{}"),
            ("--root /r --upstream here", "{}"),
            ("--root /r --upstream-user u --upstream-password-file p", "{}"),
            ("--root /r --upstream http://a.b --upstream-user u", "{}"),
            (
                "--root /r --upstream http://a.b --upstream c.d=http://a.b --upstream-user u --upstream-password-file p",
                "{}",
            ),
            ("--root /r", r#"{"upstreams":[{"url":"http://a.b","no-such":1}]}"#),
            ("--root /r", r#"{"upstream-ttl":"soon"}"#),
            ("--root /r --cache-size 1GB", "{}"),
            ("--root /r --upstream http://a.b --cache-size 0", "{}"),
            ("--root /r --upstream http://a.b --cache-size much", "{}"),
            ("--root /r --upstream http://a.b", r#"{"cache-size":"-1"}"#),
            ("--root /r --upstream-token-server c.d", "{}"),
            ("--root /r --listen here", "{}"),
            ("--root /r --tls-cert /c", "{}"),
            ("--root /r --gc-grace -1s", "{}"),
            ("--root /r --log-level loud", "{}"),
            ("--root /r --max-uploads 0", "{}"),
            ("--root /r --idle-timeout 1ms", "{}"),
            ("--root /r", r#"{"no-such":1}"#),
            ("--root /r", r#"{"gc-grace":"soon"}"#),
            ("--root /r", r#"{"auth":{"htpasswd":1}}"#),
        ] {
            assert!(settings(line, file).is_err(), "{line} {file}");
        }
    }
}
