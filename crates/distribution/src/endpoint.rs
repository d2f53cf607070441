//! Where a registry is: its mirrors, then itself, by TLS or, where that is allowed, without.

use url::Url;

use crate::options::{Insecure, Options};
use crate::{Credentials, Error, Result};

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Ends with `/v2/`, or `/v1/` of an index.
    base: Url,
    /// `host` or `host:port`, as errors and certs.d name it.
    pub(crate) registry: String,
    pub(crate) credentials: Credentials,
    /// It stands for that registry.
    pub(crate) mirror_of: Option<String>,
    pub(crate) skip_verify: bool,
}

impl Endpoint {
    /// The server of a URL, which is no registry.
    pub(crate) fn of(url: &Url, skip_verify: bool) -> Self {
        Self {
            base: url.clone(),
            registry: authority(url),
            credentials: Credentials::Anonymous,
            mirror_of: None,
            skip_verify,
        }
    }

    /// `path` is below that, of characters that need no escape.
    pub(crate) fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut url = self
            .base
            .join(path)
            .map_err(|error| Error::Options(format!("{}: {error}", self.registry)))?;
        // A path such as `//host/x` or `..` would lead elsewhere.
        if !url.path().starts_with(self.base.path()) || url.host() != self.base.host() {
            return Err(Error::Options(format!("{path:?} is no path of a registry")));
        }
        if let Some(domain) = &self.mirror_of {
            url.query_pairs_mut().append_pair("ns", domain);
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// The registry's own: its answers to credentials count, and its tokens are for it.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(crate) fn host(&self) -> Option<url::Host<&str>> {
        self.base.host()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Scheme and authority.
    pub(crate) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

/// `host:port` of a URL, without the port that goes without saying.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Docker Hub's name is not where it is.
fn location(domain: &str) -> &str {
    match domain {
        ferry_image::DEFAULT_DOMAIN => "registry-1.docker.io",
        other => other,
    }
}

/// The registry itself, best first.
pub(crate) fn own(domain: &str, credentials: &Credentials, insecure: &Insecure) -> Result<Vec<Endpoint>> {
    below(location(domain), "/v2/", credentials, insecure)
}

/// The index that can be searched.
pub(crate) fn index(domain: &str, credentials: &Credentials, insecure: &Insecure) -> Result<Vec<Endpoint>> {
    let host = match domain {
        ferry_image::DEFAULT_DOMAIN => "index.docker.io",
        other => other,
    };
    below(host, "/v1/", credentials, insecure)
}

fn below(host: &str, path: &str, credentials: &Credentials, insecure: &Insecure) -> Result<Vec<Endpoint>> {
    let is_insecure = insecure.contains(host);
    let schemes: &[&str] = if is_insecure { &["https", "http"] } else { &["https"] };
    schemes
        .iter()
        .map(|scheme| {
            let base = Url::parse(&format!("{scheme}://{host}{path}"))
                .ok()
                .filter(|url| url.path() == path && url.query().is_none());
            Ok(Endpoint {
                base: base.ok_or_else(|| Error::Options(format!("{host:?} is not the name of a registry")))?,
                registry: host.to_owned(),
                credentials: credentials.clone(),
                mirror_of: None,
                skip_verify: is_insecure,
            })
        })
        .collect()
}

/// Its mirrors, in the order in which they were given.
pub(crate) fn mirrors(domain: &str, options: &Options, insecure: &Insecure) -> Result<Vec<Endpoint>> {
    let fitting = options.mirrors.iter().filter(|mirror| {
        mirror.domain == domain || (mirror.domain == "*" && authority(&mirror.url) != location(domain))
    });
    fitting
        .map(|mirror| {
            let text = format!("{}/v2/", mirror.url.as_str().trim_end_matches('/'));
            let base = Url::parse(&text).map_err(|error| Error::Options(format!("invalid mirror {text}: {error}")))?;
            let registry = authority(&base);
            Ok(Endpoint {
                skip_verify: mirror.skip_verify || insecure.contains(&registry),
                base,
                registry,
                credentials: mirror.credentials.clone(),
                mirror_of: Some(domain.to_owned()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mirror;

    #[test]
    fn only_insecure_registries_are_asked_without_tls() {
        let bases = |domain: &str| -> Vec<String> {
            let own = own(domain, &Credentials::Anonymous, &Insecure::default()).unwrap();
            own.iter()
                .map(|endpoint| endpoint.url("a/b/tags/list", &[]).unwrap().to_string())
                .collect()
        };
        assert_eq!(bases("docker.io"), ["https://registry-1.docker.io/v2/a/b/tags/list"]);
        assert_eq!(
            bases("127.0.0.1:5000"),
            [
                "https://127.0.0.1:5000/v2/a/b/tags/list",
                "http://127.0.0.1:5000/v2/a/b/tags/list"
            ]
        );
    }

    #[test]
    fn mirrors_stand_for_their_registry_and_get_none_of_its_credentials() {
        let options = Options {
            mirrors: vec![
                Mirror::new("docker.io", "https://m/prefix/").unwrap(),
                Mirror::new("*", "http://all:5000").unwrap(),
                Mirror::new("quay.io", "https://q").unwrap(),
            ],
            ..Options::default()
        };
        let found = mirrors("docker.io", &options, &Insecure::default()).unwrap();
        let urls: Vec<_> = found
            .iter()
            .map(|found| found.url("x/manifests/1", &[]).unwrap().to_string())
            .collect();
        assert_eq!(
            urls,
            [
                "https://m/prefix/v2/x/manifests/1?ns=docker.io",
                "http://all:5000/v2/x/manifests/1?ns=docker.io"
            ]
        );
        assert!(found.iter().all(|found| found.credentials.is_anonymous()));
        assert_eq!(mirrors("all:5000", &options, &Insecure::default()).unwrap().len(), 0);
    }

    #[test]
    fn no_path_leads_elsewhere() {
        let own = own("r.example", &Credentials::Anonymous, &Insecure::default()).unwrap();
        for path in ["//evil/x", "../x", "https://evil/x", "/x"] {
            assert!(own[0].url(path, &[]).is_err(), "{path}");
        }
    }
}
