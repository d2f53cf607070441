//! The guest's disk: an ext4 image of a directory, with the programs that the tests call, and the tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::shell;

/// Of this machine, with the libraries they are linked with; all else is busybox. Its shell would run its own applets
/// whatever is on the PATH.
const PROGRAMS: [&str; 18] = [
    "df",
    "du",
    "find",
    "gzip",
    "ip",
    "mkfs.ext4",
    "mount",
    "nft",
    "nsenter",
    "setpriv",
    "setsid",
    "sh",
    "sha256sum",
    "tar",
    "tc",
    "umount",
    "unshare",
    "xz",
];

/// The guest runs its list of tests, then it is switched off whatever came of them.
const INITTAB: &str = "::sysinit:/vm/guest vm-guest\n::wait:/bin/busybox poweroff -f\n";

/// Sparse: what is not written is not there.
const SIZE: &str = "3G";

/// A directory that becomes a disk.
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// A fresh directory with a small system in it.
    pub fn new(root: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(root);
        let disk = Self { root: root.to_owned() };
        for dir in [
            "dev",
            "etc",
            "proc",
            "root",
            "run",
            "sys",
            "tmp",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "var/lib",
            "var/tmp",
            "vm",
        ] {
            fs::create_dir_all(root.join(dir)).with_context(|| format!("create {dir}"))?;
        }
        for (name, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/bin"),
            ("usr/sbin", "bin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            symlink(target, root.join(name))?;
        }
        for (name, text) in [
            ("etc/inittab", INITTAB),
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            ),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("etc/hosts", "127.0.0.1 localhost\n"),
            (
                "etc/protocols",
                "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n",
            ),
            ("etc/resolv.conf", "nameserver 192.0.2.53\n"),
        ] {
            disk.write(name, text)?;
        }
        disk.programs()?;
        Ok(disk)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.root.join(name), text).with_context(|| format!("write {name}"))
    }

    /// A program of ours, which is static, without what only a debugger reads.
    pub fn add(&self, program: &Path, name: &str) -> Result<()> {
        let target = self.root.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut strip = Command::new("strip");
        strip.args(["--strip-debug", "-o"]).arg(&target).arg(program);
        shell::output(&mut strip).map(drop)
    }

    /// A program of this machine's.
    pub fn add_with_libraries(&self, program: &Path, name: &str) -> Result<()> {
        self.copy(program, name)?;
        for library in shared_libraries(program)? {
            self.copy(Path::new(&library), library.trim_start_matches('/'))?;
        }
        Ok(())
    }

    pub fn copy(&self, file: &Path, name: &str) -> Result<()> {
        let target = self.root.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if !target.exists() {
            fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
        }
        Ok(())
    }

    /// Makes the image.
    pub fn finish(self, image: &Path) -> Result<()> {
        let _ = fs::remove_file(image);
        let mut make = Command::new("/sbin/mke2fs");
        make.args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "root_owner=0:0",
            "-d",
        ]);
        shell::output(make.arg(&self.root).arg(image).arg(SIZE))?;
        fs::remove_dir_all(&self.root).with_context(|| format!("remove {}", self.root.display()))
    }

    fn programs(&self) -> Result<()> {
        let bin = self.root.join("usr/bin");
        fs::copy("/bin/busybox", bin.join("busybox")).context("copy busybox")?;
        for program in PROGRAMS {
            let path = shell::find(program).ok_or_else(|| anyhow!("there is no program {program}"))?;
            self.add_with_libraries(&path, &format!("usr/bin/{program}"))?;
        }
        let applets = shell::output(Command::new("/bin/busybox").arg("--list"))?;
        for applet in applets.lines() {
            let link = bin.join(applet);
            if !link.exists() {
                symlink("busybox", &link).with_context(|| format!("link {applet}"))?;
            }
        }
        Ok(())
    }
}

/// The absolute paths in what ldd prints: `libc.so.6 => /lib/… (0x…)`, and the loader without an arrow.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    let text = shell::output(Command::new("ldd").arg(program))?;
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(str::to_owned).collect())
}
