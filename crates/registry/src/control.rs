//! How `ferry registry gc` reaches the server that has the directory.
//!
//! Only the server knows which uploads run and what it has promised, and only one process may write to a directory. So the
//! command first tries the directory's lock: where no server runs, it collects itself. Otherwise it asks the server, by one line
//! of JSON each way over a socket in the directory, whose mode lets in nobody but the server's own user and root. A network
//! endpoint would need rights of its own for what whoever owns the files can do anyway.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend as _, Collected, Collection};
use crate::fs::FileSystem;
use crate::metrics::Metrics;

const REQUEST_MAX: u64 = 4096;
/// For the request to come. The answer takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Collected(Collected),
    Failed(String),
}

pub fn socket(root: &Path) -> PathBuf {
    root.join("control.sock")
}

/// Asks the server that has the directory to collect. Blocks.
pub fn ask(root: &Path, collection: &Collection) -> io::Result<Collected> {
    let mut stream = UnixStream::connect(socket(root))?;
    let mut line = serde_json::to_vec(collection)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    match serde_json::from_str(&reply)? {
        Reply::Collected(collected) => Ok(collected),
        Reply::Failed(why) => Err(io::Error::other(why)),
    }
}

/// Answers until `shutdown`. The caller holds the directory's lock, so that a socket which is there is nobody's.
pub fn listen(
    storage: FileSystem,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, io::Result<()>> {
    Box::pin(async move {
        let path = socket(storage.root());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // One after the other: only one collects at a time anyway.
                Ok((stream, _)) => {
                    if let Err(error) = answer(stream, &storage, &metrics).await {
                        tracing::warn!(%error, "a request to collect was not answered");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a request to collect");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        std::fs::remove_file(&path)
    })
}

async fn answer(mut stream: tokio::net::UnixStream, storage: &FileSystem, metrics: &Metrics) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new((&mut stream).take(REQUEST_MAX));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line))
        .await
        .map_err(io::Error::other)??;
    let reply = match serde_json::from_str::<Collection>(&line) {
        Ok(collection) => match storage.collect(collection).await {
            Ok(collected) => {
                metrics.collected(&collected);
                Reply::Collected(collected)
            }
            Err(error) => Reply::Failed(format!(
                "{error}: {}",
                std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default()
            )),
        },
        Err(error) => Reply::Failed(format!("the request is not understood: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
