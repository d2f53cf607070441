//! A registry on a port, with a directory of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ferry_registry::{
    Acceptor, Auth, FileSystem, FileSystemOptions, Limits, Listener, Options, PROTOCOLS, Registry, TlsFiles, router,
    serve,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Reply};
use crate::site::scratch;

/// What differs from a registry without anything.
#[derive(Default)]
pub struct Setup<'a> {
    pub options: Options,
    pub limits: Limits,
    pub storage: FileSystemOptions,
    pub tls: Option<&'a TlsFiles>,
}

pub struct Served {
    pub address: SocketAddr,
    dir: TempDir,
    shutdown: CancellationToken,
    runtime: Option<Runtime>,
}

impl Served {
    pub fn start(setup: Setup<'_>) -> Self {
        let dir = scratch();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let acceptor = setup.tls.map(|files| Acceptor::read(files, PROTOCOLS).unwrap());
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), acceptor).unwrap();
        let address = listener.address().unwrap();
        let storage = FileSystem::open(dir.path(), setup.storage).unwrap();
        let registry = Registry::new(storage, Auth::open(), setup.options);
        let (metrics, shutdown) = (registry.metrics(), CancellationToken::new());
        runtime.spawn(serve(
            vec![listener],
            router(registry),
            setup.limits,
            metrics,
            shutdown.clone(),
        ));
        Self {
            address,
            dir,
            shutdown,
            runtime: Some(runtime),
        }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = client::connect(self.address).unwrap();
        client::send(&mut stream, method, path, headers, body).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
