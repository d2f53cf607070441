//! An engine that is killed at any moment of a build: nothing half-done is left, and what was finished is not done again.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ferry_testkit::{Run, wait_for_none, wait_until};

use crate::build::Place;

const KILLS: u64 = 30;

/// Ten steps: a stage, files, processes, caches, an agent. `round` makes them others than before.
fn dockerfile(round: &str) -> String {
    let run = |what: &str| format!("RUN {what} # {round}\n");
    [
        "FROM busybox AS tools\n".to_owned(),
        run("mkdir /out && for n in $(seq 50); do echo $n > /out/$n; done"),
        "COPY files /files\n".to_owned(),
        run("cat /files/* | wc -l > /out/lines"),
        "FROM busybox\n".to_owned(),
        run("echo first > /first"),
        run("--mount=type=cache,target=/cache sh -c 'echo x >> /cache/log; head -c 200000 /dev/zero > /cache/big'"),
        "COPY --from=tools /out /out\n".to_owned(),
        "COPY files /copied\n".to_owned(),
        run("--mount=type=ssh --mount=type=bind,from=tools,source=/files,target=/m --mount=type=tmpfs,target=/t cp -r /m /t && ls /m > /list"),
        run("rm /first && mkdir /first && echo second > /first/second"),
        "WORKDIR /work\n".to_owned(),
        run("cat /out/lines /list > all"),
    ]
    .concat()
}

/// Mounts and processes that are the engine's steps', and directories in which something was being made.
fn left(place: &Place) -> Vec<String> {
    let mark = place.engine.dir().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut left: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&mark))
        .map(str::to_owned)
        .collect();
    let engine = place.engine.engine_pid().to_string();
    let others = place.engine.processes();
    left.extend(
        others
            .into_iter()
            .filter(|line| line.split(' ').next() != Some(&engine)),
    );
    left.extend(groups(place.engine.cgroup_parent()));
    for dir in ["data/tmp", "data/containers", "run/containers", "run/secrets"] {
        let entries = std::fs::read_dir(place.engine.dir().join(dir))
            .into_iter()
            .flatten()
            .flatten();
        left.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    left
}

/// Control groups below the engine's.
fn groups(parent: &str) -> Vec<String> {
    let directories = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.path().display().to_string()).collect()
    };
    let tops = directories("/sys/fs/cgroup")
        .into_iter()
        .chain(["/sys/fs/cgroup".to_owned()]);
    tops.flat_map(|top| directories(&format!("{top}/{parent}"))).collect()
}

#[test]
fn an_engine_that_is_killed_at_any_moment_of_a_build_goes_on_from_what_was_finished() {
    let mut place = Place::new();
    for number in 0..200 {
        place.write(&format!("files/{number}"), &format!("{number}\n"));
    }
    place.write("Dockerfile", &dockerfile("measured"));
    let socket = place.engine.dir().join("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let agent = format!("default={}", socket.display());
    let begun = Instant::now();
    place.ferry(&format!("build --ssh {agent} -t app .")).ok();
    let whole = begun.elapsed();
    let mut remembered = Vec::new();
    for kill in 0..KILLS {
        // Another build each time, killed a little later.
        let text = dockerfile(&kill.to_string());
        place.write("Dockerfile", &text);
        let running = place
            .command()
            .args(["build", "--progress", "plain", "--ssh", &agent, "-t", "app", "."])
            .spawn();
        // In no order: what a kill leaves is met by the next one, early or late.
        let moment = (kill * 7) % KILLS;
        std::thread::sleep(whole * u32::try_from(moment).unwrap() / u32::try_from(KILLS).unwrap());
        place.engine.kill9();
        running.finish();
        place.engine.start_again();
        wait_for_none(&format!("what is left of a build that was killed, {kill}"), || {
            left(&place)
        });
        place.is_clean();
        if kill % 5 == 0 {
            let again = place.ferry(&format!("build --progress plain --ssh {agent} -t app ."));
            assert_eq!(again.code, 0, "{again:?}");
            remembered.push((moment, Place::remembered(&again)));
            let expected: Vec<String> = std::iter::once("200".to_owned()).chain(names(200)).collect();
            assert_eq!(place.inside("app", "cat /work/all"), expected.join("\n"));
            assert_eq!(
                place.inside("app", "cat /first/second; ls /copied /out | wc -l"),
                "second\n254"
            );
        }
    }
    remembered.sort_unstable();
    // Late kills find more of it done than early ones.
    let (early, late) = (remembered[0].1, remembered[remembered.len() - 1].1);
    assert!(
        late > early && late >= 4,
        "steps that were remembered, by the moment of the kill: {remembered:?}"
    );
    wait_for_none("what is left in the end", || left(&place));
}

fn names(count: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_shim_of_a_step_that_is_killed_fails_the_step_and_nothing_else() {
    let place = Place::new();
    place.write("Dockerfile", "FROM busybox\nRUN echo begun; sleep 7654\n");
    let running = place
        .command()
        .args(["build", "--progress", "plain", "."])
        .time(Duration::from_secs(20))
        .spawn();
    running.wait_for_error("begun");
    let found = || Run::new("pgrep").args(["-fx", "sleep 7654"]).output().stdout;
    wait_until("the step's process", || !found().is_empty());
    let step = found();
    // Its shell may be in between, or have become it.
    let above = std::iter::successors(step.trim().parse().ok(), |pid| Some(ferry_testkit::parent(*pid)));
    let is_shim = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap()
            .starts_with("ferry\0shim")
    };
    let shim = above.take(4).find(is_shim).unwrap().to_string();
    Run::new("kill").args(["-9", &shim]).ok();
    let output = running.finish();
    assert_eq!(output.code, 1, "{output:?}");
    wait_for_none("what is left of the step", || {
        // One waits for the next container.
        left(&place)
            .into_iter()
            .filter(|line| !line.contains("ferry shim"))
            .collect()
    });
    place.is_clean();
    place.write("Dockerfile", "FROM busybox\nRUN echo well\n");
    place.ferry("build .").ok();
}
