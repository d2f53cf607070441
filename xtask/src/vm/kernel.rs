//! Debian 12's cloud kernel: fetched once, unpacked below `target/tools/kernel`, and its modules put into an initramfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::cpio::Cpio;
use crate::apt::Apt;

const SUITE: &str = "bookworm";
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What Ferry and its tests need of what this kernel has as modules; what these depend on comes along.
const MODULES: [&str; 33] = [
    "virtio_pci",
    "virtio_blk",
    "8021q",
    "act_mirred",
    "br_netfilter",
    "bridge",
    "cls_u32",
    "dummy",
    "ifb",
    "inet_diag",
    "ipvlan",
    "loop",
    "macvlan",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "overlay",
    "sch_htb",
    "sch_ingress",
    "sch_tbf",
    "sctp_diag",
    "tcp_diag",
    "tun",
    "udp_diag",
    "veth",
];

/// The disk's driver, then the disk; all that follows is on it.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /sys /disk
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module || echo \"cannot load $module\"
done
/bin/busybox mount -t ext4 -o noatime,noinit_itable,nobarrier /dev/vda /disk || exit 1
for dir in proc dev sys; do /bin/busybox mount --move /$dir /disk/$dir; done
exec /bin/busybox switch_root /disk /sbin/init
";

pub struct Kernel {
    pub image: PathBuf,
    /// `lib/modules/<version>`
    modules: PathBuf,
}

impl Kernel {
    /// The kernel that is there, or a fresh one from Debian's mirror.
    pub fn fetch(tools: &Path) -> Result<Self> {
        let dir = tools.join("kernel");
        if let Ok(kernel) = Self::find(&dir) {
            return Ok(kernel);
        }
        let lists = tools.join("apt").join(SUITE);
        let fresh = tools.join("kernel.new");
        let _ = fs::remove_dir_all(&fresh);
        let apt = Apt::update(&lists, SUITE)?;
        let dependencies = apt.dependencies(PACKAGE)?;
        let package = dependencies
            .iter()
            .find(|name| name.starts_with("linux-image-"))
            .ok_or_else(|| anyhow!("{PACKAGE} names no kernel"))?;
        apt.unpack(package, &fresh)?;
        fs::rename(&fresh, &dir).context("put the kernel in place")?;
        fs::remove_dir_all(&lists).context("remove the package lists")?;
        Self::find(&dir)
    }

    fn find(dir: &Path) -> Result<Self> {
        let modules = only_entry(&dir.join("lib/modules"))?;
        let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = dir.join(format!("boot/vmlinuz-{version}"));
        fs::metadata(&image).with_context(|| format!("find {}", image.display()))?;
        Ok(Self { image, modules })
    }

    /// The version, as `uname -r` prints it.
    pub fn version(&self) -> String {
        self.modules
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// An initramfs of busybox, the modules, and a script that mounts the disk.
    pub fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Cpio::default();
        for dir in ["bin", "dev", "modules"] {
            archive.directory(dir);
        }
        // What the kernel opens as the first process's standard streams.
        archive.character_device("dev/console", 5, 1);
        archive.file("bin/busybox", 0o755, &fs::read("/bin/busybox").context("read busybox")?);
        archive.file("init", 0o755, INIT.as_bytes());
        let mut order = String::new();
        for (name, content) in self.ordered_modules()? {
            archive.file(&format!("modules/{name}.ko"), 0o644, &content);
            order.push_str(&format!("{name}.ko\n"));
        }
        archive.file("modules/order", 0o644, order.as_bytes());
        Ok(archive.finish())
    }

    /// Each module after those it depends on.
    fn ordered_modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut paths = BTreeMap::new();
        find_modules(&self.modules.join("kernel"), &mut paths)?;
        let builtin = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        let mut done = Vec::new();
        for name in MODULES {
            if !builtin.lines().any(|line| line.ends_with(&format!("/{name}.ko"))) {
                add(name, &paths, &mut done)?;
            }
        }
        Ok(done)
    }
}

fn add(name: &str, paths: &BTreeMap<String, PathBuf>, done: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if done.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let path = paths
        .get(name)
        .ok_or_else(|| anyhow!("the kernel has no module {name}"))?;
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    for dependency in dependencies(&content) {
        add(&dependency, paths, done)?;
    }
    done.push((name.to_owned(), content));
    Ok(())
}

/// The module's own word, a `depends=a,b` in its section .modinfo: there is no modules.dep before an installation.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value: Vec<u8> = module
        .iter()
        .skip(at + KEY.len())
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    let value = String::from_utf8_lossy(&value);
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn find_modules(dir: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_modules(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            paths.insert(name, path);
        }
    }
    Ok(())
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let entry = entries.next().ok_or_else(|| anyhow!("{} is empty", dir.display()))?;
    Ok(entry?.path())
}

#[cfg(test)]
mod tests {
    #[test]
    fn dependencies_are_read_from_the_module() {
        let module = b"ELF\0license=GPL\0depends=nf-tables,nft_fib\0retpoline=Y\0";
        assert_eq!(super::dependencies(module), ["nf_tables", "nft_fib"]);
        assert!(super::dependencies(b"\0depends=\0").is_empty());
    }
}
