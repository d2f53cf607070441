//! HTTP/1.1 as small as it can be, over anything that reads and writes: it sends what no well-behaved client would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        let mut fields = self.headers.iter();
        fields.find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The specification's error code.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or("none").to_owned()
    }
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request without its body.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost:5000\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

pub fn send(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    let length = body.len().to_string();
    let mut all = vec![("content-length", length.as_str())];
    all.extend(headers);
    let mut request = head(method, path, &all).into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    stream.flush()?;
    reply(stream, method)
}

/// Reads an answer, where none follows.
pub fn reply(stream: &mut impl Read, method: &str) -> io::Result<Reply> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {head:?}"));
    let mut lines = head.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = first.and_then(|rest| rest.get(..3)?.parse().ok());
    let fields = lines.map(|line| line.split_once(':').ok_or_else(odd));
    let fields = fields.map(|field| field.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())));
    let mut reply = Reply {
        status: status.ok_or_else(odd)?,
        headers: fields.collect::<io::Result<_>>()?,
        body: bytes.split_off(end + 4),
    };
    if method != "HEAD" && !matches!(reply.status, 100..200 | 204 | 304) {
        let length = reply.header("content-length").parse().unwrap_or(0);
        let come = reply.body.len();
        reply.body.resize(length, 0);
        stream.read_exact(reply.body.get_mut(come..).ok_or_else(odd)?)?;
    }
    Ok(reply)
}
