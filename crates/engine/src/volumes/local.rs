//! The options of the driver `local`: what mount(8) takes as `-t TYPE -o OPTIONS DEVICE`, done by mount(2).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Error, Kind, Result};

/// What is mounted on a volume's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device<'a> {
    pub kind: &'a str,
    pub device: &'a str,
    pub options: &'a str,
}

/// In Docker's order and words.
pub(super) fn check(name: &str, options: &BTreeMap<String, String>) -> Result<()> {
    let invalid = |why: String| Err(Error::invalid(format!("create {name}: {why}")));
    if let Some(unknown) = options
        .keys()
        .find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
    {
        return invalid(format!("invalid option: {unknown:?}"));
    }
    if options.contains_key("size") {
        return invalid("quota size requested but no quota support".to_owned());
    }
    for (option, needs) in [
        ("device", &["type"][..]),
        ("type", &["device"]),
        ("o", &["device", "type"]),
    ] {
        let missing = needs.iter().find(|need| !options.contains_key(**need));
        if let (true, Some(missing)) = (options.contains_key(option), missing) {
            return invalid(format!("missing required option: {missing:?}"));
        }
    }
    if options.values().any(|value| value.contains('\0')) {
        return invalid("an option has a NUL byte in it".to_owned());
    }
    Ok(())
}

impl<'a> Device<'a> {
    pub fn of(options: &'a BTreeMap<String, String>) -> Option<Self> {
        let text = |key: &str| options.get(key).map_or("", String::as_str);
        let device = Self {
            kind: text("type"),
            device: text("device"),
            options: text("o"),
        };
        (!device.kind.is_empty() || !device.device.is_empty()).then_some(device)
    }

    /// The host name in `addr=`, which the kernel does not resolve.
    pub fn host(&self) -> Option<&'a str> {
        if !matches!(self.kind, "nfs" | "nfs4" | "cifs") {
            return None;
        }
        let address = self
            .options
            .split(',')
            .find_map(|option| option.strip_prefix("addr="))?;
        let is_address = address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        (!address.is_empty() && !is_address).then_some(address)
    }

    /// Mounts it at `path`, with `address` in place of the host's name. Blocks, for as long as a server takes to answer.
    pub fn mount(&self, path: &Path, address: Option<std::net::IpAddr>) -> Result<()> {
        let fail = |why: &dyn std::fmt::Display| {
            Err(Error::new(
                Kind::Internal,
                format!("error while mounting volume '{}': {why}", path.display()),
            ))
        };
        if self.device.is_empty() {
            return fail(&"missing device in volume options");
        }
        let mut options = self.options.to_owned();
        if let (Some(host), Some(address)) = (self.host(), address) {
            let resolved = |option: &str| match option.strip_prefix("addr=") {
                Some(name) if name == host => format!("addr={address}"),
                _ => option.to_owned(),
            };
            options = options.split(',').map(resolved).collect::<Vec<_>>().join(",");
        }
        let (flags, data) = split(&options);
        match self.do_mount(path, flags, &data) {
            Ok(()) => Ok(()),
            Err(error) => {
                let mut what = format!("failed to mount local volume: mount {}:{}", self.device, path.display());
                if !flags.is_empty() {
                    what.push_str(&format!(", flags: {:#x}", flags.bits()));
                }
                if !data.is_empty() {
                    what.push_str(&format!(", data: {}", without_secrets(&data)));
                }
                fail(&format!("{what}: {}", reason(&error)))
            }
        }
    }

    fn do_mount(&self, path: &Path, flags: MountFlags, data: &str) -> io::Result<()> {
        let data = CString::new(data)?;
        if !flags.contains(MountFlags::BIND) {
            return Ok(rustix::mount::mount(self.device, path, self.kind, flags, &*data)?);
        }
        let tree = flags & (MountFlags::BIND | MountFlags::REC);
        rustix::mount::mount(self.device, path, "", tree, c"")?;
        // What a bind mount is besides takes a second call.
        let more = flags - tree;
        if more.is_empty() {
            return Ok(());
        }
        let done = rustix::mount::mount_remount(path, more | MountFlags::BIND, c"");
        if done.is_err() {
            let _ = unmount(path);
        }
        Ok(done?)
    }

    /// Whether a mount of that type is one of this device's.
    pub fn is_of_type(&self, kind: &str) -> bool {
        let bind = split(self.options).0.contains(MountFlags::BIND);
        bind || kind == self.kind || (self.kind == "nfs" && kind == "nfs4")
    }
}

/// What is in use on the host is let go of and vanishes later: no mount stays behind a volume that nobody uses.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => Ok(rustix::mount::unmount(
            path,
            UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        )?),
        done => Ok(done?),
    }
}

/// Whether something is mounted at `path` (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::TYPE)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().collect::<String>() + chars.as_str())
        .unwrap_or_default()
}

/// Options of mount(8) as flags, and what is left for the file system.
fn split(options: &str) -> (MountFlags, String) {
    let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (set, flag) = match option {
            "defaults" => continue,
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "bind" => (true, MountFlags::BIND),
            "rbind" => (true, MountFlags::BIND | MountFlags::REC),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "diratime" => (false, MountFlags::NODIRATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "norelatime" => (false, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            "nostrictatime" => (false, MountFlags::STRICTATIME),
            // A password may have a comma in it only in a file of credentials.
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, set);
    }
    (flags, data.join(","))
}

fn without_secrets(data: &str) -> String {
    let hide = |option: &str| match option.split_once('=') {
        Some((key @ ("password" | "pass" | "password2"), _)) => format!("{key}=********"),
        _ => option.to_owned(),
    };
    data.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let why = |pairs: &[(&str, &str)]| check("vv", &options(pairs)).map_err(|error| error.message);
        assert_eq!(why(&[]), Ok(()));
        assert_eq!(why(&[("foo", "")]), Err("create vv: invalid option: \"foo\"".into()));
        for (pairs, missing) in [
            (&[("type", "tmpfs")][..], "device"),
            (&[("device", "tmpfs")], "type"),
            (&[("o", "ro")], "device"),
        ] {
            let text = format!("create vv: missing required option: {missing:?}");
            assert_eq!(why(pairs), Err(text));
        }
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let (flags, data) = split("bind,ro,size=1m,,uid=5,rw,noexec");
        assert_eq!(flags, MountFlags::BIND | MountFlags::NOEXEC);
        assert_eq!(data, "size=1m,uid=5");
        assert_eq!(without_secrets("user=a,password=b"), "user=a,password=********");
    }

    #[test]
    fn only_a_servers_name_is_resolved() {
        let host = |kind: &str, o: &str| {
            let options = options(&[("type", kind), ("device", ":/x"), ("o", o)]);
            Device::of(&options).unwrap().host().map(str::to_owned)
        };
        assert_eq!(host("nfs", "rw,addr=files.example"), Some("files.example".into()));
        assert_eq!(host("nfs", "addr=10.0.0.1"), None);
        assert_eq!(host("nfs", "addr=::1"), None);
        assert_eq!(host("tmpfs", "addr=files.example"), None);
    }
}
