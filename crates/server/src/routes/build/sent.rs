//! A client that has sent what it has with its request: an archive, and credentials. It may have a session beside.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_build::progress::Status;
use ferry_build::session::{BoxFuture, ContentStore, Directory, Stream, Wanted};
use ferry_build::{Error, Result, Session};
use ferry_engine::images::Credentials;
use ferry_sys::Root;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;

use super::jobs::Upload;
use crate::failure::Failure;
use crate::grpc::Grpc;

const REGISTRY_CONFIG: &str = "x-registry-config";

#[derive(Debug)]
pub struct Sent {
    credentials: BTreeMap<String, Credentials>,
    upload: Mutex<Option<Upload>>,
    session: Option<(Grpc, String)>,
}

impl Sent {
    /// `session`: where it is, and its id. It is looked for when it is needed first.
    pub fn session(
        headers: &HeaderMap,
        upload: Upload,
        session: Option<(Grpc, String)>,
    ) -> crate::failure::Result<Arc<dyn Session>> {
        Ok(Arc::new(Self {
            credentials: credentials(headers)?,
            upload: Mutex::new(Some(upload)),
            session,
        }))
    }

    async fn client(&self) -> Result<Option<Arc<dyn Session>>> {
        match &self.session {
            Some((grpc, id)) => grpc.open_session(id).await.map(Some),
            None => Ok(None),
        }
    }

    async fn needed(&self, what: &str) -> Result<Arc<dyn Session>> {
        self.client().await?.ok_or_else(|| {
            Error::invalid(format!(
                "{what} needs a session, which this request does not have: build with buildx, or with ferry build"
            ))
        })
    }
}

fn credentials(headers: &HeaderMap) -> crate::failure::Result<BTreeMap<String, Credentials>> {
    match headers.get(REGISTRY_CONFIG).and_then(|value| value.to_str().ok()) {
        Some(text) => ferry_engine::images::registry_config(text).map_err(|error| Failure::invalid(error.to_string())),
        None => Ok(BTreeMap::new()),
    }
}

impl Session for Sent {
    fn directory<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
        report: &'a (dyn Fn(Status) + Send + Sync),
    ) -> BoxFuture<'a, Result<Directory>> {
        Box::pin(async move {
            let client = self.needed(&format!("the directory {name}")).await?;
            client.directory(name, wanted, report).await
        })
    }

    fn upload<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            let upload = self.upload.lock().unwrap_or_else(PoisonError::into_inner).take();
            let upload = upload.ok_or_else(|| Error::Internal("the context was read already".to_owned()))?;
            let pieces = futures_util::TryStreamExt::map_err(upload.into_stream(), io::Error::other);
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(StreamReader::new(pieces));
            Ok(reader)
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            match self.client().await? {
                Some(client) => client.secret(id).await,
                None => Ok(None),
            }
        })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Stream>>>> {
        Box::pin(async move {
            match self.client().await? {
                Some(client) => client.ssh(id).await,
                None => Ok(None),
            }
        })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<(String, String)>>> {
        let given = match self.credentials.get(host) {
            Some(Credentials::Basic { username, password }) => Some((username.clone(), password.clone())),
            Some(Credentials::Identity { token, .. }) => Some((String::new(), token.clone())),
            _ => None,
        };
        Box::pin(async move {
            match self.client().await? {
                Some(client) if given.is_none() => client.credentials(host).await,
                _ => Ok(given),
            }
        })
    }

    fn receive_archive<'a>(
        &'a self,
        number: usize,
        attributes: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Box<dyn AsyncWrite + Send + Unpin>>> {
        Box::pin(async move {
            let client = self.needed("an archive as output").await?;
            client.receive_archive(number, attributes).await
        })
    }

    fn receive_directory<'a>(&'a self, number: usize, tree: Root) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let client = self.needed("a directory as output").await?;
            client.receive_directory(number, tree).await
        })
    }

    fn store<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Arc<dyn ContentStore>>>> {
        Box::pin(async move {
            match self.client().await? {
                Some(client) => client.store(name).await,
                None => Ok(None),
            }
        })
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        // Its task ends with the connection.
        Box::pin(std::future::pending())
    }
}
