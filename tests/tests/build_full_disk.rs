//! A disk that is full while something is built: the error says so, nothing half-done is left, and after a prune it builds.

use ferry_testkit::images::{self, Layer};
use ferry_testkit::{TestDaemon, wait_for_none};

use crate::build::Place;
use crate::build_archives::post;

/// Names in the store's directories, as the engine sees them.
fn held(place: &Place) -> Vec<String> {
    let root = format!(
        "/proc/{}/root{}",
        place.engine.engine_pid(),
        place.engine.data_root().display()
    );
    let mut names = Vec::new();
    for dir in ["tmp", "layers", "containers", "builds/cache"] {
        let entries = std::fs::read_dir(format!("{root}/{dir}"))
            .into_iter()
            .flatten()
            .flatten();
        names.extend(entries.map(|entry| format!("{dir}/{}", entry.file_name().display())));
    }
    names.sort();
    names
}

#[test]
fn a_build_that_fills_the_disk_says_so_and_leaves_nothing() {
    let place = Place::on(TestDaemon::builder().disk(64).start());
    let before = held(&place);
    place.write("large", &"0123456789abcdef".repeat(5 << 20));
    let is_full = |what: &str, said: &str| {
        assert!(
            said.contains("no space left on device") || said.contains("No space left on device"),
            "{what}: {said}"
        );
    };
    let settled = |what: &str| {
        wait_for_none(what, || {
            let now = held(&place);
            now.into_iter()
                .filter(|name| !before.contains(name) && !name.starts_with("builds/cache"))
                .collect()
        });
        place.is_clean();
    };
    let noise = "FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count=200\n";
    let cache = "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/noise bs=1M count=200\n";
    let copies = "FROM busybox\nCOPY large /\n";
    for (what, dockerfile) in [("RUN", noise), ("COPY", copies), ("a cache", cache)] {
        place.write("Dockerfile", dockerfile);
        let output = place.ferry("build --progress plain -t app .");
        assert_eq!(output.code, 1, "{what}: {output:?}");
        is_full(what, &output.stderr);
        settled(what);
    }
    // The cache fills it still.
    place.ferry("builder prune -af").ok();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN head -c 5000000 /dev/urandom > /noise\n",
    );
    place.ferry("build -t app .").ok();
    place.ferry("rmi app").ok();
    place.ferry("builder prune -af").ok();
    settled("what was built and pruned");
    // What unpacks to more than there is room for: a context, and a file to ADD.
    let bomb = images::bomb(10);
    let error = post(&place.engine, "t=app", &bomb).unwrap_err();
    is_full("a context", &error);
    settled("a context");
    let added = Layer::new()
        .file("Dockerfile", b"FROM busybox\nADD bomb /\n", 0o644)
        .file("bomb", &images::bomb(1), 0o644)
        .finish();
    let error = post(&place.engine, "t=app", &added).unwrap_err();
    is_full("ADD", &error);
    settled("ADD");
    place.ferry("build -t app .").ok();
    assert_eq!(place.inside("app", "wc -c < /noise"), "5000000");
    place.engine.finish();
}
