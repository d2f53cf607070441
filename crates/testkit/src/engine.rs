//! The engine a test runs against: a fresh Ferry, or with `FERRY_TEST_ENGINE=docker` the real Docker Engine.

use std::ops::Deref;
use std::path::PathBuf;

use crate::{Client, TestDaemon, peer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ferry,
    Docker,
}

/// Dereferences to its [`Client`].
#[derive(Debug)]
pub enum Engine {
    Ferry(Box<TestDaemon>),
    Docker(peer::Docker),
}

impl Deref for Engine {
    type Target = Client;
    fn deref(&self) -> &Client {
        match self {
            Self::Ferry(daemon) => daemon,
            Self::Docker(docker) => docker,
        }
    }
}

impl Engine {
    /// The engine under test.
    #[track_caller]
    pub fn start() -> Self {
        if Self::chosen() == Kind::Docker {
            Self::Docker(peer::Docker::get().expect("FERRY_TEST_ENGINE=docker needs the peers to be set up"))
        } else {
            Self::Ferry(Box::new(TestDaemon::start()))
        }
    }

    /// Which engine the environment asks for.
    pub fn chosen() -> Kind {
        match std::env::var("FERRY_TEST_ENGINE").as_deref() {
            Ok("docker") => Kind::Docker,
            _ => Kind::Ferry,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Ferry(_) => Kind::Ferry,
            Self::Docker(_) => Kind::Docker,
        }
    }

    pub fn is_ferry(&self) -> bool {
        self.kind() == Kind::Ferry
    }

    /// A fresh directory to share with containers: its path here, and the path by which the engine knows it.
    pub fn share(&self, name: &str) -> (PathBuf, String) {
        match self {
            Self::Ferry(daemon) => {
                let dir = daemon.dir().join(name);
                std::fs::create_dir_all(&dir).unwrap();
                let shown = dir.display().to_string();
                (dir, shown)
            }
            Self::Docker(docker) => docker.share(name),
        }
    }

    /// A program in the network namespace of the engine.
    #[track_caller]
    pub fn in_namespace(&self, line: &[&str]) -> crate::Run {
        match self {
            Self::Ferry(daemon) => daemon.in_namespace(line),
            Self::Docker(docker) => docker.in_namespace(line),
        }
    }
}
