//! A container to attack with: a root file system with nothing in it but the probe, and a configuration as Docker's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
#[cfg(test)]
use serde_json::json;

use crate::call::{self, Ended};
use crate::error::{During as _, Error, Result};
use crate::lab::Lab;

/// Docker's fourteen.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// moby's `defaultLinuxMaskedPaths` and `defaultLinuxReadonlyPaths` (28.5.2).
pub(crate) const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub(crate) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A bundle and its container.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    lab: &'a Lab,
    pub dir: PathBuf,
    pub id: String,
    pub spec: Value,
}

impl<'a> Bundle<'a> {
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let id = lab.fresh("c");
        let dir = lab.dir.join(&id);
        let rootfs = dir.join("rootfs");
        for name in ["etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(name)).during(|| "make a root file system")?;
        }
        fs::hard_link(lab.dir.join("probe"), rootfs.join("probe")).during(|| "link the probe")?;
        let cgroup = format!("/{}/{id}", lab.mark);
        let spec = plain()?;
        let bundle = Self { lab, dir, id, spec };
        Ok(bundle
            .with("linux.cgroupsPath", cgroup.into())
            .capabilities(&CAPABILITIES))
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Writes a file of the image.
    pub fn file(&self, path: &str, content: &str) -> Result<()> {
        let path = self.rootfs().join(path);
        fs::write(&path, content).during(|| format!("write {}", path.display()))
    }

    /// Puts a link in the place of whatever the image has there.
    pub fn link(&self, path: &str, target: impl AsRef<Path>) -> Result<()> {
        let path = self.rootfs().join(path);
        let _ = fs::remove_dir(&path);
        symlink(target, &path).during(|| format!("link {}", path.display()))
    }

    /// Sets a member of the configuration, by its path.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.spec;
        for key in pointer.split('.') {
            place = &mut place[key];
        }
        *place = value;
        self
    }

    /// What the container's root may do.
    #[must_use]
    pub fn capabilities(mut self, list: &[&str]) -> Self {
        for set in ["bounding", "effective", "permitted"] {
            self.spec["process"]["capabilities"][set] = list.into();
        }
        self
    }

    /// The probe may mount a /proc of its own, to see what is really there.
    #[must_use]
    pub fn may_mount(self) -> Self {
        let list: Vec<&str> = CAPABILITIES.iter().chain(&["CAP_SYS_ADMIN"]).copied().collect();
        self.capabilities(&list)
    }

    /// Adds a mount after the others; the options are a list with commas.
    #[must_use]
    pub fn mount(mut self, kind: &str, source: &Path, target: &str, options: &str) -> Self {
        let mut mount = Value::default();
        mount["destination"] = target.into();
        mount["type"] = kind.into();
        mount["source"] = source.to_string_lossy().into();
        mount["options"] = options.split_terminator(',').collect();
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        self
    }

    #[must_use]
    pub fn tmpfs(self, target: &str) -> Self {
        self.mount("tmpfs", Path::new("tmpfs"), target, "")
    }

    /// Adds a bind mount of a path of the lab.
    #[must_use]
    pub fn bind(self, source: &Path, target: &str) -> Self {
        self.mount("bind", source, target, "rbind,rw")
    }

    /// Leaves out the mounts at `target` and below.
    #[must_use]
    pub fn without(mut self, target: &str) -> Self {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.retain(|mount| {
                let path = mount["destination"].as_str().unwrap_or_default();
                !Path::new(path).starts_with(target)
            });
        }
        self
    }

    /// Adds a namespace.
    #[must_use]
    pub fn namespace(mut self, kind: &str) -> Self {
        if let Some(namespaces) = self.spec["linux"]["namespaces"].as_array_mut() {
            let mut namespace = Value::default();
            namespace["type"] = kind.into();
            namespaces.push(namespace);
        }
        self
    }

    /// What the probe does in the container.
    fn write(&mut self, steps: &[&str]) -> Result<()> {
        let args: Vec<&str> = ["/probe", "probe"].iter().chain(steps).copied().collect();
        self.spec["process"]["args"] = args.into();
        fs::write(self.dir.join("config.json"), self.spec.to_string()).during(|| "write a configuration")
    }

    /// Runs the container to its end.
    pub fn run(&mut self, steps: &[&str]) -> Result<Ended> {
        self.run_with(&[], steps)
    }

    pub fn run_with(&mut self, flags: &[&str], steps: &[&str]) -> Result<Ended> {
        self.write(steps)?;
        let bundle = self.dir.display().to_string();
        let args: Vec<&str> = ["run", "--bundle", &bundle]
            .iter()
            .chain(flags)
            .copied()
            .chain([self.id.as_str()])
            .collect();
        let ended = call::runtime(self.lab, &args);
        // Of one that was cut off there may be something left, and the next one has the same name.
        if !matches!(&ended, Ok(ended) if ended.ran()) {
            self.delete();
        }
        ended
    }

    /// Runs a container that has to run.
    pub fn must_run(&mut self, steps: &[&str]) -> Result<Ended> {
        self.run(steps)?.must()
    }

    /// Runs the container and measures the runtime; with `instead`, a program in its place that takes too much.
    pub fn run_measured(&mut self, instead: bool) -> Result<Ended> {
        self.write(&["ids"])?;
        let bundle = self.dir.display().to_string();
        let probe = self.lab.dir.join("probe");
        let args = ["run", "--bundle", &bundle, &self.id];
        let mut line: Vec<&OsStr> = vec![probe.as_ref(), "probe".as_ref(), "measure".as_ref()];
        if instead {
            line.extend([probe.as_ref(), "probe".as_ref(), "hog".as_ref()] as [&OsStr; 3]);
        } else {
            line.extend(call::runtime_line(self.lab, &args));
        }
        let ended = call::run(self.lab, &line)?;
        self.delete();
        Ok(ended)
    }

    /// Starts the container, to be executed in.
    pub fn up(&mut self, steps: &[&str]) -> Result<()> {
        self.write(steps)?;
        let bundle = self.dir.display().to_string();
        for args in [&["create", "--bundle", &bundle, &self.id][..], &["start", &self.id][..]] {
            let ended = call::runtime(self.lab, args)?;
            if ended.code != 0 {
                return Err(Error::NotRun { said: ended.said() });
            }
        }
        Ok(())
    }

    /// Another process in the container, with flags of `exec`.
    pub fn exec(&self, flags: &[&str], steps: &[&str]) -> Result<Ended> {
        let args: Vec<&str> = ["exec"]
            .iter()
            .chain(flags)
            .copied()
            .chain([self.id.as_str(), "/probe", "probe"])
            .chain(steps.iter().copied())
            .collect();
        call::runtime(self.lab, &args)
    }

    /// The same by another name of the probe's.
    pub fn exec_with(&self, probe: &str, steps: &[&str]) -> Result<Ended> {
        let mut args = vec!["exec", &self.id, probe, "probe"];
        args.extend(steps);
        call::runtime(self.lab, &args)
    }

    /// The same with another program.
    pub fn exec_program(&self, program: &str) -> Result<Ended> {
        call::runtime(self.lab, &["exec", &self.id, program])
    }

    fn delete(&self) {
        let _ = call::runtime(self.lab, &["delete", "--force", &self.id]);
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        if Path::new(self.lab.state()).join(&self.id).exists() {
            self.delete();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// As Docker's engine writes it, as far as attacks need it.
fn plain() -> Result<Value> {
    serde_json::from_str(include_str!("bundle/plain.json"))
        .map_err(std::io::Error::from)
        .during(|| "read the plain configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_configuration_hides_what_docker_hides() {
        let spec = plain().unwrap();
        assert_eq!(spec["linux"]["maskedPaths"], json!(MASKED));
        assert_eq!(spec["linux"]["readonlyPaths"], json!(READONLY));
    }
}
