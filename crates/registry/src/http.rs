//! Requests become calls of the backend.
//!
//! ```text
//! path ─▶ Route ─▶ who asks ([`crate::auth`]) ─▶ may they, is it allowed here ─▶ blobs, uploads, manifests, lists
//! ```
//! Who may not see a repository learns nothing of it: rights are looked at before anything else is.

mod blobs;
mod body;
mod lists;
mod manifests;
mod path;
mod query;
mod range;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::FileSystem;
use crate::auth::{Access, Auth};
use crate::backend::Backend;
use crate::failure::{Answer, Code, Failure};
use crate::metrics::Metrics;
use crate::name::{Name, Reference};
use crate::through::{Caching, Remote, Through, no_push};

use self::path::Route;

pub use self::body::Patience;
pub use self::lists::json;
pub use self::query::Query;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Largest form of a token request.
const FORM_MAX: usize = 64 << 10;
const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What a registry allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nothing is pushed or deleted.
    pub read_only: bool,
    /// Tags, manifests and blobs can be deleted by those who have the right.
    pub delete: bool,
    /// Requests that send blobs at the same time; more are asked to come later.
    pub uploads: usize,
    pub patience: Patience,
    /// One line for each request, on the target `ferry_registry::access`.
    pub access_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            delete: false,
            uploads: 256,
            patience: Patience::default(),
            access_log: true,
        }
    }
}

/// A registry that can be served. Cloned, it is the same one.
#[derive(Debug)]
pub struct Registry<B>(pub(crate) Arc<Shared<B>>);

#[derive(Debug)]
pub struct Shared<B> {
    pub backend: B,
    pub auth: Auth,
    pub options: Options,
    pub metrics: Arc<Metrics>,
    pub through: Through,
    uploads: Semaphore,
    memory: body::Memory,
}

impl<B> Clone for Registry<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Registry<B> {
    pub fn new(backend: B, auth: Auth, options: Options) -> Self {
        Self::with_upstreams(backend, auth, options, Caching::default())
    }

    /// One that is a cache of others.
    pub fn with_upstreams(backend: B, auth: Auth, options: Options, caching: Caching) -> Self {
        Self(Arc::new(Shared {
            backend,
            auth,
            uploads: Semaphore::new(options.uploads),
            memory: body::Memory::default(),
            options,
            metrics: Arc::default(),
            through: Through::new(caching),
        }))
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    fn permit(&self) -> Answer<SemaphorePermit<'_>> {
        let permit = self.0.uploads.try_acquire();
        permit.map_err(|_| {
            Failure::later(
                format!("{} uploads are running: try again later", self.0.options.uploads),
                5,
            )
        })
    }
}

/// Who is at the other end of the connection: an extension of requests, where the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

/// All paths of a registry: `/v2/`, `/token` where there are tokens, `/healthz`.
pub fn router(registry: Registry<FileSystem>) -> Router {
    // Not generic, so that it is compiled here, not by each who calls it.
    Router::new().fallback(handle::<FileSystem>).with_state(registry)
}

async fn handle<B: Backend>(State(registry): State<Registry<B>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let mut seen = Seen::default();
    let mut response = match dispatch(&registry, &parts, body, &mut seen).await {
        Ok(response) => response,
        Err(failure) => {
            seen.cause = Some(failure.message.clone());
            failure.into_response()
        }
    };
    response
        .headers_mut()
        .insert(VERSION, HeaderValue::from_static("registry/2.0"));
    let taken = started.elapsed();
    registry
        .0
        .metrics
        .request(seen.route, &parts.method, response.status(), taken);
    if registry.0.options.access_log {
        tracing::info!(
            target: "ferry_registry::access",
            peer = parts.extensions.get::<Peer>().map(|peer| tracing::field::display(peer.address.ip())),
            user = seen.user.as_deref(),
            method = parts.method.as_str(),
            path = parts.uri.path(),
            status = response.status().as_u16(),
            micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX),
            cause = seen.cause.as_deref(),
        );
    }
    response
}

/// What is known of a request when it is answered.
#[derive(Default)]
struct Seen {
    route: &'static str,
    user: Option<Arc<str>>,
    cause: Option<String>,
}

async fn dispatch<B: Backend>(registry: &Registry<B>, parts: &Parts, content: Body, seen: &mut Seen) -> Answer {
    let route = Route::parse(parts.uri.path());
    seen.route = route
        .as_ref()
        .and_then(|route| route.as_ref().ok())
        .map_or("other", Route::name);
    let auth = &registry.0.auth;
    let peer = parts.extensions.get::<Peer>().copied();
    match &route {
        Some(Ok(Route::Health)) => return health(registry).await,
        // Metrics have a listener of their own.
        None | Some(Ok(Route::Metrics)) => return Err(unknown(parts)),
        Some(Ok(Route::Token)) if auth.has_tokens() => return token(registry, parts, content, peer).await,
        Some(Ok(Route::Token)) => return Err(unknown(parts)),
        _ => {}
    }
    let caller = auth.identify(parts, peer).await?;
    seen.user = caller.name();
    let Some(route) = route else { return Err(unknown(parts)) };
    let query = || Query::parse(parts.uri.query().unwrap_or_default());
    let (method, headers) = (&parts.method, &parts.headers);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route? {
        Route::Version if reads => {
            auth.require_known(&caller, parts, peer)?;
            Ok(json(&serde_json::json!({})))
        }
        Route::Catalog if reads => {
            auth.require_known(&caller, parts, peer)?;
            lists::catalog(registry, &caller, &query()).await
        }
        mut route => {
            let remote = registry.place(&mut route, &query)?;
            let remote = remote.as_ref();
            let (name, access) = needs(&route, method).ok_or_else(|| not_allowed(&route, method))?;
            auth.require(&caller, name, access, parts, peer)?;
            registry.permits(access)?;
            if let Some(remote) = remote.filter(|_| access == Access::Push) {
                return Err(no_push(name, remote));
            }
            match &route {
                Route::Tags(name) => lists::tags(registry, (name, remote), &query()).await,
                Route::Referrers(name, subject) => lists::referrers(registry, (name, remote), subject, &query()).await,
                Route::Blob(name, digest) if reads => {
                    blobs::get(registry, (name, remote), digest, method, headers).await
                }
                Route::Blob(name, digest) => blobs::delete(registry, name, digest).await,
                Route::Manifest(name, reference) => match *method {
                    Method::PUT => manifests::put(registry, name, reference, headers, content).await,
                    Method::DELETE => manifests::delete(registry, name, reference).await,
                    _ => manifests::get(registry, (name, remote), reference, method, headers).await,
                },
                Route::Uploads(name) => uploads::begin(registry, &caller, name, &query(), headers, content).await,
                Route::Upload(name, id) => match *method {
                    Method::PATCH => uploads::patch(registry, name, *id, headers, content).await,
                    Method::PUT => uploads::finish(registry, name, *id, &query(), headers, content).await,
                    Method::DELETE => uploads::cancel(registry, name, *id).await,
                    _ => uploads::status(registry, name, *id).await,
                },
                _ => Err(unknown(parts)),
            }
        }
    }
}

async fn token<B: Backend>(registry: &Registry<B>, parts: &Parts, content: Body, peer: Option<Peer>) -> Answer {
    let auth = &registry.0.auth;
    match parts.method {
        Method::GET => {
            auth.token(parts, parts.uri.query().unwrap_or_default().as_bytes(), peer)
                .await
        }
        Method::POST => {
            let too_large =
                || Failure::new(Code::SizeInvalid, "the form is too large").status(StatusCode::PAYLOAD_TOO_LARGE);
            let whole = body::whole(
                &registry.0.memory,
                &parts.headers,
                content,
                registry.0.options.patience,
                FORM_MAX,
                too_large,
            )
            .await?;
            auth.token(parts, &whole.content, peer).await
        }
        _ => Err(Failure::new(Code::Unsupported, "a token is asked for with GET or POST").header(ALLOW, "GET, POST")),
    }
}

/// Which right a request needs, on which repository; `None` for a method that the path has not.
fn needs<'a>(route: &'a Route, method: &Method) -> Option<(&'a Name, Access)> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        Route::Tags(name) | Route::Referrers(name, _) => reads.then_some((name, Access::Pull)),
        Route::Blob(name, _) | Route::Manifest(name, _) if reads => Some((name, Access::Pull)),
        Route::Blob(name, _) => (*method == Method::DELETE).then_some((name, Access::Delete)),
        Route::Manifest(name, _) if *method == Method::PUT => Some((name, Access::Push)),
        Route::Manifest(name, Reference::Digest(_) | Reference::Tag(_)) => {
            (*method == Method::DELETE).then_some((name, Access::Delete))
        }
        Route::Uploads(name) => (*method == Method::POST).then_some((name, Access::Push)),
        Route::Upload(name, _) => {
            let known = reads || matches!(*method, Method::PATCH | Method::PUT | Method::DELETE);
            known.then_some((name, Access::Push))
        }
        _ => None,
    }
}

impl<B: Backend> Registry<B> {
    /// Gives the route the name that its repository has in storage, and says where else it is.
    fn place(&self, route: &mut Route, query: &dyn Fn() -> Query) -> Answer<Option<Remote>> {
        let places = &self.0.through.places;
        let Some(name) = route.repository().filter(|_| !places.is_empty()) else {
            return Ok(None);
        };
        let (stored, remote) = places.of(name.clone(), query().get("ns"))?;
        *name = stored;
        Ok(remote)
    }

    /// Whether this registry does it at all, whoever asks.
    fn permits(&self, access: Access) -> Answer<()> {
        let refused = |message: &str| Err(Failure::new(Code::Unsupported, message));
        match access {
            Access::Push | Access::Delete if self.0.options.read_only => refused("this registry is read-only"),
            Access::Delete if !self.0.options.delete => {
                refused("nothing can be deleted from this registry: it is served without --allow-delete")
            }
            _ => Ok(()),
        }
    }
}

async fn health<B: Backend>(registry: &Registry<B>) -> Answer {
    match registry.0.backend.check().await {
        Ok(()) => {
            let mut response = Response::new(Body::from("ok\n"));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            Ok(response)
        }
        Err(error) => Err(Box::<Failure>::from(error).status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

fn unknown(parts: &Parts) -> Box<Failure> {
    let message = format!("{} is no path of this registry", parts.uri.path());
    Failure::new(Code::Unsupported, message).status(StatusCode::NOT_FOUND)
}

fn not_allowed(route: &Route, method: &Method) -> Box<Failure> {
    let allowed = match route {
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, PATCH, PUT, DELETE",
        _ => "GET, HEAD",
    };
    Failure::new(Code::Unsupported, format!("{method} is not done here: {allowed} are")).header(ALLOW, allowed)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Of text that has nothing in it that a header may not have.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
