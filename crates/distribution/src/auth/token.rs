//! Tokens from a token server: docs.docker.com/registry/spec/auth/token and /oauth.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use url::Url;

use super::{Scope, realm};
use crate::endpoint::Endpoint;
use crate::transport::{Body, Call, Transport};
use crate::{Credentials, Error, Result};

/// What Docker calls itself towards token servers; some of them know it.
const CLIENT_ID: &str = "docker";
/// When the server says nothing, and at least.
const LIFETIME: u64 = 60;
/// A token is not used so shortly before its end.
const MARGIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: u64 = 256 << 10;
const TOKEN_MAX: usize = 64 << 10;

pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) refresh: Option<String>,
    until: Instant,
}

impl Token {
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() + MARGIN < self.until
    }
}

/// What the token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Use,
    /// A refresh token is wanted as well.
    Login,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    expires_in: Option<u64>,
}

pub(crate) async fn fetch(
    transport: &Transport,
    endpoint: &Endpoint,
    realm: &Url,
    service: &str,
    scope: &Scope,
    grant: Grant,
) -> Result<Token> {
    realm::check(endpoint, realm, &transport.options.token_servers)?;
    let answer = match &endpoint.credentials {
        Credentials::Identity { token, .. } => post(transport, endpoint, realm, service, scope, token).await?,
        _ => get(transport, endpoint, realm, service, scope, grant).await?,
    };
    let parsed: Option<Answer> = serde_json::from_slice(&answer).ok();
    let wrong = |reason: &str| Error::Answer {
        registry: endpoint.registry.clone(),
        subject: format!("a token from {}", realm.host_str().unwrap_or_default()),
        reason: reason.to_owned(),
    };
    let parsed = parsed.ok_or_else(|| wrong("it is not the JSON of a token server"))?;
    let value = if parsed.token.is_empty() {
        parsed.access_token
    } else {
        parsed.token
    };
    // It goes into a header.
    if value.is_empty() || value.len() > TOKEN_MAX || !value.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
        return Err(wrong(
            "authorization server did not include a usable token in the response",
        ));
    }
    let lifetime = parsed.expires_in.unwrap_or(LIFETIME).clamp(LIFETIME, 86_400);
    Ok(Token {
        value,
        refresh: Some(parsed.refresh_token).filter(|token| !token.is_empty() && token.len() <= TOKEN_MAX),
        until: Instant::now() + Duration::from_secs(lifetime),
    })
}

async fn get(
    transport: &Transport,
    endpoint: &Endpoint,
    realm: &Url,
    service: &str,
    scope: &Scope,
    grant: Grant,
) -> Result<Vec<u8>> {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Credentials::Basic { username, .. } = &endpoint.credentials {
            query.append_pair("account", username);
        }
        if grant == Grant::Login {
            query
                .append_pair("client_id", CLIENT_ID)
                .append_pair("offline_token", "true");
        }
        for scope in scope.strings() {
            query.append_pair("scope", scope);
        }
        if !service.is_empty() {
            query.append_pair("service", service);
        }
    }
    let mut headers = HeaderMap::new();
    if let Some(text) = endpoint.credentials.basic_header()
        && let Ok(mut value) = HeaderValue::from_str(&text)
    {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let call = Call {
        headers,
        ..Call::new(Method::GET, url)
    };
    transport.foreign(endpoint, call, ANSWER_MAX).await
}

async fn post(
    transport: &Transport,
    endpoint: &Endpoint,
    realm: &Url,
    service: &str,
    scope: &Scope,
    refresh: &str,
) -> Result<Vec<u8>> {
    let scopes = scope.strings().join(" ");
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh),
        ("service", service),
        ("client_id", CLIENT_ID),
    ];
    if !scopes.is_empty() {
        fields.push(("scope", &scopes));
    }
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let call = Call {
        headers,
        body: Body::Bytes(form.into()),
        ..Call::new(Method::POST, realm.clone())
    };
    transport.foreign(endpoint, call, ANSWER_MAX).await
}
