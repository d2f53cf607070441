//! A client's session as the builder knows one: its calls.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_build::progress::Status as Progress;
use ferry_build::session::{BoxFuture, ContentStore, Directory, Stream, Wanted};
use ferry_build::{Error, Result, Session};
use ferry_buildkit::filesync::{BytesMessage, CredentialsRequest, CredentialsResponse};
use ferry_buildkit::secrets::{GetSecretRequest, GetSecretResponse};
use ferry_buildkit::session::{self as calls, metadata};
use ferry_buildkit::sshforward::{self, CheckAgentRequest, CheckAgentResponse};
use ferry_sys::Root;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::sessions::Client;
use super::{content, contexts, streams, transfer};

/// A secret's most. BuildKit's clients refuse larger ones too.
const SECRET_MAX: usize = 500 * 1024;
/// What is on its way between an agent and a process.
const AGENT_BUFFER: usize = 64 * 1024;

/// A client's side of one build.
#[derive(Debug)]
pub struct GrpcSession {
    pub client: Arc<Client>,
    /// Where directories of clients lie.
    pub contexts: PathBuf,
}

impl GrpcSession {
    /// Refuses what the client does not serve.
    fn serves(&self, method: &str, what: &str) -> Result<()> {
        match self.client.serves(method) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "the client does not offer {what} to this build"
            ))),
        }
    }

    async fn fetch(&self, name: &str, wanted: &Wanted, report: &(dyn Fn(Progress) + Send + Sync)) -> Result<Directory> {
        self.serves(calls::FILES, &format!("the directory {name}"))?;
        let (dir, key) = (self.contexts.clone(), self.client.shared_key.clone());
        let (label, paths) = (name.to_owned(), wanted.clone());
        let key = (!key.is_empty()).then_some(key);
        let taking = tokio::task::spawn_blocking(move || contexts::take(&dir, key.as_deref(), &label, &paths));
        let place = taking
            .await
            .map_err(|error| Error::internal("prepare a directory", &error))??;
        let mut about = MetadataMap::new();
        values(&mut about, metadata::DIRECTORY, &[name.to_owned()]);
        values(&mut about, metadata::FOLLOW, &wanted.paths);
        values(&mut about, metadata::EXCLUDE, &wanted.exclude);
        transfer::receive(&self.client.caller, about, place.files()?, name, report).await?;
        Ok(Directory {
            root: place.files()?,
            whole: false,
            key: place.key(),
            hold: Box::new(place),
        })
    }
}

/// Values of one name; encoded, all of them, if one could not be sent as it is.
fn values(map: &mut MetadataMap, name: &'static str, texts: &[String]) {
    let plain = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let encode = !texts.iter().all(plain);
    for text in texts {
        let text = match encode {
            true => form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            false => text.clone(),
        };
        if let Ok(value) = MetadataValue::try_from(text) {
            map.append(name, value);
        }
    }
    if encode && let Ok(key) = AsciiMetadataKey::from_bytes(format!("{name}{}", metadata::ENCODED).as_bytes()) {
        map.insert(key, MetadataValue::from_static("1"));
    }
}

/// What a client answered instead.
pub fn refused(what: &str, status: &Status) -> Error {
    let text = format!("{what}: {}", status.message());
    match status.code() {
        Code::NotFound => Error::NotFound(text),
        Code::Cancelled => Error::Canceled,
        _ => Error::Invalid(text),
    }
}

impl Session for GrpcSession {
    fn directory<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
        report: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Directory>> {
        Box::pin(self.fetch(name, wanted, report))
    }

    fn upload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            self.serves(calls::UPLOAD, "an archive")?;
            let url = name.parse::<Uri>().unwrap_or_default();
            let mut about = MetadataMap::new();
            values(&mut about, metadata::URL_PATH, &[url.path().to_owned()]);
            values(
                &mut about,
                metadata::URL_HOST,
                &[url.host().unwrap_or_default().to_owned()],
            );
            let nothing = futures_util::stream::pending::<BytesMessage>();
            let coming = self
                .client
                .caller
                .stream::<_, BytesMessage>(calls::UPLOAD, about, nothing);
            let coming = coming
                .await
                .map_err(|status| refused("the client does not send its archive", &status))?;
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(streams::reader(coming, |message| message.data));
            Ok(reader)
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            if !self.client.serves(calls::SECRET) {
                return Ok(None);
            }
            let question = GetSecretRequest { id: id.to_owned() };
            match self
                .client
                .caller
                .call::<_, GetSecretResponse>(calls::SECRET, question)
                .await
            {
                Ok(secret) if secret.data.len() > SECRET_MAX => Err(Error::invalid(format!(
                    "the secret {id} is larger than {SECRET_MAX} bytes"
                ))),
                Ok(secret) => Ok(Some(secret.data)),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(refused(&format!("the client does not give the secret {id}"), &status)),
            }
        })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Stream>>>> {
        Box::pin(async move {
            if !self.client.serves(calls::AGENT) {
                return Ok(None);
            }
            let id = if id.is_empty() { "default" } else { id };
            let question = CheckAgentRequest { id: id.to_owned() };
            let checked = self
                .client
                .caller
                .call::<_, CheckAgentResponse>(calls::CHECK_AGENT, question)
                .await;
            if let Err(status) = checked {
                return match status.message().contains("unset ssh forward key") || status.code() == Code::NotFound {
                    true => Ok(None),
                    false => Err(refused(&format!("the client does not give the agent {id}"), &status)),
                };
            }
            let mut about = MetadataMap::new();
            values(&mut about, metadata::AGENT_ID, &[id.to_owned()]);
            let (ours, theirs) = tokio::io::duplex(AGENT_BUFFER);
            let (reader, writer) = tokio::io::split(theirs);
            let caller = self.client.caller.clone();
            let message = |data| sshforward::BytesMessage { data };
            // Both ends of it end with the process that has the connection, or with the session.
            tokio::spawn(async move {
                let questions = streams::messages(reader, message);
                let answers = caller
                    .stream::<_, sshforward::BytesMessage>(calls::AGENT, about, questions)
                    .await;
                match answers {
                    Ok(answers) => streams::pump(answers, |message| message.data, writer).await,
                    Err(error) => tracing::debug!(%error, "an agent is not there"),
                }
            });
            let stream: Box<dyn Stream> = Box::new(ours);
            Ok(Some(stream))
        })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<(String, String)>>> {
        Box::pin(async move {
            if !self.client.serves(calls::CREDENTIALS) {
                return Ok(None);
            }
            // Docker's clients keep those of its own registry under this name.
            let host = if host == "docker.io" {
                "registry-1.docker.io"
            } else {
                host
            };
            let question = CredentialsRequest { host: host.to_owned() };
            let asked = self
                .client
                .caller
                .call::<_, CredentialsResponse>(calls::CREDENTIALS, question)
                .await;
            let given = asked.map_err(|status| refused(&format!("the client's credentials for {host}"), &status))?;
            Ok((!given.secret.is_empty()).then_some((given.username, given.secret)))
        })
    }

    fn receive_archive<'a>(
        &'a self,
        number: usize,
        attributes: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Box<dyn AsyncWrite + Send + Unpin>>> {
        Box::pin(async move {
            self.serves(calls::RESULT, "to take an archive")?;
            let mut about = output(number);
            for (name, value) in attributes {
                let key = AsciiMetadataKey::from_bytes(format!("{}{name}", metadata::ATTRIBUTE).as_bytes());
                if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value.as_str())) {
                    about.insert(key, value);
                }
            }
            let caller = self.client.caller.clone();
            let writer: Box<dyn AsyncWrite + Send + Unpin> = Box::new(streams::Archive::new(caller, about));
            Ok(writer)
        })
    }

    fn receive_directory<'a>(&'a self, number: usize, tree: Root) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.serves(calls::RESULT, "to take a directory")?;
            transfer::send(&self.client.caller, output(number), tree).await
        })
    }

    fn store<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Arc<dyn ContentStore>>>> {
        Box::pin(async move {
            if !self.client.serves(calls::CONTENT_INFO) {
                return Ok(None);
            }
            let store = content::Content::new(self.client.caller.clone(), name)?;
            let store: Arc<dyn ContentStore> = Arc::new(store);
            Ok(Some(store))
        })
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.gone.cancelled())
    }
}

fn output(number: usize) -> MetadataMap {
    let mut about = MetadataMap::new();
    about.insert(metadata::OUTPUT, MetadataValue::from(number as u64));
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_sent_are_encoded_together() {
        let mut map = MetadataMap::new();
        values(&mut map, metadata::FOLLOW, &["a b".to_owned(), "ü".to_owned()]);
        let sent: Vec<_> = map
            .get_all(metadata::FOLLOW)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(sent, ["a+b", "%C3%BC"]);
        assert_eq!(map.get("followpaths-encoded").unwrap(), "1");
        values(&mut map, metadata::EXCLUDE, &["a b".to_owned()]);
        assert_eq!(map.get(metadata::EXCLUDE).unwrap(), "a b");
        assert!(map.get("exclude-patterns-encoded").is_none());
    }
}
