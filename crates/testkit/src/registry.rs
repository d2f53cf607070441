//! Ferry's own registry and the CNCF's in a daemon's network namespace, and a wire to the first that breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::Running;
use crate::peer::Place;
use crate::{TestDaemon, tools, wait_within};

/// `ferry registry serve` at [`Registry::ADDRESS`]. It ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    _server: Running,
    root: PathBuf,
}

impl Registry {
    pub const ADDRESS: &'static str = "127.0.0.1:5000";

    /// `args` are further ones of `ferry registry serve`.
    #[track_caller]
    pub fn start(daemon: &TestDaemon, args: &[&str]) -> Self {
        let root = daemon.dir().join("registry");
        std::fs::create_dir_all(&root).unwrap();
        let ferry = tools::ferry();
        let mut line = vec![
            ferry.to_str().unwrap(),
            "registry",
            "serve",
            "--no-access-log",
            "--root",
        ];
        line.extend([root.to_str().unwrap(), "--listen", Self::ADDRESS]);
        line.extend(args);
        let server = daemon.in_namespace(&line).time(Duration::from_secs(600)).spawn();
        let health = format!("http://{}/healthz", Self::ADDRESS);
        wait_within(Duration::from_secs(10), "the registry answers", || {
            daemon.in_namespace(&["curl", "-fsS", &health]).output().code == 0
        });
        Self { _server: server, root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The address of [`Registry::cncf`].
    pub const CNCF: &'static str = "127.0.0.1:5002";

    /// The CNCF's registry in the same namespace; `None`, saying so, where the peers are not set up.
    #[track_caller]
    pub fn cncf(daemon: &TestDaemon) -> Option<Self> {
        let place = Place::find()?;
        let root = daemon.dir().join("cncf");
        std::fs::create_dir_all(&root).unwrap();
        let config = root.join("config.yml");
        let text = format!(
            "{{version: 0.1, log: {{level: error, accesslog: {{disabled: true}}}}, http: {{addr: {}}}, \
             storage: {{filesystem: {{rootdirectory: {}}}}}}}",
            Self::CNCF,
            root.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        // With the libraries it was built for, and with this machine's files.
        let usr = place.root.join("usr");
        let path = |name: &str| usr.join(name).display().to_string();
        let (loader, libraries) = (path("lib64/ld-linux-x86-64.so.2"), path("lib/x86_64-linux-gnu"));
        let (program, config) = (path("bin/docker-registry"), config.display().to_string());
        let line = [&loader, "--library-path", &libraries, &program, "serve", &config];
        let server = daemon.in_namespace(&line).time(Duration::from_secs(600)).spawn();
        let version = format!("http://{}/v2/", Self::CNCF);
        wait_within(Duration::from_secs(10), "the registry answers", || {
            daemon.in_namespace(&["curl", "-fsS", &version]).output().code == 0
        });
        Some(Self { _server: server, root })
    }
}

/// What listens at [`Wire::ADDRESS`] and passes everything on to the registry.
#[derive(Debug, Clone)]
pub struct Wire {
    bytes: Arc<AtomicU64>,
}

impl Wire {
    pub const ADDRESS: &'static str = "127.0.0.1:5001";

    /// A connection ends after `cut` bytes of answers.
    #[track_caller]
    pub fn start(daemon: &TestDaemon, cut: u64) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let wire = Self {
            bytes: Arc::clone(&bytes),
        };
        // What was sent and not yet taken is lost when an engine dies: a network holds little, loopback megabytes.
        let window = "echo 4096 65536 262144 >/proc/sys/net/ipv4/tcp_rmem";
        daemon.in_namespace(&["sh", "-c", window]).ok();
        let network = std::fs::File::open(daemon.network()).unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            // Threads that are begun here are in there as well.
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let listener = TcpListener::bind(Self::ADDRESS).unwrap();
            ready.send(()).unwrap();
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(Registry::ADDRESS)) else {
                    continue;
                };
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || pass(&client, &server, cut, &bytes));
            }
        });
        is_ready.recv().unwrap();
        wire
    }

    /// Of all answers so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn pass(client: &TcpStream, server: &TcpStream, cut: u64, bytes: &AtomicU64) {
    let _ = sockopt::set_socket_send_buffer_size(client, 64 << 10);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*client, &mut &*server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let (mut buffer, mut passed) = ([0; 16 << 10], 0);
        while passed < cut {
            let Ok(count @ 1..) = (&mut &*server).read(&mut buffer) else {
                break;
            };
            // What is lost on the way counts.
            bytes.fetch_add(count as u64, Ordering::Relaxed);
            passed += count as u64;
            if (&mut &*client).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}
