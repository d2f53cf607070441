//! `--secret`: a file in the container's memory, and nowhere else.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Run, TestDaemon, wait_for_none};

const CANARY: &str = "canary-4711";

/// Files below a directory that hold the secret.
fn holding(dir: &std::path::Path) -> String {
    Run::new("grep").args(["-rlaF", CANARY]).args([dir]).output().stdout
}

#[test]
fn a_secret_is_seen_in_the_container_alone() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let file = daemon.dir().join("token");
    std::fs::write(&file, CANARY).unwrap();
    let source = format!("id=token,src={}", file.display());
    let run = [
        "run",
        "-d",
        "--name",
        "c1",
        "--user",
        "1000:50",
        "--secret",
        &source,
        "--secret",
        "id=other,env=TOKEN,uid=5,gid=6,mode=0444",
        BUSYBOX,
        "sleep",
        "1000",
    ];
    daemon.run(run).env("TOKEN", "of the environment").ok();
    std::fs::remove_file(&file).unwrap();
    let look = ["exec", "c1", "sh", "-c"];
    let show = |daemon: &TestDaemon| {
        daemon
            .cli(
                look.into_iter()
                    .chain(["cat /run/secrets/token /run/secrets/other; stat -c %a:%u:%g /run/secrets/*"]),
            )
            .ok()
    };
    let seen = "canary-4711of the environment444:5:6\n400:1000:50";
    assert_eq!(show(&daemon), seen);
    let written = daemon.cli(["exec", "-u", "0", "c1", "sh", "-c", "echo x > /run/secrets/token"]);
    assert_ne!(written.code, 0, "it is read-only");

    // Nowhere else: not in what is told, not on the disk, not in an image.
    for said in [
        daemon.inspect("c1").to_string(),
        daemon.cli(["inspect", "c1"]).ok(),
        daemon.cli(["diff", "c1"]).ok(),
        daemon.log(),
    ] {
        assert!(!said.contains(CANARY) && !said.contains("Y2FuYXJ5"), "{said}");
    }
    daemon.cli(["commit", "c1", "made:1"]).ok();
    let listed = daemon.cli(["run", "--rm", "-u", "0", "made:1", "ls", "-A", "/run/secrets"]);
    assert_eq!(listed.ok(), "");
    assert_eq!(holding(&daemon.data_root()), "");

    // It outlives the daemon and the runs of its container, and nothing else of the container's.
    daemon.kill9();
    daemon.start_again();
    assert_eq!(show(&daemon), seen);
    daemon.cli(["restart", "-t", "0", "c1"]).ok();
    assert_eq!(show(&daemon), seen);
    daemon.cli(["stop", "-t", "0", "c1"]).ok();
    daemon.restart();
    daemon.cli(["start", "c1"]).ok();
    assert_eq!(show(&daemon), seen);
    let other = daemon.sh(&["-u", "0"], "ls /run/secrets 2>&1; true");
    assert!(other.contains("No such file"), "{other}");
    daemon.cli(["rm", "-f", "c1"]).ok();
    wait_for_none("the memory they were in", || {
        let dir = daemon.run_dir().join("secrets");
        dir.exists().then(|| dir.display().to_string()).into_iter().collect()
    });
}

#[test]
fn a_container_whose_secrets_went_with_the_machine_says_so() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let create = [
        "create",
        "--name",
        "c1",
        "--secret",
        "id=token,env=TOKEN",
        BUSYBOX,
        "cat",
        "/run/secrets/token",
    ];
    daemon.run(create).env("TOKEN", CANARY).ok();
    assert_eq!(daemon.cli(["start", "-a", "c1"]).ok(), CANARY);
    // What a reboot does.
    daemon.stop();
    let dir = daemon.run_dir().join("secrets");
    daemon.in_namespace(&["umount", dir.to_str().unwrap()]).ok();
    daemon.start_again();
    let said = daemon.cli(["start", "c1"]).fails(1);
    assert!(
        said.contains("\"token\" is gone") && said.contains("make the container again"),
        "{said}"
    );
}

#[test]
fn with_ids_of_its_own_the_container_owns_its_secret() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let run = [
        "run",
        "--rm",
        "--userns",
        "auto",
        "--secret",
        "id=token,env=TOKEN",
        BUSYBOX,
    ];
    let script = [
        "sh",
        "-c",
        "cat /run/secrets/token; stat -c :%a:%u:%g /run/secrets/token",
    ];
    assert_eq!(
        daemon.run(run.into_iter().chain(script)).env("TOKEN", CANARY).ok(),
        "canary-4711:400:0:0"
    );
}

#[test]
fn what_is_no_secret_is_refused_before_anything_is_made() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    for (options, why) in [
        (&["--secret", "id=a"][..], "src=FILE or env=VARIABLE"),
        (&["--secret", "id=a,env=NOT_THERE"], "there is no variable NOT_THERE"),
        (&["--secret", "id=a,src=/not/there"], "/not/there"),
        (&["--secret", "id=a,env=PATH,target=/etc/x"], "right below /run/secrets"),
        (
            &["--secret", "id=a,env=PATH", "--secret", "id=a,env=PATH"],
            "two of that name",
        ),
        (
            &["--secret", "id=a,env=PATH", "-v", "/run/secrets"],
            "mount that elsewhere",
        ),
        (&["--secret", "id=a,env=PATH", "-u", "nobody"], "give uid="),
        (&["--secret", "id=a,env=PATH,mode=4400"], "0777"),
    ] {
        let done = daemon.cli(["create"].iter().chain(options).chain(&[BUSYBOX, "true"]));
        assert!(done.code == 125 || done.code == 1, "{options:?}: {}", done.code);
        assert!(done.stderr.contains(why), "{options:?}: {}", done.stderr);
    }
    assert_eq!(daemon.cli(["ps", "-aq"]).ok(), "");
    assert!(!daemon.run_dir().join("secrets").exists());
}
