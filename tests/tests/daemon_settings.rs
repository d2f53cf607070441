//! `--validate` and the settings of containers, beside the real dockerd where it is set up.

use ferry_testkit::{Output, TestDaemon};

/// A file, flags, and whether it is as it must be.
const CASES: &[(&str, &[&str], bool)] = &[
    ("{}", &[], true),
    ("", &[], true),
    ("[]", &[], false),
    (r#"{"a":"#, &[], false),
    (r#"{"no-such":1}"#, &[], false),
    (r#"{"DEBUG":true}"#, &[], false),
    (r#"{"graph":"/x"}"#, &[], false),
    (r#"{"debug":true,"debug":false}"#, &[], true),
    (r#"{"debug":true}"#, &["-D"], false),
    (r#"{"debug":"x"}"#, &[], false),
    (r#"{"labels":["a=b"]}"#, &["--label", "c=d"], false),
    (r#"{"labels":["a"]}"#, &[], false),
    (r#"{"hosts":["unix:///a"]}"#, &["-H", "unix:///b"], false),
    (r#"{"hosts":["foo://x"]}"#, &[], false),
    (r#"{"hosts":["fd://"]}"#, &[], true),
    (r#"{"log-level":"loud"}"#, &[], false),
    (r#"{"log-format":"xml"}"#, &[], false),
    (r#"{"log-format":"json"}"#, &[], true),
    (r#"{"dns":["x"]}"#, &[], false),
    (r#"{"mtu":-1}"#, &[], false),
    (r#"{"max-concurrent-downloads":-1}"#, &[], false),
    (r#"{"max-download-attempts":0}"#, &[], false),
    (r#"{"default-shm-size":"64x"}"#, &[], false),
    (r#"{"default-shm-size":"64m"}"#, &[], true),
    (r#"{"default-cgroupns-mode":"x"}"#, &[], false),
    (r#"{"default-ipc-mode":"x"}"#, &[], false),
    (
        r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":9,"Soft":5}}}"#,
        &[],
        true,
    ),
    (r#"{"init":true}"#, &["--init"], false),
    (r#"{"proxies":{"http-proxy":"x"}}"#, &["--http-proxy", "y"], false),
    (r#"{"registry-mirrors":["x"]}"#, &[], false),
    (
        r#"{"tls":true,"tlscert":"/nonexistent","tlskey":"/nonexistent"}"#,
        &[],
        false,
    ),
    (
        r#"{"live-restore":true,"userland-proxy":false,"shutdown-timeout":5,"features":{"x":true},"storage-driver":"overlay2"}"#,
        &[],
        true,
    ),
    (
        r#"{"builder":{"gc":{"enabled":true}},"experimental":false,"exec-opts":["native.cgroupdriver=cgroupfs"]}"#,
        &[],
        true,
    ),
    (
        "{}",
        &[
            "--containerd",
            "/x",
            "--containerd-namespace",
            "y",
            "--userland-proxy=false",
            "--feature",
            "a=true",
        ],
        true,
    ),
    ("{}", &["--no-such-flag"], false),
];

/// Where the two differ, because Ferry looks closer, or does otherwise and says so.
const OWN: &[(&str, &[&str], &str)] = &[
    (
        r#"{"storage-driver":"btrfs"}"#,
        &[],
        "storage-driver: \"btrfs\" is not there",
    ),
    (r#"{"hosts":["tcp://0.0.0.0:1"]}"#, &[], "--tls=false"),
    (r#"{"data-root":"rel"}"#, &[], "not an absolute path"),
    (
        r#"{"seccomp-profile":"/nonexistent"}"#,
        &[],
        "opening seccomp profile (/nonexistent) failed",
    ),
    (r#"{"exec-opts":["native.cgroupdriver=systemd"]}"#, &[], "cgroupfs"),
    (r#"{"authorization-plugins":["x"]}"#, &[], "--tlsverify"),
    (r#"{"userns-remap":"someone"}"#, &[], "--userns=auto"),
    ("{}", &["--selinux-enabled"], "selinux-enabled"),
    ("{}", &["--storage-opt", "a=b"], "--storage-opt size="),
];

fn ferry(directory: &std::path::Path, file: &str, flags: &[&str]) -> Output {
    let path = directory.join("daemon.json");
    std::fs::write(&path, file).unwrap();
    let run = ferry_testkit::Run::new(ferry_testkit::tools::ferry());
    run.args(["daemon", "--validate", "--config-file"])
        .args([path])
        .args(flags)
        .output()
}

#[test]
fn validate_says_what_dockerd_says() {
    let directory = tempfile::tempdir().unwrap();
    for (file, flags, fine) in CASES {
        let output = ferry(directory.path(), file, flags);
        let code = i32::from(!fine);
        assert_eq!(output.code, code, "{file} {flags:?}: {output:?}");
        assert_eq!(
            output.stderr.ends_with("configuration OK\n"),
            *fine,
            "{file} {flags:?}: {output:?}"
        );
    }
    for (file, flags, words) in OWN {
        let output = ferry(directory.path(), file, flags);
        assert!(
            output.code == 1 && output.stderr.contains(words),
            "{file} {flags:?}: {output:?}"
        );
    }
    let output = ferry(directory.path(), r#"{"hosts":["unix:///a"]}"#, &["-H", "unix:///b"]);
    let words = "the following directives are specified both as a flag and in the configuration file: hosts: (from flag: [unix:///b], from file: [unix:///a])";
    assert!(output.stderr.contains(words), "{output:?}");
}

#[test]
fn dockerd_says_the_same_of_the_same_files() {
    let Some(root) = ferry_testkit::peer::root() else {
        return;
    };
    let file = tempfile::Builder::new().tempdir_in(root.join("tmp")).unwrap();
    let path = file.path().join("daemon.json");
    let inside = format!("/{}", path.strip_prefix(&root).unwrap().display());
    for (text, flags, fine) in CASES {
        // Wishes of Docker's that it looks at later.
        if text.contains("max-download-attempts") || text.contains("default-ipc-mode") {
            continue;
        }
        std::fs::write(&path, text).unwrap();
        let run = ferry_testkit::Run::new("chroot").args([&root]);
        let output = run
            .args(["dockerd", "--validate", "--config-file", &inside])
            .args(*flags)
            .output();
        assert_eq!(output.code == 0, *fine, "{text} {flags:?}: {output:?}");
    }
}

#[test]
fn containers_get_what_the_file_says_unless_they_ask_for_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let (file, profile) = (
        directory.path().join("daemon.json"),
        directory.path().join("seccomp.json"),
    );
    let rule = r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}"#;
    std::fs::write(
        &profile,
        format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#),
    )
    .unwrap();
    let settings = format!(
        r#"{{"default-ulimits":{{"nofile":{{"Name":"nofile","Hard":900,"Soft":800}}}},"default-shm-size":"2m",
        "no-new-privileges":true,"seccomp-profile":"{}","userns-remap":"default","default-ipc-mode":"shareable"}}"#,
        profile.display()
    );
    std::fs::write(&file, settings).unwrap();
    let engine = TestDaemon::builder()
        .arg(&format!("--config-file={}", file.display()))
        .start();
    let script = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1 | awk '{print $2}'; grep NoNewPrivs /proc/self/status | cut -f2; \
                  mkdir /tmp/x 2>/dev/null || echo refused; awk '{print ($2 > 0) ? \"own\" : \"host\"}' /proc/self/uid_map";
    assert_eq!(engine.sh(&[], script), "800\n900\n2048\n1\nrefused\nown");
    let asked = [
        "--ulimit=nofile=700",
        "--shm-size=3m",
        "--security-opt=no-new-privileges=false",
        "--security-opt=seccomp=builtin",
        "--userns=host",
    ];
    assert_eq!(engine.sh(&asked, script), "700\n700\n3072\n0\nhost");
    // What shares a namespace of the host's, or may do everything, is as ever.
    let last = |options: &[&str]| engine.sh(options, script).lines().last().unwrap().to_owned();
    assert_eq!(last(&["--network=host"]), "host");
    assert_eq!(last(&["--privileged"]), "host");
    let options = engine.cli(["info", "--format", "{{.SecurityOptions}}"]).ok();
    assert!(
        options.contains("profile=custom") && options.contains("name=no-new-privileges"),
        "{options}"
    );
    engine.finish();
}
