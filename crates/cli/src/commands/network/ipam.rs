//! `--subnet`, `--ip-range`, `--gateway` and `--aux-address`, put together by subnet as docker/cli does it (28.5).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferry_api::network::IpamConfig;

type Result<T> = std::result::Result<T, String>;

/// In the order of the subnets; docker's order is any.
pub fn configs(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    auxiliary: &BTreeMap<String, String>,
) -> Result<Vec<IpamConfig>> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut configs: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        for other in &configs {
            if contains(subnet, &other.subnet)? || contains(&other.subnet, subnet)? {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
        }
        configs.push(IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        });
    }
    for range in ranges {
        network(range)?;
        let mut found = false;
        for config in &mut configs {
            if !contains(&config.subnet, range)? {
                continue;
            }
            if !config.ip_range.is_empty() {
                return Err(format!(
                    "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                    config.ip_range, config.subnet
                ));
            }
            config.ip_range.clone_from(range);
            found = true;
        }
        if !found {
            return Err(format!("no matching subnet for range {range}"));
        }
    }
    for gateway in gateways {
        let mut found = false;
        for config in &mut configs {
            if !contains(&config.subnet, gateway)? {
                continue;
            }
            if !config.gateway.is_empty() {
                return Err(format!(
                    "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                    config.gateway, config.subnet
                ));
            }
            config.gateway.clone_from(gateway);
            found = true;
        }
        if !found {
            return Err(format!("no matching subnet for gateway {gateway}"));
        }
    }
    for (name, address) in auxiliary {
        let mut found = false;
        for config in &mut configs {
            if contains(&config.subnet, address)? {
                config.auxiliary_addresses.insert(name.clone(), address.clone());
                found = true;
            }
        }
        if !found {
            return Err(format!("no matching subnet for aux-address {address}"));
        }
    }
    Ok(configs)
}

/// Whether the address, or the first one of a network, is in the subnet. What is no address is in none.
fn contains(subnet: &str, text: &str) -> Result<bool> {
    let (of, prefix) = network(subnet).map_err(|error| format!("invalid subnet: {error}"))?;
    let address = if text.contains('/') {
        Some(network(text)?.0)
    } else {
        text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    };
    Ok(match (of, address) {
        (IpAddr::V4(of), Some(IpAddr::V4(address))) => {
            let differing = of.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= prefix.into()
        }
        (IpAddr::V6(of), Some(IpAddr::V6(address))) => {
            let differing = of.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= prefix.into()
        }
        _ => false,
    })
}

fn network(text: &str) -> Result<(IpAddr, u8)> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
        (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
    };
    parse().ok_or_else(|| format!("invalid CIDR address: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(subnets: &[&str], ranges: &[&str], gateways: &[&str], auxiliary: &[(&str, &str)]) -> Result<Vec<IpamConfig>> {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let auxiliary = auxiliary.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        configs(&own(subnets), &own(ranges), &own(gateways), &auxiliary.collect())
    }

    #[test]
    fn each_range_gateway_and_address_goes_to_its_subnet() {
        let found = of(
            &["10.9.0.0/24", "fd00::/64", "10.1.0.0/16"],
            &["10.9.0.128/25"],
            &["10.1.0.1", "fd00::1"],
            &[("x", "10.9.0.5"), ("y", "fd00::7")],
        )
        .unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|config| {
                (
                    config.ip_range.as_str(),
                    config.gateway.as_str(),
                    config.auxiliary_addresses.len(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [("10.9.0.128/25", "", 1), ("", "fd00::1", 1), ("", "10.1.0.1", 0)]
        );
        assert_eq!(of(&[], &[], &[], &[]).unwrap(), []);
        assert!(of(&["0.0.0.0/0"], &[], &["1.2.3.4"], &[]).is_ok());
        // One alone is the daemon's to judge.
        assert!(of(&["x"], &[], &[], &[]).is_ok());
    }

    #[test]
    fn mistakes_are_worded_as_docker_words_them() {
        let one = &["10.9.0.0/24"][..];
        for (found, expected) in [
            (
                of(&["10.9.0.0/24", "10.9.0.0/25"], &[], &[], &[]),
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                of(&["x", "y"], &[], &[], &[]),
                "invalid subnet: invalid CIDR address: y",
            ),
            (of(one, &["x"], &[], &[]), "invalid CIDR address: x"),
            (
                of(one, &["10.8.0.0/24"], &[], &[]),
                "no matching subnet for range 10.8.0.0/24",
            ),
            (
                of(one, &[], &["10.8.0.1"], &[]),
                "no matching subnet for gateway 10.8.0.1",
            ),
            (of(one, &[], &["x"], &[]), "no matching subnet for gateway x"),
            (
                of(one, &[], &["fd00::1"], &[]),
                "no matching subnet for gateway fd00::1",
            ),
            (
                of(&[], &[], &["1.2.3.4"], &[]),
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (of(&[], &[], &[], &[("x", "")]), "no matching subnet for aux-address "),
            (
                of(&["10.9.0.0/24", "10.8.0.0/24"], &[], &["10.9.0.1", "10.9.0.2"], &[]),
                "cannot configure multiple gateways (10.9.0.2, 10.9.0.1) for the same subnet (10.9.0.0/24)",
            ),
            (
                of(
                    &["10.9.0.0/24", "10.8.0.0/24"],
                    &["10.9.0.0/25", "10.9.0.128/25"],
                    &[],
                    &[],
                ),
                "cannot configure multiple ranges (10.9.0.128/25, 10.9.0.0/25) on the same subnet (10.9.0.0/24)",
            ),
        ] {
            assert_eq!(found.unwrap_err(), expected);
        }
    }
}
