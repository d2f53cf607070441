//! BuildKit's protocol: buildx, bake, compose and buildctl.
//!
//! ```text
//! POST /grpc     Upgrade: h2c   the client calls Control and LLBBridge        ─▶ ferry_engine::Builds
//! POST /session  Upgrade: h2c   the daemon calls what the client serves       ◀─ ferry_build::Session
//! ```
//! The services can also be called on the API's own connection (HTTP/2 without an upgrade), and a session be a call of its own
//! (`Control.Session`). A build is `Control.Solve`, which lasts as long as it does; the frontend of Dockerfiles is called by the
//! client in between, with `LLBBridge`, under the build's name.

mod attributes;
mod bridge;
mod builds;
mod caller;
mod content;
mod contexts;
mod control;
mod entry;
mod failure;
mod files;
mod history;
mod log;
mod origin;
mod progress;
mod session;
mod sessions;
mod streams;
mod transfer;
mod worker;

pub use builds::Asked;
pub use control::outputs;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use ferry_build::Session;
use ferry_buildkit::content::content_server::{Content, ContentServer};
use ferry_buildkit::content::{InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};
use ferry_buildkit::control::control_server::ControlServer;
use ferry_buildkit::frontend::llb_bridge_server::LlbBridgeServer;
use ferry_buildkit::session::header as session_header;
use ferry_buildkit::trace::trace_service_server::{TraceService, TraceServiceServer};
use ferry_buildkit::trace::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use ferry_buildkit::types::WorkerRecord;
use ferry_engine::Engine;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::server::conn::http2;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::App;
use crate::failure::{Failure, Result};
use crate::held::Takeover;
use crate::serve::Connected;

const H2C: &str = "h2c";
/// One message of a client's, which may hold a definition.
const MESSAGE_MAX: usize = 16 << 20;

/// What the services work on.
#[derive(Debug, Clone)]
pub struct Grpc {
    engine: Engine,
    builds: builds::Builds,
    sessions: sessions::Sessions,
    closing: CancellationToken,
}

impl Grpc {
    pub fn new(engine: Engine, closing: CancellationToken) -> Self {
        let history = engine.builds.history_dir();
        let history = history
            .inspect_err(|error| tracing::warn!(%error, "builds leave no history"))
            .ok();
        Self {
            engine,
            builds: builds::Builds::new(history),
            sessions: sessions::Sessions::default(),
            closing,
        }
    }

    fn worker(&self) -> WorkerRecord {
        let bridge = || {
            let bridge = self.engine.networks.inspect("bridge").ok()?;
            Some(bridge.ipam.config?.into_iter().next()?.gateway)
        };
        let gateway = self.engine.system.host_gateway().map(|address| address.to_string());
        let (id, hostname) = self.engine.system.names();
        let gateway = gateway.or_else(bridge).filter(|gateway| !gateway.is_empty());
        worker::record(id, hostname, gateway)
    }

    pub async fn open_session(&self, id: &str) -> ferry_build::Result<Arc<dyn Session>> {
        Ok(Arc::new(session::GrpcSession {
            client: self.sessions.get(id).await?,
            contexts: self.engine.builds.contexts_dir()?,
        }))
    }

    /// Why a session with these headers cannot be.
    fn check_session(&self, headers: &HeaderMap) -> Result<(), String> {
        let id = headers.get(session_header::ID).and_then(|id| id.to_str().ok());
        match id.filter(|id| !id.is_empty()) {
            None => Err(format!("a session needs an id ({})", session_header::ID)),
            Some(id) if self.sessions.is_known(id) => Err(format!("session {id} already exists")),
            Some(_) => Ok(()),
        }
    }

    /// The services, each below its own path.
    pub fn services<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route_service(
                "/moby.buildkit.v1.Control/{call}",
                ControlServer::new(self.clone()).max_decoding_message_size(MESSAGE_MAX),
            )
            .route_service(
                "/moby.buildkit.v1.frontend.LLBBridge/{call}",
                LlbBridgeServer::new(self.clone()).max_decoding_message_size(MESSAGE_MAX),
            )
            .route_service(
                "/containerd.services.content.v1.Content/{call}",
                ContentServer::new(Attachments),
            )
            .route_service(
                "/opentelemetry.proto.collector.trace.v1.TraceService/{call}",
                TraceServiceServer::new(Traces).max_decoding_message_size(MESSAGE_MAX),
            )
    }
}

/// `POST /grpc`
pub async fn serve(State(app): State<App>, request: Request<Body>) -> Result<Response> {
    let grpc = app.grpc.clone();
    upgrade(&app, request, |io, _| async move {
        let services = grpc.services::<()>().fallback(unknown);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(io, TowerToHyperService::new(services));
        tokio::select! {
            ended = connection => ended,
            () = grpc.closing.cancelled() => Ok(()),
        }
    })
}

/// `POST /session`
pub async fn serve_session(State(app): State<App>, request: Request<Body>) -> Result<Response> {
    app.grpc.check_session(request.headers()).map_err(Failure::invalid)?;
    let grpc = app.grpc.clone();
    let peer = request.extensions().get::<Takeover>().and_then(Takeover::peer);
    let origin = peer.and_then(origin::of).unwrap_or_default();
    upgrade(&app, request, move |io, headers| async move {
        grpc.sessions.serve(io, &headers, &origin, &grpc.closing).await
    })
}

/// The services are told apart by path; of others a client hears what gRPC says.
async fn unknown() -> Response {
    Status::unimplemented("unknown service").into_http::<Body>()
}

/// Answers that HTTP/2 follows, and has somebody speak it.
fn upgrade<F, S>(app: &App, mut request: Request<Body>, serve: S) -> Result<Response>
where
    S: FnOnce(Upgraded, HeaderMap) -> F + Send + 'static,
    F: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let wanted = request
        .headers()
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok());
    match wanted {
        None => return Err(Failure::invalid("no upgrade proto in request")),
        Some(H2C) if request.version() == http::Version::HTTP_11 => {}
        Some(other) => return Err(Failure::invalid(format!("protocol {other} not supported"))),
    }
    let connected = request.extensions_mut().remove::<Connected>();
    let headers = request.headers().clone();
    let upgrading = hyper::upgrade::on(&mut request);
    app.tasks.spawn(async move {
        // It counts as a client as long as it is there.
        let _connected = connected;
        let served = match upgrading.await {
            Ok(io) => serve(io, headers).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of a build's client ended early");
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(H2C)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// What is attached to builds: nothing is, so far.
#[derive(Debug)]
struct Attachments;

fn not_found(digest: &str) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

#[tonic::async_trait]
impl Content for Attachments {
    async fn info(&self, request: tonic::Request<InfoRequest>) -> Result<tonic::Response<InfoResponse>, Status> {
        Err(not_found(&request.into_inner().digest))
    }

    async fn read(
        &self,
        request: tonic::Request<ReadContentRequest>,
    ) -> Result<tonic::Response<BoxStream<ReadContentResponse>>, Status> {
        Err(not_found(&request.into_inner().digest))
    }
}

/// Traces of clients, which nobody keeps.
#[derive(Debug)]
struct Traces;

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        _: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        Ok(tonic::Response::new(ExportTraceServiceResponse {}))
    }
}
