//! What the command line and the engine say to each other about a build, over one connection.
//!
//! ```text
//! first    a byte: how many descriptors come with it (SCM_RIGHTS, unix sockets only); each is a directory
//! frame    = kind length content           kind: a byte; length: 32 bits, the most significant byte first
//! kind 0   JSON: [`FromClient`] or [`FromEngine`]
//! kind 1   number (32 bits) bytes          of the stream that an answer opened; none: its end
//! ```
//!
//! The engine asks, the client answers; a question has a number, which is that of the stream its answer may open.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_image::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, oneshot};

use crate::cache::CacheDestination;
use crate::output::Output;
use crate::progress::Event;
use crate::request::Request;
use crate::session::Wanted;

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "ferry-build";
/// The path of the API.
pub const PATH: &str = "/ferry/build";
/// The most directories.
pub const MOST_DIRECTORIES: usize = 16;

const JSON: u8 = 0;
const DATA: u8 = 1;
/// Bytes of a frame.
const MOST: usize = 8 << 20;
/// Bytes of a piece of a stream.
const PIECE: usize = 64 << 10;
/// Pieces that wait for who reads a stream.
const WAITING: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
pub enum FromClient {
    /// The first message.
    Build {
        request: Box<Request>,
        outputs: Vec<Output>,
        #[serde(default)]
        caches: Vec<CacheDestination>,
        /// The names of the directories whose descriptors have come, in their order.
        directories: Vec<String>,
    },
    Answer {
        number: u32,
        answer: Answer,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// A secret, base64; or user and password; or nothing of the kind.
    Secret(Option<String>),
    Credentials(Option<(String, String)>),
    /// Bytes.
    Size(u64),
    /// A stream follows.
    Open,
    /// There is none.
    Absent,
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromEngine {
    Event(Event),
    Question {
        number: u32,
        question: Question,
    },
    /// The last message.
    Done {
        told: BTreeMap<String, String>,
        /// Of a call.
        answers: BTreeMap<String, String>,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failure {
    pub message: String,
    pub exit_code: Option<i32>,
    /// The step, as progress shows it; empty for none.
    pub vertex: String,
    pub excerpt: String,
    pub canceled: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Question {
    Secret(String),
    Credentials(String),
    Ssh(String),
    /// What is sent instead of a directory.
    Upload(String),
    /// A directory as an archive: of a client that is elsewhere.
    Directory {
        name: String,
        wanted: Wanted,
    },
    /// An archive is coming: the `number`-th output.
    Archive(usize),
    /// The same, to be unpacked.
    Files(usize),
    /// Something about an OCI layout, by its name.
    Store {
        name: String,
        asked: Asked,
    },
}

/// What is asked about an OCI layout.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Asked {
    Size(Digest),
    Read {
        digest: Digest,
        offset: u64,
    },
    /// It is coming; at its end [`WRITTEN`] is said to it, or what went wrong.
    Write {
        digest: Digest,
        size: u64,
    },
    /// The index is to name this manifest, a descriptor in JSON. Answered by [`Answer::Open`] alone.
    Publish {
        tag: String,
        manifest: String,
    },
}

/// What a client says to a content it has.
pub const WRITTEN: &str = "written";

/// One end of a conversation. Clones are handles on the same one.
#[derive(Clone)]
pub struct Talk {
    shared: Arc<Shared>,
}

struct Shared {
    out: mpsc::Sender<Vec<u8>>,
    next: AtomicU32,
    asked: Mutex<HashMap<u32, oneshot::Sender<Answer>>>,
    streams: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").finish_non_exhaustive()
    }
}

impl Talk {
    /// Begins to write to a connection, until the last handle is gone.
    pub fn new(mut writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        let (out, mut frames) = mpsc::channel::<Vec<u8>>(WAITING);
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
        });
        Self {
            shared: Arc::new(Shared {
                out,
                next: AtomicU32::new(1),
                asked: Mutex::default(),
                streams: Mutex::default(),
            }),
        }
    }

    pub async fn say(&self, message: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_vec(message).map_err(io::Error::other)?;
        self.frame(JSON, &[&json]).await
    }

    async fn frame(&self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).ok().filter(|length| *length as usize <= MOST);
        let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
        let mut frame = vec![kind];
        frame.extend_from_slice(&length.to_be_bytes());
        parts.iter().for_each(|part| frame.extend_from_slice(part));
        let sent = self.shared.out.send(frame).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Asks the client; the answer, and the stream that it may have opened.
    pub async fn ask(&self, question: Question) -> io::Result<(Answer, Opened)> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.shared.asked).insert(number, sender);
        // What comes right behind the answer is not missed.
        let pieces = self.register(number);
        self.say(&FromEngine::Question { number, question }).await?;
        let answer = answer.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        if !matches!(answer, Answer::Open) {
            lock(&self.shared.streams).remove(&number);
        }
        let talk = self.clone();
        Ok((answer, Opened { talk, number, pieces }))
    }

    fn register(&self, number: u32) -> mpsc::Receiver<Bytes> {
        let (sender, pieces) = mpsc::channel::<Bytes>(WAITING);
        lock(&self.shared.streams).insert(number, sender);
        pieces
    }

    /// Somebody answered.
    pub fn answered(&self, number: u32, answer: Answer) {
        if let Some(waiting) = lock(&self.shared.asked).remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    /// A stream with this number, both ways. To be opened before the other end can write to it.
    pub fn stream(&self, number: u32) -> DuplexStream {
        let pieces = self.register(number);
        self.pump(number, pieces)
    }

    fn pump(&self, number: u32, mut pieces: mpsc::Receiver<Bytes>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIECE);
        let (mut reader, mut writer) = tokio::io::split(ours);
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                if piece.is_empty() || writer.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
        });
        let talk = self.clone();
        tokio::spawn(async move {
            let number = number.to_be_bytes();
            let mut piece = vec![0; PIECE];
            loop {
                let count = reader.read(&mut piece).await.unwrap_or(0);
                if talk.frame(DATA, &[&number, &piece[..count]]).await.is_err() || count == 0 {
                    break;
                }
            }
        });
        theirs
    }

    /// Reads the connection to its end; messages go to `heard`.
    pub async fn listen<T: DeserializeOwned>(
        &self,
        mut reader: impl AsyncRead + Send + Unpin,
        heard: mpsc::Sender<T>,
    ) -> io::Result<()> {
        let outcome = self.frames(&mut reader, heard).await;
        // Whoever waits for more waits in vain.
        lock(&self.shared.asked).clear();
        lock(&self.shared.streams).clear();
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            outcome => outcome,
        }
    }

    async fn frames<T: DeserializeOwned>(
        &self,
        reader: &mut (impl AsyncRead + Send + Unpin),
        heard: mpsc::Sender<T>,
    ) -> io::Result<()> {
        loop {
            let kind = reader.read_u8().await?;
            let length = usize::try_from(reader.read_u32().await?).unwrap_or(usize::MAX);
            if length > MOST {
                return Err(io::Error::other("a message is too long"));
            }
            let mut content = vec![0; length];
            reader.read_exact(&mut content).await?;
            match (kind, content.split_first_chunk::<4>()) {
                (JSON, _) => {
                    let message = serde_json::from_slice(&content).map_err(io::Error::other)?;
                    if heard.send(message).await.is_err() {
                        return Ok(());
                    }
                }
                (DATA, Some((number, piece))) => {
                    let number = u32::from_be_bytes(*number);
                    let piece = Bytes::copy_from_slice(piece);
                    let stream = match piece.is_empty() {
                        true => lock(&self.shared.streams).remove(&number),
                        false => lock(&self.shared.streams).get(&number).cloned(),
                    };
                    if let Some(stream) = stream {
                        let _ = stream.send(piece).await;
                    }
                }
                _ => return Err(io::Error::other("a message of an unknown kind")),
            }
        }
    }
}

/// A stream that the other end may write to by now.
#[derive(Debug)]
pub struct Opened {
    talk: Talk,
    number: u32,
    pieces: mpsc::Receiver<Bytes>,
}

impl Opened {
    pub fn stream(self) -> DuplexStream {
        self.talk.pump(self.number, self.pieces)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_have_answers_and_streams() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let (here_reader, here_writer) = tokio::io::split(here);
        let (there_reader, there_writer) = tokio::io::split(there);
        let (engine, client) = (Talk::new(here_writer), Talk::new(there_writer));
        let (sender, mut to_engine) = mpsc::channel(8);
        let listening = engine.clone();
        tokio::spawn(async move { listening.listen::<FromClient>(here_reader, sender).await });
        let answering = engine.clone();
        tokio::spawn(async move {
            while let Some(FromClient::Answer { number, answer }) = to_engine.recv().await {
                answering.answered(number, answer);
            }
        });
        let (sender, mut to_client) = mpsc::channel(8);
        let listening = client.clone();
        tokio::spawn(async move { listening.listen::<FromEngine>(there_reader, sender).await });
        let answers = client.clone();
        tokio::spawn(async move {
            while let Some(FromEngine::Question { number, .. }) = to_client.recv().await {
                let mut stream = answers.stream(number);
                answers
                    .say(&FromClient::Answer {
                        number,
                        answer: Answer::Open,
                    })
                    .await
                    .unwrap();
                stream.write_all(&vec![7; 200_000]).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let (answer, opened) = engine.ask(Question::Upload("x".into())).await.unwrap();
        assert!(matches!(answer, Answer::Open));
        let mut stream = opened.stream();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, vec![7; 200_000]);
    }
}
