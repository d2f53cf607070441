//! Repositories made to get out of their directory, and references made to be options (security design, family F5).

use std::time::Duration;

use ferry_testkit::{Output, Run, Running, wait_until};

use crate::build::Place;
use crate::build_attacks::{Host, refused};

/// What `git daemon` serves in the engine's namespace.
const SERVED: &str = "git://127.0.0.1";

/// An engine, and repositories that it can reach.
struct Served {
    // It goes first: the engine's namespace is to be left empty.
    _server: Running,
    place: Place,
}

impl Served {
    /// `script` makes directories with repositories, in `REPOSITORIES`.
    fn new(script: &str) -> Self {
        let place = Place::new();
        let dir = place.engine.dir().join("repositories");
        std::fs::create_dir(&dir).unwrap();
        let begin = "repository() { git init -q -b main $1; cd $1; }\ncommit() { git add -A; git commit -qm c; cd ..; }\n\
                     module() { git update-index --add --cacheinfo 160000,$(git -C ../honest rev-parse HEAD),$1; mkdir -p $1; }\n\
                     repository honest; mkdir sub; echo FROM busybox | tee Dockerfile > sub/Dockerfile\n\
                     echo RUN echo honest >> Dockerfile; echo RUN echo below >> sub/Dockerfile; commit\n\
                     git -C honest tag v1; git -C honest branch feature/x\n";
        let script = format!("{begin}{script}").replace("REPOSITORIES", &dir.display().to_string());
        let run = Run::new("sh").directory(&dir).args(["-ec", &script]);
        with_git(run).output().ok();
        let served = dir.display().to_string();
        let base = format!("--base-path={served}");
        // The program itself: what `git daemon` starts would outlive it.
        let programs = Run::new("git").args(["--exec-path"]).ok();
        let program = format!("{programs}/git-daemon");
        let line = [
            program.as_str(),
            "--reuseaddr",
            "--export-all",
            "--listen=127.0.0.1",
            &base,
            &served,
        ];
        let server = with_git(place.engine.in_namespace(&line))
            .time(Duration::from_secs(600))
            .spawn();
        let served = Self { place, _server: server };
        wait_until("git serves", || {
            let list = ["git", "ls-remote", &format!("{SERVED}/honest")];
            with_git(served.place.engine.in_namespace(&list)).output().code == 0
        });
        served
    }

    fn build(&self, context: &str) -> Output {
        let command = self
            .place
            .command()
            .args(["build", "--no-cache", "--progress=plain", "-t", "made"]);
        command.args([context]).output()
    }

    fn add(&self, source: &str) -> Output {
        let quoted = serde_json::to_string(source).unwrap();
        self.place.write(
            "Dockerfile",
            &format!("FROM busybox\nADD [{quoted}, \"/r\"]\nRUN ls -la /r; cat /r/*; true\n"),
        );
        self.place.ferry("build --no-cache --progress=plain -t made .")
    }
}

fn with_git(run: Run) -> Run {
    let run = run
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let run = run.env("GIT_AUTHOR_NAME", "a").env("GIT_AUTHOR_EMAIL", "a@b");
    run.env("GIT_COMMITTER_NAME", "a").env("GIT_COMMITTER_EMAIL", "a@b")
}

#[test]
fn repositories_are_built_by_any_name_of_a_commit() {
    let served = Served::new("");
    let commit = Run::new("git")
        .args(["rev-parse", "HEAD"])
        .directory(served.place.engine.dir().join("repositories/honest"));
    let commit = commit.ok();
    for (fragment, says) in [
        ("", "honest"),
        ("#main", "honest"),
        ("#v1", "honest"),
        ("#feature/x", "honest"),
        ("#refs/heads/main", "honest"),
        (&format!("#{commit}"), "honest"),
        (&format!("#{}", &commit[..10]), "honest"),
        ("#main:sub", "below"),
        ("#:sub", "below"),
        ("?branch=main&subdir=sub", "below"),
        (&format!("?ref=v1&checksum={commit}"), "honest"),
    ] {
        let built = served.build(&format!("{SERVED}/honest{fragment}"));
        assert!(built.stderr.contains(says), "{fragment}: {built:?}");
        built.ok();
    }
    let wrong = served.build(&format!("{SERVED}/honest?ref=v1&checksum=0123456789abcdef"));
    assert!(wrong.stderr.contains("expected checksum"), "{wrong:?}");
    served.add(&format!("{SERVED}/honest#main:sub")).ok();
    assert_eq!(served.place.inside("made", "ls -A /r"), "Dockerfile");
    served.place.is_clean();
}

/// CVE-2019-13139: a reference, a repository or a host that git would read as an option.
#[test]
fn no_part_of_a_name_is_an_option_of_git() {
    let served = Served::new("");
    let host = Host::new("options");
    let new = format!("{}/new", host.path());
    for name in [
        format!("{SERVED}/honest#--upload-pack=touch {new}"),
        format!("{SERVED}/honest#--upload-pack=touch${{IFS}}{new}"),
        format!("{SERVED}/honest#-u{new}:sub"),
        format!("{SERVED}/honest?ref=--upload-pack%3Dtouch%20{new}"),
        format!("{SERVED}/honest?ref=%2d%2dupload-pack%3Dtouch"),
        format!("{SERVED}/honest?branch=--upload-pack%3Dtouch"),
        format!("{SERVED}/honest?tag=x%0a--output%3D{new}"),
        format!("{SERVED}/honest?commit=--output%3D{new}"),
        format!("{SERVED}/honest?subdir=--output%3D{new}"),
        format!("{SERVED}/honest#main --output={new}"),
        format!("{SERVED}/honest#main:sub?x=--upload-pack"),
        format!("{SERVED}/honest#HEAD^{{/x}}"),
        format!("{SERVED}/honest#+main:main"),
        format!("ssh://-oProxyCommand=touch%20{new}/x.git"),
        format!("ssh://a@-oProxyCommand=touch%20{new}/x.git"),
        format!("-oProxyCommand=touch {new}@host:x.git"),
        format!("a@-oProxyCommand=touch {new}:x.git"),
        format!("--upload-pack=touch {new}@host:x.git"),
        format!("git://-oProxyCommand=touch%20{new}/x.git"),
        format!("git://127.0.0.1/--upload-pack=touch {new}"),
        format!("http://127.0.0.1:1/x.git#--config=core.sshCommand=touch {new}"),
        format!("ext::sh -c touch% {new}"),
        format!("git://ext::sh -c touch% {new}"),
        format!("file://{}/repositories/honest", served.place.engine.dir().display()),
        format!("a@b:ext::sh -c touch% {new}"),
    ] {
        // The command line takes these for options and paths of its own, unless told where they end.
        let context = served
            .place
            .command()
            .args(["build", "--no-cache", "--", &name])
            .output();
        refused(&context, &name);
        host.assert_unreached(&served.place, &name);
        let added = served.add(&name);
        refused(&added, &format!("ADD {name}"));
        host.assert_unreached(&served.place, &name);
    }
    served.place.is_clean();
}

/// CVE-2026-33748, CVE-2026-44517: a directory of a repository that is a link, or leads out of it.
#[test]
fn no_directory_of_a_repository_is_outside_of_it() {
    let host = Host::new("directory");
    let to = host.path();
    let served = Served::new(&format!(
        "repository links; ln -s {to} sub; ln -s .. up; ln -s ../../../../../../../../..{to} far; mkdir real; ln -s {to} real/sub\n\
         ln -s {to}/secret Dockerfile; ln -s {to}/secret .dockerignore; commit\n\
         repository copies; ln -s {to} sub; printf 'FROM busybox\\nCOPY . /all\\nRUN cat /all/sub/secret; true\\n' > Dockerfile; commit\n"
    ));
    for directory in [
        "sub",
        "sub/",
        "./sub",
        "/sub",
        "up",
        "far",
        "real/sub",
        "sub/../..",
        "..",
        "../..",
        "/../..",
        "real/../../..",
        "%2e%2e",
    ] {
        for name in [
            format!("{SERVED}/links#main:{directory}"),
            format!("{SERVED}/links?branch=main&subdir={}", directory.replace('/', "%2F")),
        ] {
            let output = served.build(&name);
            refused(&output, &name);
            assert!(!output.stderr.contains("nobody-is-to-read"), "{name}: {output:?}");
            refused(&served.add(&name), &format!("ADD {name}"));
            host.assert_unreached(&served.place, &name);
        }
    }
    let output = served.build(&format!("{SERVED}/links"));
    refused(&output, "a Dockerfile that is a link");
    assert!(!output.stderr.contains("nobody-is-to-read"), "{output:?}");
    let output = served.build(&format!("{SERVED}/copies"));
    assert!(!output.stderr.contains("nobody-is-to-read"), "{output:?}");
    output.ok();
    served.add(&format!("{SERVED}/links")).ok();
    assert_eq!(served.place.inside("made", "readlink /r/sub"), to);
    host.assert_unreached(&served.place, "links that are copied");
    served.place.is_clean();
}

/// CVE-2022-39253, CVE-2018-17456, CVE-2024-32002: what a repository says of its modules.
#[test]
fn modules_of_a_repository_are_no_way_to_the_host() {
    let host = Host::new("modules");
    let to = host.path();
    let module = |name: &str, path: &str, settings: &str| {
        format!(
            "repository {name}; echo FROM busybox > Dockerfile; git add -A\n\
             cat > .gitmodules <<'END'\n[submodule \"m\"]\n\tpath = {path}\n{settings}END\nmodule {path}; commit\n"
        )
    };
    let here = |url: &str| format!("\turl = {url}\n");
    let served = Served::new(
        &[
            module("file", "m", &here("file://REPOSITORIES/honest/.git")),
            module("path", "m", &here("REPOSITORIES/honest")),
            module("ext", "m", &here(&format!("ext::sh -c touch% {to}/new"))),
            module("option", "m", &here(&format!("--upload-pack=touch {to}/new"))),
            module("ssh", "m", &here(&format!("ssh://-oProxyCommand=touch%20{to}/new/x"))),
            module(
                "update",
                "m",
                &format!("\turl = {SERVED}/honest\n\tupdate = !touch {to}/new\n"),
            ),
            module("nothing", "m", &here(&format!("{SERVED}/nothing"))),
            module("good", "m", &here(&format!("{SERVED}/honest"))),
        ]
        .concat(),
    );
    for name in ["file", "path", "ext", "option", "ssh", "update", "nothing"] {
        let output = served.build(&format!("{SERVED}/{name}"));
        if name != "update" {
            refused(&output, name);
        }
        served.add(&format!("{SERVED}/{name}"));
        host.assert_unreached(&served.place, name);
    }
    // Who does not want them gets none.
    served.build(&format!("{SERVED}/file?submodules=0")).ok();
    served.add(&format!("{SERVED}/good")).ok();
    assert_eq!(served.place.inside("made", "ls /r/m"), "Dockerfile\nsub");
    served.place.is_clean();
}
