//! Other registries, of which this one is a cache, by Ferry's own client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ferry_distribution::{Client, Credentials, Error, Mirror, Options, Repository, TokenServers};
use ferry_image::{Digest, Reference};
use ferry_registry::{
    Asked, Descriptor, Fetched, Incoming, Name, Places, Reference as Wanted, Tag, Trouble, Upstream, Why,
};
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::daemon::registries::Registries;

/// Clients wait meanwhile, and try again themselves.
const ATTEMPTS: u32 = 3;
const CONNECT: Duration = Duration::from_secs(10);

/// As the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Given {
    /// The registry it is: `docker.io`. Without one it is the upstream of everything else.
    pub name: Option<String>,
    pub url: String,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    /// `host` or `host:port` of the server that gives tokens, where that is not of the upstream's domain.
    pub token_server: Option<String>,
}

impl std::str::FromStr for Given {
    type Err = String;
    /// `docker.io=https://registry-1.docker.io`, or a URL alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (Some(name.to_owned()), url),
            _ => (None, text),
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err("a URL is wanted, or HOST=URL: docker.io=https://registry-1.docker.io".to_owned());
        }
        Ok(Self {
            name,
            url: url.to_owned(),
            user: None,
            password_file: None,
            token_server: None,
        })
    }
}

/// Where everything is. Reads password files; asks nobody.
pub fn places(given: &[Given], own: &[String], environment: &dyn Fn(&str) -> Option<String>) -> Result<Places> {
    let mut places = Places::default();
    for given in given {
        let upstream = Remote::new(given, environment).with_context(|| format!("upstream {}", given.url))?;
        let upstream = Arc::new(upstream) as Arc<dyn Upstream>;
        let Some(name) = &given.name else {
            if places.whole.replace(upstream).is_some() {
                bail!("two upstreams without a name: give all but one the registry they are, as in docker.io=URL");
            }
            continue;
        };
        let host: Option<Name> = name.parse().ok().filter(|_| !name.contains('/'));
        let Some(host) = host else {
            bail!("upstream {name:?} is no registry's name: a host without a port, as docker.io");
        };
        if places.named.iter().any(|(known, _)| *known == host) {
            bail!("two upstreams are called {name}");
        }
        places.named.push((host, upstream));
    }
    for name in own {
        let name = name.parse().with_context(|| format!("upstream-except: {name:?}"))?;
        places.own.push(name);
    }
    if places.is_empty() && !own.is_empty() {
        bail!("upstream-except is of upstreams, of which there are none");
    }
    Ok(places)
}

#[derive(Debug)]
struct Remote {
    client: Client,
    credentials: Credentials,
    /// `host` or `host:port`.
    host: String,
    shown: String,
}

impl Remote {
    fn new(given: &Given, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        // The same rules: a URL without a password, query and fragment.
        let url = Mirror::new("*", &given.url)?.url;
        if !matches!(url.path(), "" | "/") {
            bail!("its registry has to be at /v2/ of the host, not below {}", url.path());
        }
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let host = match host.as_str() {
            "docker.io" | "index.docker.io" | "registry.hub.docker.com" => "registry-1.docker.io".to_owned(),
            _ => host,
        };
        let known = Reference::parse_named(&format!("{host}/a/b")).ok();
        if known.is_none_or(|known| known.domain() != host) {
            bail!("{host} does not look like a registry's host: give it a port or a domain");
        }
        let plain = url.scheme() == "http";
        let registries = Registries {
            insecure: plain.then(|| host.clone()).into_iter().collect(),
            ..Registries::default()
        };
        let mut options: Options = registries.settings(environment)?.client;
        options.limits.attempts = ATTEMPTS;
        options.limits.connect = CONNECT;
        // Nobody watches what this one's password is sent to (CVE-2026-33540).
        options.token_servers = TokenServers::OwnDomain(given.token_server.iter().cloned().collect());
        // Whoever asks us can wait as well.
        options.limits.retry_after = Duration::ZERO;
        Ok(Self {
            client: Client::new(options)?,
            credentials: credentials(given)?,
            host,
            shown: given.url.trim_end_matches('/').to_owned(),
        })
    }

    fn repository(&self, name: &Name) -> Result<(Repository, Reference), Trouble> {
        let odd = |error: String| Trouble {
            why: Why::Wrong,
            message: format!("{} has no repository {name}: {error}", self.shown),
        };
        let reference =
            Reference::parse_named(&format!("{}/{name}", self.host)).map_err(|error| odd(error.to_string()))?;
        let repository = self.client.repository(&reference, &self.credentials);
        Ok((repository.map_err(|error| odd(error.to_string()))?, reference))
    }

    /// What is not there is no trouble.
    fn judge<T>(&self, name: &Name, result: Result<T, Error>) -> Result<Option<T>, Trouble> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let why = match error.answer() {
            _ if error.is_rate_limit() => Why::Busy(error.answer().and_then(|answer| answer.retry_after)),
            _ if error.is_denied() || error.is_unauthorized() => Why::Denied,
            _ if error.is_not_found() => return Ok(None),
            Some(answer) if !answer.status.is_server_error() => Why::Wrong,
            Some(_) => Why::Down,
            None if error.is_network() => Why::Down,
            None => Why::Wrong,
        };
        let message = format!("the upstream {} does not give {name}: {error}", self.shown);
        Err(Trouble { why, message })
    }
}

fn credentials(given: &Given) -> Result<Credentials> {
    match (&given.user, &given.password_file) {
        (None, None) => Ok(Credentials::Anonymous),
        (Some(user), Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Ok(Credentials::basic(user, text.trim_end_matches(['\r', '\n'])))
        }
        _ => bail!("a user and a password file belong together"),
    }
}

impl Upstream for Remote {
    fn shown(&self) -> &str {
        &self.shown
    }

    fn digest<'a>(&'a self, name: &'a Name, tag: &'a Tag) -> Asked<'a, Digest> {
        Box::pin(async move {
            let (repository, reference) = self.repository(name)?;
            let reference = tagged(reference, tag)?;
            let head = repository.head(&reference).await.map(|descriptor| descriptor.digest);
            self.judge(name, head)
        })
    }

    fn manifest<'a>(&'a self, name: &'a Name, wanted: &'a Wanted) -> Asked<'a, Fetched> {
        Box::pin(async move {
            let (repository, reference) = self.repository(name)?;
            let reference = match wanted {
                Wanted::Tag(tag) => tagged(reference, tag)?,
                Wanted::Digest(digest) => reference.with_digest(digest.clone()),
            };
            let found = repository.resolve(&reference).await.map(|manifest| Fetched {
                media_type: manifest.descriptor.media_type,
                content: manifest.bytes,
            });
            self.judge(name, found)
        })
    }

    fn size<'a>(&'a self, name: &'a Name, digest: &'a Digest) -> Asked<'a, u64> {
        Box::pin(async move {
            let (repository, _) = self.repository(name)?;
            let silent = || Trouble {
                why: Why::Wrong,
                message: format!(
                    "the upstream {} does not say the size of {digest} in {name}",
                    self.shown
                ),
            };
            let size = self.judge(name, repository.blob_size(digest).await)?;
            size.map(|size| size.ok_or_else(silent)).transpose()
        })
    }

    fn blob<'a>(&'a self, name: &'a Name, digest: &'a Digest) -> Asked<'a, (u64, Incoming)> {
        Box::pin(async move {
            let (repository, _) = self.repository(name)?;
            let stream = self.judge(name, repository.blob_of(digest).await)?;
            Ok(stream.map(|stream| {
                let size = stream.size();
                let bytes: Incoming = Box::pin(stream.into_stream().map(|chunk| chunk.map_err(Into::into)));
                (size, bytes)
            }))
        })
    }

    fn tags<'a>(&'a self, name: &'a Name) -> Asked<'a, Vec<String>> {
        Box::pin(async move {
            let (repository, _) = self.repository(name)?;
            self.judge(name, repository.tags().await)
        })
    }

    fn referrers<'a>(&'a self, name: &'a Name, subject: &'a Digest) -> Asked<'a, Vec<Descriptor>> {
        Box::pin(async move {
            let (repository, _) = self.repository(name)?;
            let found = self.judge(name, repository.referrers(subject, None).await)?;
            let described = |found: ferry_distribution::Descriptor| Descriptor {
                media_type: found.media_type,
                digest: found.digest,
                size: found.size,
                artifact_type: found.artifact_type,
                annotations: Some(found.annotations).filter(|notes| !notes.is_empty()),
            };
            Ok(found.map(|found| found.into_iter().map(described).collect()))
        })
    }
}

fn tagged(reference: Reference, tag: &Tag) -> Result<Reference, Trouble> {
    reference.with_tag(tag.as_str()).map_err(|error| Trouble {
        why: Why::Wrong,
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[&str], own: &[&str]) -> Result<Places> {
        let given: Vec<Given> = given
            .iter()
            .map(|text| text.parse().map_err(anyhow::Error::msg))
            .collect::<Result<_>>()?;
        let own: Vec<String> = own.iter().map(|&name| name.to_owned()).collect();
        places(&given, &own, &|_| None)
    }

    #[test]
    fn upstreams_are_urls_with_or_without_a_name() {
        let found = of(
            &["docker.io=https://registry-1.docker.io", "http://10.0.0.1:5000/"],
            &["team"],
        );
        let found = found.unwrap();
        assert_eq!(found.named[0].0.as_str(), "docker.io");
        assert_eq!(found.whole.unwrap().shown(), "http://10.0.0.1:5000");
        for (given, own) in [
            (&["registry-1.docker.io"][..], &[][..]),
            (&["docker.io=ftp://x.y"], &[]),
            (&["a:5000=https://x.y"], &[]),
            (&["a/b=https://x.y"], &[]),
            (&["https://x.y/below"], &[]),
            (&["https://u:p@x.y"], &[]),
            (&["https://plain"], &[]),
            (&["https://x.y", "https://z.y"], &[]),
            (&["a.b=https://x.y", "a.b=https://z.y"], &[]),
            (&["https://x.y"], &["UPPER"]),
            (&[], &["team"]),
        ] {
            assert!(of(given, own).is_err(), "{given:?}");
        }
    }
}
