//! Frontends that are programs: what they ask of a build, by the wire.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use bytes::Bytes;
use ferry_buildkit::Message;
use ferry_buildkit::control::{self, StatusRequest, StatusResponse};
use ferry_buildkit::frontend::{
    FileRange, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, Result,
    ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse, result,
};
use ferry_buildkit::pb::{SourceInfo, SourceOp};
use ferry_testkit::{TestDaemon, wait_until};
use http::uri::PathAndQuery;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const BUILD: &str = "by-the-wire";
const SESSION: &str = "its-session";
const DOCKERFILE: &str =
    "FROM busybox AS Result\nRUN mkdir /d && echo made > /d/made && ln -s ../../../../d/made /up && touch /d/other\n";

/// A session that serves nothing.
async fn session(socket: PathBuf) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!(
        "POST /session HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
         X-Docker-Expose-Session-Uuid: {SESSION}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    let nothing = hyper::service::service_fn(async |_| {
        let answer = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "12");
        Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = serving.serve_connection(TokioIo::new(stream), nothing).await;
}

#[derive(Clone)]
struct Frontend(Channel);

impl Frontend {
    async fn connect(socket: PathBuf) -> Self {
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://engine");
        Self(endpoint.connect_with_connector(connector).await.unwrap())
    }

    fn request<Q>(question: Q) -> Request<Q> {
        let mut request = Request::new(question);
        let name = "buildkit-controlapi-buildid";
        request.metadata_mut().insert(name, BUILD.parse().unwrap());
        request
    }

    async fn call<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        path: &'static str,
        question: Q,
    ) -> std::result::Result<A, Status> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(Self::request(question), PathAndQuery::from_static(path), codec);
        Ok(answer.await?.into_inner())
    }

    async fn bridge<Q: Message + 'static, A: Message + Default + 'static>(
        &self,
        call: &'static str,
        question: Q,
    ) -> std::result::Result<A, Status> {
        let path = format!("/moby.buildkit.v1.frontend.LLBBridge/{call}");
        self.call(path.leak(), question).await
    }

    /// Everything that happened in the build.
    async fn status(&self) -> Vec<StatusResponse> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let question = StatusRequest {
            r#ref: BUILD.to_owned(),
        };
        let path = PathAndQuery::from_static("/moby.buildkit.v1.Control/Status");
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let answer = grpc.server_streaming(Self::request(question), path, codec).await;
        let mut stream = answer.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(status) = stream.message().await.unwrap() {
            all.push(status);
        }
        all
    }
}

async fn converse(frontend: &Frontend) {
    let pong: PongResponse = frontend.bridge("Ping", PingRequest {}).await.unwrap();
    for name in ["readfile", "readdir", "statfile", "resolveimage"] {
        assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == name), "{name}");
    }
    let resolve = ResolveImageConfigRequest {
        r#ref: "busybox".to_owned(),
        ..ResolveImageConfigRequest::default()
    };
    let image: ResolveImageConfigResponse = frontend.bridge("ResolveImageConfig", resolve).await.unwrap();
    assert!(image.digest.starts_with("sha256:"), "{image:?}");
    assert!(String::from_utf8_lossy(&image.config).contains("\"rootfs\""));
    let meta = |identifier: &str| ResolveSourceMetaRequest {
        source: Some(SourceOp {
            identifier: identifier.to_owned(),
            ..SourceOp::default()
        }),
        ..ResolveSourceMetaRequest::default()
    };
    let known = meta("docker-image://docker.io/library/busybox:latest");
    let known: ResolveSourceMetaResponse = frontend.bridge("ResolveSourceMeta", known).await.unwrap();
    assert_eq!(known.image.unwrap().config, image.config);
    let foreign = frontend.bridge::<_, ResolveSourceMetaResponse>("ResolveSourceMeta", meta("git://x"));
    assert_eq!(foreign.await.unwrap_err().code(), Code::Unimplemented);

    let attributes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let evil = SolveRequest {
        frontend: "gateway.v0".to_owned(),
        frontend_opt: attributes(&[("source", "me/mine")]),
        ..SolveRequest::default()
    };
    let refused = frontend.bridge::<_, SolveResponse>("Solve", evil).await.unwrap_err();
    assert!(refused.message().contains("me/mine"), "{refused:?}");
    let solve = SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: attributes(&[("context", "http://127.0.0.1:8000/Dockerfile")]),
        ..SolveRequest::default()
    };
    let solved: SolveResponse = frontend.bridge("Solve", solve).await.unwrap();
    let Some(result::Result::Ref(reference)) = solved.result.unwrap().result else {
        panic!("no ref");
    };
    read(frontend, &reference.id).await;
    let warn = WarnRequest {
        short: "careful".into(),
        info: Some(SourceInfo {
            filename: "its own".to_owned(),
            data: "text".into(),
            ..SourceInfo::default()
        }),
        ..WarnRequest::default()
    };
    let _: WarnResponse = frontend.bridge("Warn", warn).await.unwrap();
    let result = Result {
        result: Some(result::Result::Ref(reference)),
        ..Result::default()
    };
    let end = ReturnRequest {
        result: Some(result),
        ..ReturnRequest::default()
    };
    let _: ReturnResponse = frontend.bridge("Return", end).await.unwrap();
}

async fn read(frontend: &Frontend, id: &str) {
    let file = |id: &str, path: &str, range| ReadFileRequest {
        r#ref: id.to_owned(),
        file_path: path.to_owned(),
        range,
    };
    let whole: ReadFileResponse = frontend.bridge("ReadFile", file(id, "/up", None)).await.unwrap();
    assert_eq!(whole.data, "made\n");
    let range = FileRange { offset: 1, length: 2 };
    let part: ReadFileResponse = frontend
        .bridge("ReadFile", file(id, "d/made", Some(range)))
        .await
        .unwrap();
    assert_eq!(part.data, "ad");
    for (id, path) in [(id, "/nothing"), ("another", "/up")] {
        let missing = frontend.bridge::<_, ReadFileResponse>("ReadFile", file(id, path, None));
        assert_eq!(missing.await.unwrap_err().code(), Code::NotFound);
    }
    let list = ReadDirRequest {
        r#ref: id.to_owned(),
        dir_path: "/d".to_owned(),
        ..ReadDirRequest::default()
    };
    let listed: ReadDirResponse = frontend.bridge("ReadDir", list).await.unwrap();
    let names: Vec<&str> = listed.entries.iter().map(|stat| stat.path.as_str()).collect();
    assert_eq!(names, ["made", "other"]);
    let some = ReadDirRequest {
        r#ref: id.to_owned(),
        dir_path: "/d".to_owned(),
        include_pattern: "o*".to_owned(),
    };
    let listed: ReadDirResponse = frontend.bridge("ReadDir", some).await.unwrap();
    assert_eq!(listed.entries.len(), 1, "{listed:?}");
    let stat = StatFileRequest {
        r#ref: id.to_owned(),
        path: "/up".to_owned(),
    };
    let found: StatFileResponse = frontend.bridge("StatFile", stat).await.unwrap();
    assert_eq!(found.stat.unwrap().size, 5);
}

#[test]
fn a_frontend_that_is_a_program_reads_what_was_built() {
    let engine = TestDaemon::start();
    engine.busybox();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), DOCKERFILE).unwrap();
    let home = dir.path().to_str().unwrap();
    let web = engine
        .in_namespace(&["busybox", "httpd", "-f", "-p", "127.0.0.1:8000", "-h", home])
        .spawn();
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8000/Dockerfile"];
    wait_until("the Dockerfile is served", || {
        engine.in_namespace(&fetch).output().code == 0
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = engine.socket().to_path_buf();
        tokio::spawn(session(socket.clone()));
        let frontend = Frontend::connect(socket).await;
        let building = frontend.clone();
        let building = tokio::spawn(async move {
            let request = control::SolveRequest {
                r#ref: BUILD.to_owned(),
                session: SESSION.to_owned(),
                ..control::SolveRequest::default()
            };
            building
                .call::<_, control::SolveResponse>("/moby.buildkit.v1.Control/Solve", request)
                .await
        });
        converse(&frontend).await;
        building.await.unwrap().unwrap();
        let happened = frontend.status().await;
        let warnings = happened.iter().flat_map(|status| &status.warnings);
        let files: Vec<(String, Bytes)> = warnings
            .map(|warning| warning.info.clone().unwrap_or_default())
            .map(|info| (info.filename, info.data))
            .collect();
        assert!(files.contains(&("its own".to_owned(), "text".into())), "{files:?}");
        assert!(
            files.contains(&("Dockerfile".to_owned(), DOCKERFILE.into())),
            "{files:?}"
        );
    });
    web.signal(ferry_testkit::signal::KILL);
    web.finish();
}
