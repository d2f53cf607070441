//! What a client is told: nothing here is read from the environment.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::proxy::Proxies;
use crate::{Credentials, Error, Result};

/// How a [`Client`](crate::Client) reaches registries.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `docker/28.5.2 …`; empty for `ferry-distribution/<version>`.
    pub user_agent: String,
    pub proxies: Proxies,
    /// Registries whose certificate is not verified and that may speak plain HTTP: `host`, `host:port`, an address or a CIDR
    /// block. 127.0.0.0/8, `::1` and `localhost` always belong to them, as with Docker. Names are not resolved for this.
    pub insecure: Vec<String>,
    /// Directories with `<host:port>/{*.crt,*.cert,*.key}`, Docker's `/etc/docker/certs.d`.
    pub certificates: Vec<PathBuf>,
    pub roots: Roots,
    /// Asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    pub token_servers: TokenServers,
    pub limits: Limits,
}

/// Where a registry may send us for a token, which is where its credentials go. Never in the clear where the registry itself is
/// encrypted, and to this machine and its link (127.0.0.0/8, 169.254.0.0/16, …) only if the registry is there as well or is insecure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenServers {
    /// Anywhere, as Docker goes: somebody chose the registry.
    #[default]
    Any,
    /// To the registry's own host, to hosts of the domain that it is in (`auth.docker.io` for `registry-1.docker.io`), and to
    /// these: `host`, or `host:port`.
    OwnDomain(Vec<String>),
}

/// Whose signatures on certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The first of the well-known bundles of Linux distributions that is there.
    #[default]
    System,
    /// These PEM files and nothing else.
    Files(Vec<PathBuf>),
}

/// A registry that has what another one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry it stands for: `docker.io`, `quay.io`, `registry.example:5000`, or `*` for all.
    pub domain: String,
    /// `https://mirror.example` or `http://10.0.0.1:5000/prefix`; `/v2/` is appended.
    pub url: Url,
    /// Its own: those of the registry are never sent to a mirror.
    pub credentials: Credentials,
    /// Its certificate is not verified.
    pub skip_verify: bool,
}

impl Mirror {
    /// `url` as in Docker's `registry-mirrors`.
    pub fn new(domain: &str, url: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::Options(format!("invalid mirror: {reason}"));
        let parsed = Url::parse(url).map_err(|_| invalid(&format!("{url:?} is not a valid URI")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid(&format!(
                "unsupported scheme {:?} in {url:?}: must use either 'https://' or 'http://'",
                parsed.scheme()
            )));
        }
        if parsed.host_str().is_none_or(str::is_empty) || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid(&format!(
                "unsupported URI {url:?}: query and fragment are not allowed"
            )));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid(&format!(
                "username/password not allowed in URI {:?}",
                parsed.host_str()
            )));
        }
        Ok(Self {
            domain: domain.to_owned(),
            url: parsed,
            credentials: Credentials::Anonymous,
            skip_verify: false,
        })
    }
}

/// Bounds of time and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection with TLS.
    pub connect: Duration,
    /// From a request to the head of its answer. Registries hash whole blobs before they answer the end of an upload, which
    /// may take ten times as long.
    pub answer: Duration,
    /// In each such time of waiting, a body must bring [`least`](Self::least) bytes.
    pub stall: Duration,
    pub least: u64,
    /// Failures in a row, without progress, before one is final.
    pub attempts: u32,
    /// Waiting time after the first failure; doubles up to `longest_pause`.
    pub pause: Duration,
    pub longest_pause: Duration,
    /// A `Retry-After` beyond it is an error at once.
    pub retry_after: Duration,
    /// Bytes of a manifest.
    pub manifest: u64,
    /// Bytes of a list of tags or referrers, all pages together.
    pub list: u64,
    /// Bytes that wait between the network and a reader.
    pub in_flight: u32,
    /// Bytes of one request when a blob is fetched in several ranges at once.
    pub segment: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            least: 4 << 10,
            attempts: 5,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(5),
            retry_after: Duration::from_secs(60),
            manifest: 4 << 20,
            list: 32 << 20,
            in_flight: 4 << 20,
            segment: 2 << 20,
        }
    }
}

/// A parsed entry of [`Options::insecure`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Host(String),
    Network(IpAddr, u8),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Insecure(Vec<Entry>);

impl Insecure {
    pub(crate) fn parse(list: &[String]) -> Result<Self> {
        list.iter()
            .map(|text| Entry::parse(text))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// `authority` is `host` or `host:port`.
    pub(crate) fn contains(&self, authority: &str) -> bool {
        let host = host_of(authority);
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address: Option<IpAddr> = host.parse().ok();
        if address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.0.iter().any(|entry| match entry {
            Entry::Host(known) => known.eq_ignore_ascii_case(authority) || known.eq_ignore_ascii_case(host),
            Entry::Network(network, prefix) => address.is_some_and(|address| within(address, *network, *prefix)),
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::Options(format!(
                "insecure registry {text:?} is not valid: a host, host:port or CIDR block is wanted, without a scheme"
            ))
        };
        if text.contains("://") {
            return Err(invalid());
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            return if prefix <= most {
                Ok(Self::Network(address, prefix))
            } else {
                Err(invalid())
            };
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if text.is_empty() || !text.chars().all(fits) {
            return Err(invalid());
        }
        Ok(Self::Host(text.to_owned()))
    }
}

/// Without port and brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => authority,
    }
}

pub(crate) fn within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_insecure_and_the_rest_only_when_said() {
        let none = Insecure::default();
        for host in ["127.0.0.1:5000", "127.9.9.9", "localhost:5000", "[::1]:5000"] {
            assert!(none.contains(host), "{host}");
        }
        let some =
            Insecure::parse(&["10.1.0.0/16", "fd00::/8", "my.registry:5000", "other"].map(str::to_owned)).unwrap();
        for host in ["10.1.2.3:5000", "[fd00::1]:80", "my.registry:5000", "other", "other:81"] {
            assert!(some.contains(host), "{host}");
            assert!(!none.contains(host), "{host}");
        }
        for host in ["10.2.0.1", "my.registry", "my.registry:5001", "[fe80::1]:80"] {
            assert!(!some.contains(host), "{host}");
        }
        for text in ["http://x", "10.0.0.0/33", "a/b", ""] {
            assert!(Insecure::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn mirrors_are_urls_without_secrets() {
        assert!(Mirror::new("docker.io", "https://mirror.example").is_ok());
        for url in [
            "mirror.example",
            "ftp://m",
            "https://u:p@m",
            "https://m?x=1",
            "https://m/#f",
        ] {
            assert!(Mirror::new("docker.io", url).is_err(), "{url}");
        }
    }
}
