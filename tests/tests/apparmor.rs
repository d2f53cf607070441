//! Profiles of containers, on a kernel that has AppArmor (`cargo xtask vm`).

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, tools};

use crate::oci_apparmor::Loaded;

const CURRENT: &str = "cat /proc/self/attr/apparmor/current";

/// A host with the compiler, which is not in the guest: what it is given is kept, and loaded is what was compiled of the same.
fn host() -> TestDaemon {
    let compiled = tools::apparmor_profile().unwrap();
    let script = format!(
        "mkdir -p $DIR/up $DIR/work
mount -t overlay -o lowerdir=/sbin,upperdir=$DIR/up,workdir=$DIR/work overlay /sbin
printf '#!/bin/sh\\ncat > %s/given; cat {} > /sys/kernel/security/apparmor/.replace\\n' $DIR > /sbin/apparmor_parser
chmod 755 /sbin/apparmor_parser",
        compiled.display()
    );
    TestDaemon::builder().set_up(&script).start()
}

#[test]
fn a_container_is_confined_by_docker_s_profile_unless_it_says_otherwise() {
    let Some(loaded) = Loaded::new() else { return };
    // The engine loads its own.
    loaded.remove();
    let daemon = host();
    assert_eq!(daemon.sh(&[], CURRENT), "docker-default (enforce)");
    let given = std::fs::read_to_string(daemon.dir().join("given")).unwrap();
    assert!(given.contains("profile docker-default"), "{given}");
    loaded.load();
    for (options, profile) in [
        (&["--init"][..], "docker-default (enforce)"),
        (&["--security-opt", "apparmor=unconfined"], "unconfined"),
        (&["--privileged"], "unconfined"),
        (
            &["--security-opt", "apparmor=ferry-test-oci"],
            "ferry-test-oci (enforce)",
        ),
        (
            &["--privileged", "--security-opt", "apparmor:docker-default"],
            "docker-default (enforce)",
        ),
    ] {
        assert_eq!(daemon.sh(options, CURRENT), profile, "{options:?}");
    }
    // What nothing else would keep it from.
    let free = [
        "--security-opt",
        "systempaths=unconfined",
        "--security-opt",
        "seccomp=unconfined",
        "--cap-add",
        "ALL",
    ];
    let attempts = "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness; mkdir /m; mount -t tmpfs x /m; echo tried";
    let tried = daemon.try_sh(&free, attempts);
    assert_eq!(tried.stderr.matches("ermission denied").count(), 2, "{tried:?}");
    let open: Vec<&str> = free
        .into_iter()
        .chain(["--security-opt", "apparmor=unconfined"])
        .collect();
    let tried = daemon.try_sh(&open, attempts);
    assert_eq!((tried.stdout.as_str(), tried.stderr.as_str()), ("tried\n", ""));

    daemon.sleeper("c1", &["--health-cmd", "true", "--health-interval", "50ms"]);
    assert_eq!(daemon.field("c1", "/AppArmorProfile"), "docker-default");
    let exec = |options: &[&str]| {
        let line = ["exec"]
            .into_iter()
            .chain(options.iter().copied())
            .chain(["c1", "sh", "-c", CURRENT]);
        daemon.cli(line).ok()
    };
    assert_eq!(exec(&[]), "docker-default (enforce)");
    assert_eq!(exec(&["--privileged"]), "unconfined");
    ferry_testkit::wait_until("its checks run", || {
        daemon.field("c1", "/State/Health/Status") == "healthy"
    });
    daemon
        .cli(["exec", "c1", "sh", "-c", "sleep 100 & kill $!; wait $!; [ $? = 143 ]"])
        .ok();
    daemon.cli(["stop", "-t", "0", "c1"]).ok();
    let failed = daemon.cli(["run", "--security-opt", "apparmor=ferry-test-nosuch", BUSYBOX, "true"]);
    assert!(
        failed.code != 0 && failed.stderr.contains("ferry-test-nosuch"),
        "{failed:?}"
    );
    let info = daemon.cli(["info", "--format", "{{.SecurityOptions}}"]).ok();
    assert!(info.contains("name=apparmor"), "{info}");
}

#[test]
fn without_apparmor_a_profile_is_said_to_have_no_effect() {
    if std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y')) {
        println!("skipped: this kernel has AppArmor");
        return;
    }
    let daemon = TestDaemon::start();
    daemon.busybox();
    let said = |profile: &str| {
        let option = format!("apparmor={profile}");
        daemon.cli(["run", "--rm", "--security-opt", &option, BUSYBOX, "true"])
    };
    let named = said("mine");
    assert_eq!(named.code, 0, "{named:?}");
    assert!(
        named.stderr.contains("no AppArmor") && named.stderr.contains("mine"),
        "{named:?}"
    );
    assert_eq!(said("unconfined").stderr, "");
    assert_eq!(said("docker-default").code, 0);
}
