//! A terminal or a pipe on this side, a container's streams on the other.
//!
//! ```text
//! stdin ──▶ escape keys ──▶ connection ──▶ frames ──▶ stdout, stderr
//! signals, window size ──▶ requests of their own
//! ```
//!
//! Output and input run side by side in one task: a slow stdout holds up neither typing nor Ctrl-C. The end of stdin closes that half
//! of the connection; the session ends with the last byte of output, or when the detach keys are typed.

use std::{convert::Infallible, io};

use ferry_api::frame::{Decoder, Stream};
use ferry_client::{Client, Query, Upgraded};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    failure::{Failure, Result, io_text},
    ui::{Channel, Ui},
};

pub mod ask;
mod escape;
mod input;
mod terminal;

pub use escape::Escape;
pub use input::Input;
pub use terminal::RawMode;

/// How much is read from a container at once, in bytes.
const BUFFER: usize = 32 << 10;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side closed the stream.
    Closed,
    /// The detach keys were typed.
    Detached,
}

/// What is typed, and the keys that leave.
#[derive(Debug)]
pub struct Typing {
    pub input: Input,
    pub escape: Option<Escape>,
}

impl Typing {
    /// What is typed at standard input, if it is wanted; with a terminal, `keys` (`ctrl-p,ctrl-q`) leave.
    pub fn of(ui: &Ui, wanted: bool, tty: bool, keys: &str) -> Option<Self> {
        ui.stdin.filter(|_| wanted).map(|fd| Self {
            input: Input::new(fd),
            escape: tty.then(|| Escape::parse(keys).unwrap_or_default()),
        })
    }
}

/// Copies both ways until the stream ends; `control` runs beside it and never finishes.
pub async fn converse(
    ui: &mut Ui,
    stream: Upgraded,
    raw: bool,
    typing: Option<Typing>,
    control: impl Future<Output = Infallible>,
) -> Result<End> {
    let (mut reader, mut writer) = stream.split();
    let output = async {
        let mut demultiplexer = Demultiplexer::new(raw);
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => demultiplexer.write(ui, &buffer[..count]).await?,
                // A daemon that goes away ends the stream; the exit code is asked for elsewhere.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(Failure::new(io_text(&error))),
            }
        }
    };
    let input = async {
        if let Some(mut typing) = typing {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = typing.input.read(&mut buffer).await {
                let typed = match &mut typing.escape {
                    Some(escape) => match escape.pass(&buffer[..count]) {
                        Some(typed) => typed,
                        None => return,
                    },
                    None => buffer[..count].to_vec(),
                };
                if writer.write_all(&typed).await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
        } else {
            let _ = writer.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = output => result.map(|()| End::Closed),
        () = input => Ok(End::Detached),
        never = control => match never {},
    }
}

/// Takes frames apart, or passes raw bytes on.
#[derive(Debug)]
pub struct Demultiplexer {
    decoder: Option<Decoder>,
}

impl Demultiplexer {
    pub fn new(raw: bool) -> Self {
        Self {
            decoder: (!raw).then(Decoder::default),
        }
    }

    pub async fn write(&mut self, ui: &mut Ui, mut content: &[u8]) -> Result<()> {
        let failed = |error: io::Error| Failure::new(format!("write /dev/stdout: {}", io_text(&error)));
        let Some(decoder) = &mut self.decoder else {
            return ui.channel(Channel::Stdout).write_slowly(content).await.map_err(failed);
        };
        loop {
            let frame = decoder
                .next(&mut content)
                .map_err(|error| Failure::new(error.to_string()))?;
            let Some(frame) = frame else { return Ok(()) };
            let channel = match frame.stream {
                Stream::Stdin | Stream::Stdout => Channel::Stdout,
                Stream::Stderr => Channel::Stderr,
                Stream::System => {
                    let text = String::from_utf8_lossy(frame.payload);
                    return Err(Failure::new(format!("error from daemon in stream: {text}")));
                }
            };
            ui.channel(channel).write_slowly(frame.payload).await.map_err(failed)?;
        }
    }
}

/// What signals are passed on: all that a person or a program sends on purpose.
const PROXIED: [(SignalKind, &str); 8] = [
    (SignalKind::hangup(), "HUP"),
    (SignalKind::interrupt(), "INT"),
    (SignalKind::quit(), "QUIT"),
    (SignalKind::user_defined1(), "USR1"),
    (SignalKind::user_defined2(), "USR2"),
    (SignalKind::terminate(), "TERM"),
    (SignalKind::alarm(), "ALRM"),
    (SignalKind::from_raw(18), "CONT"),
];

/// Signals on their way to a container.
#[derive(Debug, Default)]
pub struct Signals(Vec<(Signal, &'static str)>);

impl Signals {
    /// From here on these signals no longer end the process.
    pub fn catch() -> Self {
        Self(
            PROXIED
                .into_iter()
                .filter_map(|(kind, name)| Some((signal(kind).ok()?, name)))
                .collect(),
        )
    }

    /// The next one that arrives.
    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (signal, name) in &mut self.0 {
                if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Sends each to the container.
    pub async fn forward(&mut self, client: &Client, id: &str) -> Infallible {
        loop {
            let name = self.next().await;
            let path = Query::new()
                .with("signal", name)
                .on(&format!("/containers/{}/kill", Client::escape(id)));
            let _ = client.post(&path).await;
        }
    }
}

/// What is told the size of the terminal.
#[derive(Debug)]
pub struct Screen<'a> {
    pub client: &'a Client,
    /// `/containers/ID` or `/exec/ID`.
    pub path: &'a str,
    /// None when nothing is to be told.
    pub terminal: Option<rustix::fd::BorrowedFd<'static>>,
    /// Whoever draws there is already running: a size that changes makes it draw again.
    pub redraw: bool,
}

impl<'a> Screen<'a> {
    /// Told of the terminal at standard output, if the container has one too.
    pub fn of(ui: &Ui, client: &'a Client, path: &'a str, tty: bool) -> Self {
        Self {
            client,
            path,
            terminal: tty.then(rustix::stdio::stdout).filter(|_| ui.stdout_is_terminal()),
            redraw: false,
        }
    }
}

/// Tells the size of the terminal now and whenever it changes.
pub async fn follow_size(screen: Screen<'_>) -> Infallible {
    let changes = signal(SignalKind::window_change());
    let (Some(terminal), Ok(mut changes)) = (screen.terminal, changes) else {
        return std::future::pending().await;
    };
    let tell = async |rows: u16, columns: u16| {
        let query = Query::new().with("h", rows.to_string()).with("w", columns.to_string());
        let _ = screen.client.post(&query.on(&format!("{}/resize", screen.path))).await;
    };
    let mut redraw = screen.redraw;
    loop {
        if let Ok(size) = rustix::termios::tcgetwinsize(terminal)
            && (size.ws_row > 0 || size.ws_col > 0)
        {
            if std::mem::take(&mut redraw) {
                tell(size.ws_row.saturating_add(1), size.ws_col.saturating_add(1)).await;
            }
            tell(size.ws_row, size.ws_col).await;
        }
        if changes.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// Two that never finish, side by side.
pub async fn both(first: impl Future<Output = Infallible>, second: impl Future<Output = Infallible>) -> Infallible {
    tokio::select! {
        never = first => never,
        never = second => never,
    }
}

#[cfg(test)]
mod tests;
