//! Keys and flags of the networks: dockerd's. What Ferry does otherwise is refused by name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ferry_engine::config::ipnet::IpNet;
use ferry_engine::config::{AddressPool, Bridge, Dns};
use serde::Deserialize;

use super::file::File;
use super::settings::Both;

const BRIDGE: &str = "ferry0";
/// Interface names are at most 15 bytes (IFNAMSIZ).
const BRIDGE_MAX: usize = 15;

#[derive(Debug, Default, Clone, Args)]
pub struct NetworkFlags {
    /// Name of the default bridge; "none" for no bridge networking [default: ferry0]
    #[arg(short = 'b', long, value_name = "string")]
    pub bridge: Option<String>,
    /// IPv4 address of the default bridge
    #[arg(long, value_name = "string")]
    pub bip: Option<String>,
    /// IPv6 address of the default bridge
    #[arg(long, value_name = "string")]
    pub bip6: Option<String>,
    /// Set the containers' network MTU
    #[arg(long, value_name = "int")]
    pub mtu: Option<u32>,
    /// Which of the host's rules published ports obey: "forward" (none but Ferry's), or "input" [default: forward]
    #[arg(long, value_name = "string")]
    pub publish_through: Option<String>,
    /// Default address pools for networks, as base=10.0.0.0/8,size=24
    #[arg(long = "default-address-pool", value_name = "pool-options")]
    pub default_address_pools: Vec<String>,
    /// IPv4 subnet for the containers of the default bridge
    #[arg(long, value_name = "string")]
    pub fixed_cidr: Option<String>,
    /// IPv6 subnet for the containers of the default bridge
    #[arg(long, value_name = "string")]
    pub fixed_cidr_v6: Option<String>,
    /// Enable IPv6 on the default bridge
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipv6: Option<bool>,
    /// Host IP for port publishing from the default bridge network
    #[arg(long, value_name = "ip")]
    pub ip: Option<String>,
    /// IP addresses that the special 'host-gateway' string in --add-host resolves to
    #[arg(long = "host-gateway-ip", value_name = "list")]
    pub host_gateway_ips: Vec<String>,
    /// Enable communication between containers of the default bridge
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub icc: Option<bool>,
    /// Enable IP masquerading for the default bridge's IP range
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ip_masq: Option<bool>,
    /// DNS server to use
    #[arg(long, value_name = "list")]
    pub dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt", value_name = "list")]
    pub dns_opts: Vec<String>,
    /// DNS search domains to use
    #[arg(long, value_name = "list")]
    pub dns_search: Vec<String>,
    /// Default network options, as bridge=com.docker.network.driver.mtu=1400
    #[arg(long = "default-network-opt", value_name = "driver=option=value")]
    pub options: Vec<String>,
    /// Enable addition of firewall rules; only true is there
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub iptables: Option<bool>,
    /// Enable addition of IPv6 firewall rules; only true is there
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ip6tables: Option<bool>,
    /// Enable IP forwarding in system configuration; only true is there
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ip_forward: Option<bool>,
    /// Allow remote access to published ports on container IP addresses; only false is there
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_direct_routing: Option<bool>,
    /// Not there: it is the default bridge's own address
    #[arg(long, value_name = "ip")]
    pub default_gateway: Option<String>,
    /// Not there: it is the default bridge's own address
    #[arg(long, value_name = "ip")]
    pub default_gateway_v6: Option<String>,
    /// Firewall backend to use; only "nftables" is there
    #[arg(long, value_name = "string")]
    pub firewall_backend: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    base: String,
    size: u8,
}

/// What flags and file say together.
#[derive(Debug, Default)]
pub struct Networks {
    pub bridge: Option<Bridge>,
    pub dns: Dns,
    pub host_gateways: Vec<IpAddr>,
    pub pools: Vec<AddressPool>,
    pub options: BTreeMap<String, BTreeMap<String, String>>,
}

impl Networks {
    pub fn of(flags: NetworkFlags, file: &mut File, both: &mut Both) -> Result<Self> {
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let flag_pools = flags.default_address_pools.iter().map(|text| pool_option(text));
        let flag_pools = flag_pools.collect::<Result<Vec<_>>>()?;
        let pools = both.pick(
            "default-address-pools",
            Some(flag_pools).filter(|pools| !pools.is_empty()),
            file.default_address_pools.take(),
        );
        let gateways = match (file.host_gateway_ips.take(), file.host_gateway_ip.take()) {
            (Some(_), Some(_)) => bail!("host-gateway-ip is host-gateway-ips of old: give one of the two"),
            (several, one) => several.or(one.map(|one| vec![one])),
        };
        let gateways = both.pick("host-gateway-ips", list(flags.host_gateway_ips), gateways);
        let dns = both.pick("dns", list(flags.dns), file.dns.take()).unwrap_or_default();
        let search = both.pick("dns-search", list(flags.dns_search), file.dns_search.take());
        let options = both.pick("dns-opts", list(flags.dns_opts), file.dns_opts.take());
        let name = both.pick("bridge", flags.bridge, file.bridge.take());
        let name = name.filter(|name| !name.is_empty());
        let bip = both.pick("bip", flags.bip, file.bip.take());
        let bip6 = both.pick("bip6", flags.bip6, file.bip6.take());
        let mtu = both.pick("mtu", flags.mtu, file.mtu).filter(|mtu| *mtu != 0);
        let through = both.pick("publish-through", flags.publish_through, file.publish_through.take());
        let fixed4 = both.pick("fixed-cidr", flags.fixed_cidr, file.fixed_cidr.take());
        let fixed6 = both.pick("fixed-cidr-v6", flags.fixed_cidr_v6, file.fixed_cidr_v6.take());
        let ipv6 = both.pick("ipv6", flags.ipv6, file.ipv6).unwrap_or(false);
        let ip = both.pick("ip", flags.ip, file.ip.take()).filter(|ip| !ip.is_empty());
        let icc = both.pick("icc", flags.icc, file.icc);
        let masquerade = both.pick("ip-masq", flags.ip_masq, file.ip_masq);
        let network_opts = both.pick(
            "default-network-opts",
            (!flags.options.is_empty())
                .then(|| network_options(&flags.options))
                .transpose()?,
            file.default_network_opts.take(),
        );
        file.iptables = both.pick("iptables", flags.iptables, file.iptables);
        file.ip6tables = both.pick("ip6tables", flags.ip6tables, file.ip6tables);
        file.ip_forward = both.pick("ip-forward", flags.ip_forward, file.ip_forward);
        file.allow_direct_routing = both.pick(
            "allow-direct-routing",
            flags.allow_direct_routing,
            file.allow_direct_routing,
        );
        file.default_gateway = both.pick("default-gateway", flags.default_gateway, file.default_gateway.take());
        file.default_gateway_v6 = both.pick(
            "default-gateway-v6",
            flags.default_gateway_v6,
            file.default_gateway_v6.take(),
        );
        file.firewall_backend = both.pick("firewall-backend", flags.firewall_backend, file.firewall_backend.take());
        refuse(file)?;

        for address in &dns {
            parse_address("dns", address)?;
        }
        if let Some(domain) = search
            .iter()
            .flatten()
            .find(|domain| domain.contains(char::is_whitespace))
        {
            bail!("dns-search: {domain} is not a valid domain");
        }
        let host_gateways = gateways.unwrap_or_default();
        let host_gateways = host_gateways.iter().map(|text| parse_address("host-gateway-ips", text));
        let host_gateways = host_gateways.collect::<Result<Vec<_>>>()?;
        for (v6, name) in [(false, "IPv4"), (true, "IPv6")] {
            if host_gateways.iter().filter(|address| address.is_ipv6() == v6).count() > 1 {
                bail!("only one {name} host gateway IP address can be specified");
            }
        }
        let through_input = match through.as_deref() {
            None | Some("forward") => false,
            Some("input") => true,
            Some(other) => bail!("publish-through: {other:?} is neither \"forward\" nor \"input\""),
        };
        let of_bridge = [
            bip.is_some(),
            bip6.is_some(),
            mtu.is_some(),
            fixed4.is_some(),
            fixed6.is_some(),
            ipv6,
            ip.is_some(),
        ];
        let bridge = match name.as_deref() {
            Some("none") if of_bridge.contains(&true) => {
                bail!(
                    "bip, bip6, mtu, fixed-cidr, fixed-cidr-v6, ipv6 and ip are of the default bridge, which --bridge=none turns off"
                )
            }
            Some("none") => None,
            Some(name) if name.len() > BRIDGE_MAX || name.contains('/') => {
                bail!("bridge: {name:?} is no interface's name (at most {BRIDGE_MAX} bytes, no slash)")
            }
            _ => {
                let own4 = bip.map(|text| parse_net("bip", &text, false)).transpose()?;
                let own6 = bip6.map(|text| parse_net("bip6", &text, true)).transpose()?;
                let range4 = fixed4.map(|text| parse_net("fixed-cidr", &text, false)).transpose()?;
                let range6 = fixed6.map(|text| parse_net("fixed-cidr-v6", &text, true)).transpose()?;
                if (own6.is_some() || range6.is_some()) && !ipv6 {
                    bail!("bip6 and fixed-cidr-v6 need IPv6 on the default bridge: set \"ipv6\": true");
                }
                inside("fixed-cidr", range4, "bip", own4)?;
                inside("fixed-cidr-v6", range6, "bip6", own6)?;
                Some(Bridge {
                    name: name.unwrap_or_else(|| BRIDGE.to_owned()),
                    address: own4,
                    address6: own6,
                    fixed: range4.map(|net| net.trunc()),
                    fixed6: range6.map(|net| net.trunc()),
                    ipv6,
                    mtu,
                    icc: icc.unwrap_or(true),
                    masquerade: masquerade.unwrap_or(true),
                    binding: ip.map(|text| parse_address("ip", &text)).transpose()?,
                    through_input,
                })
            }
        };
        Ok(Self {
            bridge,
            dns: Dns {
                servers: dns,
                search: search.unwrap_or_default(),
                options: options.unwrap_or_default(),
            },
            host_gateways,
            pools: pools.unwrap_or_default().iter().map(pool).collect::<Result<_>>()?,
            options: network_opts.unwrap_or_default(),
        })
    }
}

/// What dockerd has and Ferry does otherwise.
fn refuse(file: &File) -> Result<()> {
    for (key, value) in [("iptables", file.iptables), ("ip6tables", file.ip6tables)] {
        if value == Some(false) {
            bail!(
                "{key}: false is not there: without its rules no network would be apart; with --bridge=none Ferry makes no links and no rules"
            );
        }
    }
    if file.ip_forward == Some(false) {
        bail!("ip-forward: false is not there: containers would not get out; create networks with --internal for that");
    }
    if file.allow_direct_routing == Some(true) {
        bail!(
            "allow-direct-routing is said for each network: \
             network create -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected (or routed)"
        );
    }
    if file.default_gateway.is_some() || file.default_gateway_v6.is_some() {
        bail!(
            "default-gateway is not there: the default bridge's own address is its containers' gateway; create a network with --gateway"
        );
    }
    match file.firewall_backend.as_deref() {
        None | Some("" | "nftables") => Ok(()),
        Some(other) => bail!("firewall-backend: {other:?} is not there: Ferry's rules are nftables'"),
    }
}

fn parse_address(key: &str, text: &str) -> Result<IpAddr> {
    text.parse()
        .ok()
        .with_context(|| format!("{key}: invalid IP address: {text}"))
}

fn parse_net(key: &str, text: &str, v6: bool) -> Result<IpNet> {
    let net: Option<IpNet> = text.parse().ok().filter(|net| matches!(net, IpNet::V6(_)) == v6);
    let example = if v6 { "fd00:17::1/64" } else { "172.17.0.1/16" };
    net.with_context(|| format!("{key}: {text:?} is no address with its prefix, like {example}"))
}

fn inside(key: &str, range: Option<IpNet>, of: &str, own: Option<IpNet>) -> Result<()> {
    match (range, own) {
        (Some(range), Some(own)) if !own.trunc().contains(&range) => bail!("{key}: {range} is not in {of}, {own}"),
        _ => Ok(()),
    }
}

fn pool(pool: &Pool) -> Result<AddressPool> {
    let base: Option<IpNet> = pool.base.parse().ok();
    let base = base.with_context(|| format!("default-address-pools: {:?} is no subnet, like 10.0.0.0/8", pool.base))?;
    let pool = AddressPool { base, size: pool.size };
    pool.check()
        .map_err(|error| anyhow::anyhow!("default-address-pools: {error}"))?;
    Ok(pool)
}

/// `bridge=com.docker.network.driver.mtu=1400`, by driver.
fn network_options(list: &[String]) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut options: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for text in list {
        let parts = text
            .split_once('=')
            .and_then(|(driver, rest)| Some((driver, rest.split_once('=')?)));
        let Some((driver, (key, value))) = parts else {
            bail!("default-network-opt: want DRIVER=OPTION=VALUE, not {text:?}");
        };
        let of_driver = options.entry(driver.to_owned()).or_default();
        of_driver.insert(key.to_owned(), value.to_owned());
    }
    Ok(options)
}

/// `base=10.0.0.0/8,size=24`.
fn pool_option(text: &str) -> Result<Pool> {
    let part = |key: &str| {
        let mut parts = text.split(',').filter_map(|part| part.trim().split_once('='));
        parts.find_map(|(found, value)| (found == key).then(|| value.trim().to_owned()))
    };
    let size = part("size").and_then(|size| size.parse().ok());
    match part("base").zip(size) {
        Some((base, size)) => Ok(Pool { base, size }),
        None => bail!("default-address-pool: want base=SUBNET,size=BITS, not {text:?}"),
    }
}
