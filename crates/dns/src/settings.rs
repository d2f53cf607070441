//! What one container's resolver is to do: a file that the engine writes and the shim reads.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ADDRESS, Error};

/// No settings file is larger.
pub const MAX_SETTINGS: usize = 256 * 1024;
/// As many servers as are asked; glibc takes three, Docker all it is given.
pub const MAX_SERVERS: usize = 16;
/// As many networks as a container may see.
pub const MAX_ZONES: usize = 256;
/// As many links as a container may have.
pub const MAX_LINKS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where names are looked for, in this order; the first zone that has one decides.
    #[serde(default)]
    pub zones: Vec<ZoneFile>,
    /// Further names of others, for this container alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Who is asked for every other name, in this order.
    #[serde(default)]
    pub servers: Vec<Server>,
    /// False: no query leaves, whatever the servers are (every network of the container is internal; CVE-2024-29018).
    pub forward: bool,
    #[serde(default)]
    pub options: Options,
}

/// `--link TARGET:ALIAS`: who asks for the alias is told where the target is, as the network's zone says then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub alias: String,
    pub target: String,
    pub network: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneFile {
    pub path: PathBuf,
    /// A name of the zone is also known with this behind it: `web.front`. Empty for names that stand alone.
    pub network: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub address: IpAddr,
    #[serde(default = "dns_port")]
    pub port: u16,
    /// The interface of a link-local IPv6 address, by its number where it is asked from.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scope: u32,
    pub from: From,
}

/// Whose network a server is asked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The shim's own: servers of the host's resolv.conf, which may be on its loopback.
    Host,
    /// The container's: servers that were given with `--dns`.
    Container,
}

/// The resolv.conf(5) options that concern more than the client's own library. Absent: not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// If given and not 0, addresses of names without a dot are not asked for outside, as with Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndots: Option<u32>,
    /// Seconds until a question that no server answers fails; 5 if not given, 1 to 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// How often each server is asked within that; 2 if not given, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

impl Settings {
    /// A server that is the resolver itself (see [`Server::is_itself`]) is left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        within("the settings file", bytes.len(), MAX_SETTINGS)?;
        let mut settings: Self = serde_json::from_slice(bytes)?;
        within("the list of zones", settings.zones.len(), MAX_ZONES)?;
        within("the list of links", settings.links.len(), MAX_LINKS)?;
        within("the list of servers", settings.servers.len(), MAX_SERVERS)?;
        // One that asked itself would go on asking.
        settings.servers.retain(|server| !server.is_itself());
        Ok(settings)
    }

    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data with string keys: there is nothing in it that JSON cannot say.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Server {
    pub fn new(address: IpAddr, from: From) -> Self {
        Self {
            address,
            port: dns_port(),
            scope: 0,
            from,
        }
    }

    pub fn socket_address(&self) -> SocketAddr {
        match self.address {
            IpAddr::V6(address) => SocketAddrV6::new(address, self.port, 0, self.scope).into(),
            IpAddr::V4(_) => SocketAddr::new(self.address, self.port),
        }
    }

    /// Whether it is the container's own resolver. On the host, 127.0.0.11 is somebody else: Docker's resolver, when Ferry runs in
    /// a container of Docker's.
    pub fn is_itself(&self) -> bool {
        self.from == From::Container && self.address.to_canonical() == IpAddr::V4(ADDRESS)
    }
}

impl Options {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(5).clamp(1, 30).into())
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.attempts.unwrap_or(2).clamp(1, 5)
    }

    pub(crate) fn keeps_single_labels(&self) -> bool {
        self.ndots.is_some_and(|ndots| ndots > 0)
    }
}

pub(crate) fn within(what: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit {
        return Err(Error::TooLarge { what, limit });
    }
    Ok(())
}

fn dns_port() -> u16 {
    53
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(scope: &u32) -> bool {
    *scope == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_everything_and_may_leave_out_most() {
        let text = r#"{"zones":[{"path":"/run/ferry/networks/ab/zone","network":"front"}],
            "servers":[{"address":"127.0.0.53","from":"host"},{"address":"fe80::1","port":5353,"scope":3,"from":"container"}],
            "forward":true,"options":{"ndots":1}}"#;
        let settings = Settings::parse(text.as_bytes()).unwrap();
        assert_eq!(
            settings.servers[0],
            Server::new("127.0.0.53".parse().unwrap(), From::Host)
        );
        assert_eq!(settings.servers[1].socket_address().to_string(), "[fe80::1%3]:5353");
        assert!(settings.options.keeps_single_labels());
        assert_eq!(Settings::parse(&settings.to_bytes()).unwrap(), settings);
        let least = Settings::parse(br#"{"forward":false}"#).unwrap();
        assert!(least.zones.is_empty() && least.servers.is_empty() && !least.options.keeps_single_labels());
    }

    #[test]
    fn a_resolver_is_not_its_own_upstream_but_the_hosts_may_have_that_address() {
        let text = |from| format!(r#"{{"servers":[{{"address":"127.0.0.11","from":"{from}"}}],"forward":true}}"#);
        let servers = |text: &str| Settings::parse(text.as_bytes()).unwrap().servers.len();
        assert_eq!(servers(&text("container")), 0);
        assert_eq!(servers(&text("host")), 1);
        let mapped = r#"{"servers":[{"address":"::ffff:127.0.0.11","from":"container"}],"forward":true}"#;
        assert_eq!(servers(mapped), 0);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let server = r#"{"address":"192.0.2.1","from":"host"}"#;
        let many = vec![server; MAX_SERVERS + 1].join(",");
        let text = format!(r#"{{"servers":[{many}],"forward":true}}"#);
        assert!(Settings::parse(text.as_bytes()).unwrap_err().to_string().contains("16"));
        Settings::parse(&vec![b' '; MAX_SETTINGS + 1]).unwrap_err();
    }

    #[test]
    fn times_are_kept_in_bounds() {
        let options = |timeout, attempts| Options {
            ndots: None,
            timeout,
            attempts,
        };
        assert_eq!(options(None, None).timeout(), Duration::from_secs(5));
        assert_eq!(options(Some(0), Some(0)).timeout(), Duration::from_secs(1));
        assert_eq!(options(Some(0), Some(0)).rounds(), 1);
        assert_eq!(options(Some(9999), Some(9999)).rounds(), 5);
    }
}
