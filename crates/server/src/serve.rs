//! Connections: accepted, counted, ended.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use ferry_tls::{Acceptor, refuse_plain};

use crate::held::{self, Stream, Told};
use crate::listen::{Listener, Socket};

/// All headers of a request together.
const HEADERS_MAX: usize = 64 * 1024;
/// How long answers under way may take once the engine ends.
const GRACE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two words about it.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that is gone without a word is noticed after this time and some tries, as by Go's servers.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What is spoken over TLS: a connection that is taken over is HTTP/1.1.
pub const PROTOCOLS: &[&str] = &["http/1.1"];
/// To those who speak HTTP where TLS is meant: Go's words.
const PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How many clients are connected, and since when none is.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Clients>>);

#[derive(Debug)]
struct Clients {
    connections: usize,
    /// When the last one came or went.
    changed: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Clients {
            connections: 0,
            changed: Instant::now(),
        })))
    }
}

impl Activity {
    pub fn connections(&self) -> usize {
        self.clients().connections
    }

    /// For how long nobody has been connected; zero while somebody is.
    pub fn idle_for(&self) -> Duration {
        let clients = self.clients();
        match clients.connections {
            0 => clients.changed.elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Guard {
        self.clients().connections += 1;
        Guard(self.clone())
    }
}

#[derive(Debug)]
struct Guard(Activity);

/// In every request's extensions: as long as one is held, its connection counts as a client.
#[derive(Debug, Clone)]
pub struct Connected {
    _guard: Arc<Guard>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut clients = self.0.clients();
        clients.connections -= 1;
        clients.changed = Instant::now();
    }
}

/// Serves until `shutdown`; then takes no more connections, waits for no request that is not whole, lets answers under way end,
/// and cuts those that do not.
pub fn serve(
    listeners: Vec<Listener>,
    router: Router,
    shutdown: CancellationToken,
    activity: Activity,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let tasks = TaskTracker::new();
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(
                listener,
                router.clone(),
                shutdown.clone(),
                activity.clone(),
                tasks.clone(),
            ));
        }
        while accepting.join_next().await.is_some() {}
        tasks.close();
        tasks.wait().await;
    })
}

async fn accept(
    listener: Listener,
    router: Router,
    shutdown: CancellationToken,
    activity: Activity,
    tasks: TaskTracker,
) {
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = one(&listener.socket) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                let connected = Connected {
                    _guard: Arc::new(activity.enter()),
                };
                tasks.spawn(async move {
                    match accepted {
                        Accepted::Unix(stream) => connection(Stream::Unix(stream), router, shutdown, connected).await,
                        Accepted::Tcp(stream, None) => {
                            connection(Stream::Other(Box::new(stream)), router, shutdown, connected).await;
                        }
                        Accepted::Tcp(stream, Some(acceptor)) => {
                            secured(stream, &acceptor, router, shutdown, connected).await;
                        }
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // A log that fills the disk would be the next trouble.
                if complained.is_none_or(|last| last.elapsed() > COMPLAINTS) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, listener = listener.name, "cannot accept connections");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Option<Acceptor>),
}

async fn one(socket: &Socket) -> io::Result<Accepted> {
    match socket {
        Socket::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0)),
        Socket::Tcp(socket, tls) => {
            let (stream, _) = socket.accept().await?;
            // Answers are written whole: nothing is gained by waiting for more.
            let _ = stream.set_nodelay(true);
            let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
            let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
            let _ = rustix::net::sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE);
            Ok(Accepted::Tcp(stream, tls.clone()))
        }
    }
}

async fn secured(
    mut stream: TcpStream,
    acceptor: &Acceptor,
    router: Router,
    shutdown: CancellationToken,
    connected: Connected,
) {
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    let handshake = async {
        refuse_plain(&mut stream, PLAIN).await?;
        acceptor.accept(stream).await
    };
    let handshake = tokio::time::timeout(HANDSHAKE, handshake);
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = shutdown.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => connection(Stream::Other(Box::new(stream)), router, shutdown, connected).await,
        // Who was refused is for the log: it may be an attack, or the reason somebody looks for.
        Ok(Err(error)) => tracing::info!(%error, peer, "no TLS connection"),
        Err(_) => tracing::info!(peer, "a TLS handshake took too long"),
    }
}

async fn connection(stream: Stream, router: Router, shutdown: CancellationToken, connected: Connected) {
    let mut builder = Builder::new(TokioExecutor::new());
    // Docker's spelling of header names. A client that has hung up waits for nothing.
    builder
        .http1()
        .title_case_headers(true)
        .half_close(false)
        .max_buf_size(HEADERS_MAX);
    let (held, takeover) = held::hold(stream);
    let service = Told {
        service: TowerToHyperService::new(router),
        connected,
        takeover: takeover.clone(),
        closing: shutdown.clone(),
    };
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(held), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // It goes on without HTTP.
        () = takeover.taken() => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_vanished_client_cancels_what_it_waited_for_and_shutdown_ends_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = Listener::unix(&path, None).unwrap();
        let (dropped, mut gone) = tokio::sync::mpsc::channel::<()>(1);
        let router = Router::new().route(
            "/wait",
            get(move || {
                let dropped = dropped.clone();
                async move {
                    dropped.send(()).await.unwrap();
                    let _dropped = dropped;
                    std::future::pending::<()>().await;
                }
            }),
        );
        let (shutdown, activity) = (CancellationToken::new(), Activity::default());
        let served = tokio::spawn(serve(vec![listener], router, shutdown.clone(), activity.clone()));
        let mut client = UnixStream::connect(&path).await.unwrap();
        client
            .write_all(b"GET /wait HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        gone.recv().await.unwrap();
        assert_eq!(activity.connections(), 1);
        drop(client);
        while activity.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut idle = UnixStream::connect(&path).await.unwrap();
        while activity.connections() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        served.await.unwrap();
        assert!(!path.exists());
    }
}
