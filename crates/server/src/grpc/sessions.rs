//! Sessions: clients that serve their files and secrets, each under an id that its builds name.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_build::{Error, Result};
use ferry_buildkit::health::{HealthCheckRequest, HealthCheckResponse};
use ferry_buildkit::session::{HEALTH, header};
use http::HeaderMap;
use hyper::rt::{Read, Write};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;

/// How long a build waits for its session, as BuildKit does.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client is asked whether it is there, how long it may take, and how many times it may fail.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);
const FAILURES: u32 = 2;

/// Who is connected.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Known>);

#[derive(Debug)]
struct Known {
    clients: Mutex<HashMap<String, Arc<Client>>>,
    changed: watch::Sender<()>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Arc::new(Known {
            clients: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub id: String,
    /// Names the place of its files: `directory:node`, or only the last part of the directory, and [`origin`](super::origin).
    pub shared_key: String,
    pub caller: Caller,
    /// Calls that it serves, in lower case.
    methods: HashSet<String>,
    pub gone: CancellationToken,
}

impl Client {
    pub fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }
}

impl Sessions {
    fn clients(&self) -> MutexGuard<'_, HashMap<String, Arc<Client>>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session with this id is there already.
    pub fn is_known(&self, id: &str) -> bool {
        self.clients().contains_key(id)
    }

    /// A session, which may be about to connect.
    pub async fn get(&self, id: &str) -> Result<Arc<Client>> {
        let mut changed = self.0.changed.subscribe();
        let coming = async {
            loop {
                let client = self.clients().get(id).cloned();
                match client {
                    Some(client) => return client,
                    None => drop(changed.changed().await),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, coming).await;
        waited.map_err(|_| Error::invalid(format!("no active session for {id}: the client did not connect it")))
    }

    /// Has the client on a connection, until it ends. `origin`: where on this machine it comes from, if that is known.
    pub async fn serve<T>(
        &self,
        io: T,
        headers: &HeaderMap,
        origin: &str,
        closing: &CancellationToken,
    ) -> hyper::Result<()>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (caller, connection) = Caller::new(io).await?;
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let methods = headers.get_all(header::METHOD).iter();
        let client = Arc::new(Client {
            id: text(header::ID),
            shared_key: match text(header::SHARED_KEY) {
                key if key.is_empty() => key,
                key => format!("{key}\0{origin}"),
            },
            caller,
            methods: methods
                .filter_map(|value| Some(value.to_str().ok()?.to_lowercase()))
                .collect(),
            gone: CancellationToken::new(),
        });
        // Ends with this call, however it ends.
        let _here = Here::new(self, &client);
        tokio::select! {
            ended = connection => ended,
            () = watch_health(&client) => Ok(()),
            () = closing.cancelled() => Ok(()),
        }
    }
}

/// A client that is connected.
struct Here<'a> {
    sessions: &'a Sessions,
    client: Arc<Client>,
}

impl<'a> Here<'a> {
    fn new(sessions: &'a Sessions, client: &Arc<Client>) -> Self {
        sessions.clients().insert(client.id.clone(), Arc::clone(client));
        sessions.0.changed.send_replace(());
        Self {
            sessions,
            client: Arc::clone(client),
        }
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let mut clients = self.sessions.clients();
        if clients
            .get(&self.client.id)
            .is_some_and(|known| Arc::ptr_eq(known, &self.client))
        {
            clients.remove(&self.client.id);
        }
        drop(clients);
        self.client.gone.cancel();
    }
}

/// Returns when the client does not answer any more.
async fn watch_health(client: &Client) {
    let mut failures = 0;
    while failures < FAILURES {
        tokio::time::sleep(INTERVAL).await;
        let question = HealthCheckRequest::default();
        let asked = client.caller.call::<_, HealthCheckResponse>(HEALTH, question);
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(_)) => failures = 0,
            Ok(Err(error)) => {
                failures += 1;
                tracing::debug!(%error, session = client.id, "a build's client says that it is not well");
            }
            Err(_) => failures += 1,
        }
    }
    tracing::info!(session = client.id, "a build's client does not answer any more");
}
