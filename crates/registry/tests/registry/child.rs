//! A server in a process of its own, to be killed, watched, or given a small disk.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use ferry_registry::{
    Auth, Backend as _, Collection, FileSystem, FileSystemOptions, Limits, Listener, Options, Registry, router, serve,
};
use tokio_util::sync::CancellationToken;

use crate::client::{self, Reply};

const ROOT: &str = "FERRY_TEST_REGISTRY_ROOT";

/// Everything goes that nothing names.
pub fn harsh() -> Collection {
    Collection {
        grace: Duration::ZERO,
        keep_untagged: false,
        ..Collection::default()
    }
}

/// No test, but the server. It ends with its standard input; for each line there it collects, and says what came of it.
#[test]
#[ignore = "other tests start it as a process of its own"]
fn serve_for_another_test() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let options = FileSystemOptions {
        grace: Duration::ZERO,
        ..FileSystemOptions::default()
    };
    let storage = FileSystem::open(Path::new(&root), options).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).unwrap();
    let address = listener.address().unwrap();
    let options = Options {
        delete: true,
        ..Options::default()
    };
    let registry = Registry::new(storage.clone(), Auth::open(), options);
    let (metrics, shutdown) = (registry.metrics(), CancellationToken::new());
    runtime.spawn(serve(
        vec![listener],
        router(registry),
        Limits::default(),
        metrics,
        shutdown,
    ));
    println!("\nlistening {address}");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "collect" => println!("collected {:?}", runtime.block_on(storage.collect(harsh()))),
            _ => {
                let storage = storage.clone();
                runtime.spawn(async move { while storage.collect(harsh()).await.is_ok() {} });
            }
        }
    }
}

pub struct Child {
    pub address: SocketAddr,
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Under `wrapper`, a command line that ends with the one of the server.
    pub fn start(root: &Path, wrapper: &[OsString]) -> Self {
        let program = std::env::current_exe().unwrap();
        let line = ["child::serve_for_another_test", "--exact", "--ignored", "--nocapture"];
        let mut line: Vec<&OsStr> = line.iter().map(OsStr::new).collect();
        line.insert(0, program.as_os_str());
        let line: Vec<&OsStr> = wrapper.iter().map(OsString::as_os_str).chain(line).collect();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).env(ROOT, root);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut child = Self {
            address: ([127, 0, 0, 1], 0).into(),
            process,
            input,
            output,
        };
        child.address = child.line("listening ").parse().unwrap();
        child
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The rest of the next line that begins so.
    fn line(&mut self, begin: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the server ended");
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim_end().to_owned();
            }
        }
    }

    /// What a collection says.
    pub fn collect(&mut self) -> String {
        self.input.write_all(b"collect\n").unwrap();
        self.line("collected ")
    }

    /// From now on, without a pause.
    pub fn collect_always(&mut self) {
        self.input.write_all(b"always\n").unwrap();
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets it end by itself.
    pub fn end(self) {
        let Self { mut process, input, .. } = self;
        drop(input);
        process.wait().unwrap();
    }

    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = client::connect(self.address).unwrap();
        client::send(&mut stream, method, path, headers, body).unwrap()
    }
}
