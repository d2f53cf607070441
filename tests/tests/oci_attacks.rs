//! `ferry self-test security`: Ferry holds off every attack, and every row of the table is able to say that one got through.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_testkit::command::Running;
use ferry_testkit::{Run, signal, tools, wait_for_none};
use serde_json::Value;

/// This machine may have no AppArmor, or no profile for containers in it.
const MAY_BE_SKIPPED: [&str; 1] = ["apparmor-covered"];

fn self_test() -> Run {
    Run::new(tools::ferry())
        .args(["self-test", "security", "--format", "json"])
        .time(Duration::from_secs(120))
}

/// What a self-test leaves behind: it has its number in every name.
fn leftovers(pid: u32) -> Vec<String> {
    let mark = format!("ferry-self-test-{pid}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut places: Vec<PathBuf> = hierarchies.collect();
    places.extend(["/run", "/tmp", "/sys/fs/cgroup"].map(PathBuf::from));
    let mut left: Vec<String> = places
        .iter()
        .map(|place| place.join(&mark))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&mark)).map(str::to_owned));
    left
}

/// Names of the rows with an outcome, and the whole report.
#[track_caller]
fn report(running: Running) -> (impl Fn(&str) -> Vec<String>, Value) {
    let pid = running.id();
    let output = running.finish();
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(leftovers(pid), [""; 0]);
    assert_eq!(output.code == 0, report["broken"] == 0, "{report:#}");
    let rows = report["attacks"].as_array().unwrap().clone();
    let of = move |outcome: &str| {
        let rows = rows.iter().filter(|row| row["outcome"] == outcome);
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    (of, report)
}

#[test]
fn root_ferry_holds_off_every_attack() {
    let (rows, report) = report(self_test().spawn());
    assert_eq!(rows("broken"), [""; 0], "{report:#}");
    let mut skipped = rows("skipped");
    skipped.retain(|name| !MAY_BE_SKIPPED.contains(&name.as_str()));
    assert_eq!(skipped, [""; 0], "{report:#}");
    assert!(rows("held").len() > 35, "{report:#}");
}

/// The control: the same checks of containers that are set up wrongly on purpose.
#[test]
fn root_every_row_of_the_self_test_can_fail() {
    let (rows, report) = report(self_test().args(["--wrong"]).spawn());
    assert_eq!(rows("held"), [""; 0], "{report:#}");
    let mut skipped = rows("skipped");
    skipped.retain(|name| !MAY_BE_SKIPPED.contains(&name.as_str()));
    assert_eq!(skipped, [""; 0], "{report:#}");
}

/// The attacks are real: they get through to runtimes that lack a mitigation.
#[track_caller]
fn breaks(running: Running, expected: &[&str]) {
    let (rows, report) = report(running);
    let broken = rows("broken");
    for name in expected {
        assert!(broken.iter().any(|broken| broken == name), "{name} held: {report:#}");
    }
}

#[test]
fn root_attacks_get_through_to_runc_1_1_5() {
    let runc = tools::old_runtimes().join("usr/sbin/runc");
    let running = self_test().args([Path::new("--runtime"), &runc]).spawn();
    breaks(running, &RUNC);
}

#[test]
fn root_attacks_get_through_to_crun_1_8_1() {
    let place = tools::old_runtimes();
    let dir = tempfile::tempdir().unwrap();
    let crun = dir.path().join("crun");
    let (libraries, program) = (place.join("usr/lib/x86_64-linux-gnu"), place.join("usr/bin/crun"));
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
        libraries.display(),
        program.display()
    );
    fs::write(&crun, script).unwrap();
    fs::set_permissions(&crun, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // It refuses a machine with both versions of control groups, so the second one goes in a mount namespace.
    let line = format!(
        "umount /sys/fs/cgroup/unified 2>/dev/null; exec {} self-test security --format json --runtime {}",
        tools::ferry().display(),
        crun.display()
    );
    let running = Run::new("unshare")
        .args(["--mount", "sh", "-c", &line])
        .time(Duration::from_secs(120))
        .spawn();
    breaks(running, &CRUN);
}

const RUNC: [&str; 6] = [
    "proc-led",
    "mask-defaults",
    "host-dev",
    "exec-user",
    "users-fifo",
    "users-lines",
];
const CRUN: [&str; 7] = [
    "run-cwd-fd",
    "exec-cwd-fd",
    "handed-cwd-fd",
    "proc-led",
    "mask-defaults",
    "console-link",
    "user-caps",
];

#[test]
fn root_a_self_test_that_is_ended_leaves_nothing() {
    for signal in [signal::INT, signal::TERM] {
        let running = Run::new(tools::ferry()).args(["self-test", "security"]).spawn();
        let pid = running.id();
        running.wait_for("held ");
        running.signal(signal);
        let output = running.finish();
        assert_eq!(output.code, 1, "{output:?}");
        assert_eq!(leftovers(pid), [""; 0]);
    }
}

#[test]
fn root_what_a_killed_self_test_left_the_next_one_removes() {
    let running = Run::new(tools::ferry()).args(["self-test", "security"]).spawn();
    let pid = running.id();
    running.wait_for("held ");
    running.signal(signal::KILL);
    drop(running.finish());
    // Its containers are gone with it.
    let mark = format!("ferry-self-test-{pid}");
    wait_for_none("processes of the lab", || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cgroup")).ok());
        lines.filter(|line| line.contains(&mark)).collect()
    });
    let next = Run::new(tools::ferry()).args(["self-test", "security"]).spawn();
    next.wait_for("held ");
    next.signal(signal::TERM);
    drop(next.finish());
    assert_eq!(leftovers(pid), [""; 0]);
}

#[test]
fn root_a_runtime_that_runs_nothing_is_no_success() {
    let output = self_test().args(["--runtime", "/bin/false"]).output();
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(
        output.stderr.contains("does not run a plain container here"),
        "{output:?}"
    );
    let output = Run::new(tools::ferry()).args(["self-test", "speed"]).output();
    assert!(
        output.code == 1 && output.stderr.contains("there is no self-test \"speed\""),
        "{output:?}"
    );
}
