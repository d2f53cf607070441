//! Connections: accepted, bounded, ended. HTTP/1.1 and HTTP/2 on the same port, with TLS or without.
//!
//! A client that is slow costs a connection and a buffer, for a bounded time: the handshake, a request's head, the time between
//! two requests and every write have a limit. Bodies are watched where they are read.

mod activity;
mod watched;

use std::io;
use std::net::{SocketAddr, TcpListener as Unused};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use ferry_tls::{Acceptor, refuse_plain};
use futures_util::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Peer;
use crate::metrics::{self, Metrics};

use self::activity::{Activity, Answering};
use self::watched::Watched;

/// All headers of a request together; HTTP/1 has a buffer of eight times that for all of a head.
const HEADERS_MAX: usize = 64 * 1024;
/// A client that reads nothing for so long has gone.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// HTTP on a port of HTTPS: instead of an alert that no such client shows, what to do.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 122\r\n\r\n\
    {\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"this port speaks HTTPS: use https:// and no plain-HTTP or insecure setting\"}]}";
/// What is spoken over TLS.
pub const PROTOCOLS: &[&str] = &["h2", "http/1.1"];
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 64;

/// How connections are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At once; more wait to be accepted.
    pub connections: usize,
    /// Before the first request and between two, and for a request's head.
    pub idle: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For answers under way, when the server ends.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            idle: Duration::from_secs(90),
            handshake: Duration::from_secs(10),
            grace: Duration::from_secs(30),
        }
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Acceptor>,
}

impl Listener {
    /// Called in a runtime.
    pub fn bind(address: SocketAddr, tls: Option<Acceptor>) -> io::Result<Self> {
        let socket = Unused::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            tls,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves until `shutdown`; then takes no more connections, lets answers under way end, and cuts those that do not.
pub fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let tasks = TaskTracker::new();
        let room = Arc::new(Semaphore::new(limits.connections));
        let server = Arc::new(Server {
            router,
            limits,
            metrics,
            shutdown,
        });
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept(listener, server.clone(), room.clone(), tasks.clone())))
            .collect();
        for task in accepting {
            // A task that panicked has listened for as long as it could.
            let _ = task.await;
        }
        tasks.close();
        tasks.wait().await;
    })
}

#[derive(Debug)]
struct Server {
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

async fn accept(listener: Listener, server: Arc<Server>, room: Arc<Semaphore>, tasks: TaskTracker) {
    let listener = Arc::new(listener);
    loop {
        let accepted = tokio::select! {
            () = server.shutdown.cancelled() => return,
            accepted = one(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, address, permit)) => {
                let (listener, server) = (listener.clone(), server.clone());
                tasks.spawn(async move {
                    let _permit = permit;
                    server.metrics.connections.inc();
                    server.connection(&listener, stream, address).await;
                    server.metrics.connections.dec();
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one(listener: &Listener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.socket.accept().await?;
    Ok((stream, address, permit))
}

impl Server {
    async fn connection(&self, listener: &Listener, mut stream: TcpStream, address: SocketAddr) {
        // Answers are written whole: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            address,
            tls: listener.tls.is_some(),
        };
        let Some(acceptor) = &listener.tls else {
            return self.http(Watched::new(stream, WRITE_STALL), peer).await;
        };
        let secured = async {
            refuse_plain(&mut stream, PLAIN.as_bytes()).await?;
            acceptor.accept(Watched::new(stream, WRITE_STALL)).await
        };
        match tokio::time::timeout(self.limits.handshake, secured).await {
            Ok(Ok(stream)) => self.http(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %address, "no TLS connection"),
            Err(_) => tracing::debug!(peer = %address, "a TLS handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let mut builder = Builder::new(TokioExecutor::new());
        let http1 = &mut builder.http1();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .half_close(false)
            .max_buf_size(HEADERS_MAX * 8);
        let http2 = &mut builder.http2();
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(HEADERS_MAX).unwrap_or(u32::MAX));
        http2
            .keep_alive_interval(self.limits.idle / 2)
            .keep_alive_timeout(self.limits.idle / 2)
            .adaptive_window(true);
        let (router, activity) = (self.router.clone(), Activity::new());
        let active = activity.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let (mut router, running) = (router.clone(), active.begin());
            async move {
                let response = tower_call(&mut router, request.map(Body::new)).await?;
                Ok::<_, std::convert::Infallible>(Answering::new(response, running))
            }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let grace = tokio::select! {
            ended = connection.as_mut() => return told(ended, peer),
            () = self.shutdown.cancelled() => self.limits.grace,
            // What was answered last may still be on its way.
            () = activity.idle(self.limits.idle) => self.limits.idle,
        };
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(grace, connection).await {
            told(ended, peer);
        }
    }
}

fn told<E: std::fmt::Display>(ended: Result<(), E>, peer: Peer) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, peer = %peer.address, "a connection ended early");
    }
}

/// A router is always ready.
async fn tower_call(router: &mut Router, request: Request<Body>) -> Result<Response, std::convert::Infallible> {
    use tower_service::Service as _;
    router.call(request).await
}

/// `/metrics` and nothing else, for a listener of its own.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    let text = move || {
        let metrics = metrics.clone();
        async move { ([(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text()) }
    };
    Router::new().route("/metrics", axum::routing::get(text))
}
