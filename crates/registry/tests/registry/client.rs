//! HTTP/1.1 as small as it can be, over anything that reads and writes: it sends what no well-behaved client would.

use std::io::{self, BufRead as _, BufReader, Read, Write};
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

/// Reads an answer. Nothing is read behind it.
pub fn reply(stream: &mut impl Read, method: &str) -> io::Result<Reply> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<_>| {
        line.clear();
        match reader.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let odd = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {line:?}"));
    let first = next(&mut reader)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let mut reply = Reply {
        status: status.ok_or_else(|| odd(&first))?,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = next(&mut reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| odd(&line))?;
        reply.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if method != "HEAD" && !matches!(reply.status, 100..200 | 204 | 304) {
        let length = reply.header("content-length").parse().unwrap_or(0);
        reply.body.resize(length, 0);
        reader.read_exact(&mut reply.body)?;
    }
    Ok(reply)
}
