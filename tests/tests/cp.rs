//! Files into and out of containers, running or not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use ferry_testkit::images::{self, BUSYBOX, Layer};
use ferry_testkit::{Engine, Program, Run, TestDaemon, http};

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("ferry-test-cp-")
        .tempdir_in("/var/tmp")
        .unwrap()
}

fn at(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn read(dir: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(dir.path().join(name)).unwrap()
}

/// The names below, sorted, directories with a slash.
fn names(path: &Path) -> Vec<String> {
    let found = Run::new("find")
        .args([path.as_os_str(), "-mindepth".as_ref(), "1".as_ref()])
        .args(["-printf", "%P%y\n"])
        .ok();
    let mut names: Vec<String> = found
        .lines()
        .map(|line| line.replace(char::is_whitespace, " "))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_container_that_never_ran_is_filled_and_emptied() {
    for program in [Program::Ferry, Program::Docker] {
        let engine = Engine::start();
        let cli = |args: &[&str]| engine.command(program).args(args).output();
        let dir = scratch();
        std::fs::write(dir.path().join("in"), "carried\n").unwrap();
        std::fs::set_permissions(dir.path().join("in"), PermissionsExt::from_mode(0o750)).unwrap();
        engine.busybox();
        cli(&[
            "create",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "cat /etc/new; stat -c '%a %u' /etc/new; echo out > /made",
        ])
        .ok();
        cli(&["cp", &at(&dir, "in"), "c1:/etc/new"]).ok();
        cli(&["cp", "c1:/etc/new", &at(&dir, "back")]).ok();
        assert_eq!(read(&dir, "back"), "carried\n");
        assert_eq!(cli(&["start", "-a", "c1"]).ok(), "carried\n750 0");
        // Stopped, with what it wrote.
        cli(&["cp", "c1:/made", &at(&dir, "made")]).ok();
        assert_eq!(read(&dir, "made"), "out\n");
        cli(&["cp", "c1:/nope", &at(&dir, "x")]).fails(1);
        cli(&["rm", "c1"]).ok();
    }
}

#[test]
fn a_running_container_shows_what_it_sees() {
    let engine = Engine::start();
    let (shared, inside) = engine.share("cp");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("bound"), "bound\n").unwrap();
    let dir = scratch();
    engine.sleeper("c1", &["-v", &format!("{inside}:/b")]);
    engine
        .cli([
            "exec",
            "c1",
            "sh",
            "-c",
            "echo live > /live; ln -s /live /link; mkfifo /fifo",
        ])
        .ok();
    engine.cli(["cp", "c1:/live", &at(&dir, "live")]).ok();
    engine.cli(["cp", "c1:/b/bound", &at(&dir, "bound")]).ok();
    engine.cli(["cp", "c1:/link", &at(&dir, "link")]).ok();
    engine.cli(["cp", "-L", "c1:/link", &at(&dir, "followed")]).ok();
    assert_eq!(
        read(&dir, "live") + &read(&dir, "bound") + &read(&dir, "followed"),
        "live\nbound\nlive\n"
    );
    assert!(dir.path().join("link").is_symlink());
    engine.cli(["cp", &at(&dir, "live"), "c1:/b/new"]).ok();
    assert_eq!(std::fs::read_to_string(shared.join("new")).unwrap(), "live\n");
    // Nothing of the kernel's file systems.
    engine.cli(["cp", "c1:/proc/cpuinfo", &at(&dir, "x")]).fails(1);
    // A paused one answers too.
    engine.cli(["pause", "c1"]).ok();
    engine.cli(["cp", "c1:/live", &at(&dir, "paused")]).ok();
    engine.cli(["unpause", "c1"]).ok();
    assert_eq!(read(&dir, "paused"), "live\n");
}

#[test]
fn a_tmpfs_of_a_running_container_can_be_copied() {
    // Docker copies into and out of the directory below it.
    let daemon = TestDaemon::start();
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    daemon.sleeper("c1", &["--tmpfs", "/t"]);
    daemon.cli(["exec", "c1", "sh", "-c", "echo in > /t/a"]).ok();
    daemon.cli(["cp", "c1:/t/a", &at(&dir, "a")]).ok();
    daemon.cli(["cp", &at(&dir, "f"), "c1:/t/b"]).ok();
    assert_eq!(read(&dir, "a"), "in\n");
    assert_eq!(daemon.cli(["exec", "c1", "cat", "/t/b"]).ok(), "x");
}

#[test]
fn of_dev_the_shared_memory_of_a_running_container_can_be_copied() {
    // As with any tmpfs, Docker copies into and out of the directory below it.
    let daemon = TestDaemon::start();
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    for (name, options) in [("c1", &[][..]), ("c2", &["--userns=auto"]), ("c3", &["--read-only"])] {
        daemon.sleeper(name, options);
        daemon
            .cli(["exec", name, "sh", "-c", "mkdir /dev/shm/d; echo in > /dev/shm/d/a"])
            .ok();
        daemon
            .cli(["cp", &format!("{name}:/dev/shm/d/a"), &at(&dir, name)])
            .ok();
        daemon.cli(["cp", &at(&dir, "f"), &format!("{name}:/dev/shm/b")]).ok();
        assert_eq!(read(&dir, name), "in\n");
        assert_eq!(daemon.cli(["exec", name, "cat", "/dev/shm/b"]).ok(), "x");
        // Nothing else of it, nor of the kernel's file systems.
        for path in ["/dev/null", "/dev/pts", "/proc/version", "/sys/kernel"] {
            daemon.cli(["cp", &format!("{name}:{path}"), &at(&dir, "no")]).fails(1);
        }
        let refused = daemon.cli(["cp", &at(&dir, "f"), &format!("{name}:/dev/x")]).fails(1);
        assert!(refused.contains("read-only"), "{refused}");
    }
}

#[test]
fn what_lands_where_depends_on_what_is_there() {
    let engine = Engine::start();
    let dir = scratch();
    let root = dir.path();
    let here = |name: &str| at(&dir, name);
    let layer = Layer::new()
        .dir("data/sub", 0o755)
        .file("data/f", b"f", 0o644)
        .file("data/sub/g", b"g", 0o644)
        .hard_link("data/hard", "data/f")
        .symlink("absolute", "/data");
    engine.load(&images::docker_archive(&[images::above_busybox("cp:1", layer)]));
    engine.cli(["create", "--name", "c1", "cp:1"]).ok();
    let whole = ["ff", "hardf", "sub/gf", "subd"];
    let below = |name: &str| whole.map(|entry| format!("{name}/{entry}")).to_vec();
    // A directory to a new name, into one that is there, and its content only.
    engine.cli(["cp", "c1:/data", &here("new")]).ok();
    assert_eq!(names(&root.join("new")), whole);
    assert_eq!(
        std::fs::metadata(root.join("new/f")).unwrap().nlink(),
        2,
        "links stay links"
    );
    engine.cli(["cp", "c1:/data", &here("new")]).ok();
    let mut both = [whole.map(str::to_owned).to_vec(), below("data"), vec!["datad".into()]].concat();
    both.sort_unstable();
    assert_eq!(names(&root.join("new")), both);
    engine.cli(["cp", "c1:/data/.", &here("content")]).ok();
    assert_eq!(names(&root.join("content")), whole);
    engine.cli(["cp", "c1:/absolute/", &here("through")]).ok();
    assert_eq!(names(&root.join("through")), whole);
    engine.cli(["cp", "c1:/absolute", root.to_str().unwrap()]).ok();
    assert!(root.join("absolute").is_symlink());
    // What cannot be.
    std::fs::write(root.join("file"), "local").unwrap();
    for (args, complaint) in [
        (["c1:/data".to_owned(), here("file")], "cannot copy directory"),
        (["c1:/data/f".to_owned(), here("none/")], "no such directory"),
        (["c1:/data/f".to_owned(), here("none/x")], "does not exist"),
        ([here("new"), "c1:/data/f".to_owned()], "cannot copy directory"),
        ([here("file"), "c1:/none/".to_owned()], "no such directory"),
        (
            [here("file"), "c1:/none/x".to_owned()],
            "Could not find the file /none in container c1",
        ),
        ([here("nope"), "c1:/".to_owned()], "no such file or directory"),
        (
            ["c1:/a".to_owned(), "c1:/b".to_owned()],
            "copying between containers is not supported",
        ),
    ] {
        let complaint_is = engine.cli(["cp", &args[0], &args[1]]).fails(1);
        assert!(complaint_is.contains(complaint), "{args:?}: {complaint_is}");
    }
    // In: over a file, through a link, to a new name, a directory.
    engine.cli(["cp", &here("file"), "c1:/data/f"]).ok();
    engine.cli(["cp", &here("file"), "c1:/absolute"]).ok();
    engine.cli(["cp", &here("content"), "c1:/data/sub"]).ok();
    engine.cli(["cp", &format!("{}/.", here("content")), "c1:/fresh"]).ok();
    engine.cli(["cp", "c1:/.", &here("all")]).ok();
    assert_eq!(std::fs::read_to_string(root.join("all/data/f")).unwrap(), "local");
    assert_eq!(std::fs::read_to_string(root.join("all/data/file")).unwrap(), "local");
    assert_eq!(names(&root.join("all/data/sub/content")), whole);
    assert_eq!(names(&root.join("all/fresh")), whole);
}

#[test]
fn archives_go_through_the_standard_streams() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let tar = Layer::new()
        .file("one", b"1\n", 0o600)
        .file_of("two", b"2\n", 0o644, (1234, 1235))
        .finish();
    engine.run(["cp", "-", "c1:/tmp"]).input(tar).ok();
    assert_eq!(
        engine
            .cli([
                "exec",
                "c1",
                "sh",
                "-c",
                "cat /tmp/one /tmp/two; stat -c '%u %g' /tmp/two"
            ])
            .ok(),
        "1\n2\n1234 1235"
    );
    engine
        .run(["cp", "-", "c1:/tmp/one"])
        .input(Vec::new())
        .output()
        .fails(1);
}

#[test]
fn the_owner_is_the_archive_s_or_the_container_s_user() {
    let engine = Engine::start();
    engine.sleeper("c1", &["--user", "1000:1001"]);
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    std::os::unix::fs::chown(dir.path().join("f"), Some(77), Some(78)).unwrap();
    engine.cli(["cp", &at(&dir, "f"), "c1:/plain"]).ok();
    engine.cli(["cp", "-a", &at(&dir, "f"), "c1:/archived"]).ok();
    let owners = engine
        .cli(["exec", "c1", "stat", "-c", "%u:%g", "/plain", "/archived"])
        .ok();
    assert_eq!(owners, "77:78\n1000:1001");
}

#[test]
fn a_user_namespace_s_ids_are_those_inside() {
    let daemon = TestDaemon::start();
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    std::os::unix::fs::chown(dir.path().join("f"), Some(5), Some(6)).unwrap();
    daemon.sleeper("c1", &["--userns", "auto"]);
    let look = "stat -c '%u:%g' /f /new /new/f";
    daemon.cli(["exec", "c1", "mkdir", "/new"]).ok();
    daemon.cli(["cp", &at(&dir, "f"), "c1:/f"]).ok();
    daemon.cli(["cp", &at(&dir, "f"), "c1:/new/"]).ok();
    assert_eq!(daemon.cli(["exec", "c1", "sh", "-c", look]).ok(), "5:6\n0:0\n5:6");
    daemon.cli(["stop", "-t", "0", "c1"]).ok();
    daemon.cli(["cp", &at(&dir, "f"), "c1:/stopped"]).ok();
    let stream = daemon.cli(["cp", "c1:/new", &at(&dir, "out")]);
    stream.ok();
    daemon.cli(["start", "c1"]).ok();
    assert_eq!(
        daemon.cli(["exec", "c1", "stat", "-c", "%u:%g", "/stopped"]).ok(),
        "5:6"
    );
}

#[test]
fn a_read_only_root_stays_so() {
    let engine = Engine::start();
    let (shared, inside) = engine.share("cp-ro");
    std::fs::create_dir_all(&shared).unwrap();
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    engine.sleeper(
        "c1",
        &[
            "--read-only",
            "-v",
            &format!("{inside}:/b"),
            "-v",
            &format!("{inside}:/r:ro"),
        ],
    );
    for state in ["running", "stopped"] {
        let complaint = engine.cli(["cp", &at(&dir, "f"), "c1:/f"]).fails(1);
        assert!(
            complaint.contains("container rootfs is marked read-only"),
            "{state}: {complaint}"
        );
        let complaint = engine.cli(["cp", &at(&dir, "f"), "c1:/r/f"]).fails(1);
        assert!(
            complaint.contains("mounted volume is marked read-only"),
            "{state}: {complaint}"
        );
        engine.cli(["cp", &at(&dir, "f"), "c1:/b/f"]).ok();
        assert_eq!(std::fs::read_to_string(shared.join("f")).unwrap(), "x");
        engine.cli(["stop", "-t", "0", "c1"]).ok();
    }
}

#[test]
fn the_api_answers_as_docker_s() {
    let engine = Engine::start();
    let layer = Layer::new()
        .file("data/f", b"hi\n", 0o4755)
        .symlink("l", "data/f")
        .symlink("d", "/data");
    engine.load(&images::docker_archive(&[images::above_busybox("cp:1", layer)]));
    engine.cli(["create", "--name", "c1", "cp:1"]).ok();
    let ask = |method: &str, path: &str, body: &[u8]| {
        let path = format!("/v1.51/containers/c1/archive?path={path}");
        http::request(engine.socket(), method, &path, "application/x-tar", body).unwrap()
    };
    let stat = |path: &str| {
        let answer = ask("HEAD", path, b"");
        let header = answer.header("X-Docker-Container-Path-Stat").map(str::to_owned);
        let decoded = header.map(|header| Run::new("base64").args(["-d"]).input(header).ok());
        let value: serde_json::Value = serde_json::from_str(&decoded.unwrap_or_else(|| "{}".into())).unwrap();
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        (
            answer.status,
            text("name"),
            value["mode"].as_u64().unwrap_or(0),
            text("linkTarget"),
        )
    };
    let dir = (1 << 31) | 0o755;
    assert_eq!(stat("/data"), (200, "data".into(), dir, String::new()));
    assert_eq!(stat("data/."), (200, ".".into(), dir, String::new()));
    assert_eq!(stat("/d/"), (200, "d".into(), dir, String::new()));
    assert_eq!(stat("/d"), (200, "d".into(), (1 << 27) | 0o777, "/data".into()));
    assert_eq!(stat("/l"), (200, "l".into(), (1 << 27) | 0o777, "/data/f".into()));
    assert_eq!(stat("/../data/f"), (200, "f".into(), (1 << 23) | 0o755, String::new()));
    assert_eq!(stat("/nope").0, 404);
    assert_eq!(stat("/data/f/").0, 500);
    assert_eq!(stat("").0, 400);
    let put = |path: &str, body: &[u8]| ask("PUT", path, body).status;
    let tar = Layer::new().file("n", b"new", 0o644).finish();
    assert_eq!(put("/data", &tar), 200);
    assert_eq!(put("/data", b""), 200);
    assert_eq!(put("/nope", &tar), 404);
    assert_eq!(put("/data/f", &tar), 400);
    let got = ask("GET", "/data/n", b"");
    assert_eq!(
        (got.status, got.header("Content-Type")),
        (200, Some("application/x-tar"))
    );
    assert!(got.body.windows(3).any(|bytes| bytes == b"new"));
    // A large body to a place that is not there: the answer arrives all the same.
    let large = Layer::new().file("n", &vec![7; 8 << 20], 0o644).finish();
    assert_eq!(put("/nope", &large), 404);
}

#[test]
fn compressed_archives_are_unpacked_and_broken_ones_refused() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let put = |body: &[u8]| {
        let path = "/containers/c1/archive?path=/tmp";
        http::request(daemon.socket(), "PUT", path, "application/x-tar", body)
            .unwrap()
            .status
    };
    let tar = Layer::new().file("z", b"packed", 0o644).finish();
    let dir = scratch();
    std::fs::write(dir.path().join("t"), &tar).unwrap();
    Run::new("gzip").args([at(&dir, "t")]).ok();
    let tar = std::fs::read(dir.path().join("t.gz")).unwrap();
    assert_eq!(put(&tar), 200);
    assert_eq!(put(b"no archive at all"), 400);
    assert_eq!(put(&Layer::new().file("../../../up", b"x", 0o644).finish()), 400);
    let cut = &Layer::new().file("c", &[1; 4096], 0o644).finish()[..2048];
    assert_eq!(put(cut), 400);
    assert_eq!(daemon.cli(["exec", "c1", "cat", "/tmp/z"]).ok(), "packed");
}

/// CVE-2018-15664: a container swaps a directory for a link to the host's while files are copied.
#[test]
fn a_link_that_comes_and_goes_never_leads_to_the_host() {
    let daemon = TestDaemon::start();
    let dir = scratch();
    let host = scratch();
    std::fs::write(host.path().join("secret"), "host").unwrap();
    std::fs::write(dir.path().join("secret"), "container").unwrap();
    daemon.sleeper("c1", &[]);
    let target = host.path().display();
    let swap = format!(
        "mkdir -p /real{target} /a; echo inside > /real{target}/secret; ln -s / /b; \
         while :; do mv -T /a /c; mv -T /b /a; mv -T /a /b; mv -T /c /a; done"
    );
    daemon.cli(["exec", "-d", "c1", "sh", "-c", &swap]).ok();
    let path = format!("c1:/a{target}");
    for _ in 0..100 {
        // Whether it finds anything is the race's affair.
        daemon.cli(["cp", &format!("{path}/secret"), &at(&dir, "got")]);
        daemon.cli(["cp", &at(&dir, "secret"), &format!("{path}/")]);
        daemon.cli(["cp", &at(&dir, "secret"), &format!("{path}/secret")]);
    }
    assert_eq!(read(&host, "secret"), "host");
    if let Ok(got) = std::fs::read_to_string(dir.path().join("got")) {
        assert_ne!(got, "host");
    }
    assert_eq!(names(host.path()), ["secretf"]);
}

#[test]
fn nothing_of_a_copy_is_left() {
    let daemon = TestDaemon::start();
    let dir = scratch();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    daemon.sleeper("c1", &[]);
    daemon.cli(["create", "--name", "c2", BUSYBOX]).ok();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", daemon.engine_pid());
        std::fs::read_to_string(path).unwrap().split_whitespace().count()
    };
    let before = (mounts(), children());
    for name in ["c1", "c2"] {
        for _ in 0..10 {
            daemon.cli(["cp", &at(&dir, "f"), &format!("{name}:/f")]).ok();
            daemon.cli(["cp", &format!("{name}:/bin"), &at(&dir, "bin")]).ok();
            daemon.cli(["cp", &format!("{name}:/nope"), &at(&dir, "bin")]).fails(1);
        }
    }
    ferry_testkit::wait_until("no helper and no mount is left", || (mounts(), children()) <= before);
    // And each can still be started: nobody holds its files.
    daemon.cli(["start", "c2"]).ok();
}

#[test]
fn a_start_waits_for_a_copy_and_ends_one_that_stalls() {
    use std::io::Write as _;
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.cli(["create", "--name", "c1", BUSYBOX, "true"]).ok();
    // A client that begins to send and then says nothing more.
    let mut stalled = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    stalled
        .write_all(b"PUT /containers/c1/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nhalf")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let began = std::time::Instant::now();
    daemon.cli(["start", "c1"]).ok();
    assert!(
        began.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}
