//! What clients of the Docker Engine API send: `X-Registry-Auth` and `X-Registry-Config`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::{domain, from_parts};
use crate::{Credentials, Error, Result};

/// Longer headers are refused.
const MOST: usize = 64 << 10;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    serveraddress: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// `X-Registry-Auth`: the credentials, and the registry they are for where that is said. Empty is anonymous.
pub fn registry_auth(header: &str) -> Result<(Credentials, Option<String>)> {
    let config: AuthConfig = decode(header, "X-Registry-Auth")?.unwrap_or_default();
    let address = config.serveraddress.clone().filter(|address| !address.is_empty());
    Ok((config.credentials(), address.map(|address| domain(&address).to_owned())))
}

/// `X-Registry-Config`: credentials by registry.
pub fn registry_config(header: &str) -> Result<BTreeMap<String, Credentials>> {
    let all: BTreeMap<String, AuthConfig> = decode(header, "X-Registry-Config")?.unwrap_or_default();
    let all = all.into_iter();
    Ok(all
        .map(|(key, config)| (domain(&key).to_owned(), config.credentials()))
        .collect())
}

impl AuthConfig {
    fn credentials(self) -> Credentials {
        let (mut username, mut password) = (self.username.unwrap_or_default(), self.password.unwrap_or_default());
        if username.is_empty()
            && password.is_empty()
            && let Some(bytes) = self
                .auth
                .and_then(|auth| base64::engine::general_purpose::STANDARD.decode(auth).ok())
            && let Ok(text) = String::from_utf8(bytes)
            && let Some((user, secret)) = text.split_once(':')
        {
            (username, password) = (user.to_owned(), secret.to_owned());
        }
        let (identity, registry) = (
            self.identitytoken.unwrap_or_default(),
            self.registrytoken.unwrap_or_default(),
        );
        from_parts(username, password, identity, registry)
    }
}

fn decode<T: serde::de::DeserializeOwned>(header: &str, name: &str) -> Result<Option<T>> {
    if header.is_empty() {
        return Ok(None);
    }
    let wrong = |reason: String| Error::Options(format!("invalid {name} header: {reason}"));
    if header.len() > MOST {
        return Err(wrong(format!("it has more than {MOST} bytes")));
    }
    // Some clients use the other alphabet.
    let text = header.trim().replace('+', "-").replace('/', "_");
    let json = BASE64
        .decode(text)
        .map_err(|error| wrong(format!("must be a valid base64url-encoded string: {error}")))?;
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // serde_json's message may quote what is secret.
    serde_json::from_slice(&json).map_err(|error| wrong(format!("no JSON at column {}", error.column())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_base64url_json_or_refused() {
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE.encode(text);
        let given = encode(
            r#"{"username":"me","password":"pässword??>>","serveraddress":"https://index.docker.io/v1/","x":1}"#,
        );
        let (credentials, address) = registry_auth(&given).unwrap();
        assert_eq!(
            (credentials, address.as_deref()),
            (Credentials::basic("me", "pässword??>>"), Some("docker.io"))
        );
        assert_eq!(
            registry_auth(given.trim_end_matches('=')).unwrap().0,
            Credentials::basic("me", "pässword??>>")
        );
        let token = registry_auth(&encode(r#"{"identitytoken":"t","username":null}"#))
            .unwrap()
            .0;
        assert!(matches!(token, Credentials::Identity { token, .. } if token == "t"));
        assert!(registry_auth("").unwrap().0.is_anonymous());
        assert!(registry_auth(&encode("{}")).unwrap().0.is_anonymous());
        for wrong in ["!", &encode("[]x"), &encode(r#"{"username":3}"#), &"A".repeat(100_000)] {
            assert!(registry_auth(wrong).is_err());
        }
        let all = registry_config(&encode(
            r#"{"https://index.docker.io/v1/":{"auth":"dTpw"},"r:5000":{}}"#,
        ))
        .unwrap();
        assert_eq!(all["docker.io"], Credentials::basic("u", "p"));
        assert!(all["r:5000"].is_anonymous());
    }
}
