//! Layers come out of the tar exactly as they went in.

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::{Engine, TestDaemon};

fn above(engine: &Engine, reference: &str, layer: Layer) {
    engine.load(&images::docker_archive(&[images::above_busybox(reference, layer)]));
}

fn seen(engine: &Engine, reference: &str, script: &str) -> String {
    engine.cli(["run", "--rm", reference, "sh", "-c", script]).ok()
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let engine = Engine::start();
    let lower = Layer::new()
        .dir("d", 0o755)
        .file("d/old", b"old", 0o644)
        .file("gone", b"x", 0o644)
        .dir("tree", 0o755)
        .file("tree/leaf", b"x", 0o644);
    let upper = Layer::new()
        .file(".wh.gone", b"", 0o644)
        .file(".wh.tree", b"", 0o644)
        .dir("d", 0o700)
        .file("d/.wh..wh..opq", b"", 0o644)
        .file("d/new", b"new", 0o644);
    let image = Image::new("white:1", vec![images::busybox_tar(), lower.finish(), upper.finish()]);
    engine.load(&images::docker_archive(&[image]));
    assert_eq!(
        seen(
            &engine,
            "white:1",
            "ls -A /d; stat -c %a /d; ls /gone /tree 2>/dev/null | wc -l; ls -A / | grep -c wh || true"
        ),
        "new\n700\n0\n0"
    );
}

#[test]
fn hard_links_stay_linked_across_the_layer() {
    let engine = Engine::start();
    above(
        &engine,
        "linked:1",
        Layer::new()
            .file("a", b"same", 0o644)
            .dir("d", 0o755)
            .hard_link("d/b", "a"),
    );
    assert_eq!(
        seen(
            &engine,
            "linked:1",
            "stat -c %h /a /d/b; [ $(stat -c %i /a) = $(stat -c %i /d/b) ] && cat /d/b"
        ),
        "2\n2\nsame"
    );
}

#[test]
fn attributes_capabilities_and_set_user_id_bits_survive() {
    let engine = Engine::start();
    // struct vfs_cap_data, revision 2, effective: cap_net_raw (linux/capability.h).
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"kept"),
        ])
        .file_of("caps", b"x", 0o755, (0, 0))
        .file_of("setuid", b"x", 0o4755, (1000, 1001))
        .file_of("setgid", b"x", 0o2711, (65534, 7));
    above(&engine, "attributes:1", layer);
    let script = "stat -c '%a %u %g' /setuid /setgid";
    assert_eq!(seen(&engine, "attributes:1", script), "4755 1000 1001\n2711 65534 7");
    // busybox has no getfattr: the image's file is looked at from outside, through the container's root.
    engine
        .cli(["run", "-d", "--name", "c1", "attributes:1", "sleep", "1000"])
        .ok();
    let root = format!("/proc/{}/root/caps", engine.pid("c1"));
    let python = format!(
        "import os; print(os.getxattr('{root}', 'security.capability').hex(), os.getxattr('{root}', 'user.note').decode())"
    );
    let found = ferry_testkit::Run::new("python3").args(["-c", &python]).ok();
    assert_eq!(found, "0100000200200000000000000000000000000000 kept");
}

#[test]
fn long_names_unicode_and_nanoseconds_survive() {
    let engine = Engine::start();
    let long = format!("{}/{}", "directory".repeat(20), "name-ü".repeat(20));
    let layer = Layer::new()
        .pax(&[("path", long.as_bytes()), ("mtime", b"1700000001.123456789")])
        .file("short", b"long", 0o644);
    above(&engine, "long:1", layer);
    assert_eq!(
        seen(
            &engine,
            "long:1",
            &format!("cat '/{long}'; echo; stat -c %y '/{long}' | cut -d' ' -f2")
        ),
        "long\n22:13:21.123456789"
    );
}

#[test]
fn times_owners_and_modes_of_directories_are_the_archive_s() {
    let engine = Engine::start();
    above(
        &engine,
        "times:1",
        Layer::new()
            .dir_of("d", 0o2750, (5, 6))
            .file("d/f", b"x", 0o600)
            .symlink("d/l", "f"),
    );
    assert_eq!(
        seen(&engine, "times:1", "stat -c '%a %u %g %Y' /d /d/f; stat -c %Y /d/l"),
        "2750 5 6 1700000000\n600 0 0 1700000000\n1700000000"
    );
}

#[test]
fn a_sparse_file_is_whole() {
    // Docker refuses GNU sparse entries ("unhandled tar header type 83").
    let engine = Engine::Ferry(Box::new(TestDaemon::start()));
    let dir = engine.share("sparse").0;
    let file = dir.join("sparse");
    let script = format!(
        "truncate -s 64M {0}; printf start | dd of={0} conv=notrunc 2>/dev/null; printf end | dd of={0} bs=1 seek=50000000 conv=notrunc 2>/dev/null; cd {1}; tar --format=gnu -S -cf sparse.tar sparse",
        file.display(),
        dir.display()
    );
    ferry_testkit::Run::new("sh").args(["-ec", &script]).ok();
    let sum = ferry_testkit::Run::new("sha256sum").args([&file]).ok();
    let layer = std::fs::read(dir.join("sparse.tar")).unwrap();
    assert!(layer.len() < 1 << 20);
    engine.load(&images::docker_archive(&[Image::new(
        "sparse:1",
        vec![images::busybox_tar(), layer],
    )]));
    assert_eq!(
        seen(
            &engine,
            "sparse:1",
            "sha256sum < /sparse | cut -c1-64; stat -c %s /sparse"
        ),
        format!("{}\n67108864", &sum[..64])
    );
}

#[test]
fn device_nodes_are_made_and_cannot_be_used_against_the_rules() {
    let engine = Engine::start();
    above(
        &engine,
        "nodes:1",
        Layer::new().device("null", 1, 3).device("mem", 1, 1),
    );
    let output = engine.cli([
        "run",
        "--rm",
        "nodes:1",
        "sh",
        "-c",
        "stat -c '%t %T' /null /mem; echo x > /null && echo fine; head -c 1 /mem",
    ]);
    assert_eq!(output.stdout, "1 3\n1 1\nfine\n");
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
}

#[test]
fn a_hundred_and_twenty_layers_are_one_root() {
    // Docker's own limit is 125 with overlay2; Ferry's is 500.
    let engine = Engine::start();
    let most = if engine.is_ferry() { 500 } else { 120 };
    let mut layers = vec![images::busybox_tar()];
    layers.extend((1..most).map(|n| {
        Layer::new()
            .file(&format!("f{n}"), n.to_string().as_bytes(), 0o644)
            .file("last", n.to_string().as_bytes(), 0o644)
            .finish()
    }));
    engine.load(&images::docker_archive(&[Image::new("deep:1", layers)]));
    let last = most - 1;
    assert_eq!(
        seen(&engine, "deep:1", "cat /last; echo; ls / | grep -c ^f; cat /f1"),
        format!("{last}\n{last}\n1")
    );
}

#[test]
fn the_root_directory_is_docker_s_whatever_the_layer_says() {
    let engine = Engine::start();
    engine.busybox();
    above(&engine, "rooted:1", Layer::new().dir_of(".", 0o700, (0, 7)));
    assert_eq!(seen(&engine, "rooted:1", "stat -c '%a %g' /"), "755 0");
    assert_eq!(
        engine.cli(["run", "--rm", BUSYBOX, "stat", "-c", "%a", "/"]).ok(),
        "755"
    );
}
