//! Images made on the spot: there is no registry. Everything is deterministic: the same fixture has the same id on every
//! engine and in every run.

mod archive;
mod debian;
mod layer;

use std::process::Command;
use std::sync::OnceLock;

pub use archive::{Compression, Image, bomb, docker_archive, oci_archive, sha256, sha512, stretched};
pub use debian::{debian_root, debian_services};
pub use layer::Layer;

/// The reference of the image that nearly every test uses.
pub const BUSYBOX: &str = "busybox:latest";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
audio:x:29:app
app:x:1000:
extra:x:1001:app
nobody:x:65534:
";

/// Bytes that do not compress.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Debian's static busybox with a link for each applet, users and the usual directories.
pub fn busybox_layer() -> Layer {
    let binary = std::fs::read("/bin/busybox").expect("busybox-static is installed: `cargo xtask setup`");
    let output = Command::new("/bin/busybox").arg("--list").output().unwrap();
    let applets = String::from_utf8(output.stdout).unwrap();
    let mut layer = Layer::new();
    for dir in [
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "sys",
        "usr",
        "usr/bin",
        "usr/sbin",
        "var",
        "var/spool",
    ] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir_of("home/app", 0o755, (1000, 1000));
    layer = layer.file("bin/busybox", &binary, 0o755);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
        .file("etc/passwd", PASSWD.as_bytes(), 0o644)
        .file("etc/group", GROUP.as_bytes(), 0o644)
}

/// A root file system as `import` takes it.
pub fn busybox_tar() -> Vec<u8> {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| busybox_layer().finish()).clone()
}

/// The image `busybox:latest`.
pub fn busybox() -> Image {
    Image::new(BUSYBOX, vec![busybox_tar()]).config("Cmd", serde_json::json!(["sh"]))
}

/// `busybox:latest` as `load` takes it.
pub fn busybox_archive() -> Vec<u8> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| docker_archive(&[busybox()])).clone()
}

/// An image of one more layer above busybox.
pub fn above_busybox(reference: &str, layer: Layer) -> Image {
    Image::new(reference, vec![busybox_tar(), layer.finish()]).config("Cmd", serde_json::json!(["sh"]))
}
