//! Who we are, for each registry: challenges that were given, and tokens that were got for them.
//!
//! The first request to a registry goes without credentials. A 401 brings a challenge, which is remembered: later requests
//! carry their token or password from the beginning. Tokens are kept by registry, credentials and scope until they expire;
//! whoever needs one that is being fetched waits for it. Credentials go to the registry that challenged and to the token
//! server it named, never to where either redirects.

mod challenge;
mod realm;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use self::challenge::Challenge;
pub(crate) use self::token::Grant;
use self::token::Token;
use crate::endpoint::Endpoint;
use crate::transport::Transport;
use crate::{Credentials, Result};

/// Registries and scopes that are remembered; when there are more, all are forgotten.
const MOST: usize = 512;

/// What a token is to allow: `repository:library/busybox:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn repository(path: &str, actions: &str) -> Self {
        Self(vec![format!("repository:{path}:{actions}")])
    }

    pub(crate) fn and(mut self, path: &str, actions: &str) -> Self {
        self.0.push(format!("repository:{path}:{actions}"));
        self
    }

    pub(crate) fn strings(&self) -> &[String] {
        &self.0
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: String,
    credentials: Credentials,
    scope: Scope,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Default)]
pub(crate) struct Authorizer {
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<Key, Slot>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizer")
    }
}

impl Authorizer {
    /// The value of `Authorization` for a request, as far as it is known what the registry wants.
    pub(crate) async fn header(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<String>> {
        if let Credentials::Registry { token } = &endpoint.credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        let known = lock(&self.challenges).get(&endpoint.origin()).cloned();
        match known {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(endpoint.credentials.basic_header()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let slot = self.slot(endpoint, scope);
                let mut slot = slot.lock().await;
                let token = match slot.take() {
                    Some(token) if token.is_fresh() => token,
                    _ => token::fetch(transport, endpoint, &realm, &service, scope, Grant::Use).await?,
                };
                let header = format!("Bearer {}", token.value);
                *slot = Some(token);
                Ok(Some(header))
            }
        }
    }

    /// After a 401 that answered `shown`: whether to ask once more, and what is to be remembered for it.
    pub(crate) async fn challenged(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: Option<Challenge>,
        shown: Option<&str>,
    ) -> bool {
        if matches!(endpoint.credentials, Credentials::Registry { .. }) {
            return false;
        }
        let Some(challenge) = challenge else { return false };
        let is_bearer = matches!(challenge, Challenge::Bearer { .. });
        let before = {
            let mut challenges = lock(&self.challenges);
            if challenges.len() >= MOST {
                challenges.clear();
            }
            challenges.insert(endpoint.origin(), challenge.clone())
        };
        if is_bearer {
            // A token that was refused is not used again; one that somebody else has fetched meanwhile is.
            let slot = self.slot(endpoint, scope);
            let mut slot = slot.lock().await;
            if slot
                .as_ref()
                .is_some_and(|token| shown == Some(&*format!("Bearer {}", token.value)))
            {
                *slot = None;
            }
            return true;
        }
        // Once a password was refused, it will be again.
        shown.is_none() || before.as_ref() != Some(&challenge)
    }

    pub(crate) fn forget(&self) {
        lock(&self.tokens).clear();
        lock(&self.challenges).clear();
    }

    fn slot(&self, endpoint: &Endpoint, scope: &Scope) -> Slot {
        let key = Key {
            origin: endpoint.origin(),
            credentials: endpoint.credentials.clone(),
            scope: scope.clone(),
        };
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MOST && !tokens.contains_key(&key) {
            tokens.clear();
        }
        tokens.entry(key).or_default().clone()
    }
}

/// Gets a token without keeping it: what `login` does. `None` where no token is needed.
pub(crate) async fn grant(
    transport: &Transport,
    endpoint: &Endpoint,
    challenge: &Challenge,
) -> Result<Option<(String, Option<String>)>> {
    let Challenge::Bearer { realm, service, .. } = challenge else {
        return Ok(None);
    };
    let token = token::fetch(transport, endpoint, realm, service, &Scope::none(), Grant::Login).await?;
    Ok(Some((token.value, token.refresh)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
