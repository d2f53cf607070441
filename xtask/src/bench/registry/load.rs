//! Requests as fast as a server answers them: HTTP/1.1 on connections that stay, one after the other on each.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// `ADDRESS CONNECTIONS SECONDS METHOD PATH`: how many answers came, all of them 200, is printed.
pub fn run(args: &[String]) -> Result<()> {
    let [address, connections, seconds, method, path] = args else {
        bail!("load ADDRESS CONNECTIONS SECONDS METHOD PATH");
    };
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    // Without its type the CNCF's registry makes a manifest of schema 1 out of it.
    let accept = "application/vnd.docker.distribution.manifest.v2+json, */*";
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    let workers: Vec<_> = (0..connections.parse()?)
        .map(|_| {
            let (address, request, has_body) = (address.clone(), request.clone(), method != "HEAD");
            thread::spawn(move || worker(&address, &request, has_body, end))
        })
        .collect();
    let mut answers = 0;
    for worker in workers {
        answers += worker.join().map_err(|_| anyhow::anyhow!("a connection panicked"))??;
    }
    println!("{answers}");
    Ok(())
}

fn worker(address: &str, request: &str, has_body: bool, end: Instant) -> Result<u64> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut answers) = (vec![0; 256 << 10], 0);
    while Instant::now() < end {
        stream.write_all(request.as_bytes())?;
        answer(&mut stream, &mut buffer, has_body)?;
        answers += 1;
    }
    Ok(answers)
}

/// Reads one answer.
fn answer(stream: &mut TcpStream, buffer: &mut [u8], has_body: bool) -> Result<()> {
    let mut have = 0;
    let head = loop {
        let count = stream.read(&mut buffer[have..])?;
        if count == 0 {
            bail!("the server ended the connection");
        }
        have += count;
        if let Some(at) = buffer[..have].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        bail!("the server said {:?}", text.lines().next().unwrap_or_default());
    }
    if !has_body {
        return Ok(());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    let mut left = length.saturating_sub(have - head);
    while left > 0 {
        let most = left.min(buffer.len());
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            bail!("the server ended the connection within an answer");
        }
        left -= count;
    }
    Ok(())
}
