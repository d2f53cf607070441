//! What the shell completes: the protocol, bash itself, and how long a key takes. And what a terminal is asked back.

use std::time::{Duration, Instant};

use ferry_testkit::{Program, Pty, Run, TestDaemon, tools};

/// What `__complete` proposes, without descriptions and the directive.
fn proposed(engine: &TestDaemon, words: &[&str]) -> Vec<String> {
    let words = ["__completeNoDesc"].iter().chain(words);
    let answer = engine.ferry(words).ok();
    let lines = answer.lines().filter(|line| !line.starts_with(':'));
    lines.map(str::to_owned).collect()
}

#[test]
fn names_flags_and_commands_are_proposed() {
    let engine = TestDaemon::start();
    engine.sleeper("web", &["-v", "data:/data"]);
    engine.sleeper("worker", &[]);
    engine.cli(["create", "--name", "waiting", "busybox"]).ok();
    engine.cli(["network", "create", "shop"]).ok();
    engine.cli(["pause", "worker"]).ok();
    let is = |words: &[&str], want: &[&str]| assert_eq!(proposed(&engine, words), want, "{words:?}");
    is(&["rm", "w"], &["waiting", "web", "worker"]);
    is(&["rm", "-f", "web", "w"], &["waiting", "worker"]);
    is(&["stop", "w"], &["web"]);
    is(&["start", ""], &["waiting"]);
    is(&["unpause", ""], &["worker"]);
    is(&["container", "exec", "-it", "we"], &["web"]);
    is(&["exec", "-e", "A=1", "we"], &["web"]);
    is(&["run", "--rm", "busy"], &["busybox", "busybox:latest"]);
    is(&["run", "--rm", "busybox:l"], &["busybox:latest"]);
    is(&["run", "--network", "sh"], &["shop"]);
    is(&["run", "--network=sh"], &["shop"]);
    is(&["run", "--restart", "o"], &["on-failure"]);
    is(
        &["run", "--net"],
        &[
            "--net-burst",
            "--net-rate",
            "--net-rate-in",
            "--net-rate-out",
            "--network",
            "--network-alias",
        ],
    );
    is(&["run", "--log-driver", "js"], &["json-file"]);
    is(&["volume", "rm", ""], &["data"]);
    is(&["network", "connect", "shop", "we"], &["web"]);
    is(&["inspect", "d"], &["data"]);
    is(&["ps", "--filter", "st"], &["status="]);
    is(&["--context", "d"], &["default"]);
    is(&["vol"], &["volume"]);
    is(&["volume", "ex"], &["export"]);
    is(&["image", "pr"], &["prune"]);
    is(&["help", "renam"], &["rename"]);
    is(&["nonsense", ""], &[]);
    is(&["rename", "web", ""], &[]);
    let described = engine.ferry(["__complete", "ren"]).ok();
    assert_eq!(described, "rename\tRename a container\n:4");
    let files = engine.ferry(["__complete", "exec", "web", ""]).ok();
    assert_eq!(files, ":0");
    let open = engine.ferry(["__complete", "ps", "--filter", "st"]).ok();
    assert_eq!(open, "status=\n:6");
}

/// Fifty milliseconds on a machine that does nothing else: the least of some, since this one does.
#[test]
fn a_key_takes_no_time_and_starts_no_engine() {
    let engine = TestDaemon::start();
    engine.sleeper("web", &[]);
    let took = |words: &[&str]| {
        let once = |_| {
            let begun = Instant::now();
            engine.ferry(words.iter()).ok();
            begun.elapsed()
        };
        (0..10).map(once).min().unwrap()
    };
    for words in [
        &["__complete", "rm", ""][..],
        &["__complete", "run", "--"],
        &["completion", "bash"],
    ] {
        let took = took(words);
        assert!(took < Duration::from_millis(50), "{words:?} took {took:?}");
    }
    let nowhere = Run::new(tools::ferry()).env("DOCKER_HOST", "unix:///nowhere.sock");
    assert_eq!(nowhere.args(["__complete", "rm", ""]).ok(), ":4");
}

/// As bash calls it: the line and where the cursor is, and bash's own idea of words.
#[test]
fn bash_completes_with_the_script() {
    let engine = TestDaemon::start();
    engine.sleeper("web", &[]);
    engine.sleeper("worker", &[]);
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(tools::ferry(), bin.path().join("ferry")).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let complete = |line: &str| {
        let script = format!(
            "source <(ferry completion bash); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _ferry_complete ferry; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let run = Run::new("bash").args(["--norc", "-c", &script]).env("PATH", &path);
        run.env("DOCKER_HOST", engine.host()).env("HOME", bin.path()).ok()
    };
    assert_eq!(complete("ferry stop w"), "web\nworker");
    assert_eq!(complete("ferry stop web w"), "worker");
    assert_eq!(complete("ferry run busybox:la"), "latest");
    assert_eq!(complete("ferry run --network=bri"), "bridge");
    assert_eq!(complete("ferry ren"), "rename");
    assert_eq!(complete("ferry exec \"$(touch /tmp/x)\" "), "");
    // Bash itself, with a terminal.
    let mut command = std::process::Command::new("bash");
    command.args(["--norc", "--noprofile", "-i"]);
    command
        .env("PATH", &path)
        .env("DOCKER_HOST", engine.host())
        .env("PS1", "ready# ")
        .env("TERM", "dumb");
    command.env("HOME", bin.path());
    let mut pty = Pty::spawn(&command);
    pty.expect("ready# ");
    pty.send("source <(ferry completion bash); echo lo''aded\n");
    pty.expect("loaded");
    pty.expect("ready# ");
    pty.send("ferry inspect -f '{{.Name}}' wo\t\n");
    pty.expect("/worker\r\n");
    pty.send("exit\n");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn every_shell_has_a_script() {
    let engine = TestDaemon::start();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = engine.ferry(["completion", shell]).ok();
        assert!(script.contains("__complete") && !script.contains("PROGRAM"), "{script}");
        let plain = engine.ferry(["completion", shell, "--no-descriptions"]).ok();
        assert!(plain.contains("__completeNoDesc"), "{plain}");
    }
}

#[test]
fn a_person_is_asked_what_was_meant_and_a_script_is_not() {
    let engine = TestDaemon::start();
    engine.sleeper("web", &[]);
    engine.cli(["volume", "create", "data"]).ok();
    for (line, hint) in [
        ("pss", "did you mean 'ferry ps'?"),
        ("container lss", "did you mean 'ferry container ls'?"),
        ("run --detahc x", "did you mean '--detach'?"),
        ("stop webb", "did you mean 'web'?"),
        ("logs webb", "did you mean 'web'?"),
        ("volume rm dat", "did you mean 'data'?"),
        ("network inspect bride", "did you mean 'bridge'?"),
        ("inspect busybx", "did you mean 'busybox'?"),
    ] {
        let command = engine.command(Program::Ferry).args(line.split(' '));
        let mut pty = Pty::spawn(&command.into_command());
        pty.expect(hint);
        assert_ne!(pty.wait(), 0);
        let piped = engine.command(Program::Ferry).args(line.split(' ')).output();
        assert!(!piped.stderr.contains("did you mean"), "{piped:?}");
    }
}

#[test]
fn the_manual_has_a_page_for_a_command() {
    let engine = TestDaemon::start();
    let directory = tempfile::tempdir().unwrap();
    let man = directory.path().join("man1");
    engine.ferry(["man", &man.display().to_string()]).ok();
    let page = std::fs::read_to_string(man.join("ferry-run.1")).unwrap();
    assert!(page.contains("\\fB\\-\\-publish\\fR"), "{page}");
    let alias = std::fs::read_to_string(man.join("ferry-container-run.1")).unwrap();
    assert_eq!(alias, ".so man1/ferry-run.1\n");
}

/// What names no field is about the engine as well.
#[test]
fn info_as_json_has_the_engine_in_it() {
    let engine = TestDaemon::start();
    for format in ["json", "{{json .}}"] {
        let text = engine.ferry(["info", "-f", format]).ok();
        assert!(
            text.contains("\"ServerVersion\"") && text.contains("\"ClientInfo\""),
            "{text}"
        );
    }
}
