//! `POST /ferry/build`: the builder for Ferry's own command line. The engine reads the client's directories itself, by descriptors
//! that came over the socket; what else it wants it asks for ([`ferry_build::wire`]).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferry_build::frontend::{Sent, unpack_directory};
use ferry_build::progress::{Events, Status};
use ferry_build::session::{BoxFuture, ContentStore, Directory, Stream, Wanted};
use ferry_build::wire::{Answer, Failure as Why, FromClient, FromEngine, MOST_DIRECTORIES, Question, Talk};
use ferry_build::{Error, Session};
use ferry_engine::Builds;
use ferry_sys::Root;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use crate::App;
use crate::failure::{Failure, Result};
use crate::hijack::{Connection, Hijack};

/// Messages that wait to be looked at.
const WAITING: usize = 16;

pub async fn talk(State(app): State<App>, mut request: Request<Body>) -> Result<Response> {
    let hijack = Hijack::of(&mut request);
    let builds = app.engine.builds.clone();
    let serve = move |connection| async move {
        if let Err(error) = converse(builds, connection).await {
            tracing::debug!(%error, "a build's conversation ended");
        }
    };
    let media = "application/vnd.ferry.build";
    let answered = hijack.answer(&app.tasks, media, request.into_body(), serve).await;
    answered.map_err(|error| Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn converse(builds: Builds, connection: Connection) -> io::Result<()> {
    let (socket, early) = connection.into_parts()?;
    if !early.is_empty() {
        return Err(io::Error::other("the client did not wait for the upgrade"));
    }
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = UnixStream::from_std(socket)?;
    let descriptors = directories(&stream).await?;
    let (reader, writer) = stream.into_split();
    let talk = Talk::new(writer);
    let (sender, mut heard) = mpsc::channel(WAITING);
    let gone = CancellationToken::new();
    let listening = {
        let (talk, gone) = (talk.clone(), gone.clone().drop_guard());
        tokio::spawn(async move {
            let _gone = gone;
            talk.listen::<FromClient>(reader, sender).await
        })
    };
    let Some(FromClient::Build {
        mut request,
        outputs,
        caches,
        directories,
    }) = heard.recv().await
    else {
        return listening.await.map_err(io::Error::other)?;
    };
    request.has_no_output = outputs.is_empty() && caches.is_empty();
    let answers = talk.clone();
    let answering = tokio::spawn(async move {
        while let Some(FromClient::Answer { number, answer }) = heard.recv().await {
            answers.answered(number, answer);
        }
    });
    let session: Arc<dyn Session> = Arc::new(Asked {
        talk: talk.clone(),
        builds: builds.clone(),
        directories: Mutex::new(directories.into_iter().zip(descriptors).collect()),
        gone,
    });
    let (events, mut happening) = Events::new();
    let building = async {
        let is_call = request.call.is_some();
        let solved = builds.solve(*request, Arc::clone(&session), events.clone()).await?;
        let told = match is_call {
            true => BTreeMap::new(),
            false => builds.export(&solved, &outputs, &caches, session, events).await?,
        };
        let answers = solved.answers().iter();
        let answers = answers.map(|(name, bytes)| (name.clone(), String::from_utf8_lossy(bytes).into_owned()));
        Ok::<_, Error>((told, answers.collect()))
    };
    tokio::pin!(building);
    let outcome = loop {
        tokio::select! {
            biased;
            Some(event) = happening.recv() => talk.say(&FromEngine::Event(event)).await?,
            outcome = &mut building => break outcome,
        }
    };
    while let Ok(event) = happening.try_recv() {
        talk.say(&FromEngine::Event(event)).await?;
    }
    let last = match outcome {
        Ok((told, answers)) => FromEngine::Done { told, answers },
        Err(error) => FromEngine::Failed(why(error)),
    };
    talk.say(&last).await?;
    drop(talk);
    // The client hangs up when it has read that.
    let _ = listening.await;
    answering.abort();
    Ok(())
}

fn why(error: Error) -> Why {
    let message = error.to_string();
    let mut why = Why {
        message,
        canceled: matches!(error, Error::Canceled),
        ..Why::default()
    };
    match error {
        Error::Step(failed) => {
            why.exit_code = failed.exit_code;
            why.vertex = failed.vertex;
            why.image = failed.image.map(|image| image.to_string());
            why.excerpt = failed.excerpt;
        }
        Error::Dockerfile(written) => why.excerpt = written.excerpt,
        _ => {}
    }
    why
}

/// The directories that come with the first byte.
async fn directories(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut count = [0];
    let receive = || ferry_sys::packet::receive(stream.as_fd(), &mut count);
    let (read, descriptors) = stream.async_io(Interest::READABLE, receive).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if usize::from(count[0]) != descriptors.len() || descriptors.len() > MOST_DIRECTORIES {
        return Err(io::Error::other("not as many directories as announced"));
    }
    for directory in &descriptors {
        let stat = rustix::fs::fstat(directory)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
    }
    Ok(descriptors)
}

/// A client that can be asked.
#[derive(Debug)]
struct Asked {
    talk: Talk,
    builds: Builds,
    directories: Mutex<HashMap<String, OwnedFd>>,
    gone: CancellationToken,
}

pub(super) fn failed(what: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Canceled,
        _ => Error::internal(what, &error),
    }
}

impl Asked {
    async fn stream(&self, question: Question) -> ferry_build::Result<Option<tokio::io::DuplexStream>> {
        let (answer, opened) = self.talk.ask(question).await.map_err(failed("ask the client"))?;
        match answer {
            Answer::Open => Ok(Some(opened.stream())),
            Answer::Failed(why) => Err(Error::Invalid(why)),
            _ => Ok(None),
        }
    }

    fn local(&self, name: &str) -> ferry_build::Result<Option<Directory>> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(directory) = directories.get(name) else {
            return Ok(None);
        };
        let open = |error: io::Error| Error::internal("open the client's directory", &error);
        let stat = rustix::fs::fstat(directory).map_err(|error| open(error.into()))?;
        Ok(Some(Directory {
            root: Root::from_fd(directory.try_clone().map_err(open)?),
            whole: true,
            key: Some(format!("directory {} {}", stat.st_dev, stat.st_ino)),
            hold: Box::new(()),
        }))
    }
}

impl Session for Asked {
    fn directory<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
        _: &'a (dyn Fn(Status) + Send + Sync),
    ) -> BoxFuture<'a, ferry_build::Result<Directory>> {
        Box::pin(async move {
            if let Some(local) = self.local(name)? {
                return Ok(local);
            }
            let question = Question::Directory {
                name: name.to_owned(),
                wanted: wanted.clone(),
            };
            let stream = self.stream(question).await?;
            let stream = stream.ok_or_else(|| Error::NotFound(format!("the client has no directory {name}")))?;
            let draft = self.builds.draft().await?;
            match unpack_directory(stream, draft).await? {
                Sent::Files(directory) => Ok(directory),
                Sent::Dockerfile(_) => Err(Error::invalid("the client sent no archive")),
            }
        })
    }

    fn upload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ferry_build::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            let stream = self.stream(Question::Upload(name.to_owned())).await?;
            let stream = stream.ok_or_else(|| Error::NotFound(format!("the client does not send {name}")))?;
            Ok(Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>)
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Bytes>>> {
        Box::pin(async move {
            let question = Question::Secret(id.to_owned());
            let (answer, _) = self.talk.ask(question).await.map_err(failed("ask the client"))?;
            match answer {
                Answer::Secret(Some(text)) => {
                    let decoded = STANDARD.decode(text);
                    let decoded =
                        decoded.map_err(|_| Error::invalid(format!("the client's secret {id} is not base64")))?;
                    Ok(Some(decoded.into()))
                }
                Answer::Failed(why) => Err(Error::Invalid(why)),
                _ => Ok(None),
            }
        })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Box<dyn Stream>>>> {
        Box::pin(async move {
            let stream = self.stream(Question::Ssh(id.to_owned())).await?;
            Ok(stream.map(|stream| Box::new(stream) as Box<dyn Stream>))
        })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<(String, String)>>> {
        Box::pin(async move {
            let question = Question::Credentials(host.to_owned());
            let (answer, _) = self.talk.ask(question).await.map_err(failed("ask the client"))?;
            match answer {
                Answer::Credentials(pair) => Ok(pair),
                Answer::Failed(why) => Err(Error::Invalid(why)),
                _ => Ok(None),
            }
        })
    }

    fn receive_archive<'a>(
        &'a self,
        number: usize,
        _: &'a [(String, String)],
    ) -> BoxFuture<'a, ferry_build::Result<Box<dyn AsyncWrite + Send + Unpin>>> {
        Box::pin(async move {
            let stream = self.stream(Question::Archive(number)).await?;
            let stream = stream.ok_or_else(|| Error::invalid("the client takes no archive"))?;
            Ok(Box::new(stream) as Box<dyn AsyncWrite + Send + Unpin>)
        })
    }

    fn receive_directory<'a>(&'a self, number: usize, tree: Root) -> BoxFuture<'a, ferry_build::Result<()>> {
        Box::pin(async move {
            let stream = self.stream(Question::Files(number)).await?;
            let stream = stream.ok_or_else(|| Error::invalid("the client takes no files"))?;
            ferry_build::frontend::send_directory(tree, stream).await
        })
    }

    fn store<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Arc<dyn ContentStore>>>> {
        Box::pin(async move {
            let root = self.local(name)?.map(|directory| directory.root);
            let store: Arc<dyn ContentStore> = Arc::new(Layout::new(self.talk.clone(), name, root));
            Ok(Some(store))
        })
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.gone.cancelled())
    }
}
