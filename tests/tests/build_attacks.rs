//! Builds made to get out, or to bring something in that was not given (security design, family F5): RUN, its mounts, and what
//! may be remembered of a build. Repositories are in `build_repositories`, archives in `build_archives`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ferry_testkit::images::{self, Layer, docker_archive};
use ferry_testkit::{Output, Program, Run};

use crate::build::Place;

/// A directory of the host's that steps are after, and what is in it.
pub struct Host {
    pub dir: PathBuf,
    before: String,
    secret: String,
}

impl Host {
    pub fn new(name: &str) -> Self {
        let id = format!("{name}-{}", std::process::id());
        let dir = PathBuf::from(format!("/var/tmp/ferry-host-{id}"));
        let _ = fs::remove_dir_all(&dir);
        // What is empty is what somebody takes away who tidies up.
        for empty in ["empty", "etc"] {
            fs::create_dir_all(dir.join(empty)).unwrap();
        }
        let secret = format!("nobody-is-to-read-{id}");
        fs::write(dir.join("secret"), &secret).unwrap();
        for stub in ["stub", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
            fs::write(dir.join(stub), "").unwrap();
        }
        let mut host = Self {
            dir,
            before: String::new(),
            secret,
        };
        host.before = host.shown();
        host
    }

    fn shown(&self) -> String {
        let list = ["-printf", "%p %y %m %U %G %s %n %T@ %l\n"];
        Run::new("find").args([&self.dir]).args(list).ok()
    }

    pub fn path(&self) -> String {
        self.dir.display().to_string()
    }

    /// Nothing was changed, and nothing of it came into the engine.
    #[track_caller]
    pub fn assert_unreached(&self, place: &Place, what: &str) {
        assert_eq!(self.shown(), self.before, "{what}");
        assert_eq!(holding(place, &self.secret), "", "{what}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Files of the engine's, and its log, with this text in them.
fn holding(place: &Place, text: &str) -> String {
    let dir = place.engine.dir();
    Run::new("grep").args(["-rlaF", text]).args([dir]).output().stdout
}

fn build(place: &Place, dockerfile: &str) -> Output {
    place.write("Dockerfile", dockerfile);
    place.ferry("build --progress plain -t made .")
}

/// What was refused says why, and not by a panic.
#[track_caller]
pub fn refused(output: &Output, what: &str) {
    let said = output.stderr.trim();
    assert_eq!(output.code, 1, "{what}: {output:?}");
    assert!(!said.is_empty() && !said.contains("panic"), "{what}: {output:?}");
}

/// CVE-2024-9407, CVE-2024-11218, CVE-2024-1753: a source that leads out of the context, of a stage or of an image.
#[test]
fn sources_of_mounts_lead_nowhere_outside() {
    let place = Place::new();
    let host = Host::new("sources");
    let to = host.path();
    place.write("file", "of the context");
    std::os::unix::fs::symlink(&to, place.path("absolute")).unwrap();
    std::os::unix::fs::symlink(format!("../../../../../../..{to}"), place.path("up")).unwrap();
    let links = Layer::new()
        .symlink("absolute", &to)
        .symlink("up", &format!("../../../../../../..{to}"))
        .symlink("proc-root", &format!("/proc/1/root{to}"))
        .symlink("mine", "/proc/self/root");
    place
        .engine
        .load(&docker_archive(&[images::above_busybox("evil:1", links)]));
    let script =
        "find /m | head -50; cat /m/secret /m/file 2>/dev/null; cat /m; echo x > /m/new; rm -rf /m/empty; true";
    for kind in ["bind", "bind,rw", "cache"] {
        for from in ["", ",from=evil:1", ",from=stage"] {
            for source in [
                "../..",
                "/..",
                "a/../../..",
                "absolute",
                "absolute/secret",
                "up",
                "up/secret",
                "proc-root",
                "proc-root/secret",
                &format!("mine{to}"),
                &format!("..{to}/secret"),
            ] {
                if kind == "cache" && from.is_empty() {
                    continue;
                }
                let mount = format!("type={kind},target=/m,source={source}{from}");
                let built = build(
                    &place,
                    &format!("FROM evil:1 AS stage\nFROM busybox\nRUN --mount={mount} {script}\n"),
                );
                if built.code != 0 {
                    refused(&built, &mount);
                }
                assert!(!built.stderr.contains(&host.secret), "{mount}: {built:?}");
                host.assert_unreached(&place, &mount);
            }
        }
    }
    // What is above the top is the top.
    let built = build(
        &place,
        "FROM busybox\nRUN --mount=type=bind,source=../..,target=/m ls /m; cat /m/file\n",
    );
    assert!(built.stderr.contains("of the context"), "{built:?}");
    built.ok();
    place.is_clean();
}

/// CVE-2024-23652: what was made to mount something on is taken away, where a link is by then. CVE-2024-45310, CVE-2019-19921:
/// targets through links of the image's.
#[test]
fn targets_through_links_neither_show_nor_remove_anything_of_the_host() {
    let place = Place::new();
    let host = Host::new("targets");
    let to = host.path();
    place.write("file", "x");
    let links = Layer::new()
        .symlink("host", &to)
        .symlink("up", &format!("../../../../..{to}"))
        .symlink("root", "/proc/1/root");
    place
        .engine
        .load(&docker_archive(&[images::above_busybox("evil:1", links)]));
    for mount in ["tmpfs", "bind,source=file", "cache,id=targets", "bind,rw"] {
        for target in [
            "/host/empty",
            "/host/stub",
            "/host/new/deep",
            "/up/new",
            "/root/host/new",
            "/host",
        ] {
            let what = format!("type={mount},target={target}");
            let built = build(
                &place,
                &format!("FROM evil:1\nRUN --mount={what} cat /host/secret; true\n"),
            );
            if built.code != 0 {
                refused(&built, &what);
            }
            assert!(!built.stderr.contains(&host.secret), "{what}: {built:?}");
            host.assert_unreached(&place, &what);
        }
    }
    // The step itself puts a link where the mount's directory was.
    for (mount, swap) in [
        ("type=tmpfs,target=/a/empty", format!("mv /a /b && ln -s {to} /a")),
        (
            "type=bind,source=file,target=/a/stub",
            format!("mv /a /b && ln -s {to} /a"),
        ),
        (
            "type=tmpfs,target=/a/b/etc",
            format!("mv /a/b /a/c && ln -s ../../../../../../../..{to} /a/b"),
        ),
    ] {
        let built = build(
            &place,
            &format!("FROM busybox\nRUN --mount={mount} {swap}\nRUN test -L /a || test -L /a/b\n"),
        );
        built.ok();
        host.assert_unreached(&place, mount);
    }
    let etc =
        format!("FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin /bin\nRUN mv /etc /e && ln -s {to}/etc /etc\n");
    build(&place, &etc).ok();
    host.assert_unreached(&place, "what every container has in /etc");
    place.is_clean();
}

/// CVE-2024-23651: two builds with one cache, of which one swaps directories for links.
#[test]
fn a_cache_whose_directories_become_links_leads_nowhere() {
    let place = Place::new();
    let host = Host::new("swap");
    let to = host.path();
    place.write(
        "swap",
        &format!(
            "FROM busybox\nRUN --mount=type=cache,id=shared,target=/c end=$(($(date +%s) + 3)); n=0; \
             while [ $(date +%s) -lt $end ]; do mkdir -p /c/d/empty; rm -rf /c/d; ln -s {to} /c/d; rm -rf /c/d; done 2> /dev/null; true\n"
        ),
    );
    place.write(
        "use",
        "ARG N\nFROM busybox\nRUN --mount=type=cache,id=shared,target=/c \
         --mount=type=cache,id=shared,source=d,target=/sub --mount=type=tmpfs,target=/c/d/empty \
         cat /sub/secret /c/d/secret; touch /sub/new; ls /sub; true\n",
    );
    let swapping = place.command().args(["build", "--no-cache", "-f", "swap", "."]).spawn();
    let (mut built, mut swapping) = (0, swapping);
    while swapping.is_running() {
        let output = place.ferry("build --no-cache --progress plain -f use .");
        if output.code != 0 {
            refused(&output, "a step that uses the cache");
        }
        assert!(!output.stderr.contains(&host.secret), "{output:?}");
        built += 1;
    }
    swapping.finish().ok();
    assert!(built > 3, "{built}");
    host.assert_unreached(&place, "the swap");
    place.is_clean();
}

const CONFINEMENT: &str = "grep -E '^(Seccomp|NoNewPrivs|CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status";

/// GHSA-7236-3392-c5c6, CVE-2024-23653: a step is confined as any container is.
#[test]
fn a_step_has_no_more_rights_than_a_container() {
    let place = Place::new();
    let steps = format!(
        "FROM busybox\nRUN {CONFINEMENT} > /root.status\nUSER app\nRUN {CONFINEMENT} > /tmp/app.status\nUSER 0\n\
         RUN ! mount -t tmpfs none /mnt; ! mknod /tmp/m b 8 0 || ! cat /tmp/m; ! chroot / unshare -U true; \
         ! cat /proc/kcore; ! sh -c 'echo x > /proc/sysrq-trigger'; rm -f /tmp/m\n\
         RUN ls /proc/self/fd | tr '\\n' ' ' > /fds\n"
    );
    build(&place, &steps).ok();
    let of = |file: &str| place.inside("made", &format!("cat {file}"));
    let run = |user: &str| place.engine.sh(&["--user", user], CONFINEMENT);
    assert_eq!(of("/root.status"), run("0"));
    assert_eq!(of("/tmp/app.status"), run("app"));
    // Docker's: fourteen capabilities, of which a user other than root has none.
    let docker = |held: &str| {
        format!(
            "CapInh:\t0000000000000000\nCapPrm:\t{held}\nCapEff:\t{held}\nCapBnd:\t00000000a80425fb\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2"
        )
    };
    assert_eq!(of("/root.status"), docker("00000000a80425fb"));
    assert_eq!(of("/tmp/app.status"), docker("0000000000000000"));
    // The fourth is the directory that is read.
    assert_eq!(of("/fds"), "0 1 2 3");
    for asked in ["--security=insecure", "--network=host"] {
        let output = build(&place, &format!("FROM busybox\nRUN {asked} true\n"));
        refused(&output, asked);
        assert!(output.stderr.contains("--allow"), "{output:?}");
    }
}

/// CVE-2024-21626: a working directory that is a descriptor of the engine's.
#[test]
fn no_working_directory_is_a_descriptor_of_the_engine() {
    let place = Place::new();
    let host = Host::new("cwd");
    let to = host.path();
    let link = Layer::new().symlink("cwd", "/proc/self/fd/8");
    place
        .engine
        .load(&docker_archive(&[images::above_busybox("evil:1", link)]));
    for dir in (3..14)
        .map(|number| format!("/proc/self/fd/{number}"))
        .chain(["/cwd".to_owned()])
    {
        let output = build(
            &place,
            &format!("FROM evil:1\nWORKDIR {dir}\nRUN cat ../../../../../../..{to}/secret .{to}/secret; pwd; true\n"),
        );
        if output.code != 0 {
            refused(&output, &dir);
        }
        assert!(!output.stderr.contains(&host.secret), "{dir}: {output:?}");
        assert!(!output.stderr.contains("(unreachable)"), "{dir}: {output:?}");
    }
    place.is_clean();
}

/// CVE-2024-23653, CVE-2026-33747: a frontend is a program with the build's files; no other than the built-in one is run.
#[test]
fn no_frontend_but_the_built_in_one_is_taken() {
    let place = Place::new();
    let evil = [
        "evil/frontend",
        "docker/dockerfile-evil:1",
        "127.0.0.1:5000/docker/dockerfile:1",
        "docker.io.evil.org/docker/dockerfile:1",
        "evil/docker/dockerfile:1",
        "docker/dockerfile/../../evil",
    ];
    for name in evil {
        let output = build(&place, &format!("# syntax={name}\nFROM busybox\nRUN true\n"));
        refused(&output, name);
        assert!(output.stderr.contains(name), "{name}: {output:?}");
        place.write("Dockerfile", "FROM busybox\n");
        let output = place.ferry(&format!("build --build-arg BUILDKIT_SYNTAX={name} ."));
        refused(&output, name);
        assert!(output.stderr.contains(name), "{name}: {output:?}");
    }
    for name in [
        "docker/dockerfile",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile:1",
    ] {
        build(&place, &format!("# syntax={name}\nFROM busybox\nRUN true\n")).ok();
    }
}

/// CVE-2023-26054, CVE-2019-13509: what was given for one build is kept nowhere. CVE-2021-3602: what the engine and the client
/// have in their environment is no step's.
#[test]
fn what_a_build_is_given_is_not_kept() {
    let place = Place::new();
    let [secret, proxy, unused, mine] = ["secret", "proxy", "unused", "mine"].map(|name| format!("canary-{name}-8b1d"));
    place.write("token", &secret);
    place.write(
        "Dockerfile",
        "FROM busybox\nARG KNOWN\n\
         RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/run/secrets/token \
         echo $TOKEN $HTTP_PROXY | wc -c > /sizes && wc -c < /run/secrets/token >> /sizes\n\
         RUN env | cut -d= -f1 | sort | tr '\\n' ' ' > /names\n\
         RUN --mount=type=secret,id=token false || true\n",
    );
    let build = |program: Program| {
        let command = place.engine.command(program).directory(place.path(""));
        let output = command
            .env("FERRY_CANARY", &mine)
            .args([
                "build",
                "--no-cache",
                "--progress=plain",
                "-t",
                "made",
                "--secret",
                "id=token,src=token",
            ])
            .args([
                "--build-arg",
                "KNOWN=known",
                "--build-arg",
                &format!("HTTP_PROXY=http://u:{proxy}@127.0.0.1:1"),
            ])
            .args(["--build-arg", &format!("UNUSED={unused}"), "."])
            .output();
        let said = format!("{}{}", output.stdout, output.stderr);
        output.ok();
        said
    };
    let said = build(Program::Ferry);
    let expected = secret.len() + 1 + "http://u:@127.0.0.1:1".len() + proxy.len() + 1;
    assert_eq!(
        place.inside("made", "cat /sizes"),
        format!("{expected}\n{}", secret.len())
    );
    assert_eq!(
        place.inside("made", "cat /names"),
        "HOME HOSTNAME HTTP_PROXY KNOWN PATH PWD SHLVL"
    );
    let told = [
        said,
        place.ferry("history --no-trunc made").ok(),
        place.ferry("image inspect made").ok(),
        place.ferry("system df -v").ok(),
        place.engine.log(),
        place
            .engine
            .api("GET", "/system/df?type=build-cache", None)
            .1
            .to_string(),
    ];
    for canary in [&secret, &proxy, &unused, &mine] {
        for text in &told {
            assert!(!text.contains(canary.as_str()), "{canary}: {text}");
        }
        assert_eq!(holding(&place, canary), "", "{canary}");
    }
    // It can fail: an argument of the Dockerfile's own is in the history.
    assert!(told[1].contains("KNOWN=known"), "{}", told[1]);
    place.is_clean();
}

/// CVE-2024-24557: a base with other content and the same history is another base.
#[test]
fn a_base_that_only_looks_the_same_is_another_one() {
    let place = Place::new();
    for content in ["honest", "poisoned"] {
        let layer = Layer::new().file("content", content.as_bytes(), 0o644);
        place
            .engine
            .load(&docker_archive(&[images::above_busybox("base:1", layer)]));
        build(&place, "FROM base:1\nRUN cat /content > /copied\n").ok();
        assert_eq!(place.inside("made", "cat /copied"), content);
    }
}

/// Steps that would wait for each other, or for themselves.
#[test]
fn locked_caches_in_any_order_hold_up_nobody() {
    let place = Place::new();
    let cache =
        |id: &str, sharing: &str| format!("--mount=type=cache,id={id},sharing={sharing},target=/{id}-{sharing}");
    for (name, first, second) in [("ab", "a", "b"), ("ba", "b", "a")] {
        let mounts = [cache(first, "locked"), cache(second, "locked")].join(" ");
        place.write(name, &format!("FROM busybox\nRUN {mounts} sleep 0.2; echo {name}\n"));
    }
    let twice = [cache("a", "locked"), cache("a", "shared"), cache("a", "private")].join(" ");
    let script = "touch /a-locked/it && test -e /a-shared/it";
    place.write("twice", &format!("FROM busybox\nRUN {twice} {script}\n"));
    let limit = Duration::from_secs(20);
    for _ in 0..3 {
        let start = |name: &str| {
            let run = place.command().args(["build", "--no-cache", "-f", name, "."]);
            run.time(limit).spawn()
        };
        let running = ["ab", "ba", "ab", "ba", "twice"].map(start);
        for running in running {
            running.finish().ok();
        }
    }
}

/// A cache that several builds want at once, for the first time, is one cache.
#[test]
fn a_cache_that_is_new_to_many_builds_is_one() {
    let place = Place::new();
    for round in 0..4 {
        let names: Vec<String> = (0..6).map(|number| format!("{round}-{number}")).collect();
        for name in &names {
            let script = format!("touch /c/{name}; sleep 0.3");
            place.write(
                name,
                &format!("FROM busybox\nRUN --mount=type=cache,id=new{round},target=/c {script}\n"),
            );
        }
        let start = |name: &String| place.command().args(["build", "-f", name, "."]).spawn();
        let running: Vec<_> = names.iter().map(start).collect();
        for running in running {
            running.finish().ok();
        }
        // A cache's name is no part of what a step is known by.
        let list = format!("FROM busybox\nRUN --mount=type=cache,id=new{round},target=/c ls /c > /list # {round}\n");
        build(&place, &list).ok();
        assert_eq!(place.inside("made", "cat /list"), names.join("\n"));
    }
    place.is_clean();
}
