//! What flags and file together mean.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ferry_engine::Config;
use ferry_server::Place;
use serde_json::{Map, Value};
use tracing_subscriber::filter::LevelFilter;

use super::file::{File, Read};
use super::flags::Flags;
use super::log::{Format, level};
use super::networks::Networks;
use super::registries::Registries;
use super::tls::Tls;
use super::{defaults, metrics, others, runtimes};
use crate::registry;

const CONFIG_FILE: &str = "/etc/ferry/daemon.json";
const DATA_ROOT: &str = "/var/lib/ferry";
const EXEC_ROOT: &str = "/run/ferry";
const PIDFILE: &str = "/run/ferry.pid";
const LOG_DRIVER: &str = "json-file";
const CGROUP_PARENT: &str = "ferry";
/// Of an engine that was started on demand.
const IDLE_EXIT: u64 = 300;

/// How this daemon runs.
#[derive(Debug)]
pub struct Settings {
    pub places: Vec<Place>,
    pub tls: Tls,
    /// Of unix sockets; `None`: the usual one, if it is there.
    pub group: Option<String>,
    pub pidfile: PathBuf,
    pub log_level: LevelFilter,
    pub log_format: Format,
    /// No colours in the log.
    pub raw_logs: bool,
    /// What was asked for and sets nothing, for the log.
    pub notes: Vec<String>,
    /// The file's keys, to see what a reload changes.
    pub keys: Map<String, Value>,
    /// Started on demand by a command line, which may replace it.
    pub on_demand: bool,
    /// The engine ends itself after this time without containers and clients.
    pub idle_exit: Option<Duration>,
    pub engine: Config,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// A registry that is served beside it.
    pub registry: Option<registry::Settings>,
}

impl Settings {
    /// Reads the file the flags name, or the usual one. `environment` gives a variable's value.
    pub fn merge(flags: Flags, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let asked = flags.config_file.clone();
        let path = asked.as_deref().unwrap_or(Path::new(CONFIG_FILE));
        let what = || format!("unable to configure the daemon with file {}", path.display());
        let read = File::read(path, asked.is_some()).with_context(what)?;
        match read.keys.is_empty() {
            true => Self::of(flags, read, environment),
            false => Self::of(flags, read, environment).with_context(what),
        }
    }

    /// A key given in both is an error, as in dockerd: none is silently the stronger one.
    fn of(flags: Flags, read: Read, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut both = Both::default();
        let Read { mut file, others, keys } = read;
        let notes = others::check(&flags.others, &others, &mut both)?;
        let tls = Tls::of(flags.tls, &mut file, &mut both, environment);
        let containers = defaults::of(flags.containers, &mut file, &mut both)?;
        let runtimes = runtimes::of(flags.runtimes, &mut file, &mut both, environment)?;
        let builds = file.builder.take().unwrap_or_default().settings()?;
        let networks = Networks::of(flags.networks, &mut file, &mut both)?;
        let proxies = file.proxies.unwrap_or_default();
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let hosts = both.pick("hosts", list(flags.hosts), file.hosts);
        let data_root = both.pick("data-root", flags.data_root, file.data_root);
        let group = both.pick("group", flags.group, file.group);
        let log_format = both.pick("log-format", flags.log_format, file.log_format);
        let raw_logs = both.pick("raw-logs", flags.raw_logs.then_some(true), file.raw_logs);
        let exec_root = both.pick("exec-root", flags.exec_root, file.exec_root);
        let pidfile = both.pick("pidfile", flags.pidfile, file.pidfile);
        let debug = both
            .pick("debug", flags.debug.then_some(true), file.debug)
            .unwrap_or(false);
        let log_level = both.pick("log-level", flags.log_level, file.log_level);
        let log_driver = both.pick("log-driver", flags.log_driver, file.log_driver);
        let given = file
            .log_opts
            .map(|map| map.into_iter().map(|(key, value)| format!("{key}={value}")).collect());
        let log_options = both.pick("log-opts", list(flags.log_options), given);
        let labels = both.pick("labels", list(flags.labels), file.labels).unwrap_or_default();
        let metrics_addr = both.pick("metrics-addr", flags.metrics_addr, file.metrics_addr);
        let cgroup_parent = both.pick("cgroup-parent", flags.cgroup_parent, file.cgroup_parent);
        let idle_exit = both.pick("idle-exit", flags.idle_exit.flatten(), file.idle_exit);
        let registries = Registries {
            mirrors: both
                .pick("registry-mirrors", list(flags.registry_mirrors), file.registry_mirrors)
                .unwrap_or_default(),
            mirrors_by_host: file.mirrors.unwrap_or_default(),
            insecure: both
                .pick(
                    "insecure-registries",
                    list(flags.insecure_registries),
                    file.insecure_registries,
                )
                .unwrap_or_default(),
            downloads: both.pick(
                "max-concurrent-downloads",
                flags.max_concurrent_downloads,
                file.max_concurrent_downloads,
            ),
            uploads: both.pick(
                "max-concurrent-uploads",
                flags.max_concurrent_uploads,
                file.max_concurrent_uploads,
            ),
            attempts: both.pick(
                "max-download-attempts",
                flags.max_download_attempts,
                file.max_download_attempts,
            ),
            http_proxy: both.pick("http-proxy", flags.http_proxy, proxies.http_proxy),
            https_proxy: both.pick("https-proxy", flags.https_proxy, proxies.https_proxy),
            no_proxy: both.pick("no-proxy", flags.no_proxy, proxies.no_proxy),
        };
        let listen = Some(flags.registry).filter(|list| !list.is_empty());
        let mut registry = file.registry.or_else(|| listen.is_some().then(registry::File::default));
        if let Some(registry) = &mut registry {
            registry.listen = both.pick("registry.listen", listen, registry.listen.take());
        }
        both.check()?;

        let log_driver = log_driver.unwrap_or_else(|| LOG_DRIVER.to_owned());
        let log_options = options(log_options.unwrap_or_default())?;
        ferry_engine::logs::check_options(&log_driver, &log_options)
            .map_err(|error| anyhow::anyhow!("failed to set log opts: {}", error.message))?;
        if let Some(label) = labels.iter().find(|label| !label.contains('=')) {
            bail!("bad attribute format: {label}");
        }
        let exec_root = absolute("exec-root", exec_root.unwrap_or_else(|| EXEC_ROOT.into()))?;
        let own = exec_root != Path::new(EXEC_ROOT);
        let default_pidfile = if own {
            exec_root.join("ferry.pid")
        } else {
            PIDFILE.into()
        };
        let data_root = absolute("data-root", data_root.unwrap_or_else(|| DATA_ROOT.into()))?;
        let registry = registry
            .map(|file| mounted(file, &data_root))
            .transpose()
            .context("registry")?;
        let metrics = metrics_addr
            .filter(|address| !address.is_empty())
            .map(|address| metrics::parse(&address))
            .transpose()?;
        let hosts = match (hosts, is_activated(environment)) {
            (Some(hosts), _) => hosts,
            (None, true) => Vec::new(),
            (None, false) => vec![format!("unix://{}/ferry.sock", exec_root.display())],
        };
        let places = hosts.iter().map(|host| Place::parse(host, tls.is_on()));
        let mut places = places.collect::<Result<Vec<_>, _>>()?;
        let inherits = places.iter().any(|place| matches!(place, Place::Inherited(_)));
        if is_activated(environment) && !inherits {
            // Whoever connects to them would wait for ever.
            places.push(Place::Inherited(None));
        }
        Ok(Self {
            // Somebody may want something of a registry, or of metrics, at any time.
            idle_exit: idle_exit
                .or(flags.idle_exit.map(|_| IDLE_EXIT))
                .filter(|seconds| *seconds > 0 && registry.is_none() && metrics.is_none())
                .map(Duration::from_secs),
            places,
            tls,
            group,
            log_format: Format::parse(log_format.as_deref())?,
            raw_logs: raw_logs.unwrap_or(false),
            notes,
            keys,
            pidfile: pidfile.unwrap_or(default_pidfile),
            log_level: level(if debug {
                "debug"
            } else {
                log_level.as_deref().unwrap_or("info")
            })?,
            on_demand: flags.idle_exit.is_some(),
            engine: Config {
                data_root,
                exec_root,
                cgroup_parent: cgroup(cgroup_parent.as_deref().unwrap_or(CGROUP_PARENT))?,
                bridge: networks.bridge,
                dns: networks.dns,
                host_gateways: networks.host_gateways,
                pools: networks.pools,
                network_options: networks.options,
                log_driver,
                log_options,
                debug,
                labels,
                registries: registries.settings(environment)?,
                containers,
                runtimes,
                open_files: None,
                builds,
                registry: registry.as_ref().map(|registry| registry.root.clone()),
            },
            metrics,
            registry,
        })
    }
}

/// Whether systemd passes sockets to this very process (sd_listen_fds(3)).
fn is_activated(environment: &dyn Fn(&str) -> Option<String>) -> bool {
    let pid = environment("LISTEN_PID").and_then(|pid| pid.parse().ok());
    let count = environment("LISTEN_FDS").and_then(|count| count.parse::<u32>().ok());
    pid == Some(std::process::id()) && count.is_some_and(|count| count > 0)
}

/// Its directory is the engine's, unless the file says another.
fn mounted(mut file: registry::File, data_root: &Path) -> Result<registry::Settings> {
    if file.log_level.is_some() {
        bail!("log-level: it is the engine's, which has the log");
    }
    file.root = Some(absolute(
        "root",
        file.root.take().unwrap_or_else(|| data_root.join("registry")),
    )?);
    registry::Settings::of(registry::Serve::default(), file)
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf> {
    match path.is_absolute() {
        true => Ok(path),
        false => bail!("{key}: {} is not an absolute path", path.display()),
    }
}

/// A path below each hierarchy's root, without a slash at either end.
fn cgroup(text: &str) -> Result<String> {
    let group = text.trim_matches('/');
    match group.is_empty() || group.split('/').any(|part| matches!(part, "" | "." | "..")) {
        true => bail!("cgroup-parent: {text:?} is no path below the control groups' root"),
        false => Ok(group.to_owned()),
    }
}

/// `key=value` pairs.
fn options(list: Vec<String>) -> Result<BTreeMap<String, String>> {
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => bail!("invalid key/value pair format in log-opts: {text:?}"),
    };
    list.into_iter().map(pair).collect()
}

/// Collects what is given twice.
#[derive(Debug, Default)]
pub(super) struct Both(Vec<String>);

impl Both {
    pub fn pick<T: Debug>(&mut self, key: &str, flag: Option<T>, file: Option<T>) -> Option<T> {
        if let (Some(flag), Some(file)) = (&flag, &file) {
            self.0
                .push(format!("{key}: (from flag: {}, from file: {})", go(flag), go(file)));
        }
        flag.or(file)
    }

    fn check(self) -> Result<()> {
        match self.0.is_empty() {
            true => Ok(()),
            false => bail!(
                "the following directives are specified both as a flag and in the configuration file: {}",
                self.0.join(", ")
            ),
        }
    }
}

/// As Go prints it: `[a b]`, without quotes.
fn go(value: &impl Debug) -> String {
    format!("{value:?}").replace('"', "").replace(", ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn settings(line: &str, file: &str) -> Result<Settings> {
        let flags = Flags::try_parse_from(std::iter::once("d").chain(line.split_whitespace()))?;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("daemon.json");
        std::fs::write(&path, file)?;
        Settings::of(flags, File::read(&path, true)?, &|_| None)
    }

    fn refusal(line: &str, file: &str) -> String {
        format!("{:#}", settings(line, file).unwrap_err())
    }

    #[test]
    fn nothing_given_is_the_usual_engine() {
        let settings = settings("", "{}").unwrap();
        assert_eq!(settings.places, [Place::Unix("/run/ferry/ferry.sock".into())]);
        assert_eq!(settings.pidfile, Path::new("/run/ferry.pid"));
        assert_eq!(settings.engine.data_root, Path::new("/var/lib/ferry"));
        assert_eq!(settings.engine.cgroup_parent, "ferry");
        assert_eq!(settings.engine.bridge.unwrap().name, "ferry0");
        assert!(settings.idle_exit.is_none() && !settings.on_demand);
    }

    #[test]
    fn an_engine_on_demand_ends_itself_when_the_file_or_the_flag_says() {
        let idle = |line: &str, file: &str| {
            let settings = settings(line, file).unwrap();
            (settings.on_demand, settings.idle_exit.map(|time| time.as_secs()))
        };
        assert_eq!(idle("--idle-exit", "{}"), (true, Some(300)));
        assert_eq!(idle("--idle-exit", r#"{"idle-exit":7}"#), (true, Some(7)));
        assert_eq!(idle("--idle-exit", r#"{"idle-exit":0}"#), (true, None));
        assert_eq!(idle("", r#"{"idle-exit":7}"#), (false, Some(7)));
        assert!(refusal("--idle-exit=7", r#"{"idle-exit":7}"#).contains("idle-exit"));
    }

    #[test]
    fn another_run_directory_takes_socket_and_pid_file_along() {
        let settings = settings("--exec-root /x --data-root /y -b none --idle-exit=7", "").unwrap();
        assert_eq!(settings.places, [Place::Unix("/x/ferry.sock".into())]);
        assert_eq!(settings.pidfile, Path::new("/x/ferry.pid"));
        assert!(settings.engine.bridge.is_none());
        assert_eq!(settings.idle_exit, Some(Duration::from_secs(7)));
    }

    #[test]
    fn flags_and_file_add_up_and_never_overlap() {
        let settings = settings(
            "-H unix:///a -H unix:///b",
            r#"{"debug":true,"mtu":1400,"labels":["a=b"]}"#,
        )
        .unwrap();
        assert_eq!(settings.places.len(), 2);
        assert!(settings.engine.debug && settings.log_level == LevelFilter::DEBUG);
        assert_eq!(settings.engine.bridge.unwrap().mtu, Some(1400));
        let message = refusal("-D", r#"{"debug":true}"#);
        assert!(
            message.contains("specified both as a flag and in the configuration file: debug"),
            "{message}"
        );
    }

    #[test]
    fn a_registry_is_mounted_when_the_flag_or_the_file_says() {
        assert!(settings("", "{}").unwrap().registry.is_none());
        let by_flag = settings("--registry 127.0.0.1:5000 --data-root /y", "").unwrap();
        let registry = by_flag.registry.unwrap();
        assert_eq!(registry.root, Path::new("/y/registry"));
        assert_eq!(registry.listen, ["127.0.0.1:5000".parse().unwrap()]);
        let file = r#"{"registry":{"root":"/r","allow-delete":true}}"#;
        let both = settings("--registry [::1]:7", file).unwrap().registry.unwrap();
        assert_eq!((both.root.as_path(), both.listen.len()), (Path::new("/r"), 1));
        assert!(both.options.delete);
        let on_demand = settings("--idle-exit --registry [::1]:7", "").unwrap();
        assert!(on_demand.on_demand && on_demand.idle_exit.is_none());
        assert!(refusal("--registry [::1]:7", r#"{"registry":{"listen":["[::1]:8"]}}"#).contains("registry.listen"));
        assert!(refusal("", r#"{"registry":{"log-level":"debug"}}"#).contains("the engine's"));
        assert!(refusal("", r#"{"registry":{"root":"r"}}"#).contains("absolute"));
        assert!(refusal("", r#"{"registry":{"no-such":1}}"#).contains("no-such"));
    }

    #[test]
    fn networks_are_as_dockers_file_says() {
        let file = r#"{"default-address-pools":[{"base":"10.200.0.0/16","size":24}],"bip":"172.30.0.1/16",
            "fixed-cidr":"172.30.8.0/24","ipv6":true,"fixed-cidr-v6":"fd00:9::/64","ip":"127.0.0.1","icc":false,
            "host-gateway-ips":["192.0.2.1"],"dns":["192.0.2.53"],"dns-search":["a.example"],"dns-opts":["ndots:1"],
            "ip-masq":false,"userland-proxy":false,"iptables":true,
            "default-network-opts":{"bridge":{"com.docker.network.driver.mtu":"1400"}}}"#;
        let engine = settings("", file).unwrap().engine;
        let bridge = engine.bridge.unwrap();
        assert_eq!(bridge.address.unwrap().to_string(), "172.30.0.1/16");
        assert_eq!(bridge.fixed.unwrap().to_string(), "172.30.8.0/24");
        assert!(bridge.ipv6 && !bridge.icc && !bridge.masquerade && bridge.binding.unwrap().is_loopback());
        assert_eq!(
            (engine.pools.len(), engine.dns.servers.len(), engine.host_gateways.len()),
            (1, 1, 1)
        );
        let flags = settings(
            "--default-address-pool base=10.201.0.0/16,size=26 --icc=false --ipv6 --dns 192.0.2.9",
            "{}",
        );
        let engine = flags.unwrap().engine;
        assert_eq!(engine.pools[0].size, 26);
        assert!(!engine.bridge.as_ref().unwrap().icc && engine.bridge.unwrap().ipv6);
    }

    #[test]
    fn what_networks_cannot_have_is_refused_by_name() {
        for (file, words) in [
            (
                r#"{"default-address-pools":[{"base":"10.0.0.0/16","size":8}]}"#,
                "default-address-pools",
            ),
            (r#"{"default-address-pools":[{"base":"x","size":8}]}"#, "no subnet"),
            (
                r#"{"bip":"10.0.0.1"}"#,
                "bip: \"10.0.0.1\" is no address with its prefix",
            ),
            (
                r#"{"bip":"10.0.0.1/24","fixed-cidr":"10.0.1.0/24"}"#,
                "fixed-cidr: 10.0.1.0/24 is not in bip",
            ),
            (r#"{"fixed-cidr-v6":"fd00::/64"}"#, "\"ipv6\": true"),
            (r#"{"ip":"x"}"#, "ip: invalid IP address: x"),
            (r#"{"dns":["x"]}"#, "dns: invalid IP address: x"),
            (r#"{"dns-search":["a b"]}"#, "a b is not a valid domain"),
            (
                r#"{"host-gateway-ips":["1.2.3.4","1.2.3.5"]}"#,
                "only one IPv4 host gateway",
            ),
            (r#"{"iptables":false}"#, "iptables: false"),
            (r#"{"ip6tables":false}"#, "ip6tables: false"),
            (r#"{"ip-forward":false}"#, "--internal"),
            (r#"{"allow-direct-routing":true}"#, "gateway_mode_ipv4"),
            (r#"{"default-gateway":"1.2.3.4"}"#, "--gateway"),
            (r#"{"firewall-backend":"iptables"}"#, "nftables"),
            (r#"{"bridge":"none","ipv6":true}"#, "--bridge=none"),
        ] {
            let message = refusal("", file);
            assert!(message.contains(words), "{file}: {message}");
        }
        let twice = refusal("--dns 8.8.8.8", r#"{"dns":["1.1.1.1"]}"#);
        assert!(
            twice.contains("dns: (from flag: [8.8.8.8], from file: [1.1.1.1])"),
            "{twice}"
        );
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(refusal("", r#"{"no-such":1}"#).contains("no-such"));
        assert!(refusal("", r#"{"log-opts":{"max-sizes":"1m"}}"#).contains("unknown log opt 'max-sizes'"));
        assert!(refusal("--log-driver fluentd", "").contains("not there yet"));
        assert!(refusal("-l loud", "").contains("loud"));
        assert!(refusal("--label x", "").contains("bad attribute format: x"));
        for line in [
            "--cgroup-parent /a/../b",
            "--data-root rel",
            "-b name-much-too-long",
            "-b none --mtu 9",
            "--publish-through output",
        ] {
            assert!(settings(line, "").is_err(), "{line}");
        }
    }
}
