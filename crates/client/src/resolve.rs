//! The addresses of a host, by /etc/hosts and the name servers: the static binary has no resolver of libc's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;

/// For all of it: somebody waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of `name:port` or `[address]:port`; IPv4 first, at least one.
pub async fn addresses(authority: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = authority.parse() {
        return Ok(vec![address]);
    }
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{authority}: {why}"));
    let (host, port) = split(authority).ok_or_else(|| wrong("no host and port"))?;
    let failed = |why: &dyn std::fmt::Display| io::Error::other(format!("lookup {host}: {why}"));
    let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
    let resolver = resolver.map_err(|error| failed(&error))?;
    let found = match tokio::time::timeout(PATIENCE, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) if error.is_no_records_found() => return Err(failed(&"no such host")),
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"no name server answers")),
    };
    let mut all: Vec<IpAddr> = found.iter().collect();
    all.sort_by_key(IpAddr::is_ipv6);
    match all.is_empty() {
        true => Err(failed(&"no such host")),
        false => Ok(all.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
    }
}

/// Host, without brackets, and port.
pub fn split(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}
