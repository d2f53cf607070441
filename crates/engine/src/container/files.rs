//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

use std::path::{Path, PathBuf};

use ferry_api::network::mode;

use super::record::Record;
use crate::error::{Error, Result};
use crate::networks::kind_of;
use crate::world::World;

/// Where the host's resolver settings are when /etc/resolv.conf points to a stub on the loopback.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The files, by their names in the container's directory.
pub(crate) const NAMES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// Writes the files for the start that is about to come.
pub(crate) fn write(record: &Record, dir: &Path, world: &World) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::internal(format!("write the container's files in {}", dir.display()), &error);
    let hostname = hostname(record, world);
    std::fs::write(dir.join("hostname"), format!("{hostname}\n")).map_err(failed)?;
    std::fs::write(dir.join("hosts"), hosts(record, &hostname)?).map_err(failed)?;
    std::fs::write(dir.join("resolv.conf"), resolv_conf(record)).map_err(failed)?;
    if let Some(range) = record.ids {
        for name in NAMES {
            std::os::unix::fs::chown(dir.join(name), Some(range.start), Some(range.start)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Where one of the files is.
pub(crate) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

/// The host name the container sees.
pub(crate) fn hostname(record: &Record, world: &World) -> String {
    let host = &record.host_config;
    if host.uts_mode == "host" || (kind_of(record) == mode::HOST && record.config.hostname.is_empty()) {
        return world.host.hostname.clone();
    }
    match record.config.hostname.as_str() {
        "" => record.short_id().to_owned(),
        name => name.to_owned(),
    }
}

fn hosts(record: &Record, hostname: &str) -> Result<String> {
    if kind_of(record) == mode::HOST
        && let Ok(text) = std::fs::read_to_string("/etc/hosts")
    {
        return Ok(text + &extra_hosts(record)?);
    }
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    text.push_str(&extra_hosts(record)?);
    if let Some(endpoint) = &record.endpoint {
        let names = match record.config.domainname.as_str() {
            "" => hostname.to_owned(),
            domain => format!("{hostname}.{domain} {hostname}"),
        };
        text.push_str(&format!("{}\t{names}\n", endpoint.ip));
    }
    Ok(text)
}

fn extra_hosts(record: &Record) -> Result<String> {
    let mut text = String::new();
    for entry in record.host_config.extra_hosts.iter().flatten() {
        let split = entry.split_once('=').or_else(|| entry.split_once(':'));
        let (name, address) = split.ok_or_else(|| Error::invalid(format!("bad format for add-host: {entry:?}")))?;
        let address = match (address, &record.endpoint) {
            ("host-gateway", Some(endpoint)) => endpoint.gateway.to_string(),
            ("host-gateway", None) => "127.0.0.1".to_owned(),
            (address, _) => address.to_owned(),
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

/// The host's, without name servers on its loopback, which the container cannot reach.
fn resolv_conf(record: &Record) -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if kind_of(record) == mode::HOST {
        return own;
    }
    let reachable = |text: &str| -> String {
        let keep = |line: &&str| {
            let server = line.trim().strip_prefix("nameserver").map(str::trim);
            server.is_none_or(|server| !(server.starts_with("127.") || server == "::1"))
        };
        text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
    };
    let kept = reachable(&own);
    if kept.contains("nameserver") {
        return kept;
    }
    std::fs::read_to_string(RESOLVED).map_or(kept, |text| reachable(&text))
}
