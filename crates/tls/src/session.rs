//! A client's connection for code without tokio: whoever has the socket, which does not block, says when to go on.

use std::io::{self, ErrorKind, Read, Write};

use rustls::ClientConnection;

/// Records that are read at once: a server that never stops talking keeps nobody busy.
const ROUNDS: usize = 16;

#[derive(Debug)]
pub struct Session(ClientConnection);

impl Session {
    pub(crate) fn new(inner: ClientConnection) -> Self {
        Self(inner)
    }

    /// Whether the server has proved who it is.
    pub fn is_ready(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// Whether something waits for the socket to take it.
    pub fn is_behind(&self) -> bool {
        self.0.wants_write()
    }

    /// Does what the socket lets it. What the server says once it is believed is dropped; when it has closed, that is an error.
    pub fn exchange(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        for _ in 0..ROUNDS {
            self.flush(socket)?;
            match self.0.read_tls(socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let state = self.0.process_new_packets().map_err(|error| {
                // The server is told why.
                let _ = self.0.write_tls(socket);
                io::Error::other(error)
            })?;
            if state.peer_has_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            io::copy(
                &mut self.0.reader().take(state.plaintext_bytes_to_read() as u64),
                &mut io::sink(),
            )?;
        }
        Ok(())
    }

    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends as much as there is room for; `WouldBlock` if there is none, or it is not yet known to whom.
    pub fn send(&mut self, socket: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize> {
        self.exchange(socket)?;
        if !self.is_ready() || self.is_behind() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.0.writer().write(bytes)?;
        self.flush(socket).map(|()| count)
    }

    /// Tells the server that no more comes.
    pub fn close(&mut self, socket: &mut impl Write) {
        self.0.send_close_notify();
        let _ = self.flush(socket);
    }
}
