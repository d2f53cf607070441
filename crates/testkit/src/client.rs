//! An engine's socket and the command lines that talk to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Output, Run};
use crate::{http, images, tools};

/// Which command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Ferry,
    Docker,
}

/// A client of one engine. `cli` is the command line under test: Ferry's own on Ferry, Docker's on Docker;
/// `FERRY_TEST_CLI=docker` makes it Docker's on both.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    program: Program,
    /// Command lines find their settings here: none.
    home: TempDir,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>, program: Program) -> Self {
        let program = match std::env::var("FERRY_TEST_CLI").as_deref() {
            Ok("docker") => Program::Docker,
            Ok("ferry") => Program::Ferry,
            _ => program,
        };
        let home = tempfile::Builder::new()
            .prefix("ferry-test-home-")
            .tempdir_in("/var/tmp")
            .unwrap();
        Self {
            socket: socket.into(),
            program,
            home,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn program(&self) -> Program {
        self.program
    }

    /// `unix://…`
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// A command line of this program, told where the engine is by `DOCKER_HOST`.
    pub fn command(&self, program: Program) -> Run {
        let run = match program {
            Program::Ferry => Run::new(tools::ferry()),
            Program::Docker => Run::new(tools::docker()),
        };
        run.env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.home.path())
            .env("HOME", self.home.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
    }

    /// The command line under test, not run yet.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.command(self.program).args(args)
    }

    /// The command line under test.
    #[track_caller]
    pub fn cli<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.run(args).output()
    }

    /// Docker's own command line.
    #[track_caller]
    pub fn docker<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(Program::Docker).args(args).output()
    }

    /// Ferry's command line.
    #[track_caller]
    pub fn ferry<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(Program::Ferry).args(args).output()
    }

    /// `run --rm busybox sh -c SCRIPT` with options before the image; the output of the script.
    #[track_caller]
    pub fn sh(&self, options: &[&str], script: &str) -> String {
        self.try_sh(options, script).ok()
    }

    #[track_caller]
    pub fn try_sh(&self, options: &[&str], script: &str) -> Output {
        self.busybox();
        let args = ["run", "--rm"].into_iter().chain(options.iter().copied());
        self.cli(args.chain([images::BUSYBOX, "sh", "-c", script]))
    }

    /// Starts a container that sleeps, under this name.
    #[track_caller]
    pub fn sleeper(&self, name: &str, options: &[&str]) -> String {
        self.busybox();
        let args = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
        self.cli(args.chain([images::BUSYBOX, "sleep", "1000"])).ok()
    }

    /// Makes sure the busybox image is there.
    #[track_caller]
    pub fn busybox(&self) {
        let path = format!("/images/{}/json", images::BUSYBOX);
        if self.api("GET", &path, None).0 != 200 {
            self.load(&images::busybox_archive());
        }
    }

    /// Loads an archive through the API; panics when the engine reports an error.
    #[track_caller]
    pub fn load(&self, archive: &[u8]) {
        let answer = http::request(
            &self.socket,
            "POST",
            "/images/load?quiet=1",
            "application/x-tar",
            archive,
        )
        .unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            answer.status == 200 && !text.contains("\"error"),
            "load: {} {text}",
            answer.status
        );
    }

    /// One call of the HTTP API; `Null` where the answer is no JSON.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = http::request(&self.socket, method, path, "application/json", body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        (
            answer.status,
            serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        )
    }

    /// A container's `inspect`.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        let (status, value) = self.api("GET", &format!("/containers/{container}/json"), None);
        assert!(status == 200, "inspect {container}: {status} {value}");
        value
    }

    /// One value of a container's `inspect`, by JSON pointer, as text without quotes.
    #[track_caller]
    pub fn field(&self, container: &str, pointer: &str) -> String {
        let value = self.inspect(container);
        let field = value
            .pointer(pointer)
            .unwrap_or_else(|| panic!("no {pointer} in {value:#}"));
        field.as_str().map_or_else(|| field.to_string(), str::to_owned)
    }

    /// The process id of a running container as the host sees it.
    #[track_caller]
    pub fn pid(&self, container: &str) -> u32 {
        self.field(container, "/State/Pid").parse().unwrap()
    }

    /// Whether there is a container of that name or id.
    #[track_caller]
    pub fn has_container(&self, container: &str) -> bool {
        self.api("GET", &format!("/containers/{container}/json"), None).0 == 200
    }
}
