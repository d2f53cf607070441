//! The conversation with the engine: it tells what happens, and asks for what it wants.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_archive::{ApplyOptions, Owner, Whiteouts};
use ferry_build::output::OutputKind;
use ferry_build::wire::{self, Answer, Asked, Failure as Why, FromClient, FromEngine, Question, Talk};
use ferry_client::{Body, Host};
use ferry_distribution::Credentials;
use ferry_sys::Root;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;

use super::agent::{self, Agent};
use super::outputs::Place;
use super::request::Wanted;
use super::show::Show;
use crate::commands::{Call, login};
use crate::failure::{Failure, Result, io_text};
use crate::options::secrets;
use crate::session::Input;

/// Messages that wait to be looked at.
const WAITING: usize = 64;

pub struct Conversation {
    talk: Talk,
    heard: mpsc::Receiver<FromEngine>,
}

/// What a build came to: what clients are told, and the answers of a call.
pub type Done = (BTreeMap<String, String>, BTreeMap<String, String>);

/// Connects, and hands the directories over where the engine is on this machine.
pub async fn begin(call: &Call<'_>, wanted: &Wanted) -> Result<Conversation> {
    if wanted.directories.len() > wire::MOST_DIRECTORIES {
        return Err(Failure::new(format!(
            "a build has at most {} directories",
            wire::MOST_DIRECTORIES
        )));
    }
    let mut upgraded = call.client.upgrade(wire::PATH, Body::Empty).await?;
    let is_here = matches!(call.client.host(), Host::Unix(_));
    let descriptors: Vec<BorrowedFd<'_>> = match is_here {
        true => wanted
            .directories
            .iter()
            .map(|directory| directory.fd.as_fd())
            .collect(),
        false => Vec::new(),
    };
    let count = u8::try_from(descriptors.len()).unwrap_or_default();
    let sent = upgraded.send_descriptors(count, &descriptors).await;
    sent.map_err(|error| Failure::new(format!("hand the build's directories over: {}", io_text(&error))))?;
    let (reader, writer) = upgraded.split();
    let talk = Talk::new(writer);
    let (sender, heard) = mpsc::channel(WAITING);
    let listening = talk.clone();
    tokio::spawn(async move { listening.listen::<FromEngine>(reader, sender).await });
    Ok(Conversation { talk, heard })
}

impl Conversation {
    pub async fn run(
        &mut self,
        call: &mut Call<'_>,
        wanted: &Wanted,
        mut first: FromClient,
        show: &mut Show,
    ) -> Result<std::result::Result<Done, Why>> {
        if let FromClient::Build { directories, .. } = &mut first
            && !matches!(call.client.host(), Host::Unix(_))
        {
            directories.clear();
        }
        self.say(&first).await?;
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                biased;
                heard = self.heard.recv() => heard,
                _ = tick.tick() => {
                    show.tick(call.ui);
                    continue;
                }
            };
            match heard {
                Some(FromEngine::Event(event)) => show.event(call.ui, event),
                Some(FromEngine::Question { number, question }) => self.answer(call, wanted, number, question).await?,
                Some(FromEngine::Done { told, answers }) => return Ok(Ok((told, answers))),
                Some(FromEngine::Failed(why)) => return Ok(Err(why)),
                None => return Err(Failure::new("the engine has ended, and with it the build")),
            }
        }
    }

    async fn say(&self, message: &FromClient) -> Result<()> {
        let said = self.talk.say(message).await;
        said.map_err(|error| Failure::new(format!("the connection to the engine broke: {}", io_text(&error))))
    }

    async fn reply(&self, number: u32, answer: Answer) -> Result<()> {
        self.say(&FromClient::Answer { number, answer }).await
    }

    async fn answer(&self, call: &mut Call<'_>, wanted: &Wanted, number: u32, question: Question) -> Result<()> {
        match question {
            Question::Secret(id) => {
                let answer = match wanted.secrets.get(&id) {
                    None => Answer::Secret(None),
                    Some(source) => match secrets::content(source, call.env) {
                        Ok(bytes) => Answer::Secret(Some(STANDARD.encode(bytes))),
                        Err(why) => Answer::Failed(why),
                    },
                };
                self.reply(number, answer).await
            }
            Question::Credentials(host) => {
                let answer = match login::stored(call, &host).await {
                    Ok(Credentials::Basic { username, password }) => Answer::Credentials(Some((username, password))),
                    Ok(Credentials::Identity { token, .. }) => Answer::Credentials(Some((String::new(), token))),
                    Ok(_) => Answer::Credentials(None),
                    Err(failure) => Answer::Failed(failure.message),
                };
                self.reply(number, answer).await
            }
            Question::Ssh(id) => self.agent(wanted, number, &id).await,
            Question::Upload(_) => {
                let Some(fd) = call.ui.stdin else {
                    return self.reply(number, Answer::Absent).await;
                };
                let input = Input::new(fd);
                self.send(number, move |mut out| async move {
                    let mut input = input;
                    tokio::io::copy(&mut input, &mut out).await?;
                    out.shutdown().await
                })
                .await
            }
            Question::Directory { name, wanted: part } => {
                let Some(directory) = wanted.directories.iter().find(|known| known.name == name) else {
                    return self.reply(number, Answer::Absent).await;
                };
                let root = directory.fd.try_clone().map(Root::from_fd);
                let root = root.map_err(|error| Failure::new(io_text(&error)))?;
                self.send(number, move |out| send_files(root, part, out)).await
            }
            Question::Store { name, asked } => self.store(wanted, number, &name, asked).await,
            Question::Archive(place) => self.receive(wanted, number, place, false).await,
            Question::Files(place) => self.receive(wanted, number, place, true).await,
        }
    }

    /// Opens a stream to the engine and writes to it beside everything else.
    async fn send<F>(
        &self,
        number: u32,
        write: impl FnOnce(tokio::io::DuplexStream) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let stream = self.talk.stream(number);
        self.reply(number, Answer::Open).await?;
        tokio::spawn(write(stream));
        Ok(())
    }

    /// About an OCI layout here, beside everything else.
    async fn store(&self, wanted: &Wanted, number: u32, name: &str, asked: Asked) -> Result<()> {
        let Some(layout) = wanted.caches.layouts.get(name) else {
            return self.reply(number, Answer::Absent).await;
        };
        match (layout.answer(&asked), &asked) {
            (Answer::Open, Asked::Read { .. } | Asked::Write { .. }) => {
                let layout = layout.clone();
                self.send(number, move |stream| async move {
                    let bridge = SyncIoBridge::new(stream);
                    let moved = tokio::task::spawn_blocking(move || layout.transfer(&asked, bridge));
                    moved.await.map_err(std::io::Error::other)?
                })
                .await
            }
            (answer, _) => self.reply(number, answer).await,
        }
    }

    async fn agent(&self, wanted: &Wanted, number: u32, id: &str) -> Result<()> {
        let id = if id.is_empty() { "default" } else { id };
        let path = match wanted.agents.get(id) {
            None => return self.reply(number, Answer::Absent).await,
            Some(Agent::Keys(keys)) => {
                let keys = Arc::clone(keys);
                return self.send(number, move |stream| agent::serve(keys, stream)).await;
            }
            Some(Agent::Socket(path)) => path,
        };
        match tokio::net::UnixStream::connect(path).await {
            Err(error) => {
                let why = format!("connect to the agent {}: {}", path.display(), io_text(&error));
                self.reply(number, Answer::Failed(why)).await
            }
            Ok(agent) => self.send(number, |stream| agent::pass(stream, agent)).await,
        }
    }

    /// Takes an output: an archive as it is, or its files. Waits for its end: what comes after it is the build's.
    async fn receive(&self, wanted: &Wanted, number: u32, place: usize, unpack: bool) -> Result<()> {
        let Some(place) = wanted.outputs.get(place) else {
            return self.reply(number, Answer::Absent).await;
        };
        let stream = self.talk.stream(number);
        self.reply(number, Answer::Open).await?;
        let (reader, _writer) = tokio::io::split(stream);
        let received = match unpack {
            true => receive_files(place, reader).await,
            false => receive_archive(place, reader).await,
        };
        received.map_err(|error| {
            let path = place
                .path
                .as_ref()
                .map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
            Failure::new(format!("write {path}: {}", io_text(&error)))
        })
    }
}

/// The wanted files of a directory as an archive.
async fn send_files(
    root: Root,
    wanted: ferry_build::session::Wanted,
    out: impl AsyncWrite + Send + Unpin + 'static,
) -> std::io::Result<()> {
    let bridge = SyncIoBridge::new(out);
    let sent = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut out = ferry_build::files::archive(&root, &wanted.exclude, bridge).map_err(std::io::Error::other)?;
        out.flush()?;
        out.shutdown()
    });
    sent.await.map_err(std::io::Error::other)?
}

async fn receive_archive(place: &Place, mut reader: impl AsyncRead + Unpin) -> std::io::Result<()> {
    let Some(path) = &place.path else {
        let out = rustix::io::dup(rustix::stdio::stdout())?;
        let mut out = tokio::fs::File::from_std(std::fs::File::from(out));
        tokio::io::copy(&mut reader, &mut out).await?;
        return out.flush().await;
    };
    let mut file = tokio::fs::File::create(path).await?;
    tokio::io::copy(&mut reader, &mut file).await?;
    file.flush().await
}

async fn receive_files(place: &Place, mut reader: impl AsyncRead + Send + Unpin + 'static) -> std::io::Result<()> {
    let Some(path) = place.path.clone().filter(|_| place.output.kind == OutputKind::Local) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let unpacked = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&path)?;
        let root = Root::open(&path)?;
        let is_root = rustix::process::geteuid().is_root();
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            owner: if is_root { Owner::Archive } else { Owner::Unchanged },
            ..ApplyOptions::default()
        };
        let mut bridge = SyncIoBridge::new(&mut reader);
        let applied = ferry_archive::apply(&mut bridge, &root, &options);
        applied.map_err(|error| std::io::Error::other(ferry_kit::error::chain(&error)))?;
        std::io::copy(&mut bridge, &mut std::io::sink()).map(drop)
    });
    unpacked.await.map_err(std::io::Error::other)?
}
