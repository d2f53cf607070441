//! What clients cannot take: connections, memory, time. And a registry in which nothing changes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use ferry_image::Digest;
use ferry_registry::{FileSystemOptions, Limits, Options, Patience};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::client;
use crate::served::{Served, Setup};
use crate::site::{self, HASTE, Site};

const IDLE: Duration = Duration::from_millis(1000);
/// Far above everything that is measured, for a machine that is busy.
const SOON: Duration = Duration::from_secs(30);

fn impatient() -> Served {
    Served::start(Setup {
        limits: Limits {
            idle: IDLE,
            ..Limits::default()
        },
        ..Setup::default()
    })
}

/// That the server ends this connection, and when.
#[track_caller]
fn ends(stream: &mut TcpStream) -> Duration {
    let begin = Instant::now();
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server holds the connection: {error}"),
        }
    }
    begin.elapsed()
}

#[test]
fn a_client_that_does_not_get_to_the_point_is_cut() {
    let server = impatient();
    // Nothing at all; the begin of either version; half a head.
    for sent in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET /v2/ HTTP/1.1\r\nhost: x",
        "\r\n\r\n",
    ] {
        let mut stream = client::connect(server.address).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        assert!(ends(&mut stream) < SOON, "{sent:?}");
    }
}

#[test]
fn a_head_that_comes_a_byte_at_a_time_is_cut_as_well() {
    let server = impatient();
    let mut stream = client::connect(server.address).unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nx: ").unwrap();
    let begin = Instant::now();
    while stream.write_all(b"y").is_ok() {
        assert!(begin.elapsed() < SOON, "the server still listens");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_connection_waits_between_requests_and_no_longer() {
    let server = impatient();
    let mut stream = client::connect(server.address).unwrap();
    for _ in 0..3 {
        assert_eq!(client::send(&mut stream, "GET", "/v2/", &[], b"").unwrap().status, 200);
        std::thread::sleep(IDLE / 5);
    }
    assert!(ends(&mut stream) < SOON);
}

#[test]
fn a_connection_of_http_2_that_answers_pings_and_asks_nothing_is_cut() {
    let server = impatient();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://here/v2/").body(Body::empty()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
        tokio::time::timeout(SOON, connection)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap();
    });
}

#[test]
fn an_answer_and_an_upload_may_take_longer_than_a_connection_may_wait() {
    let server = impatient();
    let content = vec![7; 24 << 20];
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&content));
    assert_eq!(server.ask("POST", &path, &[], &content).status, 201);
    let mut stream = client::connect(server.address).unwrap();
    let request = client::head("GET", &format!("/v2/a/blobs/{}", Digest::of(&content)), &[]);
    stream.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(IDLE * 2);
    assert_eq!(client::reply(&mut stream, "GET").unwrap().body, content);
    // The same the other way round, and on the same connection.
    let slow = "a piece at a time";
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(slow));
    let request = client::head("POST", &path, &[("content-length", "17")]);
    stream.write_all(request.as_bytes()).unwrap();
    for piece in slow.as_bytes().chunks(5) {
        std::thread::sleep(IDLE / 2);
        stream.write_all(piece).unwrap();
    }
    assert_eq!(client::reply(&mut stream, "POST").unwrap().status, 201);
}

#[test]
fn more_connections_than_allowed_wait_for_one_to_end() {
    let server = Served::start(Setup {
        limits: Limits {
            connections: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let ask = |stream: &mut TcpStream| client::send(stream, "GET", "/v2/", &[], b"");
    let mut first = client::connect(server.address).unwrap();
    let mut second = client::connect(server.address).unwrap();
    assert_eq!(
        (ask(&mut first).unwrap().status, ask(&mut second).unwrap().status),
        (200, 200)
    );
    let mut third = client::connect(server.address).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(ask(&mut third).is_err());
    drop(first);
    third.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(client::reply(&mut third, "GET").unwrap().status, 200);
}

#[test]
fn heads_have_a_bound() {
    let server = impatient();
    let long = "x".repeat(4 << 20);
    let many: String = (0..2000).map(|number| format!("x{number}: y\r\n")).collect();
    for request in [
        format!("GET /v2/{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v2/?{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        format!(
            "GET /v2/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            &long[..300_000]
        ),
    ] {
        let mut stream = client::connect(server.address).unwrap();
        // It need not read what it will not take.
        let _ = stream.write_all(request.as_bytes());
        match client::reply(&mut stream, "GET") {
            Ok(reply) => assert!(
                matches!(reply.status, 200 | 400 | 414 | 431),
                "{:.40} {}",
                request,
                reply.status
            ),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
                "{error}"
            ),
        }
    }
    assert_eq!(server.ask("GET", "/v2/", &[], b"").status, 200);
}

/// A request that uploads two bytes, of which the server has one and waits for the other.
fn begin_upload(server: &Served, name: &str) -> (TcpStream, String) {
    let begun = server.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"");
    assert_eq!(begun.status, 202, "{:?}", begun.json());
    let location = begun.header("location").to_owned();
    let mut stream = client::connect(server.address).unwrap();
    let headers = [("content-length", "2"), ("expect", "100-continue")];
    stream
        .write_all(client::head("PATCH", &location, &headers).as_bytes())
        .unwrap();
    assert_eq!(client::reply(&mut stream, "PATCH").unwrap().status, 100);
    stream.write_all(b"a").unwrap();
    (stream, location)
}

#[test]
fn more_uploads_than_allowed_are_asked_to_come_later() {
    let server = Served::start(Setup {
        options: Options {
            uploads: 2,
            ..Options::default()
        },
        storage: FileSystemOptions {
            uploads: 3,
            ..FileSystemOptions::default()
        },
        ..Setup::default()
    });
    let (mut first, location) = begin_upload(&server, "a");
    let (_second, _) = begin_upload(&server, "b");
    let digest = Digest::of("ab");
    let refused = server.ask("POST", &format!("/v2/c/blobs/uploads/?digest={digest}"), &[], b"ab");
    assert_eq!((refused.status, refused.code()), (429, "TOOMANYREQUESTS".to_owned()));
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    // Readers are not concerned.
    assert_eq!(server.ask("GET", "/v2/_catalog", &[], b"").status, 200);
    first.write_all(b"b").unwrap();
    assert_eq!(client::reply(&mut first, "PATCH").unwrap().status, 202);
    let done = server.ask("PUT", &format!("{location}?digest={digest}"), &[], b"");
    assert_eq!(done.status, 201);
    // Those that are open and wait for bytes have a bound as well.
    let mut opened = 0;
    let refused = loop {
        let reply = server.ask("POST", "/v2/d/blobs/uploads/", &[], b"");
        if reply.status != 202 {
            break reply;
        }
        opened += 1;
    };
    assert_eq!((opened, refused.status), (2, 429));
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn an_upload_without_an_end_is_refused_at_the_bound_and_leaves_nothing() {
    const MOST: usize = 3 << 20;
    let server = Served::start(Setup {
        storage: FileSystemOptions {
            blob_max: 3 << 20,
            ..FileSystemOptions::default()
        },
        ..Setup::default()
    });
    let digest = Digest::of("never");
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "x".repeat(64 << 10));
    let endless = |method: &str, path: &str| {
        let mut stream = client::connect(server.address).unwrap();
        let head = client::head(method, path, &[("transfer-encoding", "chunked")]);
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..2 * MOST / (64 << 10) {
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        // The answer may be lost behind what nobody read.
        if let Ok(reply) = client::reply(&mut stream, method) {
            assert_eq!((reply.status, reply.code()), (413, "SIZE_INVALID".to_owned()));
        }
    };
    endless("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"));
    let begun = server.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    let location = begun.header("location");
    assert_eq!(server.ask("PATCH", location, &[], b"first").status, 202);
    endless("PATCH", location);
    assert_eq!(server.ask("GET", location, &[], b"").header("range"), "0-4");
    // One that says beforehand what it is about to send need not send it.
    let mut stream = client::connect(server.address).unwrap();
    let head = client::head("PATCH", location, &[("content-length", "1000000000000")]);
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(client::reply(&mut stream, "PATCH").unwrap().status, 413);
    assert_eq!(server.ask("DELETE", location, &[], b"").status, 204);
    let begin = Instant::now();
    while !is_empty(&server.root().join("uploads")) {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn manifests_without_an_end_are_refused_at_the_bound() {
    let server = impatient();
    let mut stream = client::connect(server.address).unwrap();
    let head = client::head("PUT", "/v2/a/manifests/1", &[("content-length", "1073741824")]);
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(client::reply(&mut stream, "PUT").unwrap().status, 413);
    let mut stream = client::connect(server.address).unwrap();
    let head = client::head("PUT", "/v2/a/manifests/1", &[("transfer-encoding", "chunked")]);
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    while stream.write_all(chunk.as_bytes()).is_ok() {}
    let reply = client::reply(&mut stream, "PUT").map(|reply| reply.status);
    assert!(matches!(reply, Ok(413) | Err(_)), "{reply:?}");
}

#[test]
fn a_body_that_breaks_off_is_an_upload_that_goes_on() {
    let server = impatient();
    let (stream, location) = begin_upload(&server, "a");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    drop(stream);
    let begin = Instant::now();
    while server.ask("GET", &location, &[], b"").header("range") != "0-0" {
        assert!(begin.elapsed() < SOON);
    }
    let digest = Digest::of("ab");
    let done = server.ask(
        "PUT",
        &format!("{location}?digest={digest}"),
        &[("content-range", "1-1")],
        b"b",
    );
    assert_eq!(done.status, 201, "{:?}", done.json());
    assert_eq!(
        server.ask("GET", &format!("/v2/a/blobs/{digest}"), &[], b"").body,
        b"ab"
    );
}

/// A body of `count` bytes, each after `pause`, and then silence.
fn trickle(count: usize, pause: Duration) -> Body {
    let bytes = stream::iter(0..count).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b" "))
    });
    Body::from_stream(bytes.chain(stream::pending()))
}

#[tokio::test]
async fn bodies_that_stop_or_trickle_are_not_waited_for() {
    let site = Site::open_with(|options| options.patience = HASTE);
    let begun = site.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    let at = begun.header("location").to_owned();
    let digest = Digest::of("x");
    for (method, path) in [
        (Method::PATCH, at.clone()),
        (Method::PUT, format!("{at}?digest={digest}")),
        (Method::POST, format!("/v2/a/blobs/uploads/?digest={digest}")),
        (Method::PUT, "/v2/a/manifests/1".to_owned()),
    ] {
        for (count, pause) in [(0, 0), (3, 1), (1_000_000, 40)] {
            let begin = Instant::now();
            let body = trickle(count, Duration::from_millis(pause));
            let answer = site.send(method.clone(), &path, &[], body).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
            assert!(
                String::from_utf8_lossy(&answer.body).contains("too slow"),
                "{:?}",
                answer.body
            );
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{method} {path} took {:?}",
                begin.elapsed()
            );
        }
    }
    // What came of an upload stays, and it goes on.
    assert!(site.get(&at).await.header("range").starts_with("0-"));
}

/// Who sends little, but not too little, may take as long as it takes.
#[tokio::test]
async fn a_slow_link_is_no_attack() {
    let stall = Duration::from_millis(600);
    let site = Site::open_with(|options| options.patience = Patience { stall, ..HASTE });
    let content = vec![7_u8; 256 << 10];
    let pieces: Vec<Bytes> = content.chunks(4096).map(Bytes::copy_from_slice).collect();
    let body = stream::iter(pieces).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok::<_, std::io::Error>(piece)
    });
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&content));
    let answer = site.send(Method::POST, &path, &[], Body::from_stream(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
}

#[tokio::test]
async fn nothing_changes_in_a_registry_that_is_read_only() {
    let site = Site::open();
    let blob = site.blob("a", b"x").await;
    let image = site::image(&blob, 1, &blob, 1);
    site.manifest("a", "1", &image).await;
    let begun = site.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    let at = begun.header("location").to_owned();
    let before = site.files();
    let site = site
        .again_with(|options| {
            options.read_only = true;
            options.delete = true;
        })
        .await;
    let digest = Digest::of(&image);
    for (method, path) in [
        (Method::POST, "/v2/a/blobs/uploads/".to_owned()),
        (Method::POST, format!("/v2/a/blobs/uploads/?digest={blob}")),
        (Method::POST, format!("/v2/b/blobs/uploads/?mount={blob}&from=a")),
        (Method::PATCH, at.clone()),
        (Method::PUT, format!("{at}?digest={blob}")),
        (Method::GET, at.clone()),
        (Method::DELETE, at.clone()),
        (Method::PUT, "/v2/a/manifests/2".to_owned()),
        (Method::PUT, format!("/v2/a/manifests/{digest}")),
        (Method::DELETE, "/v2/a/manifests/1".to_owned()),
        (Method::DELETE, format!("/v2/a/manifests/{digest}")),
        (Method::DELETE, format!("/v2/a/blobs/{blob}")),
    ] {
        let answer = site.send(method.clone(), &path, &[], image.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED".to_owned()),
            "{method} {path}"
        );
        assert!(String::from_utf8_lossy(&answer.body).contains("read-only"));
    }
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/a/tags/list",
        "/v2/a/manifests/1",
        &format!("/v2/a/blobs/{blob}"),
        &format!("/v2/a/referrers/{digest}"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(site.send(method, path, &[], "").await.status, StatusCode::OK, "{path}");
        }
    }
    // Not even a promise was renewed.
    assert_eq!(site.files(), before);
}
