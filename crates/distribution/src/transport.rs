//! Requests: over which connection, with whose authority, how often, and how much of an answer is read.

mod cause;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use rustls::RootCertStore;
use url::Url;

use crate::auth::{Authorizer, Challenge, Scope};
use crate::endpoint::{Endpoint, authority};
use crate::error::Answer;
use crate::options::{Insecure, Options};
use crate::proxy::Chosen;
use crate::retry::{Retry, is_passing, retry_after};
use crate::tls::{self, Stamp, Trust};
use crate::{Error, Result};

const REDIRECTS: usize = 10;
/// Hosts whose connections are kept.
const HOSTS: usize = 128;
/// Of an answer that is an error.
const ERROR_MAX: u64 = 64 << 10;
const IDLE: Duration = Duration::from_secs(60);
const HEADERS_MAX: u32 = 128 << 10;

/// A request, without what says who we are.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// How many times longer than usual the answer may take.
    pub(crate) patience: u32,
}

#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// Made anew for each attempt; the length is known.
    Stream(u64, Arc<dyn Fn() -> reqwest::Body + Send + Sync>),
}

impl Call {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            patience: 1,
        }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// Connections, shared by everything a client does.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) options: Options,
    pub(crate) insecure: Insecure,
    proxies: Chosen,
    roots: OnceLock<RootCertStore>,
    clients: Mutex<HashMap<(String, String), Known>>,
}

/// A client, and what the files were that it was made of.
#[derive(Debug)]
struct Known {
    client: reqwest::Client,
    stamp: Stamp,
}

impl Transport {
    pub(crate) fn new(options: Options) -> Result<Self> {
        Ok(Self {
            insecure: Insecure::parse(&options.insecure)?,
            proxies: Chosen::new(&options.proxies)?,
            roots: OnceLock::new(),
            clients: Mutex::default(),
            options,
        })
    }

    /// An answer of the registry, whatever it says. A 401 was answered with what we have.
    pub(crate) fn send<'a>(
        &'a self,
        authorizer: &'a Authorizer,
        endpoint: &'a Endpoint,
        scope: &'a Scope,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            let mut asked = 0;
            loop {
                let shown = authorizer.header(self, endpoint, scope).await?;
                let response = self.follow(endpoint, call, shown.as_deref()).await?;
                asked += 1;
                // A token of the cache that is refused, and then a new one.
                if response.status() != StatusCode::UNAUTHORIZED || asked >= 3 || !endpoint.is_own(response.url()) {
                    return Ok(response);
                }
                let challenge = Challenge::of(response.headers());
                if !authorizer
                    .challenged(endpoint, scope, challenge, shown.as_deref())
                    .await
                {
                    return Ok(response);
                }
                // The connection can be used again when the answer was read.
                drop(self.read(response, endpoint, "an error", ERROR_MAX).await);
            }
        })
    }

    /// An answer to a request of nobody.
    pub(crate) async fn probe(&self, endpoint: &Endpoint, call: &Call) -> Result<Response> {
        self.follow(endpoint, call, None).await
    }

    /// As [`send`](Self::send), again while the failure may pass. Statuses that are none of success are given back.
    pub(crate) async fn send_retried(
        &self,
        authorizer: &Authorizer,
        endpoint: &Endpoint,
        scope: &Scope,
        call: &Call,
    ) -> Result<Response> {
        let mut retry = Retry::new(&self.options.limits);
        loop {
            let error = match self.send(authorizer, endpoint, scope, call).await {
                Ok(response) if is_passing(response.status()) => self.refusal(&call.method, response, endpoint).await,
                Ok(response) => return Ok(response),
                // Nobody there: there may be somebody elsewhere.
                Err(error @ Error::Network { unreachable: true, .. }) => return Err(error),
                Err(error) => error,
            };
            retry.after(error).await?;
        }
    }

    /// Asks a token server, with the headers of the call; the whole body, if it succeeded. It may redirect within itself:
    /// nobody has looked at where else that leads.
    pub(crate) fn foreign<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        call: Call,
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let mut retry = Retry::new(&self.options.limits);
            loop {
                let error = match self.follow_within(endpoint, &call, None, true).await {
                    Ok(response) if response.status().is_success() => {
                        return self
                            .read(response, endpoint, "a token", limit)
                            .await
                            .map(|bytes| bytes.to_vec());
                    }
                    Ok(response) => self.refusal(&call.method, response, endpoint).await,
                    Err(error) => error,
                };
                retry.after(error).await?;
            }
        })
    }

    /// Follows redirects. `shown` goes to the registry alone, and an `Authorization` of the call's own to its own host alone.
    async fn follow(&self, endpoint: &Endpoint, call: &Call, shown: Option<&str>) -> Result<Response> {
        self.follow_within(endpoint, call, shown, false).await
    }

    fn follow_within<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        call: &'a Call,
        shown: Option<&'a str>,
        within: bool,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            let mut url = call.url.clone();
            let mut method = call.method.clone();
            for _ in 0..=REDIRECTS {
                let client = self.client(&url, endpoint).await?;
                let mut headers = call.headers.clone();
                if url.origin() != call.url.origin() {
                    headers.remove(header::AUTHORIZATION);
                }
                if let Some(shown) = shown.filter(|_| endpoint.is_own(&url))
                    && let Ok(mut value) = HeaderValue::from_str(shown)
                {
                    value.set_sensitive(true);
                    headers.insert(header::AUTHORIZATION, value);
                }
                let mut request = client.request(method.clone(), url.clone()).headers(headers);
                request = match &call.body {
                    Body::Empty if matches!(method, Method::GET | Method::HEAD) => request,
                    Body::Empty => request.header(header::CONTENT_LENGTH, 0),
                    Body::Bytes(bytes) => request.body(bytes.clone()),
                    Body::Stream(length, make) => request.header(header::CONTENT_LENGTH, *length).body(make()),
                };
                let answer = request.send();
                let response = if matches!(call.body, Body::Stream(..)) {
                    // The sender watches its own progress.
                    answer.await
                } else {
                    let most = self.options.limits.answer.saturating_mul(call.patience);
                    tokio::time::timeout(most, answer).await.map_err(|_| Error::Network {
                        method: title(&method),
                        url: shown_url(&url),
                        cause: "net/http: timeout awaiting response headers".to_owned(),
                        unreachable: false,
                    })?
                };
                let response = response.map_err(|error| cause::network(&method, &url, &error))?;
                let Some(next) = self.redirect(&response, endpoint)? else {
                    return Ok(response);
                };
                let upgraded = next.host() == call.url.host() && next.scheme() == "https" && next.port().is_none();
                if within && next.origin() != call.url.origin() && !upgraded {
                    let text = format!("it redirects to {}: refused", authority(&next));
                    return Err(self.wrong(endpoint, &url, &text));
                }
                match response.status() {
                    StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {}
                    _ if matches!(method, Method::GET | Method::HEAD) => {}
                    status => {
                        return Err(self.wrong(endpoint, &url, &format!("it redirects a {method} with {status}")));
                    }
                }
                if response.status() == StatusCode::SEE_OTHER {
                    method = Method::GET;
                }
                url = next;
            }
            Err(self.wrong(endpoint, &call.url, &format!("stopped after {REDIRECTS} redirects")))
        })
    }

    fn redirect(&self, response: &Response, endpoint: &Endpoint) -> Result<Option<Url>> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let from = response.url();
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let Some(mut next) = next.filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host()) else {
            return Err(self.wrong(endpoint, from, "it redirects to nowhere"));
        };
        if from.scheme() == "https" && next.scheme() == "http" {
            let text = format!("it redirects from https to http://{}: refused", authority(&next));
            return Err(self.wrong(endpoint, from, &text));
        }
        // They would become an Authorization header.
        if next.set_username("").is_err() || next.set_password(None).is_err() {
            return Err(self.wrong(endpoint, from, "it redirects to nowhere"));
        }
        Ok(Some(next))
    }

    fn wrong(&self, endpoint: &Endpoint, url: &Url, reason: &str) -> Error {
        Error::Answer {
            registry: endpoint.registry.clone(),
            subject: shown_url(url),
            reason: reason.to_owned(),
        }
    }

    /// The error that an answer is.
    pub(crate) fn refusal<'a>(
        &'a self,
        method: &'a Method,
        response: Response,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, Error> {
        Box::pin(async move {
            let (status, url) = (response.status(), shown_url(response.url()));
            let hint = retry_after(response.headers()).filter(|_| is_passing(status));
            let challenge = Some(response.headers())
                .filter(|_| status == StatusCode::UNAUTHORIZED)
                .and_then(Challenge::of);
            let body = self
                .read(response, endpoint, "an error", ERROR_MAX)
                .await
                .unwrap_or_default();
            Error::Refused {
                method: title(method),
                url,
                answer: Box::new(match challenge {
                    // RFC 6750 section 3.1: it knows who we are, and we may not.
                    Some(Challenge::Bearer { error, .. }) if error == "insufficient_scope" => Answer::denied(status),
                    Some(Challenge::Basic) if endpoint.credentials.basic_header().is_none() => Answer::no_basic(),
                    _ => Answer::new(status, &body, hint),
                }),
            }
        })
    }

    /// The whole body, if it is not larger than `limit`. `subject` is for errors.
    pub(crate) fn read<'a>(
        &'a self,
        mut response: Response,
        endpoint: &'a Endpoint,
        subject: &'a str,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let too_large = || Error::TooLarge {
                registry: endpoint.registry.clone(),
                subject: subject.to_owned(),
                limit,
            };
            if response.content_length().is_some_and(|length| length > limit) {
                return Err(too_large());
            }
            let mut body = bytes::BytesMut::new();
            let mut pace = Pace::new(self.options.limits.stall, self.options.limits.least);
            while let Some(chunk) = pace.chunk(&mut response).await? {
                if body.len() as u64 + chunk.len() as u64 > limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body.freeze())
        })
    }

    fn client<'a>(&'a self, url: &'a Url, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<reqwest::Client>> {
        Box::pin(async move {
            let host = authority(url);
            let key = (url.origin().ascii_serialization(), endpoint.origin());
            let is_own = endpoint.is_own(url);
            let directories = |names: &[&str]| {
                let places = self.options.certificates.iter();
                places
                    .flat_map(|place| names.iter().map(move |name| place.join(name)))
                    .collect::<Vec<_>>()
            };
            let own = if is_own {
                vec![&*endpoint.registry]
            } else {
                vec![&*host]
            };
            let trust = Trust {
                // What signs for the registry also signs for the servers it names, such as that of its tokens.
                authorities: directories(&if is_own {
                    own.clone()
                } else {
                    vec![&*host, &*endpoint.registry]
                }),
                identities: directories(&own),
                skip_verify: if is_own {
                    endpoint.skip_verify
                } else {
                    self.insecure.contains(&host)
                },
            };
            // What an administrator puts there counts from the next request on.
            let stamp = trust.stamp();
            let known = || {
                let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
                let known = clients.get(&key).filter(|known| known.stamp == stamp)?;
                Some(known.client.clone())
            };
            if let Some(client) = known() {
                return Ok(client);
            }
            let mut builder = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .connect_timeout(self.options.limits.connect)
                .pool_idle_timeout(IDLE)
                .tcp_nodelay(true)
                .http2_max_header_list_size(HEADERS_MAX)
                .http1_max_headers(200)
                .user_agent(match self.options.user_agent.as_str() {
                    "" => concat!("ferry-distribution/", env!("CARGO_PKG_VERSION")),
                    agent => agent,
                });
            if !self.proxies.is_empty() {
                let proxies = self.proxies.clone();
                builder = builder.proxy(reqwest::Proxy::custom(move |url| proxies.of(url)));
            }
            // Reads a few files, once a host. Plain HTTP needs none of them, but reqwest wants a configuration.
            let tls = if url.scheme() == "https" {
                let roots = match self.roots.get() {
                    Some(roots) => roots,
                    None => {
                        let read = tls::roots(&self.options.roots)?;
                        self.roots.get_or_init(|| read)
                    }
                };
                tls::client_config(roots, &trust)?
            } else {
                tls::client_config(&RootCertStore::empty(), &Trust::default())?
            };
            let client = builder
                .tls_backend_preconfigured(tls)
                .build()
                .map_err(|error| Error::Options(format!("cannot set up connections: {error}")))?;
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            if clients.len() >= HOSTS {
                clients.clear();
            }
            let known = Known {
                client: client.clone(),
                stamp,
            };
            clients.insert(key, known);
            Ok(client)
        })
    }
}

/// Watches that a body comes: in every `stall` of waiting, at least `least` bytes.
#[derive(Debug)]
pub(crate) struct Pace {
    stall: Duration,
    least: u64,
    waited: Duration,
    came: u64,
}

impl Pace {
    pub(crate) fn new(stall: Duration, least: u64) -> Self {
        Self {
            stall,
            least,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next part of the body, `None` after the last. Only waiting counts, not what the caller does in between.
    pub(crate) async fn chunk(&mut self, response: &mut Response) -> Result<Option<Bytes>> {
        let began = tokio::time::Instant::now();
        let rest = self.stall.saturating_sub(self.waited);
        let url = response.url().clone();
        let stalled = || Error::Network {
            method: "Get",
            url: shown_url(&url),
            cause: format!("the connection stalled: {} bytes in {:?}", self.came, self.stall),
            unreachable: false,
        };
        let chunk = match tokio::time::timeout(rest, response.chunk()).await {
            Err(_) if self.came >= self.least => {
                (self.waited, self.came) = (Duration::ZERO, 0);
                return Box::pin(self.chunk(response)).await;
            }
            Err(_) => return Err(stalled()),
            Ok(Err(error)) => return Err(cause::network(&Method::GET, &url, &error)),
            Ok(Ok(chunk)) => chunk,
        };
        self.waited += began.elapsed();
        self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }
}

/// As Go names them in errors.
pub(crate) fn title(method: &Method) -> &'static str {
    match *method {
        Method::GET => "Get",
        Method::HEAD => "Head",
        Method::POST => "Post",
        Method::PUT => "Put",
        Method::PATCH => "Patch",
        Method::DELETE => "Delete",
        _ => "Request",
    }
}

/// Without what may be secret: signatures are in queries.
pub(crate) fn shown_url(url: &Url) -> String {
    let mut url = url.clone();
    let secret = url.query_pairs().any(|(name, _)| {
        name.len() > 12
            || name.eq_ignore_ascii_case("signature")
            || name.eq_ignore_ascii_case("sig")
            || name == "_state"
    });
    if secret {
        url.set_query(None);
    }
    crate::error::bounded(url.as_str(), 512)
}
