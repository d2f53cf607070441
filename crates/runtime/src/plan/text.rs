//! A plan in words, a step a line: what tests compare and `--debug` shows.

use std::fmt::{self, Display, Formatter};

use super::{Plan, Source, User};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let spaces = &self.namespaces;
        writeln!(
            f,
            "clone {:#x}{}",
            spaces.create,
            if spaces.cgroup { " then cgroup" } else { "" }
        )?;
        for (flag, path) in &spaces.join {
            writeln!(f, "join {flag:#x} {}", path.display())?;
        }
        for (inside, outside, count) in &spaces.uids {
            writeln!(f, "uids {inside} {outside} {count}")?;
        }
        for mount in &self.mounts {
            write!(f, "mount {} ", mount.target.display())?;
            match &mount.source {
                Source::New { kind, options } => {
                    write!(f, "{kind}")?;
                    for (key, value) in options {
                        write!(f, " {key}{}{value}", if value.is_empty() { "" } else { "=" })?;
                    }
                }
                Source::Bind { path, recursive } => {
                    write!(f, "{} {}", if *recursive { "rbind" } else { "bind" }, path.display())?;
                    if !mount.subpath.as_os_str().is_empty() {
                        write!(f, " below it {}", mount.subpath.display())?;
                    }
                }
                Source::Layers { layers, upper } => {
                    write!(f, "layers")?;
                    for layer in layers {
                        write!(f, " {}", layer.display())?;
                    }
                    if let Some(upper) = upper {
                        write!(f, " under {}", upper.dir.display())?;
                    }
                    if !mount.subpath.as_os_str().is_empty() {
                        write!(f, " below them {}", mount.subpath.display())?;
                    }
                }
                Source::Cgroup => write!(f, "cgroup")?,
            }
            writeln!(f, " +{:#x} -{:#x}", mount.attributes.set, mount.attributes.clear)?;
        }
        for device in &self.devices {
            let (path, kind) = (device.path.display(), device.kind);
            writeln!(
                f,
                "device {path} {kind} {}:{} {:o}",
                device.major, device.minor, device.mode
            )?;
        }
        for path in &self.masked {
            writeln!(f, "mask {}", path.display())?;
        }
        for path in &self.readonly {
            writeln!(f, "readonly {}", path.display())?;
        }
        for (key, value) in &self.sysctls {
            writeln!(f, "sysctl {key}={value}")?;
        }
        if self.readonly_root {
            writeln!(f, "readonly /")?;
        }
        let process = &self.process;
        match &process.user {
            User::Ids { uid, gid, groups } => writeln!(f, "user {uid}:{gid} {groups:?}")?,
            User::Named { user, groups } => writeln!(f, "user {user:?} {groups:?}")?,
        }
        let caps = &process.capabilities;
        let sets = [
            caps.bounding,
            caps.effective,
            caps.permitted,
            caps.inheritable,
            caps.ambient,
        ];
        writeln!(
            f,
            "capabilities {sets:x?}{}",
            if process.no_new_privileges {
                " no-new-privileges"
            } else {
                ""
            }
        )?;
        for limit in &process.rlimits {
            writeln!(f, "rlimit {} {} {}", limit.name, limit.soft, limit.hard)?;
        }
        writeln!(
            f,
            "exec {:?} in {}{}",
            process.args,
            process.cwd.display(),
            if process.init { " under init" } else { "" }
        )
    }
}
