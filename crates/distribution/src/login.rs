//! `docker login`: whether a registry takes these credentials, and what is to be kept of them.

use futures_util::future::BoxFuture;
use http::{Method, StatusCode};

use crate::auth::{self, Challenge, Scope};
use crate::endpoint::{self, Endpoint};
use crate::repository::Tries;
use crate::transport::Call;
use crate::{Client, Credentials, Error, Result};

/// As the answer to `POST /auth`.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// `Login Succeeded`
    pub status: String,
    /// To be kept instead of the password, where the registry gives one.
    pub identity_token: Option<String>,
}

impl std::fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "LoggedIn({:?}, token: {})",
            self.status,
            self.identity_token.is_some()
        )
    }
}

impl Client {
    /// Shows credentials to a registry (`docker.io`, `r.example:5000`, or a key of config.json).
    pub fn login<'a>(&'a self, registry: &'a str, credentials: &'a Credentials) -> BoxFuture<'a, Result<LoggedIn>> {
        Box::pin(async move {
            let domain = crate::config::domain(registry);
            let shared = &self.shared;
            let endpoints = endpoint::own(domain, credentials, &shared.transport.insecure)?;
            let mut tries = Tries::new(shared.clone(), endpoints.into_iter().map(Into::into).collect());
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.login_at(&endpoint).await) {
                    return done;
                }
            }
        })
    }

    async fn login_at(&self, endpoint: &Endpoint) -> Result<LoggedIn> {
        let transport = &self.shared.transport;
        let call = Call::new(Method::GET, endpoint.url("", &[])?);
        // Nothing that is known of earlier credentials counts.
        let authorizer = auth::Authorizer::default();
        let mut succeeded = LoggedIn {
            status: "Login Succeeded".to_owned(),
            identity_token: None,
        };
        let first = transport.probe(endpoint, &call).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return if first.status().is_success() {
                Ok(succeeded)
            } else {
                Err(transport.refusal(&call.method, first, endpoint).await)
            };
        }
        let Some(challenge) = Challenge::of(first.headers()) else {
            return Err(transport.refusal(&call.method, first, endpoint).await);
        };
        if let Some((_, refresh)) = auth::grant(transport, endpoint, &challenge)
            .await
            .map_err(|error| at(&call, error))?
        {
            succeeded.identity_token = refresh;
        }
        authorizer
            .challenged(endpoint, &Scope::none(), Some(challenge), None)
            .await;
        let second = transport.send(&authorizer, endpoint, &Scope::none(), &call).await?;
        if second.status().is_success() {
            return Ok(succeeded);
        }
        Err(Error::Login {
            url: call.url.to_string(),
            status: second.status(),
        })
    }
}

/// Docker names the registry, not its token server.
fn at(call: &Call, error: Error) -> Error {
    match error {
        Error::Refused { answer, .. } => Error::Refused {
            method: "Get",
            url: call.url.to_string(),
            answer,
        },
        error => error,
    }
}
