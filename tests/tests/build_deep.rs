//! Trees of a thousand levels, by every way a build has: neither stack nor descriptors end, and time is as for any two thousand files.

use std::time::{Duration, Instant};

use ferry_testkit::{Run, TestDaemon, wait_until};

use crate::build::Place;

const LEVELS: usize = 1000;
/// What takes a second takes half a minute if each path is looked at from the top for each of its parts.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a file in each level.
fn tree(place: &Place, name: &str) {
    let top = place.path(name);
    let mut dir = top.join("d/".repeat(LEVELS));
    std::fs::create_dir_all(&dir).unwrap();
    while dir != top {
        std::fs::write(dir.join("f"), "x").unwrap();
        dir.pop();
    }
}

fn soon(place: &Place, what: &str, line: &str) {
    let begun = Instant::now();
    place.ferry(line).ok();
    let took = begun.elapsed();
    println!("{what}: {took:?}");
    assert!(took < PATIENCE, "{what}: {took:?}");
}

fn files(place: &Place, image: &str, dir: &str) -> usize {
    place
        .inside(image, &format!("find {dir} -name f | wc -l"))
        .parse()
        .unwrap()
}

#[test]
fn a_thousand_levels_are_copied_added_and_given_out() {
    let place = Place::new();
    tree(&place, "t");
    place.write("Dockerfile", "FROM busybox\nCOPY t /t\n");
    soon(&place, "COPY", "build -t app .");
    soon(&place, "COPY of the same", "build -t app .");
    place.write("t/new", "x");
    soon(&place, "COPY of one more", "build -t app .");
    assert_eq!(files(&place, "app", "/t"), LEVELS);
    soon(&place, "files to a directory", "build -o out .");
    let found = Run::new("find").args([place.path("out/t")]).args(["-name", "f"]).ok();
    assert_eq!(found.lines().count(), LEVELS);
    soon(&place, "files to an archive", "build -o type=tar,dest=out.tar .");
    place.write(
        "Dockerfile",
        "FROM app AS one\nFROM busybox\nCOPY --from=one --chown=5 /t /t\n",
    );
    soon(&place, "COPY --from", "build -t app .");
    assert_eq!(files(&place, "app", "/t"), LEVELS);
    // An archive that names no directories, innermost last.
    let names = (1..=LEVELS).map(|level| format!("t/{}f\n", "d/".repeat(level)));
    std::fs::write(place.path("names"), names.collect::<String>()).unwrap();
    let tar = Run::new("tar").directory(place.path(""));
    tar.args(["-cf", "files.tar", "-T", "names"]).output().ok();
    place.write("Dockerfile", "FROM busybox\nADD out.tar /x\nADD files.tar /y\n");
    place.write(".dockerignore", "t\nout\n");
    soon(&place, "ADD", "build -t app .");
    assert_eq!(files(&place, "app", "/x/t"), LEVELS);
    assert_eq!(files(&place, "app", "/y"), LEVELS);
    place.is_clean();
}

#[test]
fn a_container_with_a_thousand_levels_is_compared() {
    let engine = TestDaemon::start();
    let make = format!("i=0; while [ $i -lt {LEVELS} ]; do mkdir d; cd d; touch f; i=$((i+1)); done");
    engine.busybox();
    engine
        .ferry(["run", "--name", "deep", "busybox", "sh", "-c", &make])
        .ok();
    let told = engine.ferry(["diff", "deep"]).ok();
    assert_eq!(told.lines().count(), 2 * LEVELS);
    engine.ferry(["commit", "deep", "deep"]).ok();
    engine.ferry(["rm", "deep"]).ok();
    wait_until("its files are gone", || {
        let left = std::fs::read_dir(engine.data_root().join("containers")).unwrap();
        left.count() == 0
    });
}
