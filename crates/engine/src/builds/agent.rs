//! An SSH agent's socket for a step: each connection becomes one to the client's own agent.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_build::{Error, Result, Session};
use ferry_kit::Id;
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::world::World;

/// Connections at a time.
const MOST: usize = 64;

/// A socket that is listened at. Dropped, it and all its connections are gone.
#[derive(Debug)]
pub(super) struct Agent {
    path: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

impl Agent {
    /// `access`: mode, user, group.
    pub fn listen(world: &World, session: Arc<dyn Session>, id: String, access: (u32, u32, u32)) -> Result<Self> {
        let failed = |error: std::io::Error| Error::internal("listen for a step's ssh", &error);
        let path = world.run_dir(&Id::random().short()).with_extension("agent");
        let listener = bind(&path).map_err(failed)?;
        let serving = tokio::spawn(serve(listener, session, id));
        let agent = Self {
            path,
            _serving: AbortOnDropHandle::new(serving),
        };
        let (mode, uid, gid) = access;
        std::os::unix::fs::chown(&agent.path, Some(uid), Some(gid)).map_err(failed)?;
        std::fs::set_permissions(&agent.path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(agent)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// By its directory's descriptor: a socket's address has room for 107 bytes, and a data root may be anywhere.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    short.push(name);
    UnixListener::bind(short)
}

async fn serve(listener: UnixListener, session: Arc<dyn Session>, id: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MOST {
            continue;
        }
        let (session, id) = (Arc::clone(&session), id.clone());
        connections.spawn(async move {
            if let Ok(Some(mut agent)) = session.ssh(&id).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut agent).await;
            }
        });
    }
}
