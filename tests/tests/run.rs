//! `run`: what a command sees and what comes back.

use std::process::Command;

use ferry_testkit::images::{self, BUSYBOX};
use ferry_testkit::{Engine, TestDaemon, wait_until};
use serde_json::json;

#[test]
fn output_and_exit_code_come_back() {
    let engine = Engine::start();
    assert_eq!(engine.sh(&[], "echo hello"), "hello");
    assert_eq!(engine.try_sh(&[], "exit 7").code, 7);
    // The first process of a PID namespace cannot kill itself: pid_namespaces(7).
    assert_eq!(engine.try_sh(&[], "kill -9 $$; exit 4").code, 4);
    assert_eq!(engine.try_sh(&[], "sh -c 'kill -9 $$'; exit $?").code, 137);
    let output = engine.try_sh(&[], "echo out; echo err >&2; exit 3");
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str(), output.code),
        ("out\n", "err\n", 3)
    );
}

#[test]
fn output_is_complete_to_the_last_byte() {
    let engine = Engine::start();
    let output = engine.try_sh(&[], "yes 0123456789abcdef | head -c 20000000; echo end");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.len(), 20_000_004);
    assert!(output.stdout.ends_with("end\n"));
    for _ in 0..10 {
        assert_eq!(engine.try_sh(&["--network", "none"], "printf x").stdout, "x");
    }
}

#[test]
fn standard_input_goes_in_with_i_and_is_empty_without() {
    let engine = Engine::start();
    engine.busybox();
    let text = "line\n".repeat(100_000);
    let counted = engine.run(["run", "--rm", "-i", BUSYBOX, "wc", "-l"]).input(text).ok();
    assert_eq!(counted, "100000");
    let counted = engine.run(["run", "--rm", BUSYBOX, "wc", "-c"]).input("dropped").ok();
    assert_eq!(counted, "0");
}

#[test]
fn environment_comes_from_image_files_and_flags() {
    let engine = Engine::start();
    engine.busybox();
    let (dir, _) = engine.share("env");
    let file = dir.join("file");
    std::fs::write(&file, "# a comment\nFROM_FILE=a b=c\nBOTH=file\n\nFROM_CLIENT\n").unwrap();
    let path = file.display().to_string();
    let args = [
        "run",
        "--rm",
        "--env-file",
        &path,
        "-e",
        "BOTH=flag",
        "-e",
        "EMPTY=",
        "-e",
        "ALSO_CLIENT",
        "-e",
        "NOT_SET",
    ];
    let run = engine.run(args).args(["--hostname", "web", BUSYBOX, "env"]);
    let output = run.env("FROM_CLIENT", "1").env("ALSO_CLIENT", "2").ok();
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "ALSO_CLIENT=2",
            "BOTH=flag",
            "EMPTY=",
            "FROM_CLIENT=1",
            "FROM_FILE=a b=c",
            "HOME=/root",
            "HOSTNAME=web",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
    );
}

#[test]
fn the_host_name_is_the_short_id_unless_given() {
    let engine = Engine::start();
    let id = engine.sleeper("c1", &[]);
    let name = engine.cli(["exec", "c1", "hostname"]).ok();
    assert_eq!(name, id[..12]);
    assert_eq!(engine.cli(["exec", "c1", "cat", "/etc/hostname"]).ok(), id[..12]);
    let hosts = engine.cli(["exec", "c1", "cat", "/etc/hosts"]).ok();
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
    let last: Vec<&str> = hosts.lines().last().unwrap().split('\t').collect();
    assert_eq!((last[0].split('.').count(), last[1]), (4, &id[..12]), "{hosts}");
    assert_eq!(
        engine.sh(&["--hostname", "web.example.org"], "hostname; cat /etc/hostname"),
        "web.example.org\nweb.example.org"
    );
}

#[test]
fn the_working_directory_is_made() {
    let engine = Engine::start();
    assert_eq!(engine.sh(&[], "pwd"), "/");
    assert_eq!(
        engine.sh(&["-w", "/a/b/c"], "pwd; stat -c '%a %u' /a/b"),
        "/a/b/c\n755 0"
    );
}

#[test]
fn users_are_names_or_numbers_with_their_groups() {
    let engine = Engine::start();
    assert_eq!(engine.sh(&[], "id"), "uid=0(root) gid=0(root) groups=0(root)");
    let app = engine.sh(&["-u", "app"], "id; echo $HOME");
    assert_eq!(
        app,
        "uid=1000(app) gid=1000(app) groups=29(audio),1000(app),1001(extra)\n/home/app"
    );
    assert_eq!(
        engine.sh(&["-u", "1000:1001"], "id -u; id -g; id -G"),
        "1000\n1001\n1001"
    );
    assert_eq!(engine.sh(&["-u", "4242"], "id -u; id -g; echo $HOME"), "4242\n0\n/");
    assert_eq!(engine.sh(&["-u", ":1001"], "id -u; id -g"), "0\n1001");
    assert_eq!(engine.sh(&["-u", "nobody:audio"], "id -u; id -g"), "65534\n29");
}

#[test]
fn a_number_is_never_looked_up_as_a_name() {
    // CVE-2016-3697
    let engine = Engine::start();
    let passwd = b"root:x:0:0::/root:/bin/sh\n4243:x:0:0::/root:/bin/sh\n";
    let layer = images::Layer::new().file("etc/passwd", passwd, 0o644);
    engine.load(&images::docker_archive(&[images::above_busybox(
        "numbers:latest",
        layer,
    )]));
    assert_eq!(
        engine.cli(["run", "--rm", "-u", "4243", "numbers", "id", "-u"]).ok(),
        "4243"
    );
}

#[test]
fn entrypoint_and_command_are_put_together() {
    let engine = Engine::start();
    let image = images::busybox();
    let image = image
        .config("Entrypoint", json!(["echo", "entry"]))
        .config("Cmd", json!(["cmd"]));
    let image = images::Image {
        references: vec!["entry:latest".into()],
        ..image
    };
    engine.load(&images::docker_archive(&[image]));
    assert_eq!(engine.cli(["run", "--rm", "entry"]).ok(), "entry cmd");
    assert_eq!(engine.cli(["run", "--rm", "entry", "mine"]).ok(), "entry mine");
    assert_eq!(engine.cli(["run", "--rm", "--entrypoint", "echo", "entry"]).ok(), "");
    assert_eq!(
        engine
            .cli(["run", "--rm", "--entrypoint", "echo", "entry", "x", "y"])
            .ok(),
        "x y"
    );
}

#[test]
fn the_image_sets_user_directory_and_stop_signal() {
    let engine = Engine::start();
    let image = images::busybox()
        .config("User", json!("app"))
        .config("WorkingDir", json!("/srv/x"));
    let image = image
        .config("StopSignal", json!("SIGUSR1"))
        .config("Labels", json!({"a": "1", "b": "2"}));
    let image = images::Image {
        references: vec!["configured:latest".into()],
        ..image
    };
    engine.load(&images::docker_archive(&[image]));
    let run = |args: &[&str]| engine.cli(["run", "--rm"].iter().chain(args)).ok();
    assert_eq!(run(&["configured", "sh", "-c", "id -u; pwd"]), "1000\n/srv/x");
    engine
        .cli(["create", "--name", "c1", "--label", "b=3", "--label", "c", "configured"])
        .ok();
    assert_eq!(engine.field("c1", "/Config/Labels"), r#"{"a":"1","b":"3","c":""}"#);
    assert_eq!(engine.field("c1", "/Config/StopSignal"), "SIGUSR1");
}

#[test]
fn a_detached_run_prints_the_id_and_rm_takes_it_away() {
    let engine = Engine::start();
    engine.busybox();
    let id = engine.cli(["run", "-d", "--rm", BUSYBOX, "sleep", "0.3"]).ok();
    assert!(
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert!(engine.has_container(&id));
    wait_until("the container goes by itself", || !engine.has_container(&id));
    let id = engine.cli(["run", "-d", "--rm", BUSYBOX, "sleep", "1000"]).ok();
    engine.cli(["kill", &id]).ok();
    wait_until("it goes after kill", || !engine.has_container(&id));
}

#[test]
fn a_tmpfs_has_its_size_and_is_gone_afterwards() {
    let engine = Engine::start();
    let seen = engine.try_sh(
        &["--tmpfs", "/t:size=1m,mode=1770"],
        "stat -c %a /t; grep ' /t ' /proc/mounts; dd if=/dev/zero of=/t/x bs=1k count=2000",
    );
    assert_eq!(seen.code, 1, "{seen:?}");
    assert!(
        seen.stdout
            .starts_with("1770\ntmpfs /t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=1770"),
        "{seen:?}"
    );
    assert!(seen.stderr.contains("No space left on device"), "{seen:?}");
}

#[test]
fn bind_mounts_share_a_directory_or_a_file() {
    let engine = Engine::start();
    let (dir, shown) = engine.share("bind");
    std::fs::write(dir.join("f"), "from the host\n").unwrap();
    let bind = format!("{shown}:/b");
    assert_eq!(engine.sh(&["-v", &bind], "cat /b/f; echo back > /b/g"), "from the host");
    assert_eq!(std::fs::read_to_string(dir.join("g")).unwrap(), "back\n");
    let read_only = engine.try_sh(&["-v", &format!("{bind}:ro")], "touch /b/h");
    assert!(
        read_only.clone().fails(1).contains("Read-only file system"),
        "{read_only:?}"
    );
    let file = format!("type=bind,source={shown}/f,target=/etc/motd,readonly");
    assert_eq!(
        engine.sh(
            &["--mount", &file],
            "cat /etc/motd; echo x 2>/dev/null > /etc/motd || echo no"
        ),
        "from the host\nno"
    );
}

#[test]
fn bind_mounts_do_not_receive_the_host_s_later_mounts_unless_asked() {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
    let engine = Engine::start();
    if !engine.is_ferry() {
        // It is in another mount namespace.
        return;
    }
    let (dir, shown) = engine.share("shared");
    let made = Command::new("mount")
        .args(["-t", "tmpfs", "--make-shared", "tmpfs"])
        .arg(&dir)
        .status()
        .unwrap();
    let _mounted = Mounted(dir);
    assert!(made.success());
    for (options, expected) in [("", "-"), (":rslave", "master"), (":rshared", "shared")] {
        let bind = format!("{shown}:/b{options}");
        let line = engine.sh(&["-v", &bind], "grep ' /b ' /proc/self/mountinfo");
        let field = line.split(' ').nth(6).unwrap_or_default();
        assert_eq!(field.split(':').next(), Some(expected), "{options:?}: {line}");
    }
}

#[test]
fn a_missing_source_is_made_for_v_and_refused_for_mount() {
    let engine = Engine::start();
    let (dir, shown) = engine.share("missing");
    engine.sh(&["-v", &format!("{shown}/made:/b")], "test -d /b");
    assert!(dir.join("made").is_dir());
    let refused = engine.try_sh(&["--mount", &format!("type=bind,source={shown}/not,target=/b")], "true");
    let message = refused.fails(125);
    let wanted = format!("invalid mount config for type \"bind\": bind source path does not exist: {shown}/not");
    assert!(message.contains(&wanted), "{message}");
}

#[test]
fn a_device_is_there_under_its_name() {
    let engine = Engine::start();
    let seen = engine.sh(
        &["--device", "/dev/zero:/dev/nought"],
        "stat -c '%t %T %F' /dev/nought; head -c 3 /dev/nought | wc -c",
    );
    assert_eq!(seen, "1 5 character special file\n3");
}

#[test]
fn a_read_only_root_takes_no_writes() {
    let engine = Engine::start();
    let output = engine.try_sh(
        &["--read-only", "--tmpfs", "/tmp"],
        "touch /x; touch /tmp/y && touch /dev/shm/z && echo fine",
    );
    assert_eq!(output.stdout, "fine\n");
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
}

#[test]
fn ulimits_are_set() {
    let engine = Engine::start();
    assert_eq!(
        engine.sh(
            &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
            "ulimit -Sn; ulimit -Hn; ulimit -c"
        ),
        "100\n200\n0"
    );
}

#[test]
fn an_init_process_reaps_and_passes_the_exit_code_on() {
    let engine = Engine::start();
    let seen = engine.sh(&["--init"], "(sh -c 'sleep 0.1 & exit' &) ; sleep 0.4; grep -h State /proc/[0-9]*/status | grep -c Z; cat /proc/1/comm; echo $$");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "0", "zombies: {seen}");
    assert_ne!(lines[1], "sh", "{seen}");
    assert_ne!(lines[2], "1", "{seen}");
    assert_eq!(engine.try_sh(&["--init"], "exit 9").code, 9);
    assert_eq!(engine.try_sh(&["--init"], "kill -15 $$").code, 143);
}

#[test]
fn names_are_made_up_when_none_is_given() {
    let engine = Engine::start();
    engine.busybox();
    let id = engine.cli(["create", BUSYBOX]).ok();
    let name = engine.field(&id, "/Name");
    let (adjective, surname) = name.strip_prefix('/').and_then(|name| name.split_once('_')).unwrap();
    assert!(!adjective.is_empty() && !surname.is_empty(), "{name}");
}

#[test]
fn two_containers_share_layers_and_not_their_writes() {
    let engine = Engine::start();
    engine.sleeper("a1", &[]);
    engine.sleeper("b1", &[]);
    engine
        .cli([
            "exec",
            "a1",
            "sh",
            "-c",
            "echo a > /file; echo changed > /etc/passwd; rm /bin/cp",
        ])
        .ok();
    assert_eq!(engine.cli(["exec", "b1", "ls", "/file"]).code, 1);
    assert!(
        engine
            .cli(["exec", "b1", "cat", "/etc/passwd"])
            .ok()
            .starts_with("root:")
    );
    engine.cli(["exec", "b1", "ls", "/bin/cp"]).ok();
}

#[test]
fn hello_runs_from_the_image_inside_the_binary() {
    let daemon = TestDaemon::start();
    let output = daemon.ferry(["run", "--rm", "ferry/hello"]).ok();
    for wanted in ["PID", "host name", "seccomp"] {
        assert!(output.to_lowercase().contains(&wanted.to_lowercase()), "{output}");
    }
    let output = daemon
        .ferry(["run", "--rm", "-m", "64m", "--hostname", "over-there", "ferry/hello"])
        .ok();
    assert!(output.contains("over-there") && output.contains("64"), "{output}");
    daemon.docker(["run", "--rm", "ferry/hello"]).ok();
}
