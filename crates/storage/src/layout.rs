//! Where things lie below the data root, and who may look at them.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_image::Digest;
use ferry_sys::Root;

use crate::error::Context as _;
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    /// Makes what is missing. Nothing below the data root can be listed or entered by anybody but root and its group.
    pub fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o710)
            .create(&self.root)
            .at("make the directory", &self.root)?;
        std::fs::set_permissions(&self.root, Permissions::from_mode(0o710)).at("change the mode of", &self.root)?;
        for (path, mode) in [
            (self.blobs(), 0o700),
            (self.layers(), 0o710),
            (self.containers(), 0o710),
            (self.volumes(), 0o710),
            (self.ingest(), 0o700),
            (self.tmp(), 0o700),
            (self.empty(), 0o755),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .at("make the directory", &path)?;
        }
        Ok(())
    }

    pub fn db(&self) -> PathBuf {
        self.root.join("ferry.db")
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.encoded())
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer(&self, chain: &Digest) -> PathBuf {
        self.layers().join(chain.encoded())
    }

    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Fails for an id that is no plain file name.
    pub fn container(&self, id: &str) -> Result<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
            return Err(Error::Invalid(format!("invalid container id {id:?}")));
        }
        Ok(self.containers().join(id))
    }

    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What a container of an image without layers lies on.
    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Parts of blobs on their way in.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A name in `tmp/` that nobody uses.
    pub fn fresh(&self) -> Result<PathBuf> {
        let mut bytes = [0_u8; 12];
        let tmp = self.tmp();
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).at("find a name in", &tmp)?;
        Ok(tmp.join(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    }
}

/// A directory in `tmp/` that disappears with everything in it when this is dropped.
#[derive(Debug)]
pub struct Staging {
    pub path: PathBuf,
}

impl Staging {
    pub fn new(layout: &Layout) -> Result<Self> {
        let path = layout.fresh()?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .at("make the directory", &path)?;
        Ok(Self { path })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        remove_soon(std::mem::take(&mut self.path));
    }
}

/// How often, and after how long each time, is tried again to remove what somebody still writes to: a process that was killed
/// and has not ended.
const AGAIN: (u32, Duration) = (100, Duration::from_millis(100));

/// Removes a tree of the engine's own, now or a little later.
pub fn remove_soon(path: PathBuf) {
    if remove_all(&path).is_ok() {
        return;
    }
    let again = move || {
        for _ in 0..AGAIN.0 {
            std::thread::sleep(AGAIN.1);
            if remove_all(&path).is_ok() {
                return;
            }
        }
        tracing::warn!(path = %path.display(), "cannot be removed: the next start will try");
    };
    let thread = std::thread::Builder::new().name("ferry-remove".to_owned());
    // What is left is swept at the next start.
    drop(thread.spawn(again));
}

/// Removes a tree of the engine's own, whose content somebody else chose.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    match Root::open(parent) {
        Ok(root) => root.remove_all(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a directory survive a power cut.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).at("sync", path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "FERRY_TEST_BUSY_DRAFT";

    /// Runs itself again in a mount namespace of its own, where something is mounted in the directory.
    #[test]
    fn root_what_cannot_be_removed_goes_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let draft = dir.path().join("draft");
        let script = "mkdir -p \"$1/busy\" && mount -t tmpfs none \"$1/busy\" && \
                      exec \"$0\" --exact layout::tests::child --ignored --nocapture";
        let output = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(&draft)
            .env(CHILD, &draft)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    #[test]
    #[ignore = "run by the test above, in a mount namespace of its own"]
    fn child() {
        let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else {
            return;
        };
        drop(Staging { path: path.clone() });
        assert!(path.exists());
        assert!(
            Command::new("umount")
                .arg(path.join("busy"))
                .status()
                .unwrap()
                .success()
        );
        for _ in 0..100 {
            if !path.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} is still there", path.display());
    }
}
