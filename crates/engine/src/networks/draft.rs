//! From the request to create a network to what it shall be. Options are Docker's; one that is not known is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferry_api::network::{Create, IpamConfig};
use ferry_network::Draft;
use ferry_network::ipnet::IpNet;
use ferry_network::network::{Bridge, Driver, Gateway, Ipvlan, LINK_PREFIX, Macvlan, Range};

use crate::error::{Error, Kind, Result};

const MTU: u32 = 1500;

/// The network that a request describes. `id` is its id to be.
pub(super) fn of(id: &str, request: &Create) -> Result<Draft> {
    let empty = BTreeMap::new();
    let options = request.options.as_ref().unwrap_or(&empty);
    let driver = match request.driver.as_str() {
        "" | "bridge" => Driver::Bridge(bridge(id, options)?),
        "macvlan" => macvlan(options)?,
        "ipvlan" => ipvlan(options)?,
        "overlay" => {
            return Err(Error::unsupported(
                "the overlay driver is not there yet: use the bridge driver, or macvlan for the hosts' own network",
            ));
        }
        "host" | "null" => {
            return Err(Error::new(
                Kind::Forbidden,
                format!("only one instance of \"{}\" network is allowed", request.driver),
            ));
        }
        other => {
            return Err(Error::not_found(format!(
                "could not find plugin {other} in v1 plugin registry: plugin \"{other}\" not found"
            )));
        }
    };
    let flag = |key: &str, asked: Option<bool>, default: bool| match options.get(key) {
        Some(text) => boolean(key, text),
        None => Ok(asked.unwrap_or(default)),
    };
    let ipam = request.ipam.as_ref();
    if let Some(ipam) = ipam
        && !matches!(ipam.driver.as_str(), "" | "default")
    {
        return Err(Error::not_found(format!(
            "could not find IPAM driver {}: use the default one",
            ipam.driver
        )));
    }
    let ranges = ipam
        .and_then(|ipam| ipam.config.as_ref())
        .into_iter()
        .flatten()
        .filter(|config| **config != IpamConfig::default())
        .map(range)
        .collect::<Result<Vec<_>>>()?;
    let mtu = match options.get("com.docker.network.driver.mtu") {
        None => MTU,
        Some(text) => text
            .parse()
            .ok()
            .filter(|mtu| (68..=65_535).contains(mtu))
            .ok_or_else(|| wrong("com.docker.network.driver.mtu", text, "a number from 68 to 65535"))?,
    };
    let v6 = flag("com.docker.network.enable_ipv6", request.enable_ipv6, false)?;
    // As with Docker, a subnet alone does not turn it on: whoever gave it is warned.
    let ranges = ranges.into_iter().filter(|range| v6 || !range.is_v6()).collect();
    Ok(Draft {
        id: id.to_owned(),
        name: request.name.clone(),
        v4: flag("com.docker.network.enable_ipv4", request.enable_ipv4, true)?,
        v6,
        driver,
        ranges,
        internal: request.internal,
        mtu,
        prefix: options
            .get("com.docker.network.container_iface_prefix")
            .cloned()
            .unwrap_or_else(|| "eth".to_owned()),
        automatic: false,
    })
}

fn bridge(id: &str, options: &BTreeMap<String, String>) -> Result<Bridge> {
    let short = id.get(..12).unwrap_or(id);
    let mut bridge = Bridge {
        link: format!("{LINK_PREFIX}{short}"),
        icc: true,
        masquerade: true,
        source: None,
        binding: None,
        gateway4: Gateway::Nat,
        gateway6: Gateway::Nat,
    };
    for (key, value) in options {
        match key.as_str() {
            "com.docker.network.bridge.name" => bridge.link.clone_from(value),
            "com.docker.network.bridge.enable_icc" => bridge.icc = boolean(key, value)?,
            "com.docker.network.bridge.enable_ip_masquerade" => bridge.masquerade = boolean(key, value)?,
            "com.docker.network.bridge.host_binding_ipv4" => bridge.binding = Some(address(key, value)?),
            "com.docker.network.host_ipv4" | "com.docker.network.host_ipv6" => {
                bridge.source = Some(address(key, value)?);
            }
            "com.docker.network.bridge.gateway_mode_ipv4" => bridge.gateway4 = gateway(key, value)?,
            "com.docker.network.bridge.gateway_mode_ipv6" => bridge.gateway6 = gateway(key, value)?,
            "com.docker.network.bridge.inhibit_ipv4" => {
                if boolean(key, value)? {
                    bridge.gateway4 = Gateway::Isolated;
                }
            }
            _ => common(key)?,
        }
    }
    Ok(bridge)
}

fn macvlan(options: &BTreeMap<String, String>) -> Result<Driver> {
    let mut mode = Macvlan::Bridge;
    for (key, value) in options {
        match key.as_str() {
            "parent" => {}
            "macvlan_mode" => {
                mode = match value.as_str() {
                    "" | "bridge" => Macvlan::Bridge,
                    "private" => Macvlan::Private,
                    "vepa" => Macvlan::Vepa,
                    "passthru" => Macvlan::Passthru,
                    _ => return Err(wrong(key, value, "bridge, private, vepa or passthru")),
                };
            }
            _ => common(key)?,
        }
    }
    Ok(Driver::Macvlan {
        parent: parent(options, "macvlan")?,
        mode,
    })
}

fn ipvlan(options: &BTreeMap<String, String>) -> Result<Driver> {
    let mut mode = Ipvlan::L2;
    for (key, value) in options {
        match key.as_str() {
            "parent" => {}
            "ipvlan_mode" => {
                mode = match value.as_str() {
                    "" | "l2" => Ipvlan::L2,
                    "l3" => Ipvlan::L3,
                    "l3s" => Ipvlan::L3s,
                    _ => return Err(wrong(key, value, "l2, l3 or l3s")),
                };
            }
            "ipvlan_flag" if matches!(value.as_str(), "" | "bridge") => {}
            _ => common(key)?,
        }
    }
    Ok(Driver::Ipvlan {
        parent: parent(options, "ipvlan")?,
        mode,
    })
}

fn parent(options: &BTreeMap<String, String>, driver: &str) -> Result<String> {
    match options.get("parent").filter(|parent| !parent.is_empty()) {
        Some(parent) => Ok(parent.clone()),
        None => Err(Error::invalid(format!(
            "a {driver} network needs the interface it is on: give it with -o parent=NAME"
        ))),
    }
}

/// Options that any driver takes.
fn common(key: &str) -> Result<()> {
    match key {
        "com.docker.network.driver.mtu"
        | "com.docker.network.container_iface_prefix"
        | "com.docker.network.enable_ipv4"
        | "com.docker.network.enable_ipv6"
        | "com.docker.network.bridge.default_bridge" => Ok(()),
        _ => Err(Error::invalid(format!("unknown option of the network driver: {key}"))),
    }
}

fn range(config: &IpamConfig) -> Result<Range> {
    let subnet: IpNet = match config.subnet.as_str() {
        "" => {
            return Err(Error::invalid(
                "an IP range or a gateway needs its subnet: give it with --subnet",
            ));
        }
        text => net("subnet", text)?,
    };
    if subnet != subnet.trunc() {
        return Err(Error::invalid(format!(
            "invalid network config:\ninvalid subnet {subnet}: it should be {}",
            subnet.trunc()
        )));
    }
    let inside = |what: &str, text: &str| -> Result<IpAddr> {
        let address: IpAddr = text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid network config:\ninvalid {what} {text}: invalid IP address"
            ))
        })?;
        match subnet.contains(&address) {
            true => Ok(address),
            false => Err(Error::invalid(format!(
                "invalid network config:\ninvalid {what} {address}: parent subnet {subnet} doesn't contain this address"
            ))),
        }
    };
    let pool = match config.ip_range.as_str() {
        "" => None,
        text => Some(net("ip-range", text)?.trunc()).filter(|pool| *pool != subnet),
    };
    if let Some(pool) = pool.filter(|pool| !subnet.contains(pool)) {
        return Err(Error::invalid(format!(
            "invalid network config:\ninvalid ip-range {pool}: parent subnet {subnet} doesn't contain ip-range"
        )));
    }
    Ok(Range {
        subnet,
        gateway: match config.gateway.as_str() {
            "" => None,
            text => Some(inside("gateway", text)?),
        },
        pool,
        reserved: config
            .auxiliary_addresses
            .values()
            .map(|text| inside("auxiliary address", text))
            .collect::<Result<_>>()?,
    })
}

fn net(what: &str, text: &str) -> Result<IpNet> {
    text.parse().map_err(|_| {
        Error::invalid(format!(
            "invalid network config:\ninvalid {what} {text}: invalid CIDR block notation"
        ))
    })
}

/// Go's strconv.ParseBool.
fn boolean(key: &str, text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong(key, text, "true or false")),
    }
}

fn address(key: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| wrong(key, text, "an IP address"))
}

fn gateway(key: &str, text: &str) -> Result<Gateway> {
    match text {
        "" | "nat" => Ok(Gateway::Nat),
        "nat-unprotected" => Ok(Gateway::Open),
        "routed" => Ok(Gateway::Routed),
        "isolated" => Ok(Gateway::Isolated),
        _ => Err(wrong(key, text, "nat, nat-unprotected, routed or isolated")),
    }
}

fn wrong(key: &str, value: &str, want: &str) -> Error {
    Error::invalid(format!("invalid value {value:?} for option {key}: want {want}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(driver: &str, options: &[(&str, &str)], config: &[IpamConfig]) -> Create {
        Create {
            name: "n".to_owned(),
            driver: driver.to_owned(),
            options: Some(
                options
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            ipam: Some(ferry_api::network::Ipam {
                config: Some(config.to_vec()),
                ..Default::default()
            }),
            ..Create::default()
        }
    }

    fn config(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.to_owned(),
            ip_range: range.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamConfig::default()
        }
    }

    #[test]
    fn a_bridge_takes_dockers_options() {
        let options = [
            ("com.docker.network.bridge.name", "br7"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
            ("com.docker.network.driver.mtu", "1400"),
        ];
        let draft = of("0123456789abcdef", &create("", &options, &[])).unwrap();
        let Driver::Bridge(bridge) = &draft.driver else {
            panic!("{draft:?}")
        };
        assert_eq!(
            (bridge.link.as_str(), bridge.icc, bridge.gateway4),
            ("br7", false, Gateway::Routed)
        );
        assert_eq!((draft.mtu, draft.v4, draft.v6), (1400, true, false));
        let plain = of("0123456789abcdef", &create("bridge", &[], &[])).unwrap();
        assert!(matches!(&plain.driver, Driver::Bridge(bridge) if bridge.link == "fb-0123456789ab"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [IpamConfig], &'a str);
        let cases: &[Case<'_>] = &[
            ("overlay", &[], &[], "not there yet"),
            ("../x", &[], &[], "plugin \"../x\" not found"),
            ("host", &[], &[], "only one instance"),
            ("", &[("com.docker.network.driver.mtu", "5")], &[], "a number from 68"),
            ("", &[("foo", "1")], &[], "unknown option of the network driver: foo"),
            ("macvlan", &[], &[], "-o parent=NAME"),
            (
                "macvlan",
                &[("parent", "eth0"), ("macvlan_mode", "x")],
                &[],
                "bridge, private, vepa",
            ),
            ("", &[], &[config("10.0.0.1/8", "", "")], "it should be 10.0.0.0/8"),
            ("", &[], &[config("10.0.0/8", "", "")], "invalid CIDR block notation"),
            (
                "",
                &[],
                &[config("10.0.0.0/8", "11.0.0.0/16", "")],
                "doesn't contain ip-range",
            ),
            (
                "",
                &[],
                &[config("10.0.0.0/8", "", "1.2.3.4")],
                "doesn't contain this address",
            ),
            ("", &[], &[config("", "", "1.2.3.4")], "--subnet"),
        ];
        for (driver, options, config, expected) in cases {
            let error = of("0123456789abcdef", &create(driver, options, config)).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_subnet_of_a_family_that_is_off_is_left_out() {
        let draft = of("0123456789abcdef", &create("", &[], &[config("fd00::/64", "", "")])).unwrap();
        assert!(!draft.v6 && draft.ranges.is_empty());
    }
}
