//! A repository, and the places it may be at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferry_image::Reference;
use http::Method;
use reqwest::Response;

use crate::auth::{Authorizer, Scope};
use crate::endpoint::{self, Endpoint};
use crate::options::{Limits, Options};
use crate::transport::{Call, Transport};
use crate::{Credentials, Error, Result};

/// A place that does not answer is not asked for so long.
const DOWN: Duration = Duration::from_secs(60);
const MOST: usize = 512;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Transport,
    pub(crate) authorizer: Authorizer,
    /// By origin.
    health: Mutex<HashMap<String, Health>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Answered,
    Silent(Instant),
}

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Self> {
        Ok(Self {
            transport: Transport::new(options)?,
            authorizer: Authorizer::default(),
            health: Mutex::default(),
        })
    }

    fn health(&self, endpoint: &Endpoint) -> Option<Health> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.get(&endpoint.origin()).copied()
    }

    fn is_down(&self, endpoint: &Endpoint) -> bool {
        matches!(self.health(endpoint), Some(Health::Silent(since)) if since.elapsed() < DOWN)
    }

    fn note<T>(&self, endpoint: &Endpoint, outcome: &Result<T>) {
        let found = match outcome {
            Err(Error::Network { unreachable: true, .. }) => Health::Silent(Instant::now()),
            Err(Error::Network { .. } | Error::Options(_) | Error::Certificates { .. }) => return,
            _ => Health::Answered,
        };
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.len() >= MOST {
            health.clear();
        }
        health.insert(endpoint.origin(), found);
    }
}

/// A repository of a registry, for somebody. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
    places: Arc<Places>,
}

#[derive(Debug)]
struct Places {
    /// Without tag and digest.
    name: Reference,
    own: Vec<Arc<Endpoint>>,
    mirrors: Vec<Arc<Endpoint>>,
}

impl Repository {
    pub(crate) fn new(shared: Arc<Shared>, reference: &Reference, credentials: &Credentials) -> Result<Self> {
        let Transport { options, insecure, .. } = &shared.transport;
        let places = Places {
            name: reference.clone().without_tag_and_digest(),
            own: shared_all(endpoint::own(reference.domain(), credentials, insecure)?),
            mirrors: shared_all(endpoint::mirrors(reference.domain(), options, insecure)?),
        };
        Ok(Self {
            shared,
            places: Arc::new(places),
        })
    }

    /// Without tag and digest.
    pub fn name(&self) -> &Reference {
        &self.places.name
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.transport.options.limits
    }

    pub(crate) fn path(&self) -> &str {
        self.places.name.path()
    }

    pub(crate) fn scope(&self, actions: &str) -> Scope {
        Scope::repository(self.path(), actions)
    }

    /// Where content may be read, best first.
    pub(crate) fn sources(&self) -> Vec<Arc<Endpoint>> {
        let mirrors = self.places.mirrors.iter().filter(|mirror| !self.shared.is_down(mirror));
        mirrors.cloned().chain(self.own()).collect()
    }

    /// The registry itself: where it answered, or all that has to be tried.
    pub(crate) fn own(&self) -> Vec<Arc<Endpoint>> {
        let answered = |endpoint: &&Arc<Endpoint>| self.shared.health(endpoint) == Some(Health::Answered);
        match self.places.own.iter().find(answered) {
            Some(endpoint) => vec![Arc::clone(endpoint)],
            None => self.places.own.clone(),
        }
    }

    /// To do something at the first place where it works:
    ///
    /// ```ignore
    /// let mut tries = repository.tries(repository.sources());
    /// loop {
    ///     let endpoint = tries.next()?;
    ///     if let Some(done) = tries.settle(&endpoint, something(&endpoint).await) {
    ///         return done;
    ///     }
    /// }
    /// ```
    pub(crate) fn tries(&self, endpoints: Vec<Arc<Endpoint>>) -> Tries {
        Tries::new(Arc::clone(&self.shared), endpoints)
    }

    /// An answer with this status, or the refusal.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        call: &Call,
        wanted: &[u16],
    ) -> Result<Response> {
        let response = self
            .shared
            .transport
            .send_retried(&self.shared.authorizer, endpoint, scope, call)
            .await?;
        if wanted.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        Err(self.shared.transport.refusal(&call.method, response, endpoint).await)
    }

    pub(crate) fn get(&self, endpoint: &Endpoint, rest: &str) -> Result<Call> {
        self.call(endpoint, Method::GET, rest, &[])
    }

    pub(crate) fn call(&self, endpoint: &Endpoint, method: Method, rest: &str, query: &[(&str, &str)]) -> Result<Call> {
        Ok(Call::new(
            method,
            endpoint.url(&format!("{}/{rest}", self.path()), query)?,
        ))
    }

    /// A refusal of something that was to be read, in Docker's words. `tagged` is what was asked for.
    pub(crate) fn pull_error(&self, error: Error, tagged: &Reference) -> Error {
        let Error::Refused { method, url, answer } = error else {
            return error;
        };
        let registry = self.places.name.domain().to_owned();
        let repository = self.places.name.familiar_name();
        match answer.code.as_str() {
            "DENIED" => Error::PullDenied {
                registry,
                repository,
                answer,
            },
            "NAME_UNKNOWN" => Error::RepositoryUnknown {
                registry,
                repository,
                answer,
            },
            "MANIFEST_UNKNOWN" | "NOT_FOUND" | "" if answer.is_unknown() => {
                let reference = tagged.familiar();
                Error::ManifestUnknown {
                    registry,
                    reference,
                    answer,
                }
            }
            _ => Error::Refused { method, url, answer },
        }
    }
}

/// Places that are left to be tried. A mirror may fail in any way; the registry's own answer counts.
#[derive(Debug)]
pub(crate) struct Tries {
    shared: Arc<Shared>,
    left: std::vec::IntoIter<Arc<Endpoint>>,
    last: Option<Error>,
}

impl Tries {
    pub(crate) fn new(shared: Arc<Shared>, endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self {
            shared,
            left: endpoints.into_iter(),
            last: None,
        }
    }

    /// Fails with the last failure when there is none left.
    pub(crate) fn next(&mut self) -> Result<Arc<Endpoint>> {
        self.left.next().ok_or_else(|| {
            let nobody = || Error::Options("there is no registry to ask".to_owned());
            self.last.take().unwrap_or_else(nobody)
        })
    }

    /// `None` when the next place is to be tried.
    pub(crate) fn settle<T>(&mut self, endpoint: &Endpoint, outcome: Result<T>) -> Option<Result<T>> {
        self.shared.note(endpoint, &outcome);
        let error = match outcome {
            Ok(value) => return Some(Ok(value)),
            Err(error) => error,
        };
        if endpoint.mirror_of.is_some() {
            tracing::debug!(mirror = %endpoint.registry, %error, "not from this mirror");
            self.last = Some(error);
            return None;
        }
        if matches!(error, Error::Network { unreachable: true, .. }) {
            self.last = Some(better(self.last.take(), error));
            return None;
        }
        Some(Err(error))
    }
}

fn shared_all(endpoints: Vec<Endpoint>) -> Vec<Arc<Endpoint>> {
    endpoints.into_iter().map(Arc::new).collect()
}

/// Of an attempt with TLS and one without: what the first says, when it reached anybody.
fn better(first: Option<Error>, second: Error) -> Error {
    match first {
        Some(Error::Network { cause, .. }) if cause.contains("connection refused") => second,
        Some(first @ Error::Network { .. }) if first.to_string().contains("x509") => first,
        _ => second,
    }
}
