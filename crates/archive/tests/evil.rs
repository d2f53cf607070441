//! Archives made to break out, to fill memory, or to confuse (security design, family F2).

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use ferry_archive::{ApplyOptions, Entry, Error, Kind, Limits, Time, decompress};
use proptest::prelude::*;
use support::{Bench, Tar, block, entry};

#[test]
fn absolute_names_land_inside() {
    let bench = Bench::new();
    let canary = bench.canary();
    bench
        .apply(
            &Tar::new()
                .file("/etc/x", "in")
                .file(&format!("{canary}/file"), "evil")
                .file("/../../up", "in")
                .bytes(),
        )
        .unwrap();
    assert_eq!(bench.read("etc/x"), "in");
    assert_eq!(bench.read("up"), "in");
    assert_eq!(bench.read(&format!("./{canary}/file")), "evil");
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in [
        "..",
        "../x",
        "../canary/file",
        "a/../../canary/file",
        "./../x",
        "a/b/../../../x",
    ] {
        for tar in [
            Tar::new().file(name, "x"),
            Tar::new().dir(name),
            Tar::new().symlink(name, "x"),
            Tar::new().link("x", name),
        ] {
            let error = Bench::new().apply(&tar.bytes()).unwrap_err();
            assert!(matches!(error, Error::Escapes { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn a_linked_parent_stays_inside() {
    for target in ["/", "..", "../..", "../canary", "/proc/self/root", "/proc/self/cwd"] {
        let bench = Bench::new();
        let tar = Tar::new()
            .symlink("out", target)
            .file("out/canary/file", "evil")
            .file("out/file", "evil");
        // Inside the root most targets do not exist: an error is as good as a file inside.
        let _ = bench.apply(&tar.bytes());
        let absolute = Tar::new().symlink("out", &bench.canary()).file("out/file", "evil");
        assert!(bench.apply(&absolute.bytes()).is_err());
        let whiteout = Tar::new()
            .symlink("out", target)
            .file("out/canary/.wh.file", "")
            .file("out/.wh..wh..opq", "");
        let _ = bench.apply(&whiteout.bytes());
        let link = Tar::new().symlink("out", target).link("grab", "out/canary/file");
        assert!(Bench::new().apply(&link.bytes()).is_err(), "{target}");
    }
}

#[test]
fn a_final_link_is_replaced_and_never_followed() {
    let canary = Bench::new();
    for last in [
        Tar::new().symlink("x", "CANARY/file").file("x", "evil"),
        Tar::new().symlink("x", "CANARY").dir("x"),
        Tar::new()
            .symlink("x", "CANARY")
            .entry(&Entry {
                mode: 0o777,
                ..entry("x", Kind::Directory)
            })
            .file("x/file", "evil"),
        Tar::new().symlink("x", "CANARY/file").entry(&entry("x", Kind::Fifo)),
        Tar::new().symlink("x", "CANARY/file").symlink("x", "elsewhere"),
        Tar::new().file("y", "").symlink("x", "CANARY/file").link("x", "y"),
    ] {
        let bench = Bench::new();
        let text = last.bytes();
        let from = b"CANARY";
        let to = b"/canary";
        let mut tar = Vec::new();
        // Names are compared as bytes: same length is not needed, the field is padded with NUL.
        for chunk in text.chunks(512) {
            let mut chunk: [u8; 512] = chunk.try_into().unwrap();
            if chunk[257..262] == *b"ustar" && chunk[157..].starts_with(from) {
                let rest = chunk[157 + from.len()..257].to_vec();
                chunk[157..157 + to.len()].copy_from_slice(to);
                chunk[157 + to.len()..257].copy_from_slice(&rest[..100 - to.len()]);
                let name: Vec<u8> = chunk[..100].iter().copied().take_while(|&b| b != 0).collect();
                chunk = block(&name, chunk[156], b"00000000000", |b| {
                    b[157..257].copy_from_slice(&chunk[157..257]);
                });
            }
            tar.extend_from_slice(&chunk);
        }
        std::fs::create_dir(bench.path().join("canary")).unwrap();
        std::fs::write(bench.path().join("canary/file"), "inner").unwrap();
        bench.apply(&tar).unwrap();
        assert_eq!(
            bench.read("canary/file"),
            "inner",
            "a link inside the root is not followed either"
        );
    }
    drop(canary);
}

#[test]
fn hard_links_cannot_reach_outside() {
    for target in ["../canary/file", "/../canary/file", "x/../../canary/file"] {
        let bench = Bench::new();
        assert!(bench.apply(&Tar::new().link("x", target).bytes()).is_err(), "{target}");
    }
    let bench = Bench::new();
    let tar = Tar::new().link("x", &format!("{}/file", bench.canary()));
    assert!(matches!(bench.apply(&tar.bytes()), Err(Error::MissingTarget { .. })));
}

#[test]
fn a_hard_link_to_a_symlink_links_the_symlink() {
    let bench = Bench::new();
    let canary = bench.canary();
    let tar = Tar::new().symlink("s", &format!("{canary}/file")).link("h", "s");
    bench.apply(&tar.bytes()).unwrap();
    assert!(std::fs::symlink_metadata(bench.path().join("h")).unwrap().is_symlink());
}

#[test]
fn the_root_can_only_be_a_directory() {
    for kind in [Kind::Symlink, Kind::File, Kind::HardLink, Kind::Fifo] {
        for name in [".", "./", "/", "a/..", "./."] {
            let bench = Bench::new();
            let tar = Tar::new()
                .entry(&Entry {
                    link: "/".into(),
                    ..entry(name, kind)
                })
                .file("etc/passwd", "evil");
            assert!(
                matches!(bench.apply(&tar.bytes()), Err(Error::Escapes { .. })),
                "{kind:?} {name}"
            );
        }
    }
}

#[test]
fn whiteouts_of_dots_are_refused_and_opaque_at_the_root_is_reported() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        let bench = Bench::new();
        let error = bench.apply(&Tar::new().file(name, "").bytes()).unwrap_err();
        assert!(matches!(error, Error::Escapes { .. }), "{name} {error}");
    }
    let bench = Bench::new();
    let applied = bench
        .apply(
            &Tar::new()
                .file("kept", "x")
                .file(".wh..wh..opq", "")
                .file("also", "x")
                .bytes(),
        )
        .unwrap();
    assert!(applied.opaque_root);
    assert_eq!(bench.read("kept") + &bench.read("also"), "xx");
    assert_eq!(std::fs::read_dir(bench.path()).unwrap().count(), 2);
}

#[test]
fn device_nodes_are_made_only_inside() {
    let bench = Bench::new();
    let tar = Tar::new()
        .entry(&Entry {
            mode: 0o666,
            ..entry("dev/null", Kind::Character { major: 1, minor: 3 })
        })
        .entry(&entry("dev/loop", Kind::Block { major: 7, minor: 0 }))
        .entry(&entry("dev/fifo", Kind::Fifo));
    bench.apply(&tar.bytes()).unwrap();
    let null = std::fs::symlink_metadata(bench.path().join("dev/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(
        std::fs::symlink_metadata(bench.path().join("dev/loop"))
            .unwrap()
            .file_type()
            .is_block_device()
    );
    assert!(
        std::fs::symlink_metadata(bench.path().join("dev/fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn the_overlay_attributes_of_an_archive_are_left_out() {
    let bench = Bench::new();
    let xattrs = vec![
        ("trusted.overlay.redirect".into(), b"/etc".to_vec()),
        ("user.overlay.opaque".into(), b"y".to_vec()),
        ("trusted.overlay.opaque".into(), b"y".to_vec()),
        ("user.kept".into(), b"v".to_vec()),
    ];
    let applied = bench
        .apply(
            &Tar::new()
                .entry(&Entry {
                    xattrs,
                    ..entry("d", Kind::Directory)
                })
                .bytes(),
        )
        .unwrap();
    assert_eq!(applied.warnings.len(), 3);
    let mut list = [0; 256];
    let count = rustix::fs::listxattr(bench.path().join("d"), &mut list[..]).unwrap();
    assert_eq!(&list[..count], b"user.kept\0");
}

#[test]
fn names_and_ids_out_of_range_are_refused() {
    let long = "x".repeat(5000);
    let deep = "d/".repeat(1500);
    for (name, tar) in [
        ("long", Tar::new().file(&long, "")),
        ("deep", Tar::new().dir(&deep)),
        ("link", Tar::new().symlink("s", &long)),
    ] {
        assert!(
            matches!(Bench::new().apply(&tar.bytes()), Err(Error::TooLarge { .. })),
            "{name}"
        );
    }
    // One component longer than a directory entry can be: the file system says so.
    assert!(matches!(
        Bench::new().apply(&Tar::new().file(&"x".repeat(300), "").bytes()),
        Err(Error::Write { .. })
    ));
    for id in [
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\xff\xff\xff\xff",
        b"\x80\0\0\x01\0\0\0\0",
    ] {
        let header = block(b"x", b'0', b"00000000000", |block| block[108..116].copy_from_slice(id));
        let error = Bench::new().apply(&Tar::new().raw(&header).bytes()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{id:?}: {error}");
    }
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        content.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    let size = format!("{:011o}", content.len());
    let mut bytes = block(b"pax", b'x', size.as_bytes(), |_| {}).to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    bytes.extend(content);
    bytes
}

#[test]
fn the_size_of_a_pax_record_decides_what_is_skipped() {
    // CVE-2025-62518: the ustar header says 0, the record says 1024. Whoever believes the header sees `hidden`.
    let hidden = Tar::new().file("hidden", "evil").bytes();
    let tar = Tar::new()
        .raw(&pax(&[("size", "1024")]))
        .raw(&block(b"carrier", b'0', b"00000000000", |_| {}))
        .raw(&hidden[..1024])
        .file("after", "x");
    let bench = Bench::new();
    bench.apply(&tar.bytes()).unwrap();
    assert_eq!(std::fs::read(bench.path().join("carrier")).unwrap(), hidden[..1024]);
    assert!(!bench.path().join("hidden").exists());
    assert_eq!(bench.read("after"), "x");
}

#[test]
fn pax_records_belong_to_the_file_and_not_to_a_long_name_in_between() {
    // RUSTSEC-2026-0112: x, then L, then the file.
    let long = "n".repeat(150);
    let mut name = long.clone().into_bytes();
    name.resize(512, 0);
    let tar = Tar::new()
        .raw(&pax(&[("size", "3"), ("uid", "7")]))
        .raw(&block(b"././@LongLink", b'L', b"00000000226", |_| {}))
        .raw(&name)
        .raw(&block(b"short", b'0', b"00000000000", |_| {}))
        .raw(&{
            let mut data = b"abc".to_vec();
            data.resize(512, 0);
            data
        })
        .file("after", "x");
    let bench = Bench::new();
    bench.apply(&tar.bytes()).unwrap();
    assert_eq!(bench.read(&long), "abc");
    assert_eq!(std::fs::metadata(bench.path().join(&long)).unwrap().uid(), 7);
    assert_eq!(bench.read("after"), "x");
}

#[test]
fn headers_that_claim_too_much_are_refused_before_they_are_read() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let claim = block(b"big", flag, b"10000000000", |_| {});
        let error = Bench::new().apply(&Tar::new().raw(&claim).bytes()).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{flag} {error}");
    }
    let xattrs = (0..100_000)
        .map(|n| (format!("user.{n}").into(), b"v".to_vec()))
        .collect();
    let many = Tar::new().entry(&Entry {
        xattrs,
        ..entry("x", Kind::File)
    });
    assert!(matches!(Bench::new().apply(&many.bytes()), Err(Error::TooLarge { .. })));
    let limits = Limits {
        entries: 3,
        total_bytes: Some(10),
        ..Limits::default()
    };
    let options = ApplyOptions {
        limits,
        ..ApplyOptions::default()
    };
    for tar in [
        Tar::new().dir("a").dir("b").dir("c").dir("d"),
        Tar::new().file("a", "123456").file("b", "123456"),
        Tar::new().raw(&block(b"big", b'0', b"77777777777", |_| {})),
    ] {
        assert!(matches!(
            Bench::new().apply_with(&tar.bytes(), &options),
            Err(Error::TooLarge { .. })
        ));
    }
}

#[test]
fn what_is_cut_off_or_garbled_is_refused() {
    let whole = Tar::new().file("a", &"x".repeat(2000)).bytes();
    for cut in [100, 511, 513, 1000, 2511] {
        assert!(
            matches!(Bench::new().apply(&whole[..cut]), Err(Error::Truncated)),
            "{cut}"
        );
    }
    for extension in [
        pax(&[("path", "x")]),
        block(b"././@LongLink", b'L', b"00000000000", |_| {}).to_vec(),
    ] {
        assert!(matches!(Bench::new().apply(&extension), Err(Error::Truncated)));
    }
    let mut wrong = whole.clone();
    wrong[3] ^= 1;
    let negative = block(b"x", b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", |_| {});
    let single_zero = [&[0; 512][..], &whole].concat();
    let unowned = [
        pax(&[("uid", "3")]),
        block(b"g", b'g', b"00000000000", |_| {}).to_vec(),
        whole.clone(),
    ]
    .concat();
    for bytes in [
        wrong,
        negative.to_vec(),
        single_zero,
        unowned,
        pax(&[("size", "-5")]).into_iter().chain(whole.clone()).collect(),
    ] {
        assert!(matches!(Bench::new().apply(&bytes), Err(Error::Malformed { .. })));
    }
    let unknown = block(b"x", b'V', b"00000000000", |_| {});
    assert!(matches!(Bench::new().apply(&unknown), Err(Error::Unsupported { .. })));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for map in [
        "0,10,5,10",
        "10,2,0,2",
        "0,5",
        "0,-5",
        "9223372036854775807,9223372036854775807",
        "0,512,1",
        "600,512",
        "0,512,512,1",
    ] {
        let tar = Tar::new()
            .raw(&pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", "1000")]))
            .raw(&block(b"sparse", b'0', b"00000001000", |_| {}))
            .raw(&[b'x'; 512]);
        let error = Bench::new().apply(&tar.bytes()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{map}: {error}");
    }
    for first in ["99999999999\n", "-1\n", "x\n", "123456789012345678901234567890\n"] {
        let mut data = first.as_bytes().to_vec();
        data.resize(512, b'0');
        let tar = Tar::new()
            .raw(&pax(&[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.realsize", "1000"),
            ]))
            .raw(&block(b"sparse", b'0', b"00000001000", |_| {}))
            .raw(&data);
        assert!(Bench::new().apply(&tar.bytes()).is_err(), "{first}");
    }
}

#[test]
fn a_gzip_bomb_ends_at_the_limit() {
    let mut tar = Tar::new()
        .raw(&block(b"bomb", b'0', b"04000000000", |_| {}))
        .0
        .finish()
        .unwrap();
    tar.truncate(512);
    let mut encoder = flate2::read::GzEncoder::new(
        std::io::Cursor::new(tar).chain(std::io::repeat(0).take(64 << 20)),
        flate2::Compression::fast(),
    );
    let mut bomb = Vec::new();
    encoder.read_to_end(&mut bomb).unwrap();
    let limits = Limits {
        total_bytes: Some(1 << 20),
        ..Limits::default()
    };
    let bench = Bench::new();
    let root = ferry_sys::Root::open(&bench.path()).unwrap();
    let options = ApplyOptions {
        limits,
        ..ApplyOptions::default()
    };
    let result = ferry_archive::apply(decompress(&bomb[..]).unwrap(), &root, &options);
    assert!(matches!(result, Err(Error::TooLarge { .. })));
    // Without that limit: the stream is shorter than it says.
    let result = ferry_archive::apply(decompress(&bomb[..]).unwrap(), &root, &ApplyOptions::default());
    assert!(matches!(result, Err(Error::Truncated)));
    let cut = &bomb[..bomb.len() / 2];
    assert!(ferry_archive::apply(decompress(cut).unwrap(), &root, &ApplyOptions::default()).is_err());
}

#[test]
fn ten_gigabytes_of_zeros_are_an_empty_archive() {
    let bench = Bench::new();
    let root = ferry_sys::Root::open(&bench.path()).unwrap();
    let zeros = std::io::repeat(0).take(1 << 30);
    let applied = ferry_archive::apply(zeros, &root, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.entries, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Headers changed at random, with their checksums made right again, are applied or refused; nothing gets out.
    #[test]
    fn any_change_of_a_header_is_applied_or_refused(
        changes in proptest::collection::vec((0_usize..24, 0_usize..512, any::<u8>()), 1..6),
        swaps in proptest::collection::vec((0_usize..24, proptest::sample::select(b"0123456789LKxgS7".to_vec())), 0..3),
    ) {
        let xattrs = vec![("user.a".into(), b"b".to_vec())];
        let tar = Tar::new()
            .dir("d").file("d/f", "content").symlink("d/s", "../../canary").link("d/h", "d/f")
            .file(&"long/".repeat(40), "x").file(".wh.gone", "").file("d/.wh..wh..opq", "")
            .entry(&Entry { xattrs, mtime: Time { secs: -1, nanos: 5 }, ..entry("x", Kind::File) })
            .entry(&entry("null", Kind::Character { major: 1, minor: 3 }));
        let mut bytes = tar.bytes();
        let blocks = bytes.len() / 512;
        for (at, offset, value) in changes {
            bytes[at % blocks * 512 + offset] = value;
        }
        for (at, flag) in swaps {
            bytes[at % blocks * 512 + 156] = flag;
        }
        for block in bytes.as_chunks_mut::<512>().0 {
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        // A changed size is a sparse file of any length to nobody: what is stored is what is written.
        let _ = Bench::new().apply(&bytes);
    }
}
