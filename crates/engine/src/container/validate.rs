//! What a request to create a container may say. Messages are Docker's where scripts may look for them.

use ferry_api::container::{HostConfig, restart_policy};

use crate::error::{Error, Result};

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]`, at least two characters.
pub(crate) fn name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .skip(1)
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && name.len() >= 2 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Refuses by name what Ferry does not do yet, instead of pretending.
pub(crate) fn supported(host: &HostConfig) -> Result<()> {
    let not_yet = |what: &str, instead: &str| Err(Error::unsupported(format!("{what} is not there yet: {instead}")));
    if host.annotations.contains_key("") {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    for text in host.dns.iter().flatten() {
        let Ok(address) = text.parse::<std::net::IpAddr>() else {
            return Err(Error::invalid(format!("{text} is not an ip address")));
        };
        if address.to_canonical() == std::net::IpAddr::V4(ferry_network::resolver::ADDRESS) {
            return Err(Error::invalid(format!(
                "--dns {text} is the container's own resolver, which would ask itself: leave it out to have names of containers and \
                 the host's name servers, or give the server that is to be asked"
            )));
        }
    }
    if !host.storage_opt.is_empty() {
        return not_yet("--storage-opt", "limit the disk with a file system of its own under -v");
    }
    if host
        .resources
        .device_requests
        .as_ref()
        .is_some_and(|requests| !requests.is_empty())
    {
        return not_yet("--gpus", "give the device files with --device");
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    Ok(())
}

/// The restart policy, and that it goes with `--rm`.
pub(crate) fn restart(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "" | restart_policy::NO | restart_policy::ALWAYS | restart_policy::UNLESS_STOPPED => {
            if policy.maximum_retry_count != 0 {
                let negative = match policy.maximum_retry_count < 0 {
                    true => " and cannot be negative",
                    false => "",
                };
                return Err(Error::invalid(format!(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
                )));
            }
        }
        restart_policy::ON_FAILURE => {
            if policy.maximum_retry_count < 0 {
                return Err(Error::invalid(
                    "invalid restart policy: maximum retry count cannot be negative".to_owned(),
                ));
            }
        }
        other => {
            return Err(Error::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | restart_policy::NO) {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "web-1", "A_b.c", "0x"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", ".x", "a b", "ä1", "a/b", "../x"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
