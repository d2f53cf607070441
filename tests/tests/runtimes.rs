//! `--runtime`: containers whose processes another OCI runtime makes. Each test goes through all there are: the runc and the
//! crun of Debian 12, those of the real engines' root where that is set up, and Ferry's own, called as one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::signal::KILL;
use ferry_testkit::{Output, Pty, TestDaemon, parent, peer, tools, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// A daemon that knows some runtimes, and their names.
struct Machine {
    daemon: TestDaemon,
    names: Vec<&'static str>,
    /// Beside the daemon's own directory.
    _dir: tempfile::TempDir,
}

impl std::ops::Deref for Machine {
    type Target = TestDaemon;
    fn deref(&self) -> &TestDaemon {
        &self.daemon
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

impl Machine {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut known: Vec<(&'static str, PathBuf)> = vec![("itself", dir.path().join("runc"))];
        std::os::unix::fs::symlink(tools::ferry(), dir.path().join("runc")).unwrap();
        // The virtual machine of `cargo xtask vm` has no others.
        if !Path::new("/vm/tests").exists() {
            let old = tools::old_runtimes();
            let (libraries, program) = (old.join("usr/lib/x86_64-linux-gnu"), old.join("usr/bin/crun"));
            let (libraries, program) = (libraries.display(), program.display());
            script(
                &dir.path().join("crun"),
                &format!("LD_LIBRARY_PATH={libraries} exec {program} \"$@\""),
            );
            known.push(("runc-1.1", old.join("usr/sbin/runc")));
            known.push(("crun-1.8", dir.path().join("crun")));
        }
        // It refuses a machine with both versions of control groups.
        let mut set_up = "umount /sys/fs/cgroup/unified 2>/dev/null || :".to_owned();
        if let Some(root) = peer::root() {
            known.push(("runc-new", root.join("usr/sbin/runc")));
            known.push(("crun-new", root.join("usr/bin/crun")));
            // They need newer libraries than this machine's, with which everything else works too.
            let place = "/usr/lib/x86_64-linux-gnu";
            set_up.push_str(&format!("\nmount --bind {}{place} {place}", root.display()));
        }
        let mut builder = TestDaemon::builder().set_up(&set_up);
        for (name, path) in &known {
            builder = builder.arg(&format!("--add-runtime={name}={}", path.display()));
        }
        let daemon = args.iter().fold(builder, |builder, arg| builder.arg(arg)).start();
        daemon.busybox();
        Self {
            daemon,
            names: known.into_iter().map(|(name, _)| name).collect(),
            _dir: dir,
        }
    }

    /// `run --rm --runtime NAME` with more options.
    fn try_run(&self, name: &str, options: &[&str], command: &[&str]) -> Output {
        let first = ["run", "--rm", "--runtime", name].into_iter();
        let rest = options.iter().chain(&[BUSYBOX]).chain(command).copied();
        self.cli(first.chain(rest))
    }

    fn sh_with(&self, name: &str, options: &[&str], script: &str) -> String {
        self.try_run(name, options, &["sh", "-c", script]).ok()
    }

    /// A container of that runtime, and named like it, that sleeps.
    fn sleep(&self, name: &str, options: &[&str]) -> String {
        let runtime: Vec<&str> = ["--runtime", name].iter().chain(options).copied().collect();
        self.sleeper(&format!("c-{name}"), &runtime)
    }
}

#[test]
fn programs_run_and_what_they_say_and_end_with_is_known() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        let said = machine.try_run(name, &["-e", "A=1"], &["sh", "-c", "echo out $A; echo err >&2; exit 7"]);
        assert_eq!(
            (said.code, said.stdout.trim(), said.stderr.trim()),
            (7, "out 1", "err"),
            "{name}"
        );
        let killed = machine.try_run(name, &["--init"], &["sh", "-c", "cat /proc/1/comm; kill -9 $$"]);
        assert_eq!((killed.code, killed.stdout.trim()), (137, "docker-init"), "{name}");
        let typed = machine
            .run(["run", "--rm", "-i", "--runtime", name, BUSYBOX, "cat"])
            .input("typed");
        assert_eq!(typed.ok(), "typed", "{name}");
        let container = format!("logs-{name}");
        let line = [
            "run",
            "-d",
            "--runtime",
            name,
            "--name",
            &container,
            BUSYBOX,
            "sh",
            "-c",
            "echo 1; echo 2 >&2",
        ];
        machine.cli(line).ok();
        machine.cli(["wait", &container]).ok();
        assert_eq!(machine.cli(["logs", &container]).stdout.trim(), "1", "{name}");
        assert_eq!(machine.field(&container, "/HostConfig/Runtime"), name);
        assert_eq!(
            machine.cli(["start", "-a", &container]).stdout.trim(),
            "1",
            "again: {name}"
        );
    }
    // A name that clients of Docker send, which is Ferry's own here.
    assert_eq!(machine.sh_with("runc", &[], "echo x"), "x");
}

#[test]
fn a_terminal_is_the_container_s_own() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        let line = [
            "run",
            "--rm",
            "-it",
            "--runtime",
            name,
            "-e",
            "PS1=ready# ",
            BUSYBOX,
            "sh",
        ];
        let mut pty = Pty::spawn(&machine.run(line).into_command());
        pty.expect("ready# ");
        pty.send("tty; stty size; echo $TERM\n");
        pty.expect("/dev/pts/0\r\n24 80\r\nxterm\r\n");
        pty.resize(40, 132);
        pty.send("while [ \"$(stty size)\" != '40 132' ]; do sleep 0.05; done; echo resi''zed\n");
        pty.expect("resized");
        pty.send("exit 11\n");
        assert_eq!(pty.wait(), 11, "{name}");
    }
}

#[test]
fn execs_have_codes_terminals_users_and_reasons() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        machine.sleep(name, &[]);
        let container = format!("c-{name}");
        let exec = |words: &[&str]| machine.cli(["exec"].iter().chain(words).chain(&[] as &[&str]));
        let said = exec(&[&container, "sh", "-c", "echo out; echo err >&2; exit 9"]);
        assert_eq!(
            (said.code, said.stdout.trim(), said.stderr.trim()),
            (9, "out", "err"),
            "{name}"
        );
        let user = exec(&[
            "-u",
            "1000:50",
            "-w",
            "/tmp",
            "-e",
            "B=2",
            &container,
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $B",
        ]);
        assert_eq!(user.ok(), "1000\n50\n/tmp\n2", "{name}");
        let typed = machine.run(["exec", "-i", &container, "cat"]).input("typed");
        assert_eq!(typed.ok(), "typed", "{name}");
        let missing = exec(&[&container, "nosuch"]);
        assert_eq!(missing.code, 127, "{name}: {}", missing.stderr);
        let said = missing.stdout + &missing.stderr;
        assert!(
            said.contains("OCI runtime exec failed") && said.contains("nosuch"),
            "{name}: {said}"
        );
        let mut pty = Pty::spawn(
            &machine
                .run([
                    "exec",
                    "-it",
                    &container,
                    "sh",
                    "-c",
                    "until stty size 2>&1 | grep '24 80'; do sleep 0.05; done; exit 5",
                ])
                .into_command(),
        );
        pty.expect("24 80");
        assert_eq!(pty.wait(), 5, "{name}");
        exec(&["-d", &container, "touch", "/detached"]).ok();
        wait_until("the detached one has run", || {
            exec(&[&container, "test", "-e", "/detached"]).code == 0
        });
        let status = |line: &str| exec(&[&container, "grep", line, "/proc/self/status"]).ok();
        assert!(status("Seccomp:").ends_with('2'), "{name}");
        assert!(status("CapEff").ends_with("00000000a80425fb"), "{name}");
    }
}

/// What a container can find out about its confinement. Not whose its devices are: crun gives the standard streams to the user.
const LOOK: &str = r#"grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
id; env | sort; pwd; umask; hostname; ulimit -n; ulimit -u
for f in /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/acpi; do head -c 1 $f 2>&1 | wc -c; ls $f 2>/dev/null | wc -l; done
for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/x /proc/irq/x; do ( : >>$f ) 2>&1 | sed 's/.*: //'; done
ls -l /dev | awk '{print $1, $5, $6, $NF}' | grep -vE '^total|console|^l' | sort
cat /proc/sys/net/ipv4/ip_unprivileged_port_start; stat -c %a:%t /dev/shm /dev/mqueue; df -k /dev/shm | tail -1 | awk '{print $2}'
for n in pid ipc uts net mnt; do [ "$(readlink /proc/self/ns/$n)" != "$HOST_$n" ] && echo own $n; done
mount -t tmpfs x /mnt 2>&1 | sed 's/.*: //'; unshare -U true 2>&1 | sed 's/.*: //'; mknod /x b 8 0 2>&1 && cat /x 2>&1; true"#;

#[test]
fn a_container_is_confined_as_by_ferry_s_own_runtime() {
    let machine = Machine::start();
    let options: [&[&str]; 6] = [
        &[],
        &["-u", "1000:50", "--group-add", "7", "-w", "/made/here"],
        &[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_ADMIN",
            "--security-opt",
            "no-new-privileges",
        ],
        &["--privileged"],
        &[
            "--read-only",
            "--ulimit",
            "nofile=100:200",
            "--security-opt",
            "seccomp=unconfined",
        ],
        &[
            "--cap-add",
            "SYS_ADMIN",
            "--device",
            "/dev/fuse",
            "--sysctl",
            "net.ipv4.ip_unprivileged_port_start=77",
        ],
    ];
    for options in options {
        let options: Vec<&str> = ["--hostname", "web"].iter().chain(options).copied().collect();
        let own = machine.sh_with("ferry", &options, LOOK);
        for name in machine.names.clone() {
            assert_eq!(machine.sh_with(name, &options, LOOK), own, "{name} {options:?}");
        }
    }
}

#[test]
fn mounts_of_every_kind_are_there() {
    let machine = Machine::start();
    let share = machine.dir().join("share");
    fs::create_dir_all(share.join("sub")).unwrap();
    fs::write(share.join("file"), "of the host").unwrap();
    fs::write(share.join("sub/file"), "below").unwrap();
    let image = Image::new(
        "data:1",
        vec![Layer::new().file("data/file", b"of an image", 0o644).finish()],
    );
    machine.load(&images::docker_archive(&[image]));
    let bind = format!("{}:/bind:ro", share.display());
    for name in machine.names.clone() {
        let volume = format!("volume-{name}");
        machine.sh_with(
            name,
            &["-v", &format!("{volume}:/v")],
            "mkdir -p /v/sub; echo kept >/v/sub/file",
        );
        let subpath = format!("type=volume,src={volume},dst=/sub,volume-subpath=sub");
        let options = [
            "-v",
            &bind,
            "--mount",
            &subpath,
            "--mount",
            "type=image,src=data:1,dst=/image",
            "--tmpfs",
            "/tmpfs:size=1m,mode=700,uid=5",
            "--shm-size",
            "2m",
        ];
        let script = "cat /bind/file /sub/file /image/data/file; for d in /bind /image; do touch $d/x 2>&1 | grep -c Read-only; done; \
                      stat -c %a:%u /tmpfs; df -k /tmpfs /dev/shm | awk 'NR>1 {print $2}'";
        let seen = machine.sh_with(name, &options, script);
        assert_eq!(seen, "of the hostkept\nof an image1\n1\n700:5\n1024\n2048", "{name}");
        let secret = machine.dir().join("secret");
        fs::write(&secret, "hush").unwrap();
        let secret = format!("id=s,src={}", secret.display());
        assert_eq!(
            machine.sh_with(name, &["--secret", &secret], "cat /run/secrets/s"),
            "hush",
            "{name}"
        );
    }
    let mounted = fs::read_to_string(format!("/proc/{}/mountinfo", machine.engine_pid())).unwrap();
    assert!(!mounted.contains("/oci"), "nothing of a bundle is mounted on the host");
}

#[test]
fn networks_and_namespaces_are_joined() {
    let machine = Machine::start();
    machine.cli(["network", "create", "net1"]).ok();
    for name in machine.names.clone() {
        let alias = format!("web-{name}");
        machine.sleep(
            name,
            &["--network", "net1", "--network-alias", &alias, "--ipc", "shareable"],
        );
        let container = format!("c-{name}");
        let address = machine.field(&container, "/NetworkSettings/Networks/net1/IPAddress");
        let seen = machine.sh_with(
            name,
            &["--network", "net1"],
            &format!("nslookup {alias}; ip -4 addr show eth0"),
        );
        assert!(seen.contains(&address) && seen.contains("inet "), "{name}: {seen}");
        let join = format!("container:{container}");
        let shared = machine.sh_with(
            name,
            &["--network", &join, "--pid", &join, "--ipc", &join],
            "ip -4 addr show eth0; cat /proc/1/cmdline | tr '\\0' ' '",
        );
        assert!(
            shared.contains(&address) && shared.contains("sleep 1000"),
            "{name}: {shared}"
        );
        // Later networks come through the process.
        machine.cli(["network", "connect", "bridge", &container]).ok();
        assert!(
            machine
                .cli(["exec", &container, "ip", "-4", "addr", "show", "eth1"])
                .ok()
                .contains("inet "),
            "{name}"
        );
        let host = machine.sh_with(
            name,
            &["--network", "host", "--pid", "host", "--uts", "host"],
            "readlink /proc/self/ns/net",
        );
        assert_eq!(
            host,
            fs::read_link(machine.network()).unwrap().to_string_lossy(),
            "{name}"
        );
    }
}

#[test]
fn signals_pauses_limits_and_copies_reach_it() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        let container = format!("c-{name}");
        let script = "trap 'echo usr1' USR1; trap 'exit 33' TERM; echo up; while :; do sleep 0.1; done";
        let limits = ["--tmpfs", "/tmpfs", "-m", "64m", "--cpus", "0.5", "--pids-limit", "40"];
        let line = ["run", "-d", "--name", &container, "--runtime", name].into_iter();
        machine
            .cli(line.chain(limits).chain([BUSYBOX, "sh", "-c", script]))
            .ok();
        wait_until("it is up", || machine.cli(["logs", &container]).stdout.contains("up"));
        machine.cli(["kill", "-s", "USR1", &container]).ok();
        wait_until("it heard", || machine.cli(["logs", &container]).stdout.contains("usr1"));

        let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || \
                     cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
        let seen = machine.cli(["exec", &container, "sh", "-c", limit]).ok();
        assert_eq!(seen, format!("{}\n40", 64 << 20), "{name}");
        let (_, stats) = machine.api("GET", &format!("/containers/{container}/stats?stream=false"), None);
        assert_eq!(stats["memory_stats"]["limit"], 64 << 20, "{name}");
        assert!(stats["pids_stats"]["current"].as_u64().unwrap() > 0, "{name}");
        machine
            .cli(["update", "-m", "96m", "--memory-swap", "96m", &container])
            .ok();
        let seen = machine.cli(["exec", &container, "sh", "-c", limit]).ok();
        assert_eq!(seen, format!("{}\n40", 96 << 20), "{name}");

        machine.cli(["pause", &container]).ok();
        assert_eq!(machine.field(&container, "/State/Status"), "paused");
        machine.cli(["unpause", &container]).ok();
        assert!(machine.cli(["top", &container]).ok().contains("sleep 0.1"), "{name}");

        let file = machine.dir().join("copied");
        fs::write(&file, "copied").unwrap();
        machine
            .cli(["cp", file.to_str().unwrap(), &format!("{container}:/tmpfs/file")])
            .ok();
        assert_eq!(
            machine.cli(["exec", &container, "cat", "/tmpfs/file"]).ok(),
            "copied",
            "{name}"
        );
        let back = machine.dir().join(format!("back-{name}"));
        machine
            .cli(["cp", &format!("{container}:/tmpfs/file"), back.to_str().unwrap()])
            .ok();
        assert_eq!(fs::read_to_string(back).unwrap(), "copied", "{name}");

        machine.cli(["stop", &container]).ok();
        assert_eq!(machine.field(&container, "/State/ExitCode"), "33", "{name}");
        machine.cli(["start", &container]).ok();
        machine.cli(["kill", &container]).ok();
        wait_until("it is dead", || machine.field(&container, "/State/ExitCode") == "137");
        let eats = machine.try_run(name, &["-m", "16m"], &["sh", "-c", "tail -c 200m /dev/zero"]);
        assert_eq!(eats.code, 137, "{name}: {}", eats.stderr);
    }
}

#[test]
fn policies_and_health_checks_look_after_it() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        let container = format!("again-{name}");
        let line = [
            "run",
            "-d",
            "--restart",
            "on-failure:2",
            "--runtime",
            name,
            "--name",
            &container,
            BUSYBOX,
            "false",
        ];
        machine.cli(line).ok();
        wait_until("it was started twice more", || {
            machine.field(&container, "/RestartCount") == "2"
        });
        wait_until("it is left alone", || {
            machine.field(&container, "/State/Status") == "exited"
        });

        let health = [
            "--health-cmd",
            "test -e /well",
            "--health-interval",
            "300ms",
            "--health-retries",
            "1",
        ];
        machine.sleep(name, &health);
        let container = format!("c-{name}");
        let status = |wanted: &str| machine.field(&container, "/State/Health/Status") == wanted;
        wait_until("it is unhealthy", || status("unhealthy"));
        machine.cli(["exec", &container, "touch", "/well"]).ok();
        wait_until("it is healthy", || status("healthy"));
        let slow = format!("slow-{name}");
        let options = [
            "--runtime",
            name,
            "--health-cmd",
            "echo begun; sleep 100",
            "--health-interval",
            "1s",
        ];
        let options: Vec<&str> = options.iter().chain(&["--health-timeout", "1s"]).copied().collect();
        machine.sleeper(&slow, &options);
        wait_until("the check has had its time", || {
            let log = machine.inspect(&slow)["State"]["Health"]["Log"].to_string();
            log.contains("exceeded timeout (1s): begun")
        });
        wait_until("it is gone", || {
            !machine.cli(["top", &slow]).ok().contains("sleep 100\n")
        });
        machine.cli(["rm", "-f", &slow, &container]).ok();
    }
}

#[test]
fn the_daemon_may_die_and_the_shim_takes_the_container_along() {
    let mut machine = Machine::start();
    for name in machine.names.clone() {
        machine.sleep(name, &[]);
        let line = [
            "run",
            "-d",
            "--runtime",
            name,
            "--name",
            &format!("ends-{name}"),
            BUSYBOX,
            "sh",
            "-c",
        ]
        .map(str::to_owned);
        let script = "while [ ! -e /go ]; do sleep 0.05; done; exit 42".to_owned();
        machine.cli(line.into_iter().chain([script])).ok();
    }
    let pids: Vec<u32> = machine
        .names
        .iter()
        .map(|name| machine.pid(&format!("c-{name}")))
        .collect();
    machine.daemon.kill9();
    machine.daemon.start_again();
    for (name, pid) in machine.names.clone().into_iter().zip(pids) {
        let container = format!("c-{name}");
        assert_eq!(machine.pid(&container), pid, "{name}");
        assert_eq!(machine.cli(["exec", &container, "echo", "x"]).ok(), "x", "{name}");
        machine.cli(["exec", &format!("ends-{name}"), "touch", "/go"]).ok();
        assert_eq!(machine.cli(["wait", &format!("ends-{name}")]).ok(), "42", "{name}");
        let shim = parent(pid);
        kill_process(Pid::from_raw(shim.cast_signed()).unwrap(), KILL).unwrap();
        wait_until("the container went with its shim", || {
            machine.field(&container, "/State/ExitCode") == "137"
        });
        wait_until("its process is gone", || !Path::new(&format!("/proc/{pid}")).exists());
        machine.cli(["start", &container]).ok();
        assert_eq!(
            machine.cli(["exec", &container, "echo", "again"]).ok(),
            "again",
            "{name}"
        );
    }
}

#[test]
fn processes_that_are_left_behind_are_reaped() {
    let machine = Machine::start();
    for name in machine.names.clone() {
        let container = format!("c-{name}");
        // Without a PID namespace of its own nobody but the shim can.
        machine.sleep(name, &["--pid", "host"]);
        machine
            .cli(["exec", &container, "sh", "-c", "(sleep 0.1 &) ; true"])
            .ok();
        let shim = parent(machine.pid(&container));
        std::thread::sleep(Duration::from_millis(300));
        machine.cli(["exec", &container, "true"]).ok();
        let zombies = || {
            let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
            let states = children
                .split_whitespace()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
            states.filter(|stat| stat.contains(") Z ")).count()
        };
        wait_until("no zombie is left", || zombies() == 0);
    }
}

#[test]
fn what_fails_is_said_in_the_runtime_s_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    script(
        &file("fails"),
        "while [ \"$1\" != --log ]; do shift; done; echo '{\"level\":\"error\",\"msg\":\"no luck today\"}' >$2; exit 3",
    );
    script(&file("silent"), "exit 4");
    fs::write(file("text"), "no program").unwrap();
    fs::set_permissions(file("text"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let add = |name: &str| format!("--add-runtime={name}={}", file(name).display());
    let all = ["fails", "silent", "text", "gone"].map(add);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let machine = Machine::with(&all);
    for name in machine.names.clone() {
        let missing = machine.try_run(name, &[], &["nosuch"]);
        assert_eq!(missing.code, 127, "{name}: {}", missing.stderr);
        assert!(
            missing.stderr.contains("OCI runtime create failed") && missing.stderr.contains("nosuch"),
            "{name}: {}",
            missing.stderr
        );
        let refused = machine.try_run(name, &[], &["/etc/passwd"]);
        assert_eq!(refused.code, 126, "{name}: {}", refused.stderr);
        let nobody = machine.try_run(name, &["-u", "nosuch"], &["true"]);
        assert!(
            nobody.stderr.contains("unable to find user nosuch"),
            "{name}: {}",
            nobody.stderr
        );
    }
    for (name, code, words) in [
        ("fails", 125, "OCI runtime create failed: no luck today"),
        ("silent", 125, "OCI runtime create failed: exit status 4"),
        ("gone", 127, "cannot run the runtime gone ("),
        ("text", 126, "exec format error"),
    ] {
        let failed = machine.try_run(name, &["--name", name], &["true"]);
        assert_eq!(failed.code, code, "{name}: {}", failed.stderr);
        assert!(failed.stderr.contains(words), "{name}: {}", failed.stderr);
    }
    let unknown = machine.try_run("nosuch", &[], &["true"]);
    assert!(
        unknown.stderr.contains("unknown or invalid runtime name: nosuch"),
        "{}",
        unknown.stderr
    );
    assert_eq!(unknown.code, 125);
    for (options, words) in [
        (
            ["--userns", "auto"],
            "a user namespace of the container's own is not there with --runtime runc-1.1",
        ),
        (["-v", "/tmp:/x:rshared"], "rslave"),
    ] {
        let refused = machine.try_run("runc-1.1", &options, &["true"]);
        assert!(
            refused.code == 125 && refused.stderr.contains(words),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn the_settings_name_runtimes_and_a_reload_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.json");
    let runc = tools::old_runtimes().join("usr/sbin/runc");
    let write = |default: &str| {
        let text = serde_json::json!({
            "default-runtime": default,
            "runtimes": {"mine": {"path": runc, "runtimeArgs": ["--debug"]}},
        });
        fs::write(&file, text.to_string()).unwrap();
    };
    write("mine");
    let daemon = TestDaemon::builder()
        .arg(&format!("--config-file={}", file.display()))
        .start();
    let info = || {
        let (_, info) = daemon.api("GET", "/info", None);
        (
            info["DefaultRuntime"].as_str().unwrap().to_owned(),
            info["Runtimes"].clone(),
        )
    };
    let (default, runtimes) = info();
    assert_eq!(default, "mine");
    assert_eq!(runtimes["mine"]["path"], runc.to_str().unwrap());
    assert_eq!(runtimes["mine"]["runtimeArgs"], serde_json::json!(["--debug"]));
    assert!(runtimes["ferry"].is_object());
    daemon.sleeper("c1", &[]);
    assert_eq!(daemon.field("c1", "/HostConfig/Runtime"), "mine");

    fs::write(&file, r#"{"runtimes":{}}"#).unwrap();
    kill_process(Pid::from_raw(daemon.engine_pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    wait_until("the settings are read again", || info().0 == "ferry");
    // It goes on, and cannot be started any more.
    assert_eq!(daemon.cli(["exec", "c1", "echo", "x"]).ok(), "x");
    let restarted = daemon.cli(["restart", "-t", "0", "c1"]);
    assert!(
        restarted.stderr.contains("unknown or invalid runtime name: mine"),
        "{}",
        restarted.stderr
    );
    daemon.sleeper("c2", &[]);
    assert_eq!(daemon.field("c2", "/HostConfig/Runtime"), "ferry");
}
