//! Limits on block I/O: what the kernel made of them, and what a throttled disk then does.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ferry_testkit::TestDaemon;

const MIB: u64 = 1 << 20;

/// The disk that carries a directory: its device node and its number. `None`, saying so, where there is no single one.
fn disk(dir: &Path) -> Option<(String, String)> {
    let device = std::fs::metadata(dir).unwrap().dev();
    let number = format!("{}:{}", major(device), minor(device));
    let entry = PathBuf::from("/sys/dev/block").join(&number);
    let Ok(entry) = entry.canonicalize() else {
        eprintln!("skipped: {} is on no block device ({number})", dir.display());
        return None;
    };
    // A throttle is of a whole disk: a partition's parent.
    let whole = match entry.join("partition").exists() {
        true => entry.parent().unwrap().to_owned(),
        false => entry,
    };
    let number = std::fs::read_to_string(whole.join("dev")).unwrap().trim().to_owned();
    Some((format!("/dev/{}", whole.file_name().unwrap().to_str().unwrap()), number))
}

/// As in glibc's `gnu_dev_major` and `gnu_dev_minor`.
fn major(device: u64) -> u64 {
    (device >> 8) & 0xfff | (device >> 32) & !0xfff
}

fn minor(device: u64) -> u64 {
    device & 0xff | (device >> 12) & !0xff
}

/// The container's directory in the blkio hierarchy, on cgroup v1. `None`, saying so, elsewhere.
fn group(daemon: &TestDaemon, container: &str) -> Option<PathBuf> {
    let id = daemon.field(container, "/Id");
    let group = Path::new("/sys/fs/cgroup/blkio").join(daemon.cgroup_parent()).join(id);
    if !group.is_dir() {
        eprintln!("skipped: no blkio hierarchy of cgroup v1 here");
        return None;
    }
    Some(group)
}

fn held(group: &Path, file: &str) -> String {
    let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
    text.trim().to_owned()
}

#[test]
fn throttles_and_weights_are_in_force_and_shown() {
    let daemon = TestDaemon::start();
    let Some((path, number)) = disk(daemon.dir()) else {
        return;
    };
    let limit = |value: &str| format!("{path}:{value}");
    let options = [
        "--device-read-bps",
        &limit("3mb"),
        "--device-write-bps",
        &limit("2mb"),
        "--device-read-iops",
        &limit("300"),
        "--device-write-iops",
        &limit("200"),
        "--blkio-weight",
        "300",
    ];
    daemon.sleeper("c1", &options);
    let shown = daemon.inspect("c1");
    for (field, rate) in [
        ("BlkioDeviceReadBps", 3 * MIB),
        ("BlkioDeviceWriteBps", 2 * MIB),
        ("BlkioDeviceReadIOps", 300),
        ("BlkioDeviceWriteIOps", 200),
    ] {
        let expected = serde_json::json!([{ "Path": path, "Rate": rate }]);
        assert_eq!(shown["HostConfig"][field], expected, "{field}");
    }
    assert_eq!(shown["HostConfig"]["BlkioWeight"], 300);
    let Some(group) = group(&daemon, "c1") else { return };
    for (file, rate) in [
        ("blkio.throttle.read_bps_device", 3 * MIB),
        ("blkio.throttle.write_bps_device", 2 * MIB),
        ("blkio.throttle.read_iops_device", 300),
        ("blkio.throttle.write_iops_device", 200),
    ] {
        assert_eq!(held(&group, file), format!("{number} {rate}"), "{file}");
    }
    // With BFQ, without, or with neither: then it is said.
    let weights = ["blkio.weight", "blkio.bfq.weight"].map(|file| held(&group, file));
    match weights.iter().find(|weight| !weight.is_empty()) {
        Some(weight) => assert!(weight.contains("300"), "{weights:?}"),
        None => assert!(
            daemon.log().contains("blockIO.weight 300 is not applied"),
            "{}",
            daemon.log()
        ),
    }
}

/// A command's time in seconds, without what `docker exec` itself takes.
fn seconds(daemon: &TestDaemon, script: &str) -> f64 {
    let start = Instant::now();
    daemon.cli(["exec", "c1", "sh", "-c", script]).ok();
    start.elapsed().as_secs_f64()
}

#[test]
fn a_throttled_disk_takes_its_time() {
    let daemon = TestDaemon::start();
    let Some((path, _)) = disk(daemon.dir()) else { return };
    let bind = format!("{}:/disk", daemon.dir().display());
    let (read, write) = (format!("{path}:4mb"), format!("{path}:2mb"));
    let options = ["-v", &bind, "--device-read-bps", &read, "--device-write-bps", &write];
    daemon.sleeper("c1", &options);
    if group(&daemon, "c1").is_none() {
        return;
    }
    // Direct, so that it is the disk that is measured: buffered writes of v1 are the flusher's, not the container's.
    let file = daemon.dir().join("probe");
    let write = "dd if=/dev/zero of=/disk/probe bs=256k count=16 oflag=direct";
    let read = "dd if=/disk/probe of=/dev/null bs=256k count=16 iflag=direct";
    // 4 MiB at 2 MiB/s and at 4 MiB/s; the kernel lets a first slice of 100 ms pass.
    let (wrote, took) = (seconds(&daemon, write), seconds(&daemon, read));
    assert_eq!(std::fs::metadata(file).unwrap().len(), 4 * MIB);
    assert!((1.5..20.0).contains(&wrote), "writing took {wrote} s");
    assert!((0.7..20.0).contains(&took), "reading took {took} s");
}

#[test]
fn limits_on_devices_that_make_no_sense_are_refused() {
    let daemon = TestDaemon::start();
    for (options, wanted) in [
        (
            &["--device-write-bps", "/dev/null"][..],
            "invalid argument \"/dev/null\" for \"--device-write-bps\" flag: bad format: /dev/null",
        ),
        (
            &["--device-write-bps", "null:1mb"],
            "invalid argument \"null:1mb\" for \"--device-write-bps\" flag: bad format for device path: null:1mb",
        ),
        (
            &["--device-read-bps", "/dev/null:much"],
            "invalid rate for device: /dev/null:much. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
        ),
        (
            &["--device-read-iops", "/dev/null:1mb"],
            "invalid rate for device: /dev/null:1mb. The correct format is <device-path>:<number>. Number must be a positive integer",
        ),
        (
            &["--device-read-bps", "/dev/nowhere:1mb"],
            "stat /dev/nowhere: no such file or directory",
        ),
        (&["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000"),
        (
            &["--blkio-weight-device", "/dev/null:5"],
            "invalid weight for device: /dev/null:5",
        ),
    ] {
        let message = daemon.try_sh(options, "true").fails(125);
        assert!(message.contains(wanted), "{options:?}: {message}");
    }
    assert_eq!(daemon.cli(["ps", "-aq"]).ok(), "");
}
