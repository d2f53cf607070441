//! The images: each one corner, or a few that have nothing to do with each other.

use std::process::Command;

use ferry_testkit::images::{Compression, Image, Layer};
use ferry_testkit::tools;
use serde_json::json;

/// One image.
#[derive(Debug)]
pub struct Corner {
    pub name: &'static str,
    pub layers: Vec<Travelling>,
    /// What Ferry says where it takes no such image.
    pub refused: Option<&'static str>,
}

/// A layer and how it travels.
#[derive(Debug)]
pub struct Travelling {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub media_type: String,
}

impl Corner {
    fn new(name: &'static str, layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut all = vec![Travelling::gzip(base().finish())];
        // As engines write layers: with the directories of what is in them.
        let named = |layer: Layer| Layer::new().dir("odd", 0o755).raw(&layer.truncated());
        all.extend(layers.into_iter().map(|layer| Travelling::gzip(named(layer).finish())));
        Self {
            name,
            layers: all,
            refused: None,
        }
    }

    /// One layer above the base that is nothing but itself.
    fn travelling(name: &'static str, tar: Vec<u8>, compression: Compression, suffix: &str) -> Self {
        let mut corner = Self::new(name, []);
        corner.layers.push(Travelling::new(tar, compression, suffix));
        corner
    }

    pub fn configuration(&self) -> Vec<u8> {
        let layers = self.layers.iter().map(|layer| layer.tar.clone()).collect();
        Image::new(self.name, layers)
            .config("Cmd", json!(["/walk"]))
            .configuration()
    }
}

impl Travelling {
    fn gzip(tar: Vec<u8>) -> Self {
        Self::new(tar, Compression::Gzip, "+gzip")
    }

    /// `suffix` is what the media type says of the compression, true or not.
    fn new(tar: Vec<u8>, compression: Compression, suffix: &str) -> Self {
        let blobs = Image::new("", vec![tar.clone()]).compression(compression).blobs();
        Self {
            tar,
            blob: blobs.concat(),
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
        }
    }
}

fn base() -> Layer {
    walker().dir("odd", 0o755)
}

/// The program that walks, and what engines mount on.
fn walker() -> Layer {
    // examples/walk.rs, which cargo builds with the tests.
    let walk = tools::ferry().parent().unwrap().join("examples/walk");
    let walk = std::fs::read(&walk).unwrap_or_else(|error| panic!("read {}: {error}", walk.display()));
    ["proc", "sys", "dev", "etc", "run"]
        .iter()
        .fold(Layer::new(), |layer, dir| layer.dir(dir, 0o755))
        .file("walk", &walk, 0o755)
}

/// struct vfs_cap_data, revision 2 (linux/capability.h): cap_net_raw, permitted and effective.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Revision 3: the same, for the user namespace whose root is 1000.
const CAPABILITY_OF_1000: &[u8] = &[
    1, 0, 0, 3, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0,
];

pub fn corners() -> Vec<Corner> {
    let mut corners = vec![
        Corner::new("whiteouts", whiteouts()),
        Corner::new("whiteouts-last", whiteouts_last()),
        Corner::new("opaque-root", opaque_root()),
        Corner::new("links", links()),
        Corner::new("links-below", links_below()),
        Corner::new("attributes", [attributes()]),
        Corner::new("pax", [pax()]),
        Corner::new("duplicates", [duplicates()]),
        Corner::new("duplicates-through-a-link", [through_a_link()]),
        Corner::new("parents", parents()),
        Corner::new("names", [names()]),
        Corner::new("numbers", [numbers()]),
        Corner::new("times", [times()]),
        Corner::new("devices", [devices()]),
        Corner::new("forms", [forms()]),
        Corner::new(
            "root",
            [Layer::new().dir_of(".", 0o700, (3, 4)).file("odd/f", b"f", 0o644)],
        ),
        Corner::new("sparse-0.0", [sparse("0.0")]),
        Corner::new("sparse-0.1", [sparse("0.1")]),
        Corner::new("sparse-1.0", [sparse("1.0")]),
        Corner::new("sparse-gnu", [sparse("gnu")]),
    ];
    let some = || {
        Layer::new()
            .dir("odd", 0o755)
            .dir("odd/d", 0o750)
            .file("odd/d/f", &[b'x'; 5000], 0o640)
            .finish()
    };
    corners.extend([
        Corner::travelling("members", some(), Compression::GzipMembers, "+gzip"),
        Corner::travelling("sha512", some(), Compression::Gzip, "+gzip"),
        Corner::travelling("frames", some(), Compression::ZstdFrames, "+zstd"),
        Corner::travelling("plain", some(), Compression::None, ""),
        Corner::travelling("plain-said-to-be-gzip", some(), Compression::None, "+gzip"),
        Corner::travelling("gzip-said-to-be-plain", some(), Compression::Gzip, ""),
        Corner::travelling("zstd-said-to-be-gzip", some(), Compression::Zstd, "+gzip"),
        Corner::travelling("empty", vec![0; 1024], Compression::Gzip, "+gzip"),
        Corner::travelling(
            "no-end",
            Layer::new().dir("odd", 0o755).file("odd/f", b"f", 0o644).truncated(),
            Compression::Gzip,
            "+gzip",
        ),
        Corner::travelling(
            "garbage-after-the-end",
            [some(), b"no header".repeat(300)].concat(),
            Compression::Gzip,
            "+gzip",
        ),
    ]);
    corners
}

fn whiteouts() -> [Layer; 3] {
    let below = Layer::new()
        .file("odd/file", b"below", 0o644)
        .dir("odd/tree", 0o755)
        .file("odd/tree/leaf", b"below", 0o644)
        .dir("odd/before", 0o755)
        .file("odd/before/old", b"below", 0o644)
        .dir("odd/after", 0o755)
        .file("odd/after/old", b"below", 0o644)
        .dir("odd/after/sub", 0o755)
        .file("odd/after/sub/old", b"below", 0o644)
        .dir("odd/nameless", 0o711)
        .file("odd/nameless/old", b"below", 0o644)
        .file("odd/same", b"below", 0o644)
        .dir("odd/samedir", 0o755)
        .file("odd/samedir/old", b"below", 0o644)
        .dir("odd/tofile", 0o755)
        .file("odd/tofile/old", b"below", 0o644)
        .file("odd/todir", b"below", 0o644)
        .file("odd/back", b"below", 0o644);
    let above = Layer::new()
        .file("odd/.wh.file", b"", 0o644)
        .file("odd/.wh.tree", b"", 0o644)
        .file("odd/.wh.nothing", b"", 0o644)
        .file("odd/.wh.back", b"", 0o644)
        .dir("odd/before", 0o700)
        .file("odd/before/.wh..wh..opq", b"", 0o644)
        .file("odd/before/new", b"above", 0o644)
        .dir("odd/after", 0o700)
        .file("odd/after/new", b"above", 0o644)
        .dir("odd/after/sub", 0o700)
        .file("odd/after/sub/new", b"above", 0o644)
        .file("odd/after/.wh..wh..opq", b"", 0o644)
        .file("odd/after/newer", b"above", 0o644)
        .file("odd/.wh.same", b"", 0o644)
        .file("odd/same", b"above", 0o600)
        .file("odd/.wh.samedir", b"", 0o644)
        .dir("odd/samedir", 0o700)
        .file("odd/samedir/new", b"above", 0o644)
        .file("odd/tofile", b"above", 0o644)
        .dir("odd/todir", 0o755)
        .file("odd/todir/new", b"above", 0o644);
    let top = Layer::new().file("odd/back", b"top", 0o644).dir("odd/tree", 0o755);
    [below, above, top]
}

/// Whiteouts after what is new under the same name: they speak of the layers below.
fn whiteouts_last() -> [Layer; 2] {
    let below = Layer::new()
        .file("odd/last", b"below", 0o644)
        .dir("odd/lastdir", 0o755)
        .file("odd/lastdir/old", b"below", 0o644);
    let above = Layer::new()
        .file("odd/last", b"above", 0o644)
        .file("odd/.wh.last", b"", 0o644)
        .dir("odd/lastdir", 0o755)
        .file("odd/lastdir/new", b"above", 0o644)
        .file("odd/.wh.lastdir", b"", 0o644);
    [below, above]
}

fn opaque_root() -> [Layer; 2] {
    let below = Layer::new()
        .file("gone", b"below", 0o644)
        .file("odd/gone", b"below", 0o644);
    [
        below,
        walker()
            .file(".wh..wh..opq", b"", 0o644)
            .file("odd/new", b"above", 0o644),
    ]
}

/// Across layers: what they link to is in the layer below only.
fn links_below() -> [Layer; 2] {
    let below = Layer::new()
        .dir_of("odd/d", 0o1777, (5, 6))
        .pax(&[("SCHILY.xattr.user.note", b"kept")])
        .file_of("odd/d/f", b"content", 0o4755, (7, 8))
        .symlink("odd/d/s", "f");
    let above = Layer::new()
        .hard_link("odd/new", "odd/d/f")
        .hard_link("odd/newlink", "odd/d/s");
    [below, above]
}

fn links() -> [Layer; 2] {
    let below = Layer::new().file("odd/x", b"x", 0o644).hard_link("odd/y", "odd/x");
    let above = Layer::new()
        .file("odd/a", b"a", 0o644)
        .hard_link("odd/b", "odd/a")
        .hard_link("odd/c", "odd/b")
        .symlink("odd/l", "a")
        .hard_link("odd/m", "odd/l")
        // As `chown -R` leaves two names of one file.
        .file_of("odd/x", b"x", 0o600, (1000, 1000))
        .hard_link("odd/y", "odd/x");
    [below, above]
}

fn attributes() -> Layer {
    Layer::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.user.note", b"kept"),
        ])
        .file_of("odd/capable", b"x", 0o755, (1000, 0))
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY_OF_1000)])
        .file("odd/capable-of-1000", b"x", 0o755)
        .pax(&[
            ("SCHILY.xattr.user.binary", b"a\nb\0c=\xff"),
            ("SCHILY.xattr.user.empty", b""),
        ])
        .file("odd/binary", b"x", 0o644)
        .file_of("odd/setuid", b"x", 0o4755, (1000, 1001))
        .file_of("odd/setgid", b"x", 0o2711, (65534, 7))
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
        .file_of("odd/setuid-capable", b"x", 0o6755, (1000, 1001))
        .pax(&[("SCHILY.xattr.user.note", b"of a directory")])
        .dir_of("odd/attributed", 0o2775, (1, 2))
        .pax(&[("SCHILY.xattr.trusted.note", b"of a link")])
        .symlink("odd/attributed-link", "binary")
        .pax(&[("SCHILY.xattr.trusted.note", b"trusted")])
        .file("odd/trusted", b"x", 0o644)
}

fn pax() -> Layer {
    Layer::new()
        // The record says five bytes, the header none; then the other way round.
        .pax(&[("size", b"5")])
        .header_only("odd/longer", 0)
        .raw(b"hello")
        .pax(&[("size", b"3")])
        .header_only("odd/shorter", 1024)
        .raw(b"abc")
        .file("odd/next", b"next", 0o644)
        .pax(&[("path", b"odd/by-record"), ("uid", b"77"), ("gid", b"78"), ("mtime", b"1500000000.25")])
        .file("odd/by-header", b"x", 0o644)
        // A long name between the records and their file.
        .pax(&[("SCHILY.xattr.user.note", b"of the file"), ("size", b"4")])
        .raw(&long_name("odd/long-name"))
        .header_only("odd/short", 0)
        .raw(b"four")
        .pax(&[("linkpath", b"by-record")])
        .symlink("odd/link", "by-header")
        // Of all entries that follow: nothing, as in Docker.
        .raw(&global(b"30 comment=a global header ..\n"))
        .file("odd/after-global", b"x", 0o644)
}

/// GNU's entry of type L: the name of the next one.
fn long_name(name: &str) -> Vec<u8> {
    special(b'L', &[name.as_bytes(), &[0]].concat())
}

fn global(records: &[u8]) -> Vec<u8> {
    special(b'g', records)
}

fn special(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn duplicates() -> Layer {
    Layer::new()
        .file("odd/file", b"old", 0o644)
        .file("odd/file", b"new", 0o600)
        .file("odd/todir", b"old", 0o644)
        .dir("odd/todir", 0o750)
        .file("odd/todir/f", b"new", 0o644)
        .dir("odd/tofile", 0o755)
        .file("odd/tofile/f", b"old", 0o644)
        .file("odd/tofile", b"new", 0o644)
        .dir("odd/tolink", 0o755)
        .file("odd/tolink/f", b"old", 0o644)
        .symlink("odd/tolink", "todir")
        .symlink("odd/fromlink", "file")
        .file("odd/fromlink", b"new", 0o644)
        .file("odd/one", b"one", 0o644)
        .hard_link("odd/two", "odd/one")
        .file("odd/one", b"another", 0o644)
        .file("odd/tohard", b"old", 0o644)
        .hard_link("odd/tohard", "odd/two")
        .dir("odd/again", 0o700)
        .file("odd/again/f", b"kept", 0o644)
        .dir_of("odd/again", 0o755, (9, 9))
}

/// A directory that became a link leads where the link does.
fn through_a_link() -> Layer {
    Layer::new()
        .dir("odd/real", 0o755)
        .dir("odd/tolink", 0o755)
        .symlink("odd/tolink", "real")
        .file("odd/tolink/f", b"through", 0o644)
        .symlink("odd/abs", "/odd/real")
        .file("odd/abs/g", b"through", 0o644)
}

fn parents() -> [Layer; 2] {
    let below = Layer::new()
        .pax(&[("SCHILY.xattr.user.note", b"kept")])
        .dir_of("odd/low", 0o1770, (5, 6))
        .file("odd/low/old", b"old", 0o644);
    let above = Layer::new()
        .file("odd/made/for/f", b"f", 0o644)
        .file("odd/low/new", b"new", 0o644);
    [below, above]
}

fn names() -> Layer {
    let long = "n".repeat(200);
    let deep = format!("odd/{long}/{long}");
    Layer::new()
        .pax(&[("path", format!("odd/{long}/").as_bytes())])
        .dir("odd/x", 0o755)
        .pax(&[("path", b"odd/non-\xff\xfe-utf8")])
        .file("odd/x", b"1", 0o644)
        .pax(&[("path", b"odd/new\nline")])
        .file("odd/x", b"2", 0o644)
        .pax(&[("path", b"odd/\xe2\x82\xac")])
        .file("odd/x", b"3", 0o644)
        .file("odd/ space ", b"4", 0o644)
        .pax(&[("path", deep.as_bytes())])
        .file("odd/x", b"5", 0o644)
        .raw(&long_name(&format!("odd/{}", "g".repeat(240))))
        .file("odd/x", b"6", 0o644)
        .pax(&[("linkpath", deep.as_bytes())])
        .symlink("odd/longlink", "x")
        .pax(&[("linkpath", deep.as_bytes())])
        .hard_link("odd/longhard", "x")
        .file("odd/a\\b", b"7", 0o644)
        .file("odd/.whatever", b"8", 0o644)
}

/// Fields in base 256, as GNU tar writes what octal digits have no room for.
fn numbers() -> Layer {
    let mut header = tar::Header::new_gnu();
    header.set_path("odd/number").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(12_345_678);
    header.set_gid(4_000_000_000);
    header.set_size(0);
    header.set_mtime(0);
    let old = header.as_old_mut();
    old.size = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    // Two's complement: -86400.
    old.mtime = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xae, 0x80];
    header.set_cksum();
    Layer::new()
        .raw(header.as_bytes())
        .raw(b"12345")
        .file_of("odd/large-ids", b"x", 0o644, (2_097_152, 4_294_967_294))
}

fn times() -> Layer {
    let times: [(&str, &[u8]); 4] = [
        ("1960", b"-315000000.25"),
        ("1969", b"-0.5"),
        ("2040", b"2223000000.123456789"),
        ("now", b"1700000000.000000001"),
    ];
    let mut layer = Layer::new();
    for (name, time) in times {
        layer = layer
            .pax(&[("mtime", time)])
            .file(&format!("odd/{name}"), b"x", 0o644)
            .pax(&[("mtime", time)])
            .dir(&format!("odd/{name}.d"), 0o755)
            .file(&format!("odd/{name}.d/later"), b"x", 0o644)
            .pax(&[("mtime", time)])
            .symlink(&format!("odd/{name}.l"), "x");
    }
    // A directory's time is the last that is said, whatever was put into it meanwhile.
    layer
        .pax(&[("mtime", b"1000000000")])
        .dir("odd/nested", 0o755)
        .pax(&[("mtime", b"1100000000.5")])
        .dir("odd/nested/inner", 0o755)
        .file("odd/nested/inner/f", b"x", 0o644)
}

fn devices() -> Layer {
    let mut fifo = tar::Header::new_gnu();
    fifo.set_path("odd/fifo").unwrap();
    fifo.set_entry_type(tar::EntryType::Fifo);
    fifo.set_mode(0o620);
    fifo.set_uid(1);
    fifo.set_gid(2);
    fifo.set_mtime(1_600_000_000);
    fifo.set_size(0);
    fifo.set_cksum();
    let mut block = tar::Header::new_gnu();
    block.set_path("odd/block").unwrap();
    block.set_entry_type(tar::EntryType::Block);
    block.set_mode(0o660);
    block.set_uid(0);
    block.set_gid(6);
    block.set_mtime(1_600_000_000);
    block.set_size(0);
    block.set_device_major(259).unwrap();
    block.set_device_minor(1000).unwrap();
    block.set_cksum();
    Layer::new()
        .device("odd/null", 1, 3)
        .raw(fifo.as_bytes())
        .raw(block.as_bytes())
}

/// Names as other programs write them.
fn forms() -> Layer {
    Layer::new()
        .dir("./odd/dotted", 0o700)
        .file("./odd/dotted/f", b"1", 0o644)
        .file("/odd/absolute", b"2", 0o644)
        .dir("odd//slashes//", 0o700)
        .file("odd//slashes///f", b"3", 0o644)
        .file("odd/./x/../back", b"4", 0o644)
        .hard_link("./odd/hard", "./odd/dotted/f")
        .hard_link("odd/hard-absolute", "/odd/absolute")
}

/// A file with holes through GNU tar, in one of the formats it has for them.
fn sparse(format: &str) -> Layer {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir odd; for s in $(seq 0 9); do \
        printf segment$s | dd of=odd/sparse bs=1 seek=$((s * 100000 + 5)) conv=notrunc status=none; done; \
        truncate -s 1500000 odd/sparse; touch -d '2020-01-02 03:04:05.6 UTC' odd/sparse";
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run("sh", &["-c", script]);
    let version = format!("--sparse-version={format}");
    let how: &[&str] = match format {
        "gnu" => &["--format=gnu"],
        _ => &["--format=pax", &version],
    };
    let tar = run(
        "tar",
        &[
            &["-cf", "-", "--sparse", "--owner=0", "--group=0"],
            how,
            &["odd/sparse"],
        ]
        .concat(),
    );
    let marked = tar.windows(10).any(|window| window == b"GNU.sparse") || tar[156] == b'S';
    assert!(marked, "{format}: tar wrote a sparse file");
    Layer::new().raw(&tar)
}
