//! What is kept of builds and goes by itself: BuildKit's usual rules with small numbers, and a disk that has little room.

use std::collections::BTreeMap;

use ferry_testkit::{TestDaemon, wait_until};

use crate::build::Place;

/// Three things of three megabytes each, the cache mount first, and no image that needs them.
const DOCKERFILE: &str = "FROM busybox
RUN --mount=type=cache,target=/c head -c 3000000 /dev/urandom > /c/f
RUN head -c 3000000 /dev/urandom > /one
RUN head -c 3000000 /dev/urandom > /two
";

/// Builds on an engine with this `builder.gc`.
fn built(gc: &str, disk: Option<u64>) -> Place {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!(r#"{{"builder": {{"gc": {gc}}}}}"#)).unwrap();
    let builder = TestDaemon::builder()
        .arg("--config-file")
        .arg(&file.path().to_string_lossy());
    let builder = match disk {
        Some(mebibytes) => builder.disk(mebibytes),
        None => builder,
    };
    let place = Place::on(builder.start());
    place.write("Dockerfile", DOCKERFILE);
    place.ferry("build -o type=cacheonly .").ok();
    place
}

/// Megabytes of each kind that are kept.
fn kept(place: &Place) -> BTreeMap<String, u64> {
    let (_, told) = place.engine.api("GET", "/system/df?type=build-cache", None);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for kept in told["BuildCache"].as_array().unwrap() {
        let kind = kept["Type"].as_str().unwrap().to_owned();
        *kinds.entry(kind).or_default() += kept["Size"].as_u64().unwrap();
    }
    kinds.retain(|_, size| *size >= 1_000_000);
    kinds.into_iter().map(|(kind, size)| (kind, size / 1_000_000)).collect()
}

fn becomes(gc: &str, disk: Option<u64>, expected: &[(&str, u64)]) {
    let place = built(gc, disk);
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(kind, size)| ((*kind).to_owned(), *size))
        .collect();
    let mut last = BTreeMap::new();
    wait_until(&format!("{gc}: {expected:?}"), || {
        last = kept(&place);
        last == expected
    });
    place.is_clean();
    // It builds on: what is left is remembered, and what is not is made again.
    place.ferry("build -t app .").ok();
    assert_eq!(place.inside("app", "cat /one /two | wc -c"), "6000000");
}

#[test]
fn what_is_made_again_easily_goes_first_and_what_was_used_goes_last() {
    // What nobody used for an hour: nothing yet. Then what is no result of a step.
    let first = r#"{"policy": [{"filter": ["unused-for=1h"], "all": true},
        {"filter": ["type=exec.cachemount"], "maxUsedSpace": "8MB"}]}"#;
    becomes(first, None, &[("regular", 6)]);
    // The rest by use, until it is little enough.
    becomes(r#"{"defaultMaxUsedSpace": "7MB"}"#, None, &[("regular", 6)]);
    becomes(r#"{"defaultMaxUsedSpace": "5MB"}"#, None, &[("regular", 3)]);
    // What is reserved stays, whatever else is asked for.
    let reserved = r#"{"defaultMaxUsedSpace": "1MB", "defaultReservedSpace": "5MB"}"#;
    becomes(reserved, None, &[("regular", 3)]);
    becomes(r#"{"defaultMaxUsedSpace": "1MB"}"#, None, &[]);
}

#[test]
fn a_disk_with_little_room_is_made_room_on() {
    // Less than that is free from the beginning.
    becomes(r#"{"defaultMinFreeSpace": "1GB"}"#, Some(64), &[]);
    // There is room without the nine megabytes, and not with them.
    let place = built(r#"{"enabled": false}"#, Some(64));
    let root = place.engine.data_root();
    let disk = rustix::fs::statvfs(format!("/proc/{}/root{}", place.engine.engine_pid(), root.display())).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    place.engine.finish();
    let needed = format!(r#"{{"defaultMinFreeSpace": "{}B"}}"#, free + 1_500_000);
    becomes(&needed, Some(64), &[("regular", 6)]);
}
