//! Environment, labels and the other `key=value` lists.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use super::Result;
use crate::failure::io_text;

/// Where variables named without a value come from.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `NAME=value`, or `NAME` with the value the client's environment has; `NAME` alone where it has none.
pub fn variable(text: &str, lookup: Lookup<'_>) -> Result<String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(lookup(name).map_or_else(|| name.to_owned(), |value| format!("{name}={value}")))
}

/// Those of the files first, then those of the flags.
pub fn variables(files: &[String], flags: &[String], lookup: Lookup<'_>, directory: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file, directory, Some(lookup))?);
    }
    let from_files = all.len();
    for flag in flags {
        let variable = variable(flag, lookup)?;
        // Among the flags the last one of a name counts, and takes the last place.
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        let earlier = all[from_files..]
            .iter()
            .position(|known| name(known) == name(&variable));
        if let Some(earlier) = earlier {
            all.remove(from_files + earlier);
        }
        all.push(variable);
    }
    Ok(all)
}

pub fn label(text: &str) -> Result<()> {
    let name = text.split('=').next().unwrap_or_default().trim_start();
    if name.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("label '{name}' contains whitespaces"));
    }
    Ok(())
}

pub fn labels(files: &[String], flags: &[String], directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file, directory, None)?);
    }
    all.extend(flags.iter().cloned());
    Ok(super::pairs(&all))
}

/// The entries of an env or label file: no empty lines, no comments. A name alone is looked up, and left out when there is no such
/// variable; without a lookup it stays as it is.
fn lines(file: &str, directory: &Path, lookup: Option<Lookup<'_>>) -> Result<Vec<String>> {
    let text = fs::read(directory.join(file)).map_err(|error| format!("open {file}: {}", io_text(&error)))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let text = str::from_utf8(text).map_err(|_| format!("invalid utf8 bytes in {file}"))?;
    let mut entries = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .map_or((line, None), |(name, value)| (name, Some(value)));
        let name = name.trim_start();
        if name.is_empty() {
            return Err(format!("invalid env file ({file}): no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!(
                "invalid env file ({file}): variable '{name}' contains whitespaces"
            ));
        }
        match (value, lookup) {
            (Some(value), _) => entries.push(format!("{name}={value}")),
            (None, None) => entries.push(name.to_owned()),
            (None, Some(lookup)) => entries.extend(lookup(name).map(|value| format!("{name}={value}"))),
        }
    }
    Ok(entries)
}

/// `host:address` or `host=address` as the daemon takes it; the address may be `host-gateway`.
pub fn extra_host(text: &str) -> Result<String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((host, address)) = split.filter(|(host, address)| !host.is_empty() && !address.is_empty()) else {
        return Err(format!("bad format for add-host: {}", ferry_kit::gofmt::quote(text)));
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!(
            "invalid IP address in add-host: {}",
            ferry_kit::gofmt::quote(address)
        ));
    }
    Ok(format!("{host}:{bare}"))
}

pub fn address(text: &str) -> Result<()> {
    match text.trim().parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

pub fn link(text: &str) -> Result<()> {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [""] => Err("empty string specified for links".into()),
        [_] => Ok(()),
        [_, alias] if !alias.is_empty() => Ok(()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

/// The names docker lets through: those that are namespaced.
pub fn sysctl(text: &str) -> Result<()> {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let Some((name, _)) = text.split_once('=') else {
        return Err(format!("sysctl '{text}' is not allowed"));
    };
    let name = name.trim();
    if NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.") {
        return Ok(());
    }
    Err(format!("sysctl '{text}' is not allowed"))
}
