//! Against a server of canned answers, one connection after the other.

use std::sync::{Arc, Mutex};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{Body, Client, Error, Host};

type Log = Arc<Mutex<Vec<String>>>;

/// Answers request lines by `answer` and logs them, with a `+` before each new connection.
fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (Client, Log, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let log = Log::default();
    let answer = Arc::new(answer);
    let shared = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.lock().unwrap().push("+".into());
            tokio::spawn(converse(stream, Arc::clone(&shared), Arc::clone(&answer)));
        }
    });
    (Client::connect(Host::Unix(path), None), log, directory)
}

async fn converse(mut stream: UnixStream, log: Log, answer: Arc<impl Fn(&str) -> String>) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") && !buffer.ends_with(b"}") && !buffer.ends_with(b"0\r\n\r\n") {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let text = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
        let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        log.lock().unwrap().push(line.clone());
        stream.write_all(answer(&line).as_bytes()).await.unwrap();
        if text.contains("upgrade: tcp") {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            stream.write_all(format!("<{rest}>").as_bytes()).await.unwrap();
            return;
        }
    }
}

fn ok(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn one_connection_carries_requests_one_after_the_other() {
    let (client, log, _directory) = serve(|_| ok("200 OK", "[1]"));
    for _ in 0..3 {
        assert_eq!(client.get_json::<Vec<i32>>("/x").await.unwrap(), [1]);
    }
    assert_eq!(
        *log.lock().unwrap(),
        ["+", "GET /v1.51/x", "GET /v1.51/x", "GET /v1.51/x"]
    );
}

#[tokio::test]
async fn a_request_beside_an_unread_answer_gets_its_own_connection() {
    let (client, log, _directory) = serve(|_| ok("200 OK", "x"));
    let first = client.get("/a").await.unwrap();
    client.get("/b").await.unwrap().bytes().await.unwrap();
    first.bytes().await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["+", "GET /v1.51/a", "+", "GET /v1.51/b"]);
}

#[tokio::test]
async fn an_older_daemon_is_asked_for_its_version_once() {
    let (client, log, _directory) = serve(|line| match line {
        "HEAD /_ping" => "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n".into(),
        line if line.contains("/v1.51/") => ok(
            "400 Bad Request",
            r#"{"message":"client version 1.51 is too new. Maximum supported API version is 1.41"}"#,
        ),
        _ => ok("200 OK", "{}"),
    });
    client.post("/x").await.unwrap();
    client.post("/y").await.unwrap();
    assert_eq!(client.version(), "1.41");
    let expected = ["+", "POST /v1.51/x", "HEAD /_ping", "POST /v1.41/x", "POST /v1.41/y"];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test]
async fn an_error_carries_the_daemons_words_and_the_connection_stays() {
    let (client, log, _directory) = serve(|line| match line {
        "GET /v1.51/json" => ok("404 Not Found", r#"{"message":"No such container: x"}"#),
        "GET /v1.51/text" => ok("500 Internal Server Error", "plain\n"),
        _ => ok("502 Bad Gateway", ""),
    });
    for (path, message) in [
        ("/json", "No such container: x"),
        ("/text", "plain"),
        ("/none", "request returned 502 Bad Gateway"),
    ] {
        match client.get(path).await.unwrap_err() {
            Error::Api { message: found, .. } => assert_eq!(found, message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log.lock().unwrap().iter().filter(|line| *line == "+").count(), 1);
}

#[tokio::test]
async fn an_upgraded_stream_has_the_early_bytes_and_closes_by_halves() {
    let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
    let (client, _log, _directory) = serve(move |_| head.into());
    let upgraded = client.upgrade("/attach", Body::Empty).await.unwrap();
    assert!(upgraded.raw);
    let (mut reader, mut writer) = upgraded.split();
    writer.write_all(b"typed").await.unwrap();
    writer.shutdown().await.unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "early <typed>");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_an_error() {
    let (client, _log, _directory) = serve(|_| ok("409 Conflict", r#"{"message":"not running"}"#));
    assert_eq!(
        client.upgrade("/attach", Body::Empty).await.unwrap_err().status(),
        Some(409)
    );
}

#[tokio::test]
async fn lines_come_whole_however_they_are_cut() {
    let body = "{\"a\":1}\r\n\n{\"a\":2}\n{\"a\":3}";
    let chunks: String = body
        .as_bytes()
        .chunks(3)
        .map(|c| format!("{:x}\r\n{}\r\n", c.len(), str::from_utf8(c).unwrap()))
        .collect();
    let (client, _log, _directory) =
        serve(move |_| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
    let mut lines = client.get("/events").await.unwrap().lines();
    let mut found = Vec::new();
    while let Some(value) = lines.json::<serde_json::Value>().await.unwrap() {
        found.push(value["a"].as_i64().unwrap());
    }
    assert_eq!(found, [1, 2, 3]);
}

#[tokio::test]
async fn an_upload_asks_for_the_version_first_and_goes_in_chunks() {
    let (client, log, _directory) = serve(|line| match line {
        "HEAD /_ping" => "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\n".into(),
        _ => ok("200 OK", "{}"),
    });
    let response = client
        .request(Method::POST, "/images/load", Body::reader(&b"tar"[..]))
        .await
        .unwrap();
    response.bytes().await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["+", "HEAD /_ping", "POST /v1.51/images/load"]);
}

#[tokio::test]
async fn nobody_there_is_a_connect_error() {
    let client = Client::connect(Host::Unix("/nonexistent.sock".into()), None);
    assert!(
        matches!(client.get("/x").await.unwrap_err(), Error::Connect { host, .. } if host == "unix:///nonexistent.sock")
    );
}
