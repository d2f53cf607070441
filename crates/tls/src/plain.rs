//! HTTP on a port of HTTPS: instead of an alert that no such client shows, an answer that says what to do.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What such a client has sent is read to its end, for so long and so far: else the kernel would throw the answer away.
const LINGER: Duration = Duration::from_secs(1);
const READ_MAX: u64 = 64 << 10;

/// An error, when what comes first is a letter: records of TLS begin otherwise. Then `answer`, a whole response that closes
/// the connection, is sent.
pub async fn refuse_plain(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || !first[0].is_ascii_alphabetic() {
        return Ok(());
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(READ_MAX);
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the client speaks plain HTTP",
    ))
}
