//! Pulls and removals at the same time.

use std::time::Duration;

use ferry_testkit::images::{self, Compression, Image, Layer};
use ferry_testkit::{Registry, TestDaemon};

/// Busybox, a layer that all have in common, and one of its own.
fn image(name: &str) -> Image {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (0..1 << 19)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let common = Layer::new().file("common", &noise, 0o644).finish();
    let own = Layer::new()
        .file("name", name.as_bytes(), 0o644)
        .file("own", &noise[8..], 0o644)
        .finish();
    let reference = format!("{}/team/{name}:1", Registry::ADDRESS);
    Image::new(&reference, vec![images::busybox_tar(), common, own]).compression(Compression::Gzip)
}

#[test]
fn a_removal_during_a_pull_takes_nothing_that_the_pull_needs() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let images = ["one", "two"].map(image);
    let [one, two] = [0, 1].map(|at| images[at].references[0].clone());
    daemon.run(["load", "-q"]).input(images::docker_archive(&images)).ok();
    for name in [&one, &two] {
        daemon.cli(["push", "-q", name]).ok();
    }
    daemon.cli(["rmi", &one, &two]).ok();
    for round in 0..16 {
        daemon.cli(["pull", "-q", &one]).ok();
        let pull = daemon.run(["pull", "-q", &two]).spawn();
        std::thread::sleep(Duration::from_millis(round * 7));
        daemon.cli(["rmi", &one]).ok();
        pull.finish().ok();
        assert_eq!(
            daemon.cli(["run", "--rm", "--network=none", &two, "cat", "/name"]).ok(),
            "two"
        );
        // The other way round: what is being pulled is removed by its name, at whatever moment that is there.
        let pull = daemon.run(["pull", "-q", &one]).spawn();
        std::thread::sleep(Duration::from_millis(round * 7));
        daemon.cli(["rmi", "-f", &two]).ok();
        let early = daemon.cli(["rmi", "-f", &one]);
        let pulled = pull.finish();
        assert!(pulled.code == 0 || early.code == 0, "{pulled:?} {early:?}");
        daemon.cli(["rmi", "-f", &one]);
        let said = daemon.cli(["system", "check"]).ok();
        assert!(said.ends_with("nothing is wrong"), "{said}");
        assert_eq!(daemon.cli(["images", "-aq"]).ok(), "");
    }
    drop(registry);
    daemon.finish();
}
