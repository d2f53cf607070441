//! BuildKit by `POST /build`, as SDKs use it: bollard, and the wire.

use bollard::Docker;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptionsBuilder, BuilderVersion, ImageBuildOutput};
use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, http};
use futures_util::StreamExt as _;
use serde_json::Value;

/// A context of these files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The status, and the lines of the answer.
fn post(engine: &Engine, query: &str, body: &[u8]) -> (u16, Vec<Value>) {
    let path = format!("/v1.48/build{query}");
    let answer = http::request(engine.socket(), "POST", &path, "application/x-tar", body).unwrap();
    let lines = answer.body.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    (
        answer.status,
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect(),
    )
}

fn traces(lines: &[Value]) -> usize {
    lines.iter().filter(|line| line["id"] == "moby.buildkit.trace").count()
}

#[test]
fn bollard_builds_images_and_files_with_buildkit() {
    let engine = Engine::start();
    engine.busybox();
    let dir = tempfile::tempdir().unwrap();
    let dockerfile = format!(
        "FROM {BUSYBOX} AS made\nRUN echo made > /made\nFROM {BUSYBOX} AS app\n\
         RUN --mount=type=bind,from=made,target=/m cat /m/made > /copied && echo said\n\
         FROM scratch AS files\nCOPY --from=app /copied /\n"
    );
    let context = archive(&[("Dockerfile", &dockerfile)]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let socket = engine.socket().display().to_string();
    runtime.block_on(async {
        let docker = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let base = || BuildImageOptionsBuilder::default().version(BuilderVersion::BuilderBuildKit);
        let build = |options: BuildImageOptionsBuilder| {
            let body = bollard::body_full(context.clone().into());
            docker
                .build_image(options.build(), None, Some(body))
                .collect::<Vec<_>>()
        };
        let told = build(base().t("by-bollard").target("app").session("bollard-image")).await;
        let mut logs = Vec::new();
        let mut id = None;
        for info in told {
            let BuildInfo { aux, .. } = info.unwrap();
            match aux {
                Some(BuildInfoAux::BuildKit(status)) => logs.extend(status.logs.into_iter().flat_map(|log| log.msg)),
                Some(BuildInfoAux::Default(image)) => id = image.id,
                None => {}
            }
        }
        assert!(String::from_utf8_lossy(&logs).contains("said"), "{logs:?}");
        let image = docker.inspect_image("by-bollard").await.unwrap();
        assert_eq!(image.id, id);

        let place = dir.path().join("out").display().to_string();
        let options = base().session("bollard-files").outputs(ImageBuildOutput::Local(place));
        for info in build(options).await {
            info.unwrap();
        }
        let failed = build(base().session("bollard-none").target("nothing")).await;
        let last = failed.into_iter().last().unwrap().unwrap_err().to_string();
        assert!(last.contains("nothing"), "{last}");
    });
    assert_eq!(
        std::fs::read_to_string(dir.path().join("out/copied")).unwrap(),
        "made\n"
    );
    assert_eq!(
        engine.docker(["run", "--rm", "by-bollard", "cat", "/copied"]).ok(),
        "made"
    );
}

#[test]
fn buildkit_by_post_build_answers_as_dockerds() {
    let engine = Engine::start();
    let good = archive(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "x")]);
    let (status, lines) = post(&engine, "?version=2&t=posted", &good);
    assert!(status == 200 && traces(&lines) > 1, "{lines:?}");
    let last = lines.last().unwrap();
    let id = engine.api("GET", "/images/posted/json", None).1["Id"].clone();
    assert_eq!(*last, serde_json::json!({"id": "moby.image.id", "aux": {"ID": id}}));
    let (_, quiet) = post(&engine, "?version=2&q=1", &good);
    assert_eq!(
        quiet,
        [serde_json::json!({"stream": format!("{}\n", id.as_str().unwrap())})]
    );

    let bad = archive(&[("Dockerfile", "FROM scratch\nCOPYY a /a\n")]);
    let why = "dockerfile parse error on line 2: unknown instruction: COPYY (did you mean COPY?)";
    for query in ["?version=2", "?version=2&q=1"] {
        let (status, lines) = post(&engine, query, &bad);
        assert!(status == 200 && traces(&lines) > 0, "{lines:?}");
        let last = lines.last().unwrap();
        assert_eq!(
            *last,
            serde_json::json!({"errorDetail": {"message": why}, "error": why})
        );
    }
    for (query, text) in [
        ("?version=3", "invalid version \"3\""),
        ("?version=2&outputs=%7B", "invalid outputs specified"),
        (
            "?version=2&outputs=%5B%7B%22Type%22:%22zip%22%7D%5D",
            "exporter \"zip\" could not be found",
        ),
        ("?version=2&extrahosts=foo", "foo"),
        ("/cancel", "build ID not provided"),
    ] {
        let (status, lines) = post(&engine, query, &good);
        let said = lines[0]["message"].as_str().unwrap_or_default();
        assert!(status >= 400 && said.contains(text), "{query}: {lines:?}");
    }
    let (_, lines) = post(&engine, "?version=2&remote=client-session", b"");
    let said = lines.last().unwrap()["error"].as_str().unwrap_or_default();
    assert!(said.contains("session"), "{lines:?}");
}

#[test]
fn a_context_comes_by_a_request_of_its_own() {
    let engine = Engine::start();
    let context = archive(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "x")]);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| post(&engine, "?version=2&buildid=upload-request:u1", &context));
        let (status, lines) = post(&engine, "?version=2&remote=upload-request&buildid=u1&t=uploaded", b"");
        assert!(
            status == 200 && lines.last().unwrap()["id"] == "moby.image.id",
            "{lines:?}"
        );
        assert_eq!(sent.join().unwrap(), (200, Vec::new()));
    });
    let (status, _) = post(&engine, "?version=2&remote=upload-request&buildid=u2", b"");
    assert!(status >= 400);
}

#[test]
fn a_build_is_canceled_by_its_id() {
    let engine = Engine::start();
    engine.busybox();
    let context = archive(&[("Dockerfile", &format!("FROM {BUSYBOX}\nRUN echo begun; sleep 4444\n"))]);
    let versions: &[&str] = if engine.is_ferry() { &["1", "2"] } else { &["2"] };
    for version in versions {
        let query = format!("?version={version}&buildid=mine");
        std::thread::scope(|scope| {
            let built = scope.spawn(|| post(&engine, &query, &context).1);
            let begun = std::time::Instant::now();
            // It may not have begun yet.
            while !built.is_finished() && begun.elapsed().as_secs() < 30 {
                assert_eq!(post(&engine, "/cancel?id=mine", b"").0, 200);
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            let lines = built.join().unwrap();
            let last = lines.last().unwrap();
            // Of one whose answer had not begun, it is the answer.
            let said = last["error"].as_str().or(last["message"].as_str()).unwrap_or_default();
            assert!(said.contains("canceled"), "{lines:?}");
        });
    }
    let (_, lines) = post(
        &engine,
        "?version=2",
        &archive(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]),
    );
    assert_eq!(lines.last().unwrap()["id"], "moby.image.id");
}
