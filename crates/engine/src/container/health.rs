//! Health checks: what a configuration may say, and what the shim is to do for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ferry_api::Timestamp;
use ferry_api::container as api;
use ferry_api::exec::Create as ExecCreate;
use ferry_supervise as shim;

use super::plan;
use super::record::Record;
use crate::error::{Error, Result};
use crate::world::World;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Nanoseconds; the least that Docker takes.
const LEAST: i64 = 1_000_000;

/// What is checked.
#[derive(Debug, PartialEq, Eq)]
enum Test<'a> {
    Command(&'a [String]),
    Shell(&'a [String]),
    Http(SocketAddr, String),
    Tcp(SocketAddr),
}

/// What becomes of a container that turns unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OnFailure {
    #[default]
    None,
    Restart,
    Kill,
    Stop,
}

impl OnFailure {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "" | "none" => Self::None,
            "restart" => Self::Restart,
            "kill" => Self::Kill,
            "stop" => Self::Stop,
            other => {
                return Err(Error::invalid(format!(
                    "invalid on-failure action in Healthcheck: {other:?}: must be one of none, restart, kill, stop"
                )));
            }
        })
    }

    pub fn of(record: &Record) -> Self {
        let check = record.config.healthcheck.as_ref();
        check
            .and_then(|check| Self::parse(&check.on_failure).ok())
            .unwrap_or_default()
    }
}

/// Refuses what cannot be meant, in Docker's words.
pub(super) fn validate(check: &api::HealthCheck) -> Result<()> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, value) in times {
        if value != 0 && value < LEAST {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    OnFailure::parse(&check.on_failure)?;
    test(check).map(drop)
}

/// `None`: nothing is checked. As with Docker, a kind that nobody knows is none.
fn test(check: &api::HealthCheck) -> Result<Option<Test<'_>>> {
    let Some((kind, words)) = check.test.split_first() else {
        return Ok(None);
    };
    let one = || match words {
        [one] => Ok(one.as_str()),
        _ => Err(Error::invalid(format!(
            "a health check of kind {kind} takes one word, the address"
        ))),
    };
    Ok(Some(match kind.as_str() {
        "CMD" => Test::Command(words),
        "CMD-SHELL" => Test::Shell(words),
        "HTTP" => {
            let (address, path) = http(one()?)?;
            Test::Http(address, path)
        }
        "TCP" => Test::Tcp(address(one()?)?),
        _ => return Ok(None),
    }))
}

/// `:8080/path`, `http://localhost:8080/path`, `10.0.0.5:80`; the path is `/` unless it is given.
fn http(text: &str) -> Result<(SocketAddr, String)> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let (host, path) = match bare.find('/') {
        Some(slash) => bare.split_at(slash),
        None => (bare, "/"),
    };
    if text.starts_with("https://") {
        return Err(Error::invalid(format!(
            "invalid health check {text}: https is not checked; use a TCP check, or a command"
        )));
    }
    let plain = |byte: u8| byte.is_ascii_graphic();
    if path.len() > 2048 || !path.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "invalid health check {text}: the path is to be at most 2048 printable characters of ASCII"
        )));
    }
    let host = match host {
        // As URLs have it.
        host if text.starts_with("http://") && !host.rsplit(']').next().unwrap_or_default().contains(':') => {
            format!("{host}:80")
        }
        host => host.to_owned(),
    };
    Ok((address(&host)?, path.to_owned()))
}

/// `:5432`, `localhost:5432`, `10.0.0.5:5432`, `[::1]:5432`, `5432`; the container itself unless an address is given.
fn address(text: &str) -> Result<SocketAddr> {
    let invalid = || {
        Error::invalid(format!(
            "invalid address {text:?} of a health check: give a port such as :8080, or an IP address with one"
        ))
    };
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let ip = match host {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => IpAddr::V6(host.parse().map_err(|_| invalid())?),
            None => IpAddr::V4(host.parse().map_err(|_| invalid())?),
        },
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && port.to_string() == *text.rsplit(':').next().unwrap_or(text) => {
            Ok(SocketAddr::new(ip, port))
        }
        _ => Err(invalid()),
    }
}

/// What the shim of this container has to check, if anything.
pub(super) fn check(record: &Record, world: &World) -> Result<Option<Box<shim::HealthCheck>>> {
    let Some(config) = &record.config.healthcheck else {
        return Ok(None);
    };
    let Some(test) = test(config)? else { return Ok(None) };
    let probe = match test {
        Test::Http(address, path) => shim::Probe::Http { address, path },
        Test::Tcp(address) => shim::Probe::Tcp(address),
        Test::Command(words) | Test::Shell(words) => {
            let request = ExecCreate {
                cmd: Some(command(record, words, matches!(test, Test::Shell(_)))),
                ..ExecCreate::default()
            };
            shim::Probe::Exec(Box::new(plan::exec_process(record, &request, None, world)?))
        }
    };
    let time = |nanoseconds: i64, default: Duration| match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => default,
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    };
    Ok(Some(Box::new(shim::HealthCheck {
        probe,
        interval: time(config.interval, INTERVAL),
        timeout: time(config.timeout, TIMEOUT),
        start_period: time(config.start_period, Duration::ZERO),
        start_interval: time(config.start_interval, START_INTERVAL),
        retries: retries(record),
        past: record
            .run
            .health
            .as_ref()
            .map(|health| health.log.clone())
            .unwrap_or_default(),
    })))
}

/// Failures in a row that make the container unhealthy.
pub(super) fn retries(record: &Record) -> u32 {
    let config = record.config.healthcheck.as_ref();
    let given = config.and_then(|config| u32::try_from(config.retries).ok());
    given.filter(|retries| *retries > 0).unwrap_or(RETRIES)
}

fn command(record: &Record, words: &[String], shell: bool) -> Vec<String> {
    let shell = match (shell, &record.config.shell) {
        (false, _) => Vec::new(),
        (true, Some(shell)) if !shell.is_empty() => shell.to_vec(),
        (true, _) => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    shell.into_iter().chain(words.iter().cloned()).collect()
}

/// The command of the check as its events show it.
pub(super) fn command_line(record: &Record) -> String {
    let check = record.config.healthcheck.as_ref();
    let words = match check.map(test) {
        Some(Ok(Some(Test::Command(words)))) => command(record, words, false),
        Some(Ok(Some(Test::Shell(words)))) => command(record, words, true),
        _ => Vec::new(),
    };
    words.join(" ")
}

/// As `inspect` shows it.
pub(super) fn shown(health: &shim::Health) -> api::Health {
    let log = health.log.iter().map(|result| api::HealthResult {
        start: Timestamp(result.start),
        end: Timestamp(result.end),
        exit_code: i64::from(result.exit_code),
        output: result.output.clone(),
    });
    api::Health {
        status: health.status.name().to_owned(),
        failing_streak: i64::from(health.failing_streak),
        log: Some(log.collect()),
    }
}

/// As filters name it.
pub(super) fn status(record: &Record) -> &'static str {
    let health = record.run.health.as_ref();
    health.map_or(api::health_status::NONE, |health| health.status.name())
}

/// As `ps` shows it behind `Up`.
pub(super) fn suffix(record: &Record) -> String {
    match status(record) {
        api::health_status::NONE => String::new(),
        api::health_status::STARTING => " (health: starting)".to_owned(),
        other => format!(" ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_checks() {
        for (text, wanted) in [
            (":80", "127.0.0.1:80"),
            ("80", "127.0.0.1:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("10.0.0.5:8080", "10.0.0.5:8080"),
            ("[::1]:5432", "[::1]:5432"),
        ] {
            assert_eq!(address(text).unwrap(), wanted.parse().unwrap(), "{text}");
        }
        for text in [
            "",
            ":",
            ":0",
            ":65536",
            "x:80",
            "::1:80",
            "[::1]",
            "1.2.3.4",
            ":+80",
            ":080",
            "db:5432",
            "[1.2.3.4]:5",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        for (text, wanted, path) in [
            (":8080/health?x=1", "127.0.0.1:8080", "/health?x=1"),
            (":8080", "127.0.0.1:8080", "/"),
            ("http://localhost/x", "127.0.0.1:80", "/x"),
            ("http://[::1]", "[::1]:80", "/"),
            ("http://[::1]:81/", "[::1]:81", "/"),
            ("http://10.1.2.3:81/a:b", "10.1.2.3:81", "/a:b"),
        ] {
            assert_eq!(
                http(text).unwrap(),
                (wanted.parse().unwrap(), path.to_owned()),
                "{text}"
            );
        }
        for text in [
            "https://localhost/",
            ":80/a b",
            ":80/\r\nX: y",
            ":80/\u{e4}",
            "/path",
            "example.com/",
        ] {
            assert!(http(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_and_what_nobody_knows_is_no_check() {
        let check = |test: &[&str]| api::HealthCheck {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            ..api::HealthCheck::default()
        };
        for words in [&[][..], &["NONE"], &["FOO", "x"]] {
            assert_eq!(test(&check(words)).unwrap(), None, "{words:?}");
            validate(&check(words)).unwrap();
        }
        for words in [&["HTTP"][..], &["HTTP", ":80", "x"], &["TCP", ""]] {
            assert!(validate(&check(words)).is_err(), "{words:?}");
        }
        let mut short = check(&["CMD", "x"]);
        short.start_interval = 1000;
        let message = validate(&short).unwrap_err().message;
        assert_eq!(message, "StartInterval in Healthcheck cannot be less than 1ms");
        let mut acts = check(&["CMD", "x"]);
        acts.on_failure = "explode".to_owned();
        assert!(validate(&acts).is_err());
    }
}
