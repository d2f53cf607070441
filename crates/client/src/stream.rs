use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
};

use ferry_tls::ClientStream;

use crate::{Connector, Error, Host, Result, host::Ssh, resolve};

/// Go's.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection to a daemon.
#[derive(Debug)]
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<ClientStream<Stream>>),
}

impl Stream {
    /// With `tls`, whatever is said is said through it, but for ssh, which is safe itself.
    pub(crate) async fn connect(host: &Host, tls: Option<&Connector>) -> Result<Self> {
        let plain = Self::plain(host).await.map_err(|source| Error::Connect {
            host: host.to_string(),
            source,
        })?;
        let (Some(tls), false) = (tls, matches!(host, Host::Ssh(_))) else {
            return Ok(plain);
        };
        let name = match host {
            Host::Tcp(address) => resolve::split(address).map_or(address.as_str(), |(name, _)| name),
            _ => "localhost",
        };
        let secured = tokio::time::timeout(HANDSHAKE, tls.connect(name, plain)).await;
        let reason = match secured {
            Ok(Ok(stream)) => return Ok(Self::Tls(Box::new(stream))),
            Ok(Err(error)) => match ferry_tls::of_io(&error) {
                Some(error) => ferry_tls::explain(error),
                None => error.to_string(),
            },
            Err(_) => "net/http: TLS handshake timeout".to_owned(),
        };
        let host = host.to_string();
        Err(Error::Tls { host, reason })
    }

    async fn plain(host: &Host) -> io::Result<Self> {
        match host {
            Host::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Host::Tcp(address) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in resolve::addresses(address).await? {
                    match TcpStream::connect(address).await {
                        Ok(stream) => {
                            let _ = stream.set_nodelay(true);
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Host::Ssh(ssh) => over_ssh(ssh).map(Self::Unix),
        }
    }
}

/// The `ssh` program with one end of a pair as its input and output. It ends with the connection; what it has to say goes to the
/// user's terminal.
fn over_ssh(ssh: &Ssh) -> io::Result<UnixStream> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut command = std::process::Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(port) = ssh.port {
        command.args(["-p", &port.to_string()]);
    }
    let host = match ssh.socket.as_str() {
        "" => String::new(),
        socket => format!("--host unix://{socket} "),
    };
    let remote = format!(
        "if command -v ferry >/dev/null 2>&1; then exec ferry {host}system dial-stdio; else exec docker {host}system dial-stdio; fi"
    );
    command.args(["--", &ssh.destination, &remote]);
    command.stdin(std::os::fd::OwnedFd::from(theirs.try_clone()?));
    command.stdout(std::os::fd::OwnedFd::from(theirs));
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "the program ssh is not there: install an ssh client"),
        _ => error,
    })?;
    ours.set_nonblocking(true)?;
    UnixStream::from_std(ours)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, content: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, content),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, content),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, content),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}

/// A connection after its `101`: raw bytes both ways. Shutting the writer down closes that half only.
#[derive(Debug)]
pub struct Upgraded {
    pub(crate) stream: Stream,
    /// What came with the answer's head.
    pub(crate) early: Bytes,
    /// The container has a terminal: raw bytes instead of frames (`application/vnd.docker.raw-stream`).
    pub raw: bool,
}

impl Upgraded {
    /// Sends one byte, and descriptors with it: over a unix socket only, and before anything else.
    pub async fn send_descriptors(&mut self, byte: u8, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => {
                let send = || ferry_sys::packet::send(&*stream, &[byte], descriptors);
                stream.async_io(tokio::io::Interest::WRITABLE, send).await
            }
            _ if !descriptors.is_empty() => Err(io::ErrorKind::Unsupported.into()),
            stream => tokio::io::AsyncWriteExt::write_all(stream, &[byte]).await,
        }
    }

    #[must_use]
    pub fn split(self) -> (Reader, WriteHalf<Stream>) {
        let (reader, writer) = tokio::io::split(self.stream);
        (
            Reader {
                early: self.early,
                reader,
            },
            writer,
        )
    }
}

#[derive(Debug)]
pub struct Reader {
    early: Bytes,
    reader: ReadHalf<Stream>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.reader).poll_read(context, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}
