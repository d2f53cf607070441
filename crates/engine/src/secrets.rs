//! Secrets of containers: files in memory, seen below /run/secrets in the container, and nowhere else.
//!
//! ```text
//! <exec root>/secrets            a tmpfs of its own (without swap on Linux 6.4), mounted with the first secret, gone with the last
//!   <container's id>/<name>      bound read-only to /run/secrets
//! ```
//! They outlive the engine and the container's runs, and go with the container. They do not outlive the machine's: a container
//! that had some is then refused by name. The record has their names alone.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_api::container::Secret;
use ferry_runtime::plan::Mount;
use ferry_sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
use rustix::mount::UnmountFlags;

use crate::container::{Point, Record, bind};
use crate::error::{Error, Kind, Result, StartFailure};
use crate::world::{World, blocking};

/// Where a container sees them.
const TARGET: &str = "/run/secrets";
/// Bytes of one, as in Docker's swarms; how many a container may have.
const SIZE_MAX: usize = 500 * 1000;
const COUNT_MAX: usize = 128;
const MODE: u32 = 0o400;

/// What was given with a request, checked.
#[derive(Default)]
pub(crate) struct Given(Vec<File>);

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|file| &file.name)).finish()
    }
}

struct File {
    name: String,
    data: Vec<u8>,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Given {
    /// Adds a file of its own; its name.
    pub fn add(&mut self, data: Vec<u8>, uid: u32, gid: u32, mode: u32) -> String {
        let name = self.0.len().to_string();
        self.0.push(File {
            name: name.clone(),
            data,
            uid,
            gid,
            mode,
        });
        name
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|file| file.name.clone()).collect()
    }
}

/// Reads the secrets of a request. `user` is the container's, whose they are unless they say otherwise.
pub(crate) fn check(secrets: Vec<Secret>, user: &str, points: &[Point]) -> Result<Given> {
    if secrets.is_empty() {
        return Ok(Given::default());
    }
    if secrets.len() > COUNT_MAX {
        return Err(Error::invalid(format!("a container has at most {COUNT_MAX} secrets")));
    }
    if let Some(point) = points
        .iter()
        .find(|point| Path::new(&point.destination).starts_with(TARGET))
    {
        return Err(Error::invalid(format!(
            "secrets are shown at {TARGET}, where the mount at {} would be: mount that elsewhere",
            point.destination
        )));
    }
    let mut files: Vec<File> = Vec::new();
    for secret in secrets {
        let name = secret.name;
        let fail = |why: &str| Err(Error::invalid(format!("secret {name:?}: {why}")));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if name.is_empty() || name.len() > 64 || matches!(name.as_str(), "." | "..") || !name.bytes().all(plain) {
            return fail("a name has 1 to 64 letters, digits, dots, dashes and underscores");
        }
        if files.iter().any(|file| file.name == name) {
            return fail("there are two of that name");
        }
        let Ok(data) = STANDARD.decode(secret.data.0) else {
            return fail("its data is not base64");
        };
        if data.is_empty() || data.len() > SIZE_MAX {
            return fail(&format!("it has 1 to {SIZE_MAX} bytes, not {}", data.len()));
        }
        let mode = secret.mode.unwrap_or(MODE);
        if mode & !0o777 != 0 {
            return fail("its mode is more than 0777");
        }
        let Some((uid, gid)) = owner(user, secret.uid, secret.gid) else {
            return fail(&format!(
                "whose it is is not known, since the container's user {user:?} is a name that only its image knows: give uid="
            ));
        };
        if uid == u32::MAX || gid == u32::MAX {
            return fail("there is no such user or group");
        }
        files.push(File {
            name,
            data,
            uid,
            gid,
            mode,
        });
    }
    Ok(Given(files))
}

/// By number only: the image's own files are looked at when it starts.
fn owner(user: &str, uid: Option<u32>, gid: Option<u32>) -> Option<(u32, u32)> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    let number = |text: &str| match text {
        "" | "root" => Some(0),
        text => text.parse().ok(),
    };
    let uid = uid.or_else(|| number(name))?;
    // A group that is only a name: nobody but the user needs it.
    Some((uid, gid.or_else(|| number(group)).unwrap_or(0)))
}

/// What shows a container its secrets.
pub(crate) fn mount(record: &Record, world: &World) -> Option<Mount> {
    let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
    (!record.secrets.is_empty()).then(|| bind(TARGET, world.secrets.dir(&record.id), false, attributes))
}

#[derive(Debug)]
pub(crate) struct Secrets {
    root: Arc<Path>,
    /// Held while the tmpfs, or a container's directory, comes or goes.
    changes: Arc<tokio::sync::Mutex<()>>,
}

impl Secrets {
    pub fn new(exec_root: &Path) -> Self {
        Self {
            root: exec_root.join("secrets").into(),
            changes: Arc::default(),
        }
    }

    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Whether a container that had secrets still has them.
    pub fn are_there(&self, record: &Record) -> Result<()> {
        let dir = self.dir(&record.id);
        match record.secrets.iter().find(|name| !dir.join(name).exists()) {
            Some(name) => Err(Error::new(
                Kind::Start(StartFailure::Setup),
                format!(
                    "the secret {name:?} is gone: secrets are kept in memory only, and the machine was started anew; make the \
                     container again"
                ),
            )),
            None => Ok(()),
        }
    }

    pub async fn put(&self, record: &Record, given: Given) -> Result<()> {
        if given.0.is_empty() {
            return Ok(());
        }
        let guard = Arc::clone(&self.changes).lock_owned().await;
        let (root, dir) = (Arc::clone(&self.root), self.dir(&record.id));
        let first = record.ids.map_or(0, |ids| ids.start);
        let done = blocking("keep secrets", move || {
            let done = write(&root, &dir, &given, first);
            if done.is_err() {
                let _ = remove(&root, &dir);
            }
            drop(guard);
            done
        });
        done.await?
            .map_err(|error| Error::internal("keep the container's secrets in memory", &error))
    }

    /// Forgets those of a container.
    pub async fn remove(&self, id: &str) {
        let guard = Arc::clone(&self.changes).lock_owned().await;
        let (root, dir) = (Arc::clone(&self.root), self.dir(id));
        let done = tokio::task::spawn_blocking(move || {
            let done = remove(&root, &dir);
            drop(guard);
            done
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(container = id, %error, "cannot remove the container's secrets");
        }
    }

    /// Forgets those of containers that are not there, whose engine died on the way.
    pub async fn settle(&self, known: HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return;
        };
        for entry in entries.flatten() {
            if let Ok(id) = entry.file_name().into_string()
                && !known.contains(&id)
            {
                self.remove(&id).await;
            }
        }
    }
}

fn write(root: &Path, dir: &Path, given: &Given, first: u32) -> io::Result<()> {
    if !is_mounted(root) {
        mount_memory(root)?;
    }
    // Nobody but root reaches it on the host; in the container everybody may see what there is.
    std::fs::DirBuilder::new().mode(0o755).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    for file in &given.0 {
        let path = dir.join(&file.name);
        let mut options = std::fs::OpenOptions::new();
        let mut made = options.write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut made, &file.data)?;
        let beyond = || io::Error::other("its owner is beyond the container's ids");
        let uid = first.checked_add(file.uid).ok_or_else(beyond)?;
        let gid = first.checked_add(file.gid).ok_or_else(beyond)?;
        std::os::unix::fs::fchown(&made, Some(uid), Some(gid))?;
        made.set_permissions(std::fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn is_mounted(root: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|data| data.dev());
    matches!((device(root), root.parent().map(device)), (Ok(own), Some(Ok(above))) if own != above)
}

fn mount_memory(root: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let options = [("source", "ferry-secrets"), ("mode", "700"), ("size", "64m")];
    let flags = NOSUID | NODEV | NOEXEC;
    let unswapped = options.into_iter().chain([("noswap", "")]).collect::<Vec<_>>();
    let mount = ferry_sys::Mount::new("tmpfs", &unswapped, flags)
        .or_else(|_| ferry_sys::Mount::new("tmpfs", &options, flags))?;
    let place = rustix::fs::open(
        root,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    mount.attach(std::os::fd::AsFd::as_fd(&place))
}

fn remove(root: &Path, dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let empty = |root: &Path| std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
    if is_mounted(root) && empty(root) {
        rustix::mount::unmount(root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        std::fs::remove_dir(root)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ferry_api::container::SecretData;
    use ferry_api::volume::MountPoint;

    use super::*;

    fn named(name: &str) -> Secret {
        Secret {
            name: name.to_owned(),
            data: SecretData("eA==".to_owned()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_belongs_to_the_containers_user() {
        for (user, uid, gid, expected) in [
            ("", None, None, Some((0, 0))),
            ("root", None, None, Some((0, 0))),
            ("1000", None, None, Some((1000, 0))),
            ("1000:50", None, None, Some((1000, 50))),
            ("1000:staff", None, None, Some((1000, 0))),
            ("www", Some(33), None, Some((33, 0))),
            ("5", Some(6), Some(7), Some((6, 7))),
            ("www", None, None, None),
        ] {
            assert_eq!(owner(user, uid, gid), expected, "{user}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for name in ["", ".", "..", "a/b", "a b", &"x".repeat(65), "ä"] {
            assert!(check(vec![named(name)], "", &[]).is_err(), "{name}");
        }
        assert!(check(vec![named("a"), named("a")], "", &[]).is_err());
        let mut wrong = named("a");
        wrong.data = SecretData("*".to_owned());
        assert!(check(vec![wrong], "", &[]).is_err());
        let mut wrong = named("a");
        wrong.mode = Some(0o4400);
        assert!(check(vec![wrong], "", &[]).is_err());
        let at = |destination: &str| {
            Point::from(MountPoint {
                destination: destination.to_owned(),
                ..MountPoint::default()
            })
        };
        assert!(check(vec![named("a")], "", &[at("/run/secrets/a")]).is_err());
        assert_eq!(check(vec![named("a")], "", &[at("/run")]).unwrap().names(), ["a"]);
    }

    #[test]
    fn no_log_prints_a_secret() {
        assert!(!format!("{:?}", named("a")).contains("eA=="));
    }
}
