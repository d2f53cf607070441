//! `--log-driver` and `--log-opt`: which there are, and what they mean. Errors are Docker's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ferry_kit::template::{Missing, Options, Template};
use ferry_supervise::log::Format;
use ferry_supervise::{LogFile, Logging, Syslog, SyslogAddress, SyslogLayout, SyslogTls};

use crate::container::Record;
use crate::error::{Error, Kind, Result, StartFailure};
use crate::world::World;

/// What there is, for `info`.
pub(crate) const DRIVERS: [&str; 4] = ["json-file", "local", "none", "syslog"];
/// Docker's others: anything else would be a plugin.
const ABSENT: [&str; 8] = [
    "awslogs",
    "etwlogs",
    "fluentd",
    "gcplogs",
    "gelf",
    "journald",
    "logentries",
    "splunk",
];
/// Bytes a file, unless `max-size` says otherwise.
const MAX_SIZE: u64 = 20 * 1024 * 1024;
/// Files altogether, unless `max-file` says otherwise.
const MAX_FILES: u32 = 5;
/// Of `mode=non-blocking`, unless `max-buffer-size` says otherwise.
const BUFFER: u64 = 1024 * 1024;
const SYSLOG_PORT: u16 = 514;
/// RFC 5424, table 1, as Docker spells them.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];
const DAEMON: u8 = 3;

type Given = BTreeMap<String, String>;

/// What a driver's options say, before it is known of which container.
struct Parsed {
    file: Option<Files>,
    syslog: Option<Server>,
}

struct Files {
    name: Name,
    format: Format,
    max_size: u64,
    max_files: u32,
    compress: bool,
}

enum Name {
    Json,
    Local,
    Cache,
}

struct Server {
    address: Address,
    tls: Option<SyslogTls>,
    facility: u8,
    layout: SyslogLayout,
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Known(SyslogAddress),
    /// Of a server that has a name.
    Named {
        stream: bool,
        host: String,
        port: u16,
    },
}

/// Refuses a driver that is not there, and options that it does not have or cannot understand.
pub fn check(driver: &str, options: &Given) -> Result<()> {
    parse(driver, options).map(drop)
}

/// Where the log of a container goes that starts now: the name of its server is looked up. `None` for `--log-driver none`.
pub(crate) async fn of(record: &Record, world: &World) -> Result<Option<Logging>> {
    let (file, server) = settle(record, world)?;
    let syslog = match server {
        None => None,
        Some((address, mut syslog)) => {
            syslog.address = address.find().await?;
            Some(syslog)
        }
    };
    Ok((file.is_some() || syslog.is_some()).then_some(Logging { file, syslog }))
}

/// The file that a container's log goes to, if it has one. Fails for whatever [`of`] would, names of servers aside.
pub(crate) fn file(record: &Record, world: &World) -> Result<Option<LogFile>> {
    Ok(settle(record, world)?.0)
}

/// A file, and a server with its address, which is yet to be filled in.
type Settled = (Option<LogFile>, Option<(Address, Syslog)>);

fn settle(record: &Record, world: &World) -> Result<Settled> {
    let options = given(record);
    let parsed = parse(&record.host_config.log_config.r#type, &options)?;
    let file = parsed.file.map(|files| files.of(record, world, &options)).transpose()?;
    let syslog = parsed.syslog.map(|server| {
        let size = options.get("max-buffer-size").map_or(Ok(BUFFER), |text| buffer(text))?;
        let syslog = Syslog {
            address: SyslogAddress::Local,
            tls: server.tls,
            facility: server.facility,
            layout: server.layout,
            tag: tag(record, options.get("tag").map_or("{{.ID}}", String::as_str), world)?,
            hostname: world.host.hostname.clone(),
            buffer: usize::try_from(size).unwrap_or(usize::MAX),
            wait: options.get("mode").is_none_or(|mode| mode != "non-blocking"),
        };
        Ok::<_, Error>((server.address, syslog))
    });
    Ok((file, syslog.transpose()?))
}

/// The path that `inspect` shows: of what others can read.
pub(crate) fn shown_path(record: &Record, world: &World) -> String {
    let file = file(record, world).ok().flatten();
    file.filter(|file| file.format == Format::Json)
        .map_or_else(String::new, |file| file.path.to_string_lossy().into_owned())
}

/// Whether rotated files are to be compressed.
pub(crate) fn compresses(record: &Record) -> bool {
    parse(&record.host_config.log_config.r#type, &given(record))
        .is_ok_and(|parsed| parsed.file.is_some_and(|files| files.compress))
}

fn given(record: &Record) -> Given {
    record.host_config.log_config.config.clone().unwrap_or_default()
}

fn parse(driver: &str, options: &Given) -> Result<Parsed> {
    let none = Parsed {
        file: None,
        syslog: None,
    };
    if driver == "none" {
        return match options.is_empty() {
            true => Ok(none),
            false => Err(Error::invalid("invalid logging opts for driver none")),
        };
    }
    if ABSENT.contains(&driver) {
        let there = DRIVERS.join(", ");
        return Err(Error::unsupported(format!(
            "the logging driver {driver:?} is not there yet: use one of {there}"
        )));
    }
    mode(options)?;
    match driver {
        "" | "json-file" => {
            let own = [
                "max-file",
                "max-size",
                "compress",
                "labels",
                "labels-regex",
                "env",
                "env-regex",
                "tag",
            ];
            refuse_unknown(options, &own, |key| {
                format!("unknown log opt '{key}' for json-file log driver")
            })?;
            let files = Files::parse(Name::Json, options, "", false)?;
            if options.get("compress").is_some_and(|text| boolean(text) == Some(true))
                && (files.max_files < 2 || files.max_size == 0)
            {
                return Err(Error::invalid(
                    "compress cannot be true when max-file is less than 2 or max-size is not set",
                ));
            }
            Ok(Parsed {
                file: Some(files),
                ..none
            })
        }
        "local" => {
            let own = ["max-file", "max-size", "compress"];
            refuse_unknown(options, &own, |key| {
                format!("unknown log opt '{key}' for log driver local")
            })?;
            Ok(Parsed {
                file: Some(Files::parse(Name::Local, options, "", true)?),
                ..none
            })
        }
        "syslog" => Ok(Parsed {
            syslog: Some(Server::parse(options)?),
            file: match flag(options, "cache-disabled")? {
                Some(true) => None,
                _ => Some(Files::parse(Name::Cache, options, "cache-", true)?),
            },
        }),
        other => Err(Error::invalid(format!(
            "error looking up logging plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

/// Options that every driver has.
fn mode(options: &Given) -> Result<()> {
    let non_blocking = match options.get("mode").map(String::as_str) {
        None | Some("" | "blocking") => false,
        Some("non-blocking") => true,
        Some(other) => return Err(Error::invalid(format!("logger: logging mode not supported: {other}"))),
    };
    match options.get("max-buffer-size") {
        Some(_) if !non_blocking => Err(Error::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        Some(text) => buffer(text).map(drop),
        None => Ok(()),
    }
}

fn refuse_unknown(options: &Given, own: &[&str], words: impl Fn(&str) -> String) -> Result<()> {
    let common = |key: &str| matches!(key, "mode" | "max-buffer-size") || key.starts_with("cache-");
    match options.keys().find(|key| !common(key) && !own.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(words(key))),
        None => Ok(()),
    }
}

fn buffer(text: &str) -> Result<u64> {
    size(text).ok_or_else(|| Error::invalid(format!("error parsing option max-buffer-size: invalid size: '{text}'")))
}

fn size(text: &str) -> Option<u64> {
    let size = ferry_kit::units::ram_in_bytes(text).ok()?;
    u64::try_from(size).ok().filter(|size| *size > 0)
}

/// As Go's `strconv.ParseBool` reads it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn flag(options: &Given, key: &str) -> Result<Option<bool>> {
    let Some(text) = options.get(key) else { return Ok(None) };
    let wrong = || Error::invalid(format!("invalid value for option {key}: {text}"));
    boolean(text).map(Some).ok_or_else(wrong)
}

impl Files {
    fn parse(name: Name, options: &Given, prefix: &str, compress: bool) -> Result<Self> {
        let option = |key: &str| options.get(&format!("{prefix}{key}")).map(String::as_str);
        let max_size = match option("max-size") {
            None => MAX_SIZE,
            Some("-1") => 0,
            Some(text) => size(text)
                .ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text}: invalid size: '{text}'")))?,
        };
        let max_files = match option("max-file") {
            None => MAX_FILES,
            Some(text) => text.parse::<u32>().map_err(|_| {
                Error::invalid(format!(
                    "invalid value for max-file: strconv.Atoi: parsing {text:?}: invalid syntax"
                ))
            })?,
        };
        if max_files == 0 {
            return Err(Error::invalid("max-file cannot be less than 1"));
        }
        let compress = match option("compress") {
            None => compress && max_files > 1,
            Some(text) => boolean(text).ok_or_else(|| {
                Error::invalid(format!(
                    "error reading compress log option: strconv.ParseBool: parsing {text:?}: invalid syntax"
                ))
            })?,
        };
        if compress && max_files == 1 {
            return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
        }
        Ok(Self {
            format: match name {
                Name::Json => Format::Json,
                Name::Local | Name::Cache => Format::Local,
            },
            name,
            max_size,
            max_files,
            compress,
        })
    }

    fn of(self, record: &Record, world: &World, options: &Given) -> Result<LogFile> {
        let name = match self.name {
            Name::Json => format!("{}-json.log", record.id),
            Name::Local => "container.log".to_owned(),
            Name::Cache => "cache.log".to_owned(),
        };
        Ok(LogFile {
            path: world.container_dir(&record.id).join("log").join(name),
            format: self.format,
            max_size: self.max_size,
            max_files: self.max_files,
            attributes: match self.format {
                Format::Json => attributes(record, options, world)?,
                Format::Local => BTreeMap::new(),
            },
        })
    }
}

/// What `labels`, `env` and `tag` add to every line.
fn attributes(record: &Record, options: &Given, world: &World) -> Result<BTreeMap<String, String>> {
    let labels = record.config.labels.iter().flatten();
    let labels: Vec<(&str, &str)> = labels.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let env = record.config.env.iter().flatten();
    let env: Vec<(&str, &str)> = env.filter_map(|pair| pair.split_once('=')).collect();
    let mut attributes = BTreeMap::new();
    for (option, pairs) in [("labels", &labels), ("env", &env)] {
        let listed: Vec<&str> = options
            .get(option)
            .map(|text| text.split(',').collect())
            .unwrap_or_default();
        let pattern = options.get(&format!("{option}-regex")).filter(|text| !text.is_empty());
        let pattern = pattern.map(|text| {
            regex_lite::Regex::new(text)
                .map_err(|error| Error::invalid(format!("{option}-regex: error parsing regexp {text:?}: {error}")))
        });
        let pattern = pattern.transpose()?;
        let wanted = |key: &str| listed.contains(&key) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(key));
        let chosen = pairs.iter().filter(|(key, _)| wanted(key));
        attributes.extend(chosen.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    }
    if let Some(text) = options.get("tag").filter(|text| !text.is_empty()) {
        attributes.insert("tag".to_owned(), tag(record, text, world)?);
    }
    Ok(attributes)
}

/// Docker's templates for tags.
fn tag(record: &Record, text: &str, world: &World) -> Result<String> {
    let wrong = |error: ferry_kit::Error| Error::invalid(format!("log-opt tag {text:?}: {error}"));
    let image = record.image.strip_prefix("sha256:").unwrap_or(&record.image);
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let command: Vec<&str> = std::iter::once(&record.path)
        .chain(&record.args)
        .map(String::as_str)
        .collect();
    let value = serde_json::json!({
        "ID": short(&record.id),
        "FullID": record.id,
        "Name": record.name,
        "ImageID": short(image),
        "ImageFullID": record.image,
        "ImageName": record.image_name,
        "Command": command.join(" "),
        "DaemonName": "ferry",
        "Hostname": world.host.hostname,
    });
    let options = Options {
        missing: Missing::Type("*logger.Info"),
        ..Options::default()
    };
    let template = Template::parse(text).map_err(wrong)?;
    template.execute_with(&value, &options).map_err(wrong)
}

impl Server {
    fn parse(options: &Given) -> Result<Self> {
        let own = [
            "env",
            "env-regex",
            "labels",
            "labels-regex",
            "syslog-address",
            "syslog-facility",
            "syslog-format",
            "syslog-tls-ca-cert",
            "syslog-tls-cert",
            "syslog-tls-key",
            "syslog-tls-skip-verify",
            "tag",
        ];
        refuse_unknown(options, &own, |key| {
            format!("unknown log opt '{key}' for syslog log driver")
        })?;
        let layout = match options.get("syslog-format").map_or("", String::as_str) {
            "" => SyslogLayout::Unix,
            "rfc3164" => SyslogLayout::Rfc3164,
            "rfc5424" => SyslogLayout::Rfc5424,
            "rfc5424micro" => SyslogLayout::Rfc5424Micro,
            _ => return Err(Error::invalid("Invalid syslog format")),
        };
        let facility = match options.get("syslog-facility").map_or("", String::as_str) {
            "" => DAEMON,
            text => FACILITIES
                .iter()
                .find_map(|(name, number)| (*name == text).then_some(*number))
                .or_else(|| text.parse().ok().filter(|number| *number <= 23))
                .ok_or_else(|| Error::invalid("invalid syslog facility"))?,
        };
        let text = options.get("syslog-address").map_or("", String::as_str);
        let tls = match text.strip_prefix("tcp+tls://") {
            Some(server) => Some(tls(options, server)?),
            None => None,
        };
        Ok(Self {
            address: address(text)?,
            tls,
            facility,
            layout,
        })
    }
}

fn tls(options: &Given, server: &str) -> Result<SyslogTls> {
    let path = |key: &str| options.get(key).filter(|path| !path.is_empty()).map(PathBuf::from);
    let identity = match (path("syslog-tls-cert"), path("syslog-tls-key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            return Err(Error::invalid(
                "syslog-tls-cert and syslog-tls-key go together: give both",
            ));
        }
    };
    let (host, _) = host_and_port(server);
    Ok(SyslogTls {
        host: if host.is_empty() { "localhost" } else { host }.to_owned(),
        ca: path("syslog-tls-ca-cert"),
        identity,
        // Docker takes any value for yes.
        skip_verify: options
            .get("syslog-tls-skip-verify")
            .is_some_and(|text| boolean(text) != Some(false)),
    })
}

impl Address {
    /// The shim asks no name servers, so that a log depends on none while the container runs.
    async fn find(self) -> Result<SyslogAddress> {
        let (stream, host, port) = match self {
            Self::Known(address) => return Ok(address),
            Self::Named { stream, host, port } => (stream, host, port),
        };
        let scheme = if stream { "tcp" } else { "udp" };
        let address = crate::resolve::address(&host).await.map_err(|why| {
            let why = format!("failed to initialize logging driver: dial {scheme}: {why}");
            Error::new(Kind::Start(StartFailure::Setup), why)
        })?;
        Ok(internet(stream, (address, port).into()))
    }
}

fn internet(stream: bool, address: SocketAddr) -> SyslogAddress {
    match stream {
        true => SyslogAddress::Tcp(address),
        false => SyslogAddress::Udp(address),
    }
}

fn address(text: &str) -> Result<Address> {
    if text.is_empty() {
        return Ok(Address::Known(SyslogAddress::Local));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let path = || match std::fs::symlink_metadata(rest) {
        Ok(_) => Ok(PathBuf::from(rest)),
        Err(error) => Err(Error::invalid(format!("stat {rest}: {error}"))),
    };
    match scheme {
        "unix" => path().map(|path| Address::Known(SyslogAddress::Unix(path))),
        "unixgram" => path().map(|path| Address::Known(SyslogAddress::UnixDatagram(path))),
        "udp" => Ok(server(false, rest)),
        "tcp" | "tcp+tls" => Ok(server(true, rest)),
        _ => Err(Error::invalid(format!("unsupported scheme: '{scheme}'"))),
    }
}

/// `HOST[:PORT]`
fn server(stream: bool, text: &str) -> Address {
    let known = |address| Address::Known(internet(stream, address));
    if let Ok(address) = text.parse() {
        return known(address);
    }
    let (host, port) = host_and_port(text);
    match (host, host.parse::<IpAddr>()) {
        ("" | "localhost", _) => known((Ipv4Addr::LOCALHOST, port).into()),
        (_, Ok(ip)) => known((ip, port).into()),
        (host, Err(_)) => Address::Named {
            stream,
            host: host.to_owned(),
            port,
        },
    }
}

/// The host without brackets.
fn host_and_port(text: &str) -> (&str, u16) {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && port.parse::<u16>().is_ok() => {
            (host, port.parse().unwrap_or(SYSLOG_PORT))
        }
        _ => (text, SYSLOG_PORT),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_server_behind_tls_the_host_is_what_its_certificate_is_for() {
        let given = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Server::parse(&pairs.collect()).unwrap().tls
        };
        let of = |address: &str| given(&[("syslog-address", address)]).map(|tls| (tls.host, tls.skip_verify));
        assert_eq!(
            of("tcp+tls://logs.example:6514"),
            Some(("logs.example".to_owned(), false))
        );
        assert_eq!(of("tcp+tls://[::1]:6514"), Some(("::1".to_owned(), false)));
        assert_eq!(of("tcp+tls://:6514"), Some(("localhost".to_owned(), false)));
        assert_eq!(of("tcp://logs.example:6514"), None);
        let skips = |text: &str| {
            given(&[("syslog-address", "tcp+tls://h"), ("syslog-tls-skip-verify", text)])
                .unwrap()
                .skip_verify
        };
        assert_eq!(["", "yes", "1", "false"].map(skips), [true, true, true, false]);
    }

    fn refusal(driver: &str, options: &[(&str, &str)]) -> String {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        check(driver, &options).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn what_is_not_understood_is_refused_in_dockers_words() {
        let cases: [(&str, &str, &str, &str); 14] = [
            (
                "json-file",
                "foo",
                "1",
                "unknown log opt 'foo' for json-file log driver",
            ),
            ("local", "labels", "a", "unknown log opt 'labels' for log driver local"),
            ("syslog", "foo", "1", "unknown log opt 'foo' for syslog log driver"),
            ("json-file", "mode", "x", "logger: logging mode not supported: x"),
            (
                "json-file",
                "max-buffer-size",
                "1m",
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            ("none", "foo", "1", "invalid logging opts for driver none"),
            ("syslog", "syslog-address", "zz://a", "unsupported scheme: 'zz'"),
            ("syslog", "syslog-facility", "foo", "invalid syslog facility"),
            ("syslog", "syslog-format", "foo", "Invalid syslog format"),
            (
                "syslog",
                "cache-disabled",
                "zz",
                "invalid value for option cache-disabled: zz",
            ),
            ("json-file", "max-file", "0", "max-file cannot be less than 1"),
            (
                "json-file",
                "max-size",
                "x",
                "invalid value for max-size: x: invalid size: 'x'",
            ),
            ("local", "max-file", "1", ""),
            ("syslog", "syslog-address", "udp://127.0.0.1:514", ""),
        ];
        for (driver, key, value, words) in cases {
            assert_eq!(refusal(driver, &[(key, value)]), words, "{driver} {key}={value}");
        }
        let tls = ("syslog-address", "tcp+tls://127.0.0.1");
        assert_eq!(refusal("syslog", &[tls]), "");
        assert!(refusal("syslog", &[tls, ("syslog-tls-cert", "/c")]).contains("syslog-tls-key"));
        assert!(refusal("fluentd", &[]).contains("not there yet"));
        assert!(refusal("nonsense", &[]).contains("error looking up logging plugin nonsense"));
        assert_eq!(
            refusal(
                "json-file",
                &[("compress", "true"), ("max-size", "1m"), ("max-file", "2")]
            ),
            ""
        );
    }

    #[test]
    fn a_server_is_given_by_address_and_perhaps_port() {
        for (text, address) in [
            ("udp://", "127.0.0.1:514"),
            ("udp://[::1]:99", "[::1]:99"),
            ("udp://10.0.0.1", "10.0.0.1:514"),
        ] {
            assert_eq!(
                super::address(text).unwrap(),
                Address::Known(SyslogAddress::Udp(address.parse().unwrap()))
            );
        }
        assert_eq!(
            super::address("tcp://logs.example:1514").unwrap(),
            Address::Named {
                stream: true,
                host: "logs.example".to_owned(),
                port: 1514
            }
        );
    }
}
