//! Where a registry may send us for a token (CVE-2026-33540, and the same in many clients): what answers there gets the credentials,
//! and what it answers goes back to the registry.

use std::net::IpAddr;

use url::{Host, Url};

use crate::endpoint::{Endpoint, authority};
use crate::options::TokenServers;
use crate::{Error, Result};

pub(crate) fn check(endpoint: &Endpoint, realm: &Url, servers: &TokenServers) -> Result<()> {
    let refused = |reason: String| Error::Answer {
        registry: endpoint.registry.clone(),
        subject: "authentication".to_owned(),
        reason,
    };
    if endpoint.is_tls() && realm.scheme() != "https" {
        let text = format!("it sends us to {realm}, which is not encrypted, for a token");
        return Err(refused(text));
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err(refused("it sends us for a token with a name of its own".to_owned()));
    }
    let own = endpoint.host();
    let may_be_near = endpoint.skip_verify || own.as_ref().is_some_and(is_near);
    if realm.host().is_some_and(|host| is_near(&host)) && !may_be_near {
        let text = format!(
            "it sends us to {}, which is this machine or its link, for a token: only insecure registries may",
            authority(realm)
        );
        return Err(refused(text));
    }
    match servers {
        TokenServers::Any => Ok(()),
        TokenServers::OwnDomain(others)
            if is_of(own.as_ref(), realm) || others.iter().any(|other| is(other, realm)) =>
        {
            Ok(())
        }
        TokenServers::OwnDomain(_) => Err(refused(format!(
            "it sends us to {0} for a token, which is not of its domain: if that is right, name {0} as its token server",
            authority(realm)
        ))),
    }
}

/// This machine, its link, or nowhere: where others than the registry's users have services, those of clouds for instance.
fn is_near(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(address) => is_near_address(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_near_address(address.to_canonical()),
    }
}

fn is_near_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified(),
    }
}

/// Of the registry's host, or of the domain it is in, which has to have two labels.
fn is_of(own: Option<&Host<&str>>, realm: &Url) -> bool {
    let Some(host) = realm.host() else { return false };
    if own == Some(&host) {
        return true;
    }
    let (Some(Host::Domain(own)), Host::Domain(other)) = (own, host) else {
        return false;
    };
    let domain = match own.split_once('.') {
        Some((_, parent)) if parent.contains('.') => parent,
        _ => own,
    };
    domain.contains('.') && (other == domain || other.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

fn is(named: &str, realm: &Url) -> bool {
    named.eq_ignore_ascii_case(&authority(realm))
        || realm.host_str().is_some_and(|host| named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;
    use crate::endpoint;
    use crate::options::Insecure;

    fn checked(registry: &str, realm: &str, servers: &TokenServers) -> Option<String> {
        let own = endpoint::own(registry, &Credentials::Anonymous, &Insecure::default()).unwrap();
        let realm = Url::parse(realm).unwrap();
        check(&own[0], &realm, servers).err().map(|error| error.to_string())
    }

    #[test]
    fn somebody_who_chose_a_registry_goes_where_it_says_but_not_home() {
        for realm in [
            "https://auth.docker.io/token",
            "https://elsewhere.example/t",
            "https://10.0.0.1/t",
        ] {
            assert_eq!(checked("docker.io", realm, &TokenServers::Any), None, "{realm}");
        }
        for realm in [
            "http://auth.docker.io/token",
            "https://u:p@auth.docker.io/token",
            "https://127.0.0.1/t",
            "https://127.1:2375/t",
            "https://169.254.169.254/latest",
            "https://0.0.0.0/t",
            "https://[::1]/t",
            "https://[::ffff:169.254.169.254]/t",
            "https://[fe80::1]/t",
            "https://localhost:2375/t",
            "https://a.LocalHost./t",
        ] {
            assert!(checked("docker.io", realm, &TokenServers::Any).is_some(), "{realm}");
        }
        // What is at home itself may.
        let home = "https://localhost:5001/token";
        assert_eq!(checked("127.0.0.1:5000", home, &TokenServers::Any), None);
        let insecure = Insecure::parse(&["registry.test".to_owned()]).unwrap();
        let own = endpoint::own("registry.test", &Credentials::Anonymous, &insecure).unwrap();
        check(&own[0], &Url::parse(home).unwrap(), &TokenServers::Any).unwrap();
    }

    #[test]
    fn where_nobody_watches_tokens_come_from_the_registrys_own_domain() {
        let own = TokenServers::OwnDomain(vec!["login.example:8443".to_owned(), "id.example".to_owned()]);
        for (registry, realm) in [
            ("docker.io", "https://auth.docker.io/token"),
            ("docker.io", "https://docker.io/token"),
            ("quay.io", "https://quay.io/v2/auth"),
            ("quay.io", "https://auth.quay.io/v2/auth"),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("10.0.0.1:5000", "https://10.0.0.1/token"),
            ("registry:5000", "https://registry:6000/token"),
            ("docker.io", "https://login.example:8443/token"),
            ("docker.io", "https://ID.example:9/token"),
        ] {
            assert_eq!(checked(registry, realm, &own), None, "{registry} {realm}");
        }
        for (registry, realm) in [
            ("docker.io", "https://attacker.example/token"),
            ("docker.io", "https://evil-docker.io/token"),
            ("docker.io", "https://docker.io.attacker.example/token"),
            ("docker.io", "https://login.example/token"),
            ("quay.io", "https://ghcr.io/token"),
            ("registry:5000", "https://other/token"),
            ("10.0.0.1:5000", "https://10.0.0.2/token"),
        ] {
            let said = checked(registry, realm, &own).unwrap_or_default();
            assert!(said.contains("as its token server"), "{registry} {realm}: {said}");
        }
    }
}
