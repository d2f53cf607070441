//! The same lines with Ferry and with runc, in one dockerd: the same bytes on both streams and the same exit codes.

use ferry_testkit::{Engines, Output};

use crate::compat::split;

/// In a line `@` stands for the runtime's name: in `--runtime @`, and in names of containers.
const RUNTIMES: [&str; 2] = ["real", "ferry"];

/// What a container can see of how it was made.
const PROBE: &str = r#"
id; umask; pwd; env | grep -v HOSTNAME | sort; ulimit -a; ulimit -H -a
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Cpus_allowed_list|SigBlk|SigIgn)' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/uid_map /proc/self/gid_map /proc/self/loginuid
# What is masked is so with other flags, and cgroups that limit nothing are left out.
awk '{print $5, $6, $(NF-2)}' /proc/self/mountinfo | grep -vE '^/(proc/(acpi|interrupts|keys|timer_list)|sys/(firmware|fs/cgroup))' | sort
awk '{for (i = 7; i <= NF; i++) if ($i ~ /shared|master/) print $5, "propagates"}' /proc/self/mountinfo
ls -l /dev | awk '{print $1, $3, $4, $5, $6, $NF}' | grep -v total
ls -ld / /proc /sys /dev /dev/shm /dev/pts /etc/hosts | awk '{print $1, $3, $4, $NF}'
ls -l /proc/self/fd | wc -l; tr '\0' ' ' </proc/1/cmdline; cat /proc/1/comm
for name in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range kernel/msgmax; do cat /proc/sys/$name; done
for kind in net ipc uts pid user mnt cgroup; do
  test "$(readlink /proc/self/ns/$kind)" = "$(eval echo \$HOST_$kind)" && echo "the host's $kind"
done
for path in /proc/keys /proc/timer_list /proc/interrupts; do head -c 1 $path | wc -c; done
ls /proc/acpi /sys/firmware; touch /x /proc/sys/x /sys/x; mkdir /dev/x; mknod /tmp/null c 1 3; mount -t tmpfs none /mnt; chown 1 /tmp
exit 0
"#;

fn run(engines: &Engines, runtime: &str, line: &str) -> Output {
    engines.docker(split(&line.replace('@', runtime))).output()
}

/// Ids are 12 or 64 hexadecimal digits.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        [12, 64].contains(&word.len()) && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let shown = words.map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_id(bare) {
            word.replace(bare, "<id>")
        } else {
            word.to_owned()
        }
    });
    shown.collect()
}

fn shown(output: &Output, runtime: &str) -> String {
    let text = |stream: &str| without_ids(&stream.replace(&format!("-{runtime}"), "-@"));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("exit {}\n{stdout}--- stderr\n{stderr}", output.code)
}

/// Runs all lines, each runtime's one after the other and the two side by side.
#[track_caller]
fn compare(engines: &Engines, lines: &[&str]) {
    let [theirs, ours]: [Vec<String>; 2] = std::thread::scope(|scope| {
        RUNTIMES
            .map(|runtime| {
                scope.spawn(move || {
                    let outputs = lines.iter().map(|line| shown(&run(engines, runtime, line), runtime));
                    outputs.collect()
                })
            })
            .map(|thread| thread.join().unwrap())
    });
    let differences: Vec<String> = std::iter::zip(lines, std::iter::zip(&theirs, &ours))
        .filter(|(_, (theirs, ours))| theirs != ours)
        .map(|(line, (theirs, ours))| format!("`{line}` with runc:\n{theirs}\nwith Ferry:\n{ours}"))
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}

#[test]
fn run_and_exec_say_what_they_say_with_runc() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.assert_docker_uses_ferry();
    compare(
        &engines,
        &[
            "run --rm --runtime @ busybox echo hello",
            "run --rm --runtime @ busybox sh -c 'echo out; echo err >&2; exit 7'",
            "run --rm --runtime @ busybox sh -c 'exit 255'",
            "run --rm --runtime @ --init busybox sh -c 'kill -9 $$'",
            "run --rm --runtime @ busybox nope",
            "run --rm --runtime @ busybox /etc/passwd",
            "run --rm --runtime @ busybox /nope",
            "run --rm --runtime @ busybox /etc",
            "run --rm --runtime @ busybox ''",
            "run --rm --runtime @ -u app -w /root busybox true",
            "run --rm --runtime @ -u nobody-knows busybox true",
            "run --rm --runtime @ -w /etc/passwd busybox true",
            "run --rm --runtime @ --network host --sysctl net.ipv4.ip_forward=1 busybox true",
            "run --rm --runtime @ --cpuset-cpus 77 busybox true",
            "run --rm --runtime @ --pids-limit 1 busybox sh -c 'true | true'",
            "run --rm --runtime @ --read-only busybox touch /x",
            "run -d --runtime @ --name c-@ --hostname web -e A=1 busybox sleep 1000",
            "exec c-@ echo hello",
            "exec c-@ sh -c 'echo out; echo err >&2; exit 9'",
            "exec c-@ nope",
            "exec c-@ /etc/passwd",
            "exec c-@ /nope",
            "exec c-@ /etc",
            "exec -d c-@ nope",
            "exec -t c-@ nope",
            "exec -u app c-@ id",
            "exec -u 1000:1001 c-@ id",
            "exec -u nobody-knows c-@ id",
            "exec -w /tmp c-@ pwd",
            "exec -w /nope c-@ pwd",
            "exec -w /etc/passwd c-@ pwd",
            "exec -w /root -u app c-@ pwd",
            "exec -e A=2 -e B=3 c-@ env",
            "exec --privileged c-@ grep CapEff /proc/self/status",
            "exec -t c-@ tty",
            "exec c-@ sh -c 'kill -9 $$'",
            "pause c-@",
            "exec c-@ true",
            "inspect -f '{{.State.Status}}' c-@",
            "unpause c-@",
            "kill -s USR1 c-@",
            "kill c-@",
            "wait c-@",
            "inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}' c-@",
            "exec c-@ true",
            "rm c-@",
        ],
    );
}

#[test]
fn a_container_with_any_option_looks_as_it_does_with_runc() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.assert_docker_uses_ferry();
    let names = ["net", "ipc", "uts", "pid", "user", "mnt", "cgroup"]
        .map(|kind| format!("echo export HOST_{kind}=$(readlink /proc/self/ns/{kind})"))
        .join("\n");
    let probe = engines.sh(&names) + PROBE;
    std::fs::write(engines.path("/tmp/probe"), probe).unwrap();
    let options = [
        "",
        "--privileged",
        "--read-only",
        "--tmpfs /scratch:size=1m,mode=700 --tmpfs /run",
        "--mount type=tmpfs,dst=/t,tmpfs-size=1000000 -v /tmp:/r:ro -v /tmp:/s:rshared",
        "--init",
        "--device /dev/null:/dev/mine:r --device /dev/fuse",
        "--device-cgroup-rule 'c 1:3 r' --cap-drop MKNOD",
        "--cap-drop ALL",
        "--cap-add SYS_ADMIN --cap-drop CHOWN",
        "--cap-add ALL -u app",
        "--security-opt no-new-privileges",
        "--security-opt seccomp=unconfined --security-opt systempaths=unconfined",
        "--ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=500",
        "--sysctl net.ipv4.ip_unprivileged_port_start=1234 --sysctl kernel.msgmax=1000",
        "--ipc host",
        "--uts host",
        "--network host",
        "--network none",
        "--userns host --cgroupns host",
        "--cgroupns private",
        "--oom-score-adj 500",
        "-u 1000:1001 --group-add 29",
        "--shm-size 8m",
        "-w /new/dir --hostname web --domainname example.org",
        "--memory 64m --cpus 0.5 --cpu-shares 300 --pids-limit 50 --cpuset-cpus 0",
        "--pid container:first-@ --network container:first-@ --ipc container:first-@",
    ];
    let mut lines =
        vec!["run -d --runtime @ --name first-@ --ipc shareable --stop-timeout 0 busybox sleep 1000".to_owned()];
    lines.extend(
        options.map(|option| format!("run --rm --runtime @ -v /tmp/probe:/probe:ro {option} busybox sh /probe")),
    );
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    compare(&engines, &lines);
    // The probe tells the difference, and did run.
    let told = |option: &str| {
        run(
            &engines,
            "ferry",
            &lines[1].replace("busybox", &format!("{option} busybox")),
        )
        .ok()
    };
    assert!(told("--network host").contains("the host's net"));
    assert!(!told("").contains("the host's net"));
}

#[test]
fn what_cannot_be_mounted_is_explained_with_the_same_hint() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.assert_docker_uses_ferry();
    let hint = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified \
                host path exists and is the expected type";
    for volume in ["/etc/passwd:/tmp", "/etc:/etc/passwd"] {
        for runtime in RUNTIMES {
            let line = format!("run --rm --runtime @ -v {volume} busybox true");
            let error = run(&engines, runtime, &line).fails(125);
            assert!(error.contains(hint), "{runtime} with {volume}: {error}");
        }
    }
}
