//! `WWW-Authenticate` (RFC 9110 section 11.6.1, RFC 6750 section 3).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use url::Url;

/// What a registry wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: Url, service: String, error: String },
}

impl Challenge {
    /// The best of those that are understood: a token before a password.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE).iter().take(8) {
            let Ok(text) = value.to_str() else { continue };
            for (scheme, parameters) in parse(text) {
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if scheme.eq_ignore_ascii_case("bearer") {
                    let get = |wanted: &str| {
                        parameters
                            .iter()
                            .find(|(name, _)| name == wanted)
                            .map(|(_, value)| value.clone())
                    };
                    let Some(realm) = get("realm").and_then(|realm| Url::parse(&realm).ok()) else {
                        continue;
                    };
                    if !matches!(realm.scheme(), "http" | "https") || !realm.has_host() {
                        continue;
                    }
                    return Some(Self::Bearer {
                        realm,
                        service: get("service").unwrap_or_default(),
                        error: get("error").unwrap_or_default(),
                    });
                }
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// Several challenges may share a header: `Basic realm="a, b", Bearer realm="c",service="d"`.
fn parse(text: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            return found;
        }
        let (word, after) = rest.split_at(end);
        let trimmed = after.trim_start();
        match (trimmed.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter(value.trim_start());
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = trimmed;
            }
        }
    }
}

fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: &str) -> Option<Challenge> {
        let (service, error) = (service.to_owned(), String::new());
        Some(Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service,
            error,
        })
    }

    #[test]
    fn tokens_come_before_passwords() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(of(&[hub]), bearer("https://auth.docker.io/token", "registry.docker.io"));
        assert_eq!(
            of(&[r#"Basic realm="x""#, hub]),
            bearer("https://auth.docker.io/token", "registry.docker.io")
        );
        assert_eq!(
            of(&[r#"Basic realm="a, Bearer realm=b", bearer realm = "http://c/t\"", service=d"#]),
            bearer("http://c/t\"", "d")
        );
        assert_eq!(of(&["basic"]), Some(Challenge::Basic));
        for nothing in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=\"ftp://x\"",
            "Bearer realm=\"/token\"",
            "=x",
            "\"",
            "Bearer realm=\"file:///x\"",
        ] {
            assert_eq!(of(&[nothing]), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(text in "[ -~]{0,60}") {
            let _ = of(&[&text]);
        }
    }
}
