//! The archives: each tries one thing.

use std::path::Path;

use ferry_testkit::images::Layer;

/// Names and tars. `canary` is a directory of the host with `file` and `dir/file` in it.
pub fn archives(canary: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let to = canary.display().to_string();
    let up = format!("{}{to}", "../".repeat(12).trim_end_matches('/'));
    let mut all = names(&to, &up);
    all.extend(links(&to, &up));
    all.extend(whiteouts(&to, &up));
    all.extend(records(&to, &up));
    all.extend(headers());
    all.into_iter().map(|(name, layer)| (name, layer.finish())).collect()
}

type Archives = Vec<(&'static str, Layer)>;

fn new() -> Layer {
    Layer::new()
}

fn names(to: &str, up: &str) -> Archives {
    vec![
        ("absolute", new().file(&format!("{to}/new"), b"x", 0o644)),
        ("absolute over a file", new().file(&format!("{to}/file"), b"x", 0o644)),
        ("up", new().file(&format!("{up}/new"), b"x", 0o644)),
        ("down and up", new().file(&format!("a/b/../../{up}/new"), b"x", 0o644)),
        ("dots", new().file(&format!("./{up}/new"), b"x", 0o644)),
        ("slashes", new().file(&format!("//..//..//..//..{to}/new"), b"x", 0o644)),
        ("a directory up", new().dir(&format!("{up}/dir"), 0o777)),
        ("the parent", new().dir("..", 0o777)),
        ("the parent's parent", new().dir("a/../..", 0o777)),
        (
            "backslashes",
            new().file("..\\..\\new", b"x", 0o644).file("C:\\new", b"x", 0o644),
        ),
        ("the root as a file", new().file("/", b"x", 0o644)),
        ("the root as a link", new().symlink(".", to).file("new", b"x", 0o644)),
        (
            "the root as a link with a slash",
            new().symlink("./", to).file("new", b"x", 0o644),
        ),
        ("no name", new().file("", b"x", 0o644)),
        ("case", new().symlink("A", to).file("a/new", b"x", 0o644)),
        ("deep", new().file(&"d/".repeat(48), b"x", 0o644)),
        (
            "a file over a full directory",
            new().dir("etc", 0o755).file("etc", b"x", 0o644),
        ),
        ("a directory over a file", new().dir("bin/busybox", 0o755)),
    ]
}

fn links(to: &str, up: &str) -> Archives {
    let through = |target: &str| new().symlink("s", target).file("s/new", b"x", 0o644);
    let mut chain = new();
    for number in 0..64 {
        chain = chain.symlink(&format!("s{number}"), &format!("s{}", number + 1));
    }
    vec![
        ("through an absolute link", through(to)),
        ("through a link up", through(up)),
        ("through proc", through(&format!("/proc/self/root{to}"))),
        (
            "through the engine's directory",
            through("/proc/self/cwd/../../../../../../var/tmp"),
        ),
        (
            "through a descriptor",
            new().symlink("s", "/proc/self/fd").file("s/3", b"x", 0o644),
        ),
        (
            "through two links",
            new().symlink("t", to).symlink("s", "t").file("s/new", b"x", 0o644),
        ),
        (
            "through links of dots",
            new()
                .dir("a", 0o755)
                .symlink("a/s", "..")
                .symlink("a/t", "s/../..")
                .file(&format!("a/t{to}/new"), b"x", 0o644),
        ),
        (
            "over a link to a file",
            new().symlink("s", &format!("{to}/file")).file("s", b"x", 0o644),
        ),
        ("a directory over a link", new().symlink("s", to).dir("s", 0o777)),
        (
            "a directory over a link, used",
            new().symlink("s", to).dir("s", 0o777).file("s/new", b"x", 0o644),
        ),
        (
            "a link over a directory",
            new().dir("s", 0o755).symlink("s", to).file("s/new", b"x", 0o644),
        ),
        (
            "a link over a full directory",
            new()
                .dir("s", 0o755)
                .file("s/f", b"x", 0o644)
                .symlink("s", to)
                .file("s/new", b"x", 0o644),
        ),
        (
            "a link over an open directory",
            new()
                .dir("s", 0o755)
                .file("s/f", b"x", 0o644)
                .symlink("s", to)
                .file("s/f", b"x", 0o644),
        ),
        (
            "a circle",
            new().symlink("s", "t").symlink("t", "s").file("s/new", b"x", 0o644),
        ),
        ("a link to itself", new().symlink("s", "s").file("s/new", b"x", 0o644)),
        (
            "a long row of links",
            chain.symlink("s64", to).file("s0/new", b"x", 0o644),
        ),
        ("a hard link to the host", new().hard_link("h", &format!("{to}/file"))),
        ("a hard link up", new().hard_link("h", &format!("{up}/file"))),
        (
            "a hard link through a link",
            new().symlink("s", to).hard_link("h", "s/file").file("h", b"x", 0o644),
        ),
        (
            "a hard link to a link",
            new()
                .symlink("s", &format!("{to}/file"))
                .hard_link("h", "s")
                .file("h", b"x", 0o644),
        ),
        (
            "a hard link to a link to a directory",
            new().symlink("s", to).hard_link("h", "s").file("h/new", b"x", 0o644),
        ),
        (
            "a hard link into a link",
            new().symlink("s", to).file("f", b"x", 0o644).hard_link("s/new", "f"),
        ),
        (
            "a hard link over a link",
            new()
                .symlink("s", &format!("{to}/file"))
                .file("f", b"x", 0o644)
                .hard_link("s", "f"),
        ),
        ("a hard link to a directory", new().dir("d", 0o755).hard_link("h", "d")),
        ("a hard link to itself", new().hard_link("h", "h")),
        ("a hard link to nothing", new().hard_link("h", "nothing")),
        ("a hard link to the root", new().hard_link("h", ".")),
        ("a link into a link", new().symlink("s", to).symlink("s/new", "x")),
        ("a device into a link", new().symlink("s", to).device("s/new", 1, 3)),
        ("the kernel's memory", new().device("mem", 1, 1).device("kmem", 1, 2)),
        ("a whiteout as a device", new().device("bin", 0, 0)),
        (
            "what a start mounts on",
            new().symlink("proc", to).symlink("sys", to).symlink("dev", to),
        ),
        (
            "what a start writes",
            new()
                .dir("etc", 0o755)
                .symlink("etc/hosts", &format!("{to}/file"))
                .symlink("etc/resolv.conf", &format!("{to}/file"))
                .symlink("etc/hostname", &format!("{to}/new")),
        ),
    ]
}

fn whiteouts(to: &str, up: &str) -> Archives {
    vec![
        (
            "a whiteout on the host",
            new().file(&format!("{to}/.wh.file"), b"", 0o644),
        ),
        ("a whiteout up", new().file(&format!("{up}/.wh.file"), b"", 0o644)),
        (
            "a whiteout through a link",
            new().symlink("s", to).file("s/.wh.file", b"", 0o644),
        ),
        (
            "opaque through a link",
            new().symlink("s", to).file("s/.wh..wh..opq", b"", 0o644),
        ),
        ("a whiteout of a dot", new().file(".wh..", b"", 0o644)),
        ("a whiteout of dots", new().dir("d", 0o755).file("d/.wh...", b"", 0o644)),
        ("a whiteout of nothing", new().file(".wh.", b"", 0o644)),
        (
            "a whiteout as a directory",
            new().dir(".wh.bin", 0o755).file(".wh.bin/x", b"", 0o644),
        ),
        ("a whiteout as a link", new().symlink(".wh.bin", to)),
        ("opaque at the root", new().file(".wh..wh..opq", b"", 0o644)),
        (
            "links of aufs",
            new().dir(".wh..wh.plnk", 0o755).hard_link("h", ".wh..wh.plnk/1.2"),
        ),
    ]
}

fn records(to: &str, up: &str) -> Archives {
    let (new_up, file) = (format!("{up}/new"), format!("{to}/file"));
    vec![
        (
            "a name in a record",
            new().pax(&[("path", new_up.as_bytes())]).file("f", b"x", 0o644),
        ),
        (
            "an absolute name in a record",
            new().pax(&[("path", file.as_bytes())]).file("f", b"x", 0o644),
        ),
        (
            "a link in a record",
            new().pax(&[("linkpath", file.as_bytes())]).hard_link("h", "f"),
        ),
        (
            "a name of a sparse file",
            new()
                .pax(&[("GNU.sparse.name", new_up.as_bytes())])
                .file("f", b"x", 0o644),
        ),
        (
            "a long name",
            new()
                .raw(&header("././@LongLink", b'L', new_up.len() as u64 + 1))
                .raw(&[new_up.as_bytes(), &[0]].concat())
                .file("f", b"x", 0o644),
        ),
        (
            "a name with NUL",
            new().pax(&[("path", b"a\0b")]).file("f", b"x", 0o644),
        ),
        (
            "names of 5000",
            new()
                .pax(&[("path", "n".repeat(5000).as_bytes())])
                .file("f", b"x", 0o644),
        ),
        (
            "components without end",
            new()
                .pax(&[("path", "d/".repeat(2000).as_bytes())])
                .file("f", b"x", 0o644),
        ),
        (
            "a redirect of overlayfs",
            new()
                .pax(&[("SCHILY.xattr.trusted.overlay.redirect", to.as_bytes())])
                .dir("bin", 0o755),
        ),
        (
            "opaque as an attribute",
            new()
                .pax(&[
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ])
                .dir("bin", 0o755),
        ),
        (
            "metadata only",
            new()
                .pax(&[("SCHILY.xattr.trusted.overlay.metacopy", b"")])
                .file("bin/busybox", b"", 0o755),
        ),
        (
            "a size of a sparse file",
            new()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.map", b"0,1,1152921504606846976,0"),
                    ("GNU.sparse.size", b"1152921504606846976"),
                ])
                .file("f", b"x", 0o644),
        ),
        (
            "a map that overlaps",
            new()
                .pax(&[("GNU.sparse.map", b"0,3,1,3"), ("GNU.sparse.size", b"9")])
                .file("f", b"abcdef", 0o644),
        ),
        (
            "ids out of range",
            new().pax(&[("uid", b"4294967295")]).file("f", b"x", 0o644),
        ),
        ("negative ids", new().pax(&[("uid", b"-1")]).file("f", b"x", 0o644)),
        (
            "a negative size",
            new().pax(&[("size", b"-512")]).file("f", b"x", 0o644),
        ),
        (
            "a size that hides a header",
            new()
                .pax(&[("size", b"1024")])
                .file("f", b"", 0o644)
                .file(&format!("{up}/new"), b"x", 0o644)
                .file("g", b"x", 0o644),
        ),
        (
            "a length that lies",
            new()
                .raw(&header("x", b'x', 12))
                .raw(b"99 path=abc\n")
                .file("f", b"x", 0o644),
        ),
        ("records of no entry", new().pax(&[("path", b"x")])),
        (
            "an attribute without a name",
            new().pax(&[("SCHILY.xattr.", b"x")]).file("f", b"x", 0o644),
        ),
    ]
}

fn headers() -> Archives {
    let edited = |edit: fn(&mut [u8; 512])| {
        let mut block = header("f", b'0', 1);
        edit(&mut block);
        seal(&mut block);
        new().raw(&block).raw(b"x")
    };
    let unsealed = {
        let mut block = header("f", b'0', 1);
        block[0] = b'g';
        new().raw(&block).raw(b"x")
    };
    vec![
        ("a wrong checksum", unsealed),
        ("an unknown type", new().raw(&header("f", b'Z', 0))),
        ("a volume", new().raw(&header("f", b'V', 0))),
        ("a part of a volume", new().raw(&header("f", b'M', 0))),
        (
            "a size of two to the sixty-second",
            edited(|block| block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])),
        ),
        ("a size below nothing", edited(|block| block[124..136].fill(0xff))),
        (
            "a size that is none",
            edited(|block| block[124..136].copy_from_slice(b"nine bytes !")),
        ),
        ("more than there is", new().header_only("f", 8 << 30)),
        (
            "a device of odd numbers",
            new().raw(&{
                let mut block = header("dev/x", b'3', 0);
                block[329..345].fill(0xff);
                seal(&mut block);
                block
            }),
        ),
        (
            "what comes after the end",
            new()
                .file("f", b"x", 0o644)
                .raw(&[0; 1024])
                .file("/etc/after", b"x", 0o644),
        ),
        (
            "a single block of zeros",
            new().file("f", b"x", 0o644).raw(&[0; 512]).file("g", b"x", 0o644),
        ),
    ]
}

/// A header block of GNU's format.
pub fn header(name: &str, kind: u8, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

/// Makes the checksum right.
fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The head of a sparse file of format 1.0 whose map fills so many bytes.
pub fn sparse_of_segments(size: u64) -> Vec<u8> {
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "1000000000000"),
    ];
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    Layer::new()
        .pax(&records)
        .raw(&header("sparse", b'0', size))
        .truncated()
}
