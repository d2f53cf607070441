//! `--network` and the flags that set the first network's endpoint.

use std::collections::BTreeMap;

use ferry_api::network::{EndpointIpam, EndpointSettings, NetworkingConfig};

use super::{Result, mounts::fields};
use crate::flags::Matches;

/// One `--network`.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    pub target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    driver_options: BTreeMap<String, String>,
    ipv4: String,
    ipv6: String,
    link_local: Vec<String>,
    mac_address: String,
    priority: i64,
}

pub fn is_mac_address(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
}

/// A name, or `name=NET,alias=A,ip=…`.
pub fn parse(text: &str) -> Result<Attachment> {
    let mut attachment = Attachment::default();
    if !text.contains('=') {
        attachment.target = text.into();
        return Ok(attachment);
    }
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field {field}"));
        };
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        match key.as_str() {
            "name" => attachment.target = value.into(),
            "alias" => attachment.aliases.push(value.into()),
            "driver-opt" => {
                let Some((name, option)) = value.split_once('=') else {
                    return Err(format!("invalid key value pair format in driver options: {value}"));
                };
                attachment
                    .driver_options
                    .insert(name.trim().to_lowercase(), option.trim().to_lowercase());
            }
            "ip" => attachment.ipv4 = value.into(),
            "ip6" => attachment.ipv6 = value.into(),
            "link-local-ip" => attachment.link_local.push(value.into()),
            "mac-address" if !is_mac_address(value) => return Err(format!("{value} is not a valid mac address")),
            "mac-address" => attachment.mac_address = value.into(),
            "gw-priority" => {
                attachment.priority = value.parse().map_err(|_| format!("invalid gw-priority ({value})"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if attachment.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(attachment)
}

fn is_user_defined(target: &str) -> bool {
    !matches!(target, "default" | "bridge" | "host" | "none" | "nat") && !target.starts_with("container:")
}

pub fn endpoints(matches: &Matches) -> Result<NetworkingConfig> {
    let given = matches.list("network");
    let mut attachments: Vec<Attachment> = given.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    if attachments.is_empty() {
        attachments.push(Attachment {
            target: "default".into(),
            ..Attachment::default()
        });
    }
    if let Some(first) = attachments.first_mut() {
        apply(first, matches)?;
    }
    let user_defined = attachments
        .iter()
        .filter(|attachment| is_user_defined(&attachment.target))
        .count();
    if user_defined > 0 && user_defined < attachments.len() {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    let mut endpoints = BTreeMap::new();
    for attachment in attachments {
        let target = attachment.target.clone();
        let settings = endpoint(attachment)?;
        // What has nothing to say about a built-in network that was asked for by name is not sent.
        if !given.is_empty() && !is_user_defined(&target) && settings == EndpointSettings::default() {
            continue;
        }
        if endpoints.insert(target.clone(), Some(settings)).is_some() {
            return Err(format!(
                "network {} is specified multiple times",
                ferry_kit::gofmt::quote(&target)
            ));
        }
    }
    Ok(NetworkingConfig {
        endpoints_config: Some(endpoints),
    })
}

/// The flags from before `--network` had fields of its own.
fn apply(first: &mut Attachment, matches: &Matches) -> Result<()> {
    let conflict = |both: &str| Err(format!("conflicting options: cannot specify both {both}"));
    let aliases = matches.list("network-alias");
    if !aliases.is_empty() && !first.aliases.is_empty() {
        return conflict("--network-alias and per-network alias");
    }
    if matches.is_set("ip") && !first.ipv4.is_empty() {
        return conflict("--ip and per-network IPv4 address");
    }
    if matches.is_set("ip6") && !first.ipv6.is_empty() {
        return conflict("--ip6 and per-network IPv6 address");
    }
    if matches.is_set("mac-address") && !first.mac_address.is_empty() {
        return conflict("--mac-address and per-network MAC address");
    }
    first.aliases.extend(aliases);
    if is_user_defined(&first.target) {
        first.links.extend(matches.list("link"));
    }
    for (flag, field) in [
        ("ip", &mut first.ipv4),
        ("ip6", &mut first.ipv6),
        ("mac-address", &mut first.mac_address),
    ] {
        if let Some(value) = matches.get(flag) {
            value.clone_into(field);
        }
    }
    first.link_local.extend(matches.list("link-local-ip"));
    Ok(())
}

fn endpoint(attachment: Attachment) -> Result<EndpointSettings> {
    let user_defined = is_user_defined(&attachment.target);
    if !user_defined && !attachment.aliases.is_empty() {
        return Err("network-scoped aliases are only supported for user-defined networks".into());
    }
    if !user_defined && !attachment.links.is_empty() {
        return Err("links are only supported for user-defined networks".into());
    }
    let ipam = EndpointIpam {
        ipv4_address: attachment.ipv4,
        ipv6_address: attachment.ipv6,
        link_local_ips: attachment.link_local,
    };
    Ok(EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpam::default()),
        links: super::given(attachment.links),
        aliases: super::given(attachment.aliases),
        mac_address: attachment.mac_address,
        driver_opts: Some(attachment.driver_options).filter(|options| !options.is_empty()),
        gw_priority: attachment.priority,
        ..EndpointSettings::default()
    })
}
