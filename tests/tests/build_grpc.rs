//! Clients of BuildKit's protocol that break it: each gets an answer, and the next one an engine that builds (CVE-2024-23650: a
//! request that is not whole took the daemon down).

mod client;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_buildkit::control::{BuildHistoryRequest, DiskUsageRequest, Exporter, PruneRequest, SolveRequest};
use ferry_buildkit::fsutil::{Packet, PacketType, Stat};
use ferry_testkit::TestDaemon;
use http_body_util::Full;
use hyper::Request;

use crate::build::Place;
use crate::build_attacks::Host;
use crate::evil_archives::most_memory;
use client::{Client, Ended, announced, data, entry, framed, one_file, packet};

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// No task fell, and the next client's build is as good as any.
#[track_caller]
fn is_well(place: &Place) {
    let log = place.engine.log();
    assert!(!log.contains("panicked"), "{log}");
    place.write("Dockerfile", "FROM busybox\nCOPY Dockerfile /\nRUN true\n");
    place.ferry("build --no-cache -q .").ok();
    place.is_clean();
}

fn said(engine: &TestDaemon, text: &[u8], limit: Duration) -> String {
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    // It may hang up before it has all.
    let _ = stream.write_all(text);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_http2_ends_and_harms_nobody() {
    let place = Place::new();
    let limit = Duration::from_secs(3);
    let mut number = 0;
    let mut id = || {
        number += 1;
        format!("X-Docker-Expose-Session-Uuid: broken{number}\r\n")
    };
    for path in ["/grpc", "/session"] {
        let plain = said(
            &place.engine,
            format!("POST {path} HTTP/1.1\r\nHost: d\r\n{}Connection: close\r\n\r\n", id()).as_bytes(),
            limit,
        );
        assert!(
            plain.starts_with("HTTP/1.1 400") && plain.contains("no upgrade proto in request"),
            "{plain}"
        );
        let other = format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            id()
        );
        let other = said(&place.engine, other.as_bytes(), limit);
        assert!(other.contains("protocol websocket not supported"), "{other}");
        let upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // A header block that never ends: HEADERS without END_HEADERS, and CONTINUATION after CONTINUATION.
        let mut endless = [preface.clone(), b"\0\0\x01\x01\0\0\0\0\x01\x88".to_vec()].concat();
        for _ in 0..4000 {
            endless.extend(b"\0\x10\x00\x09\0\0\0\0\x01");
            endless.extend([0; 4096]);
        }
        for (name, bytes) in [
            ("nothing", Vec::new()),
            ("garbage", vec![0xa5; 100_000]),
            ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("half a preface", preface[..10].to_vec()),
            (
                "a frame of 16 MiB",
                [preface.clone(), b"\xff\xff\xff\x00\x00\0\0\0\x01".to_vec()].concat(),
            ),
            (
                "data of no stream",
                [preface.clone(), b"\0\0\x04\x00\0\0\0\0\x07abcd".to_vec()].concat(),
            ),
            (
                "unknown frames",
                [preface.clone(), b"\0\0\x01\xee\0\0\0\0\x00a".repeat(10_000)].concat(),
            ),
            ("headers without end", endless),
            (
                "many resets",
                [preface.clone(), b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\0".repeat(50_000)].concat(),
            ),
        ] {
            let mut text = format!("POST {path} HTTP/1.1\r\nHost: d\r\n{}{upgrade}", id()).into_bytes();
            text.extend(bytes);
            let answer = said(&place.engine, &text, Duration::from_millis(300));
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 101"),
                "{path} {name}: {answer}"
            );
        }
    }
    let most = most_memory(&place.engine);
    assert!(most < 120 << 20, "{} MiB", most >> 20);
    // The name of a session that ended is free again, and that of one that lives is not.
    run(async {
        let nothing: client::Answers = Arc::new(|_| Vec::new());
        client::serve(place.engine.socket(), "broken", nothing).await;
        let headers = format!("{}X-Docker-Expose-Session-Uuid: broken\r\n", client::H2C);
        let (_, head) = client::upgrade(place.engine.socket(), "/session", &headers)
            .await
            .unwrap();
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        let (_, head) = client::upgrade(place.engine.socket(), "/session", client::H2C)
            .await
            .unwrap();
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    });
    is_well(&place);
}

#[test]
fn calls_that_are_not_whole_are_refused_by_a_status() {
    let place = Place::new();
    let attributes = |number: usize| (0..number).map(|n| (format!("label:{n}"), "x".repeat(100))).collect();
    let large = SolveRequest {
        frontend_attrs: attributes(200_000),
        ..SolveRequest::default()
    };
    let whole = framed(&SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        ..SolveRequest::default()
    });
    run(async {
        let mut client = Client::connect(place.engine.socket()).await;
        let mut broken: Vec<(String, Bytes)> = vec![
            ("nothing".to_owned(), Bytes::new()),
            ("half a head".to_owned(), Bytes::from_static(&[0, 0])),
            (
                "a length without bytes".to_owned(),
                Bytes::from_static(&[0, 0, 0, 1, 0]),
            ),
            (
                "a length of 4 GiB".to_owned(),
                Bytes::from_static(&[0, 255, 255, 255, 255, 1]),
            ),
            ("packed by nobody".to_owned(), Bytes::from_static(&[1, 0, 0, 0, 1, 0])),
            (
                "a head of another kind".to_owned(),
                Bytes::from_static(&[7, 0, 0, 0, 0]),
            ),
            (
                "no message".to_owned(),
                Bytes::from_static(&[0, 0, 0, 0, 4, 255, 255, 255, 255]),
            ),
            (
                "a group without end".to_owned(),
                Bytes::from_static(&[0, 0, 0, 0, 2, 0x0b, 0x0b]),
            ),
            (
                "a text that is none".to_owned(),
                Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, 0xff, 0xfe]),
            ),
            ("larger than may be".to_owned(), framed(&large)),
        ];
        for cut in 6..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes[4] = u8::try_from(cut - 5).unwrap();
            broken.push((format!("cut at {cut}"), bytes.into()));
        }
        for (name, bytes) in broken {
            let ended = client.call_raw(SOLVE, bytes).await;
            assert!(
                ended.code.is_some_and(|code| code != 0) && !ended.message.is_empty(),
                "{name}: {ended:?}"
            );
        }
        for path in [
            "/",
            "/x",
            "/moby.buildkit.v1.Control/Nothing",
            "/moby.buildkit.v1.frontend.LLBBridge/Nothing",
            "/../Solve",
        ] {
            let ended = client.call_raw(path, framed(&SolveRequest::default())).await;
            assert_eq!(ended.code, Some(12), "{path}: {ended:?}");
        }
        for (method, media) in [("GET", "application/grpc"), ("POST", "text/plain"), ("POST", "")] {
            let request = Request::builder()
                .method(method)
                .uri(format!("http://d{SOLVE}"))
                .header("content-type", media);
            let ended = client.send(request.body(Full::default()).unwrap()).await;
            assert!(
                ended.http >= 400 || ended.code.is_some_and(|code| code != 0),
                "{method} {media}: {ended:?}"
            );
        }
        let refused = |what: &str, ended: &Ended, says: &str| {
            assert!(
                ended.code.is_some_and(|code| code != 0) && ended.message.contains(says),
                "{what}: {ended:?}"
            );
        };
        // Of builds that are not there.
        for call in [
            "Solve",
            "StatFile",
            "ReadFile",
            "ReadDir",
            "ResolveImageConfig",
            "Return",
            "Inputs",
            "Ping",
            "Evaluate",
        ] {
            let path = format!("/moby.buildkit.v1.frontend.LLBBridge/{call}");
            refused(call, &client.call_raw(&path, Bytes::from_static(&[0; 5])).await, "");
        }
        let nobody = SolveRequest {
            r#ref: "nobody".to_owned(),
            ..SolveRequest::default()
        };
        let gone = client.call("/moby.buildkit.v1.Control/Status", &nobody).await;
        refused("Status", &gone, "no such job nobody");
        let prune = PruneRequest {
            filter: vec!["nonsense".to_owned(), "until=x".to_owned()],
            ..PruneRequest::default()
        };
        refused(
            "Prune",
            &client.call("/moby.buildkit.v1.Control/Prune", &prune).await,
            "",
        );
        let prune = PruneRequest {
            keep_duration: i64::MIN,
            reserved_space: i64::MIN,
            max_used_space: -1,
            ..PruneRequest::default()
        };
        let ended = client.call("/moby.buildkit.v1.Control/Prune", &prune).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let usage = DiskUsageRequest {
            filter: vec!["a==b~=c,".to_owned()],
        };
        refused(
            "DiskUsage",
            &client.call("/moby.buildkit.v1.Control/DiskUsage", &usage).await,
            "",
        );
        let history = BuildHistoryRequest {
            r#ref: "nobody".to_owned(),
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let ended = client
            .call("/moby.buildkit.v1.Control/ListenBuildHistory", &history)
            .await;
        assert!(ended.code.is_some(), "{ended:?}");
    });
    is_well(&place);
}

/// A build of a Dockerfile with COPY and RUN by a session that gives these packets as the context.
struct Attempt {
    context: Vec<Bytes>,
    request: SolveRequest,
}

impl Attempt {
    fn with(packets: Vec<Packet>) -> Self {
        Self::of(packets.iter().map(framed).collect())
    }

    fn of(context: Vec<Bytes>) -> Self {
        Self {
            context,
            request: SolveRequest {
                frontend: "dockerfile.v0".to_owned(),
                ..SolveRequest::default()
            },
        }
    }

    async fn make(mut self, engine: &TestDaemon, client: &mut Client) -> Ended {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("session{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let context = self.context;
        let answers: client::Answers = Arc::new(move |name| match name {
            "context" => context.clone(),
            "dockerfile" => one_file("Dockerfile", b"FROM busybox\nCOPY . /all\nRUN true\n"),
            _ => Vec::new(),
        });
        client::serve(engine.socket(), &id, answers).await;
        self.request.session.clone_from(&id);
        self.request.r#ref = id;
        client.call(SOLVE, &self.request).await
    }
}

#[test]
fn what_a_client_says_of_its_files_is_not_believed() {
    let place = Place::new();
    let host = Host::new("sync");
    let to = host.path();
    let file = |path: &str| announced(entry(path, 0o644));
    let dir = |path: &str| announced(entry(path, DIRECTORY | 0o755));
    let link = |path: &str, target: &str| {
        announced(Stat {
            linkname: target.to_owned(),
            ..entry(path, LINK | 0o777)
        })
    };
    let hard = |path: &str, target: &str| {
        announced(Stat {
            linkname: target.to_owned(),
            ..entry(path, 0o644)
        })
    };
    let sized = |size: i64| {
        announced(Stat {
            size,
            ..entry("f", 0o644)
        })
    };
    let end = || packet(PacketType::PacketStat);
    let fin = || packet(PacketType::PacketFin);
    let up = format!("../../../../../../../..{to}/new");
    let attempts: Vec<(&str, Vec<Packet>, &str)> = vec![
        ("up", vec![file(&up)], "invalid path"),
        ("down and up", vec![dir("a"), file("a/../../new")], "invalid path"),
        ("absolute", vec![file(&format!("{to}/new"))], "invalid path"),
        ("the directory above", vec![dir("..")], "invalid path"),
        ("a dot", vec![dir(".")], "invalid path"),
        ("no name", vec![file("")], "invalid path"),
        ("a NUL", vec![file("a\0b")], "invalid path"),
        ("a long name", vec![file(&"n".repeat(300))], "invalid path"),
        ("a long path", vec![file(&"d/".repeat(3000))], "invalid path"),
        ("twice", vec![file("a"), file("a")], "out of order"),
        ("backwards", vec![file("b"), file("a")], "out of order"),
        ("in no directory", vec![file("a/b")], "no directory that was announced"),
        (
            "in a file",
            vec![file("a"), file("a/b")],
            "no directory that was announced",
        ),
        (
            "in a link",
            vec![link("a", &to), file("a/new")],
            "no directory that was announced",
        ),
        (
            "a hard link to the host",
            vec![hard("a", &format!("{to}/secret"))],
            "invalid path",
        ),
        ("a hard link up", vec![hard("a", "../secret")], "invalid path"),
        (
            "a hard link through a link",
            vec![link("a", &to), hard("b", "a/secret")],
            "",
        ),
        ("a hard link to nothing", vec![hard("a", "nothing")], ""),
        ("a hard link to a directory", vec![dir("a"), hard("b", "a")], ""),
        ("a socket", vec![announced(entry("a", 1 << 24))], ""),
        (
            "every kind at once",
            vec![announced(entry("a", u32::MAX))],
            "no kind of file",
        ),
        ("nothing at all", Vec::new(), "ended before"),
        ("no end of the list", vec![file("a")], "ended before"),
        ("no data", vec![sized(10), end()], "ended before"),
        ("an end without data", vec![sized(10), end(), fin()], "ended before"),
        ("data of nobody", vec![end(), data(7, b"x")], "was not asked for"),
        ("data before the list", vec![data(0, b"x")], "was not asked for"),
        (
            "data after the end",
            vec![sized(1), end(), data(0, b"x"), data(0, b""), data(0, b"x")],
            "was not asked for",
        ),
        ("an entry after the list", vec![end(), file("a")], "after the last one"),
        ("two ends", vec![sized(1), end(), end()], "second end"),
        ("a question", vec![packet(PacketType::PacketReq)], "makes no sense"),
        (
            "an unknown packet",
            vec![Packet {
                r#type: 99,
                ..Packet::default()
            }],
            "makes no sense",
        ),
        (
            "that it gives up",
            vec![Packet {
                data: Bytes::from_static(b"the client's own words"),
                ..packet(PacketType::PacketErr)
            }],
            "the client's own words",
        ),
        ("a size below nothing", vec![sized(i64::MIN), end()], ""),
    ];
    run(async {
        let mut client = Client::connect(place.engine.socket()).await;
        for (name, packets, says) in attempts {
            let ended = Attempt::with(packets).make(&place.engine, &mut client).await;
            assert!(ended.code.is_some_and(|code| code != 0), "{name}: {ended:?}");
            assert!(ended.message.contains(says), "{name}: {ended:?}");
            host.assert_unreached(&place, name);
        }
        for (name, bytes) in [
            ("a broken packet", vec![Bytes::from_static(&[0, 0, 0, 0, 2, 255, 255])]),
            (
                "a path that is no text",
                vec![Bytes::from_static(&[0, 0, 0, 0, 6, 0x12, 4, 0x0a, 2, 0xff, 0xfe])],
            ),
            ("a packet of 4 GiB", vec![Bytes::from_static(&[0, 255, 255, 255, 255])]),
        ] {
            let ended = Attempt::of(bytes).make(&place.engine, &mut client).await;
            assert!(
                ended.code.is_some_and(|code| code != 0) && !ended.message.is_empty(),
                "{name}: {ended:?}"
            );
        }
        // More than it said, without end: 300 MiB of a file of ten bytes.
        let piece = framed(&data(0, &vec![0; 1 << 20]));
        let endless = [framed(&sized(10)), framed(&end())]
            .into_iter()
            .chain(std::iter::repeat_n(piece, 300));
        let ended = Attempt::of(endless.collect()).make(&place.engine, &mut client).await;
        assert!(ended.message.contains("does not end"), "{ended:?}");
        // What is odd and right: links are links, and a size that is not kept is the file's own business.
        for (name, packets) in [
            ("links", vec![link("a", &to), link("b", "../../.."), end(), fin()]),
            (
                "a size of nobody's",
                vec![sized(i64::MAX), end(), data(0, b"x"), data(0, b""), fin()],
            ),
        ] {
            let ended = Attempt::with(packets).make(&place.engine, &mut client).await;
            assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
            host.assert_unreached(&place, name);
        }
    });
    let contexts = place.engine.data_root().join("builds/contexts");
    ferry_testkit::wait_for_none("what clients sent", || {
        let left = std::fs::read_dir(&contexts).unwrap();
        left.map(|entry| entry.unwrap().path().display().to_string())
            .filter(|path| path.ends_with("-0"))
            .collect()
    });
    is_well(&place);
}

#[test]
fn attributes_that_cannot_be_are_refused_by_name() {
    let place = Place::new();
    let good = || one_file("f", b"x");
    let solve = |attributes: &[(&str, &str)], change: &dyn Fn(&mut SolveRequest)| {
        let mut attempt = Attempt::of(good());
        let owned = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        attempt.request.frontend_attrs = owned.collect::<BTreeMap<_, _>>();
        change(&mut attempt.request);
        attempt
    };
    let exporter = |kind: &str, name: &str| Exporter {
        r#type: kind.to_owned(),
        attrs: BTreeMap::from([("name".to_owned(), name.to_owned())]),
    };
    run(async {
        let mut client = Client::connect(place.engine.socket()).await;
        for (name, value, says) in [
            ("platform", "x/y/z/w/v", "platform"),
            ("platform", "linux/amd64,linux/arm64", "platforms"),
            ("multi-platform", "maybe", "multi-platform"),
            ("target", "nothing", "nothing"),
            ("filename", "../../../../etc/passwd", "../../../../etc/passwd"),
            ("filename", "/etc/passwd", "/etc/passwd"),
            ("requestid", "frontend.evil", "frontend.evil"),
            ("add-hosts", "garbage", "garbage"),
            ("add-hosts", "a=b", "a=b"),
            ("shm-size", "x", "shm-size"),
            ("shm-size", "99999999999999999999", "shm-size"),
            ("memory", "x", "memory"),
            ("ulimit", "x", "x"),
            ("ulimit", "nofile=x", "nofile"),
            ("cgroup-parent", "../../../..", ".."),
            ("force-network-mode", "nothing", "nothing"),
            ("force-network-mode", "container:nobody", "nobody"),
            ("cpusetcpus", "nonsense", "nonsense"),
            ("build-arg:BUILDKIT_SYNTAX", "evil/frontend", "evil/frontend"),
            ("context", "file:///etc", "file:///etc"),
            ("context", "/etc", "/etc"),
            ("context", "git://127.0.0.1/r#--upload-pack=x", "--upload-pack"),
            ("context", "input:nothing", "context"),
            ("context:busybox", "input:nothing", "nothing"),
            ("context:busybox", "oci-layout://x@sha256:y", "names no manifest"),
            ("context:busybox", "file:///etc", "file:///etc"),
            ("contextsubdir", "../..", "contextsubdir"),
            ("attest:sbom", "", "sbom"),
            ("contextkey", "nothing", "nothing"),
        ] {
            let ended = solve(&[(name, value)], &|_| ()).make(&place.engine, &mut client).await;
            assert!(ended.code.is_some_and(|code| code != 0), "{name}={value}: {ended:?}");
            assert!(ended.message.contains(says), "{name}={value}: {ended:?}");
        }
        type Change<'a> = &'a dyn Fn(&mut SolveRequest);
        let changes: [(&str, Change<'_>); 7] = [
            ("evil.v0", &|request| request.frontend = "evil.v0".to_owned()),
            ("source", &|request| request.frontend = "gateway.v0".to_owned()),
            ("evil/image", &|request| {
                request.frontend = "gateway.v0".to_owned();
                request
                    .frontend_attrs
                    .insert("source".to_owned(), "evil/image".to_owned());
            }),
            ("evil.entitlement", &|request| {
                request.entitlements = vec!["evil.entitlement".to_owned()];
            }),
            ("evilexport", &|request| {
                request.exporters = vec![exporter("evilexport", "x")];
            }),
            ("UPPER", &|request| {
                request.exporters = vec![exporter("moby", "UPPER:CASE:x")];
            }),
            ("to take", &|request| request.exporters = vec![exporter("tar", "x")]),
        ];
        for (says, change) in changes {
            let ended = solve(&[], change).make(&place.engine, &mut client).await;
            assert!(
                ended.code.is_some_and(|code| code != 0) && ended.message.contains(says),
                "{says}: {ended:?}"
            );
        }
        let ended = solve(
            &[("unknown", "x"), ("cmdline", "evil"), ("frontend.caps", "x")],
            &|_| (),
        )
        .make(&place.engine, &mut client)
        .await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        // A session that nobody connected.
        let request = SolveRequest {
            session: "nobody".to_owned(),
            frontend: "dockerfile.v0".to_owned(),
            r#ref: "r".to_owned(),
            ..SolveRequest::default()
        };
        let ended = client.call(SOLVE, &request).await;
        assert!(ended.message.contains("no active session for nobody"), "{ended:?}");
    });
    is_well(&place);
}
