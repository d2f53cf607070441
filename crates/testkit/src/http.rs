//! One HTTP/1.1 request over a unix socket, by hand: what the tests of the API need and no more.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

pub fn request(socket: &Path, method: &str, path: &str, content_type: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    // An engine may answer, and hang up, before it has read everything.
    let sent = stream.write_all(body);
    read(&mut BufReader::new(stream), method).or_else(|error| sent.and(Err(error)))
}

fn read(from: &mut impl BufRead, method: &str) -> io::Result<Answer> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let status = line(from)?.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(|| invalid("no status"))?,
        headers: vec![],
        body: vec![],
    };
    loop {
        let line = line(from)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid("a header without a colon"))?;
        answer.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    if method == "HEAD" {
        return Ok(answer);
    }
    if answer
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let size = line(from)?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| invalid("a chunk without a size"))?;
            let mut chunk = vec![0; size];
            from.read_exact(&mut chunk)?;
            answer.body.extend(chunk);
            line(from)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = answer.header("content-length").and_then(|value| value.parse().ok()) {
        answer.body = vec![0; length];
        from.read_exact(&mut answer.body)?;
    } else if answer.status != 204 && answer.status != 304 {
        from.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

#[cfg(test)]
mod tests {
    #[test]
    fn chunks_are_put_together() {
        let mut text = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..];
        let answer = super::read(&mut text, "GET").unwrap();
        assert_eq!((answer.status, answer.body), (200, b"abcde".to_vec()));
    }
}
