//! What a container's start needs: its root, its network, and the socket by which the next daemon finds the shim.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_runtime::{Failure, Kind};
use ferry_sys::overlay::{Overlay, Upper};
use ferry_sys::{Child, Mount, SingleThreaded, packet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::SOCKET;
use crate::launch::Rootfs;
use crate::wire::{self, Call, Message, Request};

/// How long a shim waits for the one of the run before to let go of the run directory.
const HANDOVER: Duration = Duration::from_secs(5);

/// The container's root as a detached mount: made with the host's credentials, attached by the child. Also the user namespace
/// that its layers are mapped by.
pub(super) fn mount_root(proof: &SingleThreaded, rootfs: &Rootfs) -> Result<(Mount, Option<OwnedFd>), Failure> {
    let failed = |error: io::Error| Failure::setup("mount the root file system", &error);
    let user_namespace = rootfs
        .idmap
        .map(|map| {
            let ids = [(0, map.start, map.count)];
            ferry_runtime::user_namespace(proof, &ids, &ids)
        })
        .transpose()?;
    if rootfs.volatile {
        // Left by an earlier mount of this boot; an overlay refuses to be mounted over it.
        match std::fs::remove_dir_all(rootfs.work.join("work/incompat")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let overlay = Overlay {
        lower: &rootfs.layers,
        upper: Some(Upper {
            dir: &rootfs.upper,
            work: &rootfs.work,
        }),
        volatile: rootfs.volatile,
        idmap: user_namespace.as_ref().map(OwnedFd::as_fd),
    };
    let root = overlay.mount(proof).map_err(failed)?;
    Ok((root, user_namespace))
}

/// Gives the daemon the new network namespace and waits until it is set up.
pub(super) fn hand_over_network(daemon: &OwnedFd, child: &Child) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::setup("set up the network", &error);
    let path = format!("/proc/{}/ns/net", child.pid.as_raw_nonzero());
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    wire::send(daemon, &Message::Network, &[namespace.as_fd()]).map_err(failed)?;
    let mut buffer = vec![0; packet::MAX];
    match wire::receive::<Call>(daemon, &mut buffer).map_err(failed)? {
        Some((
            Call {
                request: Request::NetworkReady(Ok(())),
                ..
            },
            _,
        )) => Ok(()),
        Some((
            Call {
                request: Request::NetworkReady(Err(reason)),
                ..
            },
            _,
        )) => Err(Failure::new(Kind::Setup, reason)),
        _ => Err(Failure::new(
            Kind::Setup,
            "the daemon gave up while it set up the network",
        )),
    }
}

/// Takes the container's run directory for this shim, and for no other one, for as long as the descriptor is open.
///
/// Fails if the daemon is gone by then: the next one may have buried the container already, or started it anew. One that
/// finds the directory locked waits for the socket instead.
pub(super) fn claim(run_dir: &Path, daemon: &OwnedFd) -> Result<OwnedFd, Failure> {
    let failed = |error: io::Error| Failure::setup("take the container's run directory", &error);
    let begin = Instant::now();
    let dir = loop {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            // Removed, and perhaps made again, since it was opened.
            Ok(()) if !is_at(&dir, run_dir) => {}
            Ok(()) => break dir,
            // The shim of the run before is about to end.
            Err(Errno::WOULDBLOCK) if begin.elapsed() < HANDOVER => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(failed(error.into())),
        }
    };
    let mut fds = [PollFd::new(daemon, PollFlags::RDHUP)];
    let now = rustix::event::Timespec::default();
    poll(&mut fds, Some(&now)).map_err(|error| failed(error.into()))?;
    if fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP) {
        return Err(Failure::new(
            Kind::Setup,
            "the daemon that asked for this start is gone",
        ));
    }
    Ok(dir)
}

fn is_at(dir: &OwnedFd, path: &Path) -> bool {
    let own = rustix::fs::fstat(dir);
    let there = rustix::fs::stat(path);
    matches!((own, there), (Ok(own), Ok(there)) if own.st_ino == there.st_ino && own.st_dev == there.st_dev)
}

/// A socket for the next daemon. Bound through the directory's descriptor, since a socket's path is at most 107 bytes.
pub(super) fn listen(run_dir: &Path) -> io::Result<OwnedFd> {
    let address = socket_address(run_dir)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match std::fs::remove_file(run_dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    rustix::net::bind(&socket, &address.0)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

/// The address of the shim's socket, and the directory's descriptor it goes through, to be held while it is used.
pub(crate) fn socket_address(run_dir: &Path) -> io::Result<(SocketAddrUnix, OwnedFd)> {
    use std::os::fd::AsRawFd as _;
    let dir = rustix::fs::open(
        run_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    Ok((SocketAddrUnix::new(path)?, dir))
}
