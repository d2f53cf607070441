//! `POST /build` with parameters and bodies that are wrong in each way: the right status and words, and an engine that builds on.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ferry_testkit::images::Layer;
use ferry_testkit::{http, wait_for_none};

use crate::build::Place;
use crate::build_archives::post;

fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn context() -> Vec<u8> {
    Layer::new()
        .file("Dockerfile", b"FROM busybox\nRUN true\n", 0o644)
        .finish()
}

#[track_caller]
fn is_well(place: &Place) {
    let log = place.engine.log();
    assert!(!log.contains("panicked"), "{log}");
    post(&place.engine, "nocache=1", &context()).unwrap();
    wait_for_none("what is being made", || {
        let entries = std::fs::read_dir(place.engine.data_root().join("tmp")).unwrap();
        entries
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    });
    place.is_clean();
}

/// Where a word of Docker's stands here, `docker build` of 28.5 says it.
#[test]
fn every_parameter_is_right_or_refused_by_name() {
    let place = Place::new();
    let mut wrong: Vec<(String, &str)> = Vec::new();
    for (name, what) in [
        ("buildargs", "build args"),
        ("labels", "labels"),
        ("ulimits", "ulimit settings"),
        ("cachefrom", "cache-from"),
    ] {
        let bad = [
            "{",
            "x",
            "1",
            "\"a\"",
            "{\"a\":1}",
            "[1]",
            "{} x",
            "[] x",
            "{\"a\":{}}",
            "\u{0}",
        ];
        let all = [
            bad.as_slice(),
            if name.ends_with('s') && name != "ulimits" {
                &["[]"]
            } else {
                &["{}"]
            },
        ]
        .concat();
        for text in all {
            wrong.push((format!("{name}={}", quoted(text)), what));
        }
    }
    wrong.push((
        format!("buildargs={}", quoted(&"[".repeat(10_000))),
        "error reading build args",
    ));
    wrong.push((
        format!("ulimits={}", quoted(r#"[{"Name":"evil","Soft":1,"Hard":1}]"#)),
        "evil",
    ));
    wrong.push((
        format!("ulimits={}", quoted(r#"[{"Name":"nofile","Soft":5,"Hard":1}]"#)),
        "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
    ));
    for name in ["memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize"] {
        for value in ["x", "1x", "9223372036854775808", "-9223372036854775809", "1.5", "0x10"] {
            wrong.push((format!("{name}={value}"), value));
        }
    }
    for (query, says) in [
        ("memory=1", "memory"),
        ("memory=-5", "memory"),
        ("cpuperiod=99999999999", "period"),
        ("cpuquota=7", "quota"),
        ("cpusetcpus=999", "999"),
        ("cpusetcpus=0-99999999999", "0-99999999999"),
        ("cpusetcpus=x", "x"),
        ("cpusetmems=77", "77"),
        ("shmsize=-1", "SHM size"),
        ("isolation=x", "unsupported isolation: \"x\""),
        ("isolation=hyperv", "unsupported isolation: \"hyperv\""),
        ("platform=x/y/z/w", "\"x/y/z/w\": cannot parse platform specifier"),
        ("platform=..", "\"..\""),
        ("dockerfile=../../../etc/passwd", "../../../etc/passwd"),
        ("dockerfile=/etc/passwd", "/etc/passwd"),
        ("dockerfile=nothing", "500 Cannot locate specified Dockerfile: nothing"),
        ("dockerfile=.", "failed to read dockerfile: open .: it is no file"),
        (
            "t=UPPER",
            "invalid reference format: repository name (library/UPPER) must be lowercase",
        ),
        ("t=a:b:c", "invalid reference format"),
        ("t=good&t=..", "invalid reference format"),
        ("t=a@sha256:x", "invalid reference format"),
        ("target=nothing", "target stage \"nothing\" could not be found"),
        ("networkmode=nothing", "network nothing not found"),
        ("networkmode=container:nobody", "nobody"),
        ("networkmode=container:", "container"),
        ("extrahosts=x", "bad format for add-host: \"x\""),
        ("extrahosts=a:b", "bad format for add-host: \"a:b\""),
        ("extrahosts=[1]", "1"),
        ("cgroupparent=../../..", ".."),
        ("cgroupparent=/../x", ".."),
        ("remote=file:///etc", "file:///etc"),
        ("remote=/etc/passwd", "/etc/passwd"),
        ("remote=http://127.0.0.1:1/x", "connection refused"),
        (
            "remote=git://127.0.0.1/x.git%23--upload-pack=x",
            "the reference is none that git can have",
        ),
        ("version=3", "invalid version \"3\""),
        ("version=x", "invalid version \"x\""),
        ("squash=1", "squash"),
        (
            "securityopt=seccomp%3dunconfined",
            "security options are not supported on linux",
        ),
        ("outputs=x", "outputs"),
        ("%zz=1", "invalid URL escape \"%zz\""),
    ] {
        wrong.push((query.to_owned(), says));
    }
    for (query, says) in &wrong {
        let error = post(&place.engine, query, &context()).err();
        let error = error.unwrap_or_else(|| panic!("{query} was built"));
        assert!(error.contains(says), "{query}: {error}");
    }
    for query in [
        "buildargs=null",
        "buildargs=",
        "labels=%7B%22a%22:null%7D",
        "ulimits=null",
        "ulimits=%5B%5D",
        "cachefrom=null",
        "outputs=%5B%5D",
        "isolation=default",
        "t=",
        "version=1",
        "memory=0",
        "rm=x",
        "forcerm=x",
        "q=maybe",
        "unknown=1",
        "networkmode=none",
    ] {
        post(&place.engine, query, &context()).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    for (method, status) in [("GET", 404), ("PUT", 404), ("DELETE", 404)] {
        let answer = http::request(place.engine.socket(), method, "/build", "", b"").unwrap();
        assert_eq!(answer.status, status, "{method}");
    }
    is_well(&place);
}

/// Status and message as Docker Engine 28.5.2 answers, to the byte.
#[test]
fn a_build_that_fails_before_it_begins_is_refused_with_dockers_status() {
    let place = Place::new();
    let of = |dockerfile: &str| Layer::new().file("Dockerfile", dockerfile.as_bytes(), 0o644).finish();
    let fine = || of("FROM scratch\nLABEL a=b\n");
    let long = b"hello world, no archive".repeat(100);
    for (query, body, says) in [
        (
            "",
            of("FROM scratch\nRUN <<EOF\n"),
            "400 failed to parse Dockerfile: unterminated heredoc",
        ),
        (
            "",
            of("FROM scratch\nFOO x\n"),
            "400 dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
        ),
        (
            "",
            of("FROM scratch\nENV a\n"),
            "400 failed to parse Dockerfile: ENV must have two arguments",
        ),
        (
            "",
            of("FROM scratch\nONBUILD FROM x\n"),
            "400 dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        ("", of("RUN x\n"), "400 no build stage in current context"),
        (
            "",
            of("# a\n"),
            "400 failed to parse Dockerfile: file with no instructions",
        ),
        ("", of(""), "400 the Dockerfile (Dockerfile) cannot be empty"),
        ("target=no", fine(), "400 target stage \"no\" could not be found"),
        (
            "dockerfile=no/thing",
            fine(),
            "500 Cannot locate specified Dockerfile: no/thing",
        ),
        (
            "dockerfile=../x",
            fine(),
            "500 forbidden path outside the build context: ../x ()",
        ),
        ("", Vec::new(), "500 Cannot locate specified Dockerfile: Dockerfile"),
        ("", b"FROM scratch\n".to_vec(), "500 unexpected EOF"),
        ("", long, "500 archive/tar: invalid tar header"),
        (
            "remote=file:///etc",
            Vec::new(),
            "500 remoteURL (file:///etc) could not be recognized as URL",
        ),
        (
            "remote=http://127.0.0.1:1/x",
            Vec::new(),
            "500 error downloading remote context http://127.0.0.1:1/x: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: \
             connect: connection refused",
        ),
        (
            "remote=client-session",
            fine(),
            "400 experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
        ),
        (
            "t=UPPER",
            fine(),
            "500 invalid reference format: repository name (library/UPPER) must be lowercase",
        ),
        (
            "buildargs=%7B",
            fine(),
            "400 error reading build args: unexpected end of JSON input",
        ),
    ] {
        assert_eq!(post(&place.engine, query, &body).unwrap_err(), says, "{query}");
    }
    // What fails later is told in the answer, as is all of a build of BuildKit's.
    let run = of("FROM busybox\nRUN exit 3\n");
    assert_eq!(
        post(&place.engine, "", &run).unwrap_err(),
        "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    );
    assert_eq!(
        post(&place.engine, "", &of("FROM $x\n")).unwrap_err(),
        "base name ($x) should not be blank"
    );
    let unknown = of("FROM scratch\nFOO x\n");
    assert_eq!(
        post(&place.engine, "version=2", &unknown).unwrap_err(),
        "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"
    );
    is_well(&place);
}

/// The answer of a long build does not wait for its first step to end, nor a client for its build.
#[test]
fn the_answer_begins_when_the_dockerfile_was_read() {
    let place = Place::new();
    let slow = Layer::new()
        .file("Dockerfile", b"FROM busybox\nRUN --network=none sleep 60\n", 0o644)
        .finish();
    let mut stream = UnixStream::connect(place.engine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /build?q=1&nocache=1 HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
        slow.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&slow))
        .unwrap();
    let mut begin = [0; 15];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    drop(stream);
    is_well(&place);
}

/// What a body may be cut to, and who sends it.
#[test]
fn bodies_that_end_early_or_never_are_nobody_elses_trouble() {
    let place = Place::new();
    let whole = context();
    for (name, body, says) in [
        ("nothing", &b""[..], "Cannot locate specified Dockerfile: Dockerfile"),
        (
            "zeros",
            &[0; 1024][..],
            "Cannot locate specified Dockerfile: Dockerfile",
        ),
        ("ten zeros", &[0; 10][..], "500 unexpected EOF"),
        ("text", b"hello", "500 unexpected EOF"),
        ("gzip's magic", b"\x1f\x8b\x08\0\0\0\0\0\0\0", "context"),
        (
            "noise in gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\0\xa5\xa5\xa5\xa5\xa5\xa5",
            "deflate stream",
        ),
        ("a header alone", &whole[..512], "ends in the middle"),
        ("half a file", &whole[..520], "ends in the middle"),
    ] {
        let error = post(&place.engine, "", body).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
    }
    for (name, head) in [
        ("a length that is not kept", "Content-Length: 100000"),
        ("chunks that stop", "Transfer-Encoding: chunked"),
    ] {
        for sent in [0, 1, 512, 700, whole.len()] {
            let mut stream = UnixStream::connect(place.engine.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut text =
                format!("POST /build HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\n{head}\r\n\r\n")
                    .into_bytes();
            if head.starts_with("Transfer") && sent > 0 {
                text.extend(format!("{sent:x}\r\n").as_bytes());
            }
            text.extend(&whole[..sent]);
            stream.write_all(&text).unwrap();
            // It sends no more and still listens, or it is gone.
            if sent % 2 == 0 {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                assert!(!answer.contains("Successfully built"), "{name}, {sent}: {answer}");
            }
        }
    }
    // One that never reads what it is told.
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let chatty = Layer::new()
            .file("Dockerfile", b"FROM busybox\nRUN yes | head -c 3000000\n", 0o644)
            .finish();
        let mut stream = UnixStream::connect(place.engine.socket()).unwrap();
        let head = format!(
            "POST /build?nocache=1 HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
            chatty.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&chatty))
            .unwrap();
        deaf.push(stream);
    }
    place.write("Dockerfile", "FROM busybox\nRUN echo well\n");
    place.ferry("build --no-cache .").ok();
    drop(deaf);
    is_well(&place);
}

/// Steps ask for each other: a chain of them is no depth of the engine's stack.
#[test]
fn dockerfiles_of_thousands_of_lines_are_built_or_refused() {
    let place = Place::new();
    let chain = |lines: usize| "RUN true\n".repeat(lines);
    let stages = |count: usize| {
        let stage = |number: usize| {
            format!(
                "FROM s{} AS s{number}\nCOPY --from=s{} /f /f{number}\n",
                number - 1,
                number - 1
            )
        };
        let stages: String = (1..count).map(stage).collect();
        format!("FROM busybox AS s0\nRUN exit 9\n{stages}")
    };
    let backwards = |count: usize| {
        let stage = |number: usize| format!("FROM busybox AS s{number}\nCOPY --from=s{} /f /f\n", number + 1);
        let stages: String = (1..count).map(stage).collect();
        format!("{stages}FROM busybox AS s{count}\nRUN exit 9\nFROM s1\n")
    };
    let mounts = |count: usize| {
        let mount = |number: usize| format!("--mount=type=tmpfs,target=/m{number} ");
        format!(
            "FROM busybox\nRUN {}exit 9\n",
            (0..count).map(mount).collect::<String>()
        )
    };
    for (name, dockerfile, says) in [
        (
            "a chain",
            format!("FROM busybox\nRUN exit 9\n{}", chain(5000)),
            "non-zero code: 9",
        ),
        (
            "a longer one",
            format!("FROM busybox\n{}", chain(20_000)),
            "more than 10000 instructions",
        ),
        (
            "the longest",
            format!("FROM busybox\n{}", chain(2_000_000)),
            "longer than",
        ),
        ("stages on each other", stages(1500), "non-zero code: 9"),
        ("stages that come after", backwards(200), "needs to be defined before"),
        (
            "stages that come long after",
            backwards(1000),
            "needs to be defined before",
        ),
        ("stages in a circle", "FROM b AS a\nFROM a AS b\n".to_owned(), ""),
        (
            "a stage of itself",
            "FROM busybox AS a\nCOPY --from=a /f /f\n".to_owned(),
            "",
        ),
        ("mounts", mounts(300), "9"),
        (
            "a long line",
            format!("FROM busybox\nRUN exit 9 # {}\n", "x".repeat(3 << 20)),
            "",
        ),
        (
            "many words",
            format!("FROM busybox\nRUN exit 9\nENV {}\n", "a=b ".repeat(100_000)),
            "non-zero code: 9",
        ),
        (
            "labels",
            format!("FROM busybox\nRUN exit 9\n{}", "LABEL a=b\n".repeat(9000)),
            "non-zero code: 9",
        ),
        (
            "variables in variables",
            format!(
                "FROM busybox\nENV a=${{b:-{}x{}}}\nRUN exit 9\n",
                "${b:-".repeat(5000),
                "}".repeat(5000)
            ),
            "",
        ),
        (
            "doubling",
            format!(
                "FROM busybox\nENV a=xxxxxxxxxxxxxxxx\n{}RUN exit 9\n",
                "ENV a=$a$a$a$a\n".repeat(30)
            ),
            "",
        ),
    ] {
        let begun = std::time::Instant::now();
        let context = Layer::new().file("Dockerfile", dockerfile.as_bytes(), 0o644).finish();
        let error = post(&place.engine, "", &context).expect_err(name);
        let shown: String = error.chars().take(500).collect();
        assert!(error.contains(says) && !error.is_empty(), "{name}: {shown}");
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{name} took {:?}",
            begun.elapsed()
        );
        println!(
            "{name} took {:?}: {}",
            begun.elapsed(),
            shown.chars().take(100).collect::<String>()
        );
    }
    // Many stages beside each other are not as many processes at a time.
    let stage = |number: usize| format!("FROM busybox AS s{number}\nRUN echo {number} > /f; sleep 0.05\n");
    let copy = |number: usize| format!("COPY --from=s{number} /f /f{number}\n");
    let all: String = (0..60)
        .map(stage)
        .chain(["FROM busybox\n".to_owned()])
        .chain((0..60).map(copy))
        .collect();
    place.write("Dockerfile", &all);
    place.ferry("build -t wide .").ok();
    assert_eq!(place.inside("wide", "ls /f* | wc -l"), "60");
    is_well(&place);
}
