//! `--publish` and `--expose`, as github.com/docker/go-connections/nat reads them.

use std::net::IpAddr;

use ferry_api::{
    Empty,
    container::{PortBinding, PortMap, PortSet},
};

use super::{Result, mounts::fields};

#[derive(Debug, Default)]
pub struct Published {
    pub exposed: PortSet,
    pub bindings: PortMap,
}

pub fn published(publish: &[String], expose: &[String]) -> Result<Published> {
    let mut all = Published::default();
    for spec in publish {
        publish_one(&mut all, &standard(spec)?)?;
    }
    for spec in expose {
        if spec.contains(':') {
            return Err(format!("invalid port format for --expose: {spec}"));
        }
        let (ports, protocol) = protocol(spec);
        let (start, end) =
            range(ports).map_err(|error| format!("invalid range format for --expose: {spec}, error: {error}"))?;
        for port in start..=end {
            all.exposed.insert(format!("{port}/{protocol}"), Empty);
        }
    }
    Ok(all)
}

/// `target=80,published=8080,protocol=tcp` as `8080:80/tcp`.
fn standard(spec: &str) -> Result<String> {
    if !spec.contains('=') {
        return Ok(spec.to_owned());
    }
    let (mut target, mut published, mut protocol) = (String::new(), String::new(), "tcp".to_owned());
    for field in fields(spec)? {
        match field.split_once('=') {
            Some(("target", value)) => target = value.into(),
            Some(("published", value)) => published = value.into(),
            Some(("protocol", value)) => protocol = value.into(),
            Some(("mode", _)) => {}
            _ => {
                return Err(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                ));
            }
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn protocol(spec: &str) -> (&str, String) {
    match spec.rsplit_once('/') {
        Some((ports, protocol)) if !protocol.is_empty() => (ports, protocol.to_lowercase()),
        Some((ports, _)) => (ports, "tcp".into()),
        None => (spec, "tcp".into()),
    }
}

fn number(text: &str) -> Result<u16> {
    text.parse().map_err(|_| {
        format!(
            "strconv.ParseUint: parsing {}: invalid syntax",
            ferry_kit::gofmt::quote(text)
        )
    })
}

fn range(text: &str) -> Result<(u16, u16)> {
    if text.is_empty() {
        return Err("empty string specified for ports".into());
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (number(start)?, number(end)?);
    if end < start {
        Err(format!("Invalid range specified for the Port: {text}"))
    } else {
        Ok((start, end))
    }
}

fn publish_one(all: &mut Published, spec: &str) -> Result<()> {
    let (ports, protocol) = protocol(spec);
    let (address, host, container) = match ports.rsplit_once(':') {
        None => ("", "", ports),
        Some((before, container)) => match before.rsplit_once(':') {
            Some((address, host)) => (address, host, container),
            None => ("", before, container),
        },
    };
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("Invalid ip address: {address}"));
    }
    if container.is_empty() {
        return Err(format!("No port specified: {spec}<empty>"));
    }
    let (start, end) = range(container).map_err(|_| format!("Invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).map_err(|_| format!("Invalid hostPort: {host}"))?),
    };
    if let Some((host_start, host_end)) = host_range
        && end - start != host_end - host_start
        // Many host ports for one container port is a choice left to the daemon.
        && end != start
    {
        return Err(format!(
            "Invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("Invalid proto: {protocol}"));
    }
    for port in start..=end {
        let host_port = match host_range {
            None => String::new(),
            Some((low, high)) if start == end && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + (port - start)).to_string(),
        };
        let key = format!("{port}/{protocol}");
        all.exposed.insert(key.clone(), Empty);
        let bindings = all.bindings.entry(key).or_default().get_or_insert_default();
        bindings.push(PortBinding {
            host_ip: address.into(),
            host_port,
        });
    }
    Ok(())
}
