//! What is in the images: files of a Debian and of the Rust toolchain, whose compression is that of real images, and what
//! real images have seldom but engines must be able to do. Everything that is chance comes from a generator with a fixed
//! start; everything else is taken in the order of names.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tar::EntryType;

use super::layer::{Kind, Layer, Meta};
use super::walk::{Budget, Walk, children, scaled};
use crate::shell;

/// Begins a layer with this effort of compression, fills and ends it.
pub type NextLayer<'a> = &'a mut dyn FnMut(u8, &mut dyn FnMut(&mut Layer) -> Result<()>) -> Result<()>;

/// One program and its names.
pub fn busybox(layer: &mut Layer, debian: &Path) -> Result<()> {
    let program = debian.join("usr/bin/busybox");
    let names = shell::output(Command::new(&program).arg("--list"))?;
    let data = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let executable = Meta {
        mode: 0o755,
        ..Meta::default()
    };
    layer.add(b"bin/busybox", &executable, Kind::File(&data))?;
    for name in names.lines().filter(|name| *name != "busybox") {
        let path = format!("bin/{name}");
        layer.add(path.as_bytes(), &executable, Kind::Hardlink(b"bin/busybox"))?;
    }
    Ok(())
}

/// One file that nothing can compress.
pub fn noise(layer: &mut Layer, scale: f64) -> Result<()> {
    let size = scaled(scale, 1_000_000_000);
    layer.add(b"noise", &Meta::default(), Kind::Stream(&mut Chance::new(), size))
}

/// Ten layers: five of real files, a script, and the four steps that make an old image an odd one.
pub fn many(debian: &Path, scale: f64, layer: NextLayer) -> Result<()> {
    let toolchain = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let toolchain = Path::new(toolchain.trim());
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let sources = || Walk::new(&[(cargo.join("registry/src"), "opt/sources")]);

    let mut base = Walk::new(&[
        (debian.join("usr/share"), "usr/share"),
        (debian.join("usr/lib"), "usr/lib"),
    ]);
    layer(6, &mut |layer| base.fill(layer, &Budget::new(scale, 9_500, 195)))?;
    layer(6, &mut |layer| {
        sources().fill(layer, &Budget::new(scale, 17_000, 162).short(128))
    })?;
    let mut pages = Walk::new(&[
        (toolchain.join("share/doc"), "opt/doc"),
        (PathBuf::from("/usr/share"), "opt/share"),
    ]);
    layer(6, &mut |layer| {
        pages.fill(layer, &Budget::new(scale, 17_000, 123).short(32))
    })?;
    let mut programs = Walk::new(&[
        (toolchain.join("lib"), "opt/toolchain/lib"),
        (toolchain.join("bin"), "opt/toolchain/bin"),
    ]);
    layer(6, &mut |layer| programs.fill(layer, &Budget::new(scale, 640, 360)))?;
    let mut headers = Walk::new(&[(PathBuf::from("/usr/include"), "usr/include")]);
    let short = Budget::new(scale, 10_000, 60).short(16);
    layer(6, &mut |layer| {
        headers.fill(layer, &short)?;
        pages.fill(layer, &short)
    })?;
    layer(6, &mut |layer| {
        layer.add(
            b"make.sh",
            &Meta::default(),
            Kind::File(b"#!/bin/sh\n# What is below /srv was made by a script.\n"),
        )
    })?;
    let directories = scaled(scale, 300);
    layer(6, &mut |layer| small(layer, directories))?;
    layer(6, &mut |layer| change(layer, debian, scale, directories))?;
    layer(6, &mut |layer| odd(layer, scaled(scale, 100_000_000)))?;
    layer(6, &mut |layer| {
        sources().fill(layer, &Budget::new(scale, 1_900, 20).owned_by(33))?;
        for directory in 0..directories.min(100) {
            let whiteout = format!("srv/small/{:03}/.wh.f1", (directory + 150) % directories);
            layer.add(whiteout.as_bytes(), &Meta::default(), Kind::File(b""))?;
        }
        layer.add(b"opt/toolchain/.wh.bin", &Meta::default(), Kind::File(b""))
    })
}

/// Directories of a hundred small files, many with owners, modes and times of their own.
fn small(layer: &mut Layer, directories: u64) -> Result<()> {
    let mut chance = Chance::new();
    for directory in 0..directories {
        for number in 0..100_u64 {
            let path = format!("srv/small/{directory:03}/f{number}");
            let mut data = vec![0; usize::try_from(200 + chance.below(3600))?];
            chance.letters(&mut data);
            let owned = number % 3 == 0;
            let meta = Meta {
                mode: if number % 7 == 0 {
                    0o400 + u32::try_from(number)?
                } else {
                    0o644
                },
                uid: if owned { directory * 7 % 65_000 } else { 0 },
                gid: if owned { number * 11 } else { 0 },
                time: if number % 5 == 0 {
                    (i64::try_from(number)? * 40_000_000 - 1_000_000, 0)
                } else {
                    Meta::default().time
                },
                xattrs: &[],
            };
            layer.add(path.as_bytes(), &meta, Kind::File(&data))?;
        }
    }
    Ok(())
}

/// What a later step removes, replaces and links.
fn change(layer: &mut Layer, debian: &Path, scale: f64, directories: u64) -> Result<()> {
    let plain = Meta::default();
    let documents = children(&debian.join("usr/share/doc"))?;
    let gone = documents.iter().take(usize::try_from(scaled(scale, 300))?);
    for name in gone.filter_map(|path| path.file_name()) {
        let path = [b"usr/share/doc/.wh.".as_slice(), name.as_bytes()].concat();
        layer.add(&path, &plain, Kind::File(b""))?;
    }
    for directory in 0..directories.min(15) {
        layer.add(
            format!("srv/small/.wh.{directory:03}").as_bytes(),
            &plain,
            Kind::File(b""),
        )?;
    }
    let opaque = format!("srv/small/{:03}", directories - 1);
    layer.add(format!("{opaque}/.wh..wh..opq").as_bytes(), &plain, Kind::File(b""))?;
    layer.add(format!("{opaque}/only").as_bytes(), &plain, Kind::File(b"new\n"))?;
    // A hard link to an older file brings that file along: that is what a copy-up leaves.
    let mut linked = Walk::new(&[(debian.join("usr/share/perl"), "usr/share/perl")]);
    let files = linked.fill_with_names(layer, &Budget::new(scale, 2_000, 8))?;
    for path in files {
        layer.add(
            &[b"srv/links/", path.as_slice()].concat(),
            &plain,
            Kind::Hardlink(&path),
        )?;
    }
    layer.add(b"srv/dangling", &plain, Kind::Symlink(b"/etc/none"))?;
    layer.add(b"srv/dangling2", &plain, Kind::Hardlink(b"srv/dangling"))
}

/// One of each thing that is seldom.
fn odd(layer: &mut Layer, sparse: u64) -> Result<()> {
    let mut text = vec![0; 9000];
    Chance::new().letters(&mut text);
    // CAP_NET_BIND_SERVICE, permitted and effective (capabilities(7), version 2).
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capabilities = [("security.capability", capability.as_slice())];
    let things = [("user.thing", b"a\nb\0c=1".as_slice())];
    let with = |mode, xattrs| Meta {
        mode,
        xattrs,
        ..Meta::default()
    };
    let ping = Meta {
        time: (4_102_444_800, 123_456_789),
        ..with(0o755, &capabilities)
    };
    layer.add(b"srv/ping", &ping, Kind::File(&text))?;
    let thing = Meta {
        uid: 12_345_678,
        gid: 87_654_321,
        ..with(0o644, &things)
    };
    layer.add(b"srv/xattr", &thing, Kind::File(b"0123456789"))?;
    let suid = Meta {
        time: (-1_000_000, 0),
        ..with(0o6755, &[])
    };
    layer.add(b"srv/suid", &suid, Kind::File(&text))?;
    layer.add(b"srv/sticky", &with(0o3777, &[]), Kind::Directory)?;
    let deep = ["d".repeat(60).as_str()].repeat(20).join("/");
    let long = format!("srv/deep/{deep}/{}", "n".repeat(250));
    for name in [
        long.as_bytes(),
        b"srv/\xff\xfe-latin\xe9",
        b"srv/new\nline",
        "srv/ünïcødé".as_bytes(),
    ] {
        layer.add(name, &Meta::default(), Kind::File(b"x"))?;
    }
    layer.add(b"srv/sparse", &Meta::default(), Kind::Zeros(sparse, b"end"))?;
    layer.add(b"srv/null", &with(0o666, &[]), Kind::Device(EntryType::Char, 1, 3))?;
    layer.add(b"srv/block", &with(0o600, &[]), Kind::Device(EntryType::Block, 7, 9))?;
    layer.add(b"srv/fifo", &with(0o600, &[]), Kind::Fifo)
}

/// xorshift64*, always from the same start.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// 90 characters, so that there is little to compress, as in the small files of a system.
    fn letters(&mut self, data: &mut [u8]) {
        for byte in data {
            *byte = 32 + u8::try_from(self.below(90)).unwrap_or(0);
        }
    }
}

impl Read for Chance {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for part in buffer.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        Ok(buffer.len())
    }
}
