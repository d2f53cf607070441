//! Which proxy a URL goes through: golang.org/x/net/http/httpproxy, whose variables Docker's users set.

use std::net::IpAddr;

use url::Url;

use crate::options::within;
use crate::{Error, Result};

/// The values of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; empty for none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    /// Hosts, `.domains`, addresses and CIDR blocks, separated by commas, each with an optional port; `*` for all.
    pub none: String,
}

/// A proxy's URL may hold a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &!self.http.is_empty())
            .field("https", &!self.https.is_empty())
            .field("none", &self.none)
            .finish()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    http: Option<Url>,
    https: Option<Url>,
    all_direct: bool,
    direct: Vec<Direct>,
}

#[derive(Clone, Debug)]
struct Direct {
    kind: Kind,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Kind {
    Address(IpAddr),
    Network(IpAddr, u8),
    /// With its leading dot; `itself` when the bare domain matches as well.
    Domain {
        suffix: String,
        itself: bool,
    },
}

impl Chosen {
    pub(crate) fn new(proxies: &Proxies) -> Result<Self> {
        let mut chosen = Self {
            http: proxy(&proxies.http)?,
            https: proxy(&proxies.https)?,
            ..Self::default()
        };
        for text in proxies.none.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            if text == "*" {
                chosen.all_direct = true;
            } else if let Some(direct) = direct(&text.to_ascii_lowercase()) {
                chosen.direct.push(direct);
            }
        }
        Ok(chosen)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    pub(crate) fn of(&self, url: &Url) -> Option<Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }?;
        let host = url
            .host_str()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let port = url.port_or_known_default();
        (!self.goes_direct(host.trim_end_matches('.'), port)).then(|| proxy.clone())
    }

    fn goes_direct(&self, host: &str, port: Option<u16>) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) || self.all_direct {
            return true;
        }
        self.direct.iter().any(|direct| {
            let fits = match &direct.kind {
                Kind::Address(known) => address == Some(*known),
                Kind::Network(network, prefix) => address.is_some_and(|address| within(address, *network, *prefix)),
                Kind::Domain { suffix, itself } => {
                    address.is_none() && (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]))
                }
            };
            fits && (direct.port.is_none() || direct.port == port)
        })
    }
}

/// A value without a scheme is an HTTP proxy.
fn proxy(text: &str) -> Result<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = ["http", "https", "socks5", "socks5h"];
    let parsed = Url::parse(text).ok().filter(|url| known.contains(&url.scheme()));
    let parsed = parsed.or_else(|| {
        Url::parse(&format!("http://{text}"))
            .ok()
            .filter(|_| !text.contains("://"))
    });
    match parsed.filter(Url::has_host) {
        Some(url) => Ok(Some(url)),
        // Not the text itself: there may be a password in it.
        None => Err(Error::Options(
            "invalid proxy address: a URL like http://proxy.example:3128 is wanted".to_owned(),
        )),
    }
}

/// `None` for what Go ignores as well.
fn direct(text: &str) -> Option<Direct> {
    if let Some((address, prefix)) = text.split_once('/') {
        let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        return (prefix <= most).then_some(Direct {
            kind: Kind::Network(address, prefix),
            port: None,
        });
    }
    let (host, port) = split_port(text);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return None;
    }
    if let Ok(address) = host.parse() {
        return Some(Direct {
            kind: Kind::Address(address),
            port,
        });
    }
    let host = host
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(host);
    let kind = if host.starts_with('.') {
        Kind::Domain {
            suffix: host.to_owned(),
            itself: false,
        }
    } else {
        Kind::Domain {
            suffix: format!(".{host}"),
            itself: true,
        }
    };
    Some(Direct { kind, port })
}

fn split_port(text: &str) -> (&str, Option<u16>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(none: &str, url: &str) -> bool {
        let proxies = Proxies {
            http: "proxy:3128".to_owned(),
            https: "http://proxy:3129".to_owned(),
            none: none.to_owned(),
        };
        Chosen::new(&proxies).unwrap().of(&Url::parse(url).unwrap()).is_some()
    }

    #[test]
    fn what_needs_no_proxy_is_what_go_says() {
        for (none, url, proxied) in [
            ("", "https://a.example", true),
            ("", "https://localhost:5000", false),
            ("", "http://127.0.0.1:5000", false),
            ("", "http://[::1]:5000", false),
            ("*", "https://a.example", false),
            ("example", "https://a.example", false),
            ("a.example", "https://a.example", false),
            ("a.example", "https://b.a.example", false),
            (".a.example", "https://a.example", true),
            (".a.example", "https://b.a.example", false),
            ("*.a.example", "https://b.a.example", false),
            ("a.example", "https://ba.example", true),
            ("a.example:444", "https://a.example", true),
            ("a.example:443", "https://a.example", false),
            ("10.0.0.0/8", "https://10.1.2.3", false),
            ("10.0.0.0/8, x", "https://11.1.2.3", true),
            ("10.0.0.1:80", "http://10.0.0.1", false),
            ("fd00::1", "http://[fd00::1]:5000", false),
            ("A.Example", "https://a.EXAMPLE.", false),
        ] {
            assert_eq!(through(none, url), proxied, "NO_PROXY={none} {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_own_proxy() {
        let proxies = Proxies {
            https: "https://p:1".to_owned(),
            ..Proxies::default()
        };
        let chosen = Chosen::new(&proxies).unwrap();
        assert!(chosen.of(&Url::parse("http://a.example").unwrap()).is_none());
        assert_eq!(
            chosen.of(&Url::parse("https://a.example").unwrap()).unwrap().as_str(),
            "https://p:1/"
        );
        assert!(
            Chosen::new(&Proxies {
                http: "http://a b".to_owned(),
                ..Proxies::default()
            })
            .is_err()
        );
    }
}
