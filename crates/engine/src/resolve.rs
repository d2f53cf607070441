//! The address of a server of files or logs that is given by name: the kernel and the shim take numbers only.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;

/// For all of it: a container waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// By /etc/hosts and the name servers of the host's resolv.conf.
pub(crate) async fn address(host: &str) -> Result<IpAddr, String> {
    let failed = |why: &dyn std::fmt::Display| format!("lookup {host}: {why}");
    let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
    let resolver = resolver.map_err(|error| failed(&error))?;
    match tokio::time::timeout(PATIENCE, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => {
            let all: Vec<IpAddr> = found.iter().collect();
            // As Docker, which prefers what every server speaks.
            let best = all.iter().find(|address| address.is_ipv4()).or(all.first());
            best.copied().ok_or_else(|| failed(&"no such host"))
        }
        Ok(Err(error)) if error.is_no_records_found() => Err(failed(&"no such host")),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"no name server answers")),
    }
}
