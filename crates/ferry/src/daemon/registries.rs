//! How the engine reaches registries.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use ferry_distribution::{Limits, Mirror, Options, Proxies};
use ferry_engine::config::Registries as Settings;

/// Where Docker's users have their certificates, and where Ferry's may.
const CERTIFICATES: [&str; 2] = ["/etc/ferry/certs.d", "/etc/docker/certs.d"];
/// dockerd's.
const DOWNLOADS: usize = 3;
const UPLOADS: usize = 5;
/// Bytes of a layer between the network and its thread: what a death of the engine makes come twice.
const IN_FLIGHT: u32 = 512 << 10;
/// Each takes a thread, or several.
const MOST: usize = 16;

/// Flags and file, merged.
#[derive(Debug, Default)]
pub struct Registries {
    /// Of docker.io.
    pub mirrors: Vec<String>,
    pub mirrors_by_host: BTreeMap<String, Vec<String>>,
    pub insecure: Vec<String>,
    pub downloads: Option<usize>,
    pub uploads: Option<usize>,
    pub attempts: Option<u32>,
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

impl Registries {
    /// `environment` stands in for proxies that are not given, in both spellings (golang.org/x/net/http/httpproxy).
    pub fn settings(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let of = |given: Option<String>, name: &str| {
            given
                .or_else(|| environment(name).filter(|value| !value.is_empty()))
                .or_else(|| environment(&name.to_lowercase()))
                .unwrap_or_default()
        };
        let mut mirrors = Vec::new();
        let docker = self.mirrors.iter().map(|url| ("docker.io", url));
        let others = self
            .mirrors_by_host
            .iter()
            .flat_map(|(host, urls)| urls.iter().map(move |url| (host.as_str(), url)));
        for (host, url) in docker.chain(others) {
            mirrors.push(Mirror::new(host, url).with_context(|| format!("mirrors of {host}"))?);
        }
        Ok(Settings {
            client: Options {
                user_agent: format!("ferry/{}", crate::build::VERSION),
                proxies: Proxies {
                    http: of(self.http_proxy, "HTTP_PROXY"),
                    https: of(self.https_proxy, "HTTPS_PROXY"),
                    none: of(self.no_proxy, "NO_PROXY"),
                },
                insecure: self.insecure,
                certificates: CERTIFICATES.iter().map(Into::into).collect(),
                mirrors,
                limits: Limits {
                    in_flight: IN_FLIGHT,
                    attempts: attempts(self.attempts)?,
                    ..Limits::default()
                },
                ..Options::default()
            },
            downloads: count("max-concurrent-downloads", self.downloads, DOWNLOADS)?,
            uploads: count("max-concurrent-uploads", self.uploads, UPLOADS)?,
        })
    }
}

fn attempts(given: Option<u32>) -> Result<u32> {
    match given {
        None => Ok(Limits::default().attempts),
        Some(0) => bail!("invalid max download attempts: 0"),
        Some(count) => Ok(count),
    }
}

fn count(key: &str, given: Option<usize>, usual: usize) -> Result<usize> {
    match given {
        None => Ok(usual),
        Some(count) if (1..=MOST).contains(&count) => Ok(count),
        Some(count) => bail!("{key}: {count} is not between 1 and {MOST}"),
    }
}
