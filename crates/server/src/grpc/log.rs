//! What happened in a build, in a file: read while it is written, and again later.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use ferry_buildkit::Message;
use ferry_buildkit::control::StatusResponse;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tokio::sync::watch;

/// Of one build. What processes print beyond it is not kept, and said so.
const MOST: u64 = 256 << 20;
const CUT: &[u8] = b"\n[output of this build is longer than ferry keeps]\n";
/// The length before a message.
const PREFIX: u64 = 4;

/// Any number of readers, each from the beginning.
#[derive(Debug)]
pub struct Log {
    file: File,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    length: u64,
    cut: bool,
    ended: bool,
}

impl Log {
    /// In a directory of the engine's, without a name.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self {
            file: rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?.into(),
            state: watch::Sender::new(State::default()),
        })
    }

    /// One that has ended.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let state = State {
            length: file.metadata()?.len(),
            ended: true,
            ..State::default()
        };
        Ok(Self {
            file,
            state: watch::Sender::new(state),
        })
    }

    /// Gives it a name, if it has none.
    pub fn link(&self, path: &Path) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.state.borrow().length
    }

    /// One writer at a time.
    pub fn add(&self, mut what: StatusResponse) {
        let state = *self.state.borrow();
        if state.length > MOST {
            what.logs.truncate(usize::from(!state.cut));
            for log in &mut what.logs {
                log.msg = CUT.into();
            }
        }
        let Ok(length) = u32::try_from(what.encoded_len()) else {
            return;
        };
        if length == 0 {
            return;
        }
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(what.encode_to_vec());
        if let Err(error) = self.file.write_all_at(&bytes, state.length) {
            tracing::warn!(%error, "cannot keep what happens in a build");
            return;
        }
        self.state.send_modify(|state| {
            state.length += bytes.len() as u64;
            state.cut = state.length > MOST;
        });
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// What comes after the first `position` bytes, which move on. `None`: nothing any more.
    pub async fn next(&self, position: &mut u64) -> Option<StatusResponse> {
        let mut state = self.state.subscribe();
        let state = state
            .wait_for(|state| state.ended || state.length > *position)
            .await
            .ok()?;
        if state.length <= *position {
            return None;
        }
        drop(state);
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, *position).ok()?;
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?];
        self.file.read_exact_at(&mut bytes, *position + PREFIX).ok()?;
        *position += PREFIX + bytes.len() as u64;
        StatusResponse::decode(&*bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_buildkit::control::VertexLog;

    fn log(text: &'static str) -> StatusResponse {
        let line = VertexLog {
            msg: text.into(),
            ..VertexLog::default()
        };
        StatusResponse {
            logs: vec![line],
            ..StatusResponse::default()
        }
    }

    #[tokio::test]
    async fn every_reader_gets_everything() {
        let dir = tempfile::tempdir().unwrap();
        let written = std::sync::Arc::new(Log::new(dir.path()).unwrap());
        written.add(log("a"));
        let reader = std::sync::Arc::clone(&written);
        let reading = tokio::spawn(async move {
            let (mut position, mut all) = (0, Vec::new());
            while let Some(status) = reader.next(&mut position).await {
                all.push(status.logs[0].msg.clone());
            }
            all
        });
        tokio::task::yield_now().await;
        written.add(log("b"));
        written.end();
        assert_eq!(reading.await.unwrap(), ["a", "b"]);
        assert_eq!(written.next(&mut 0).await, Some(log("a")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
