use std::collections::BTreeMap;

use super::*;
use crate::environment::Build;

fn environment() -> Environment {
    Environment {
        program: "docker".into(),
        build: Build {
            version: "1.2.3".into(),
            ..Build::default()
        },
        variables: BTreeMap::from([("HOME".into(), "/nonexistent".into())]),
        directory: "/".into(),
        default_host: "unix:///nonexistent.sock".into(),
    }
}

/// Exit code, stdout and stderr of a command line.
async fn run(line: &str) -> (u8, String, String) {
    let mut ui = Ui::memory();
    let ending = crate::run(
        line.split_whitespace().map(Into::into).collect(),
        environment(),
        &mut ui,
    )
    .await;
    let crate::Ending::Code(code) = ending else {
        panic!("a plugin of the machine's");
    };
    (code, ui.printed(), ui.complained())
}

#[tokio::test]
async fn mistakes_are_named_as_docker_names_them() {
    for (line, code, complaint) in [
        (
            "run",
            1,
            "docker: 'docker run' requires at least 1 argument\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'docker run --help' for more information\n",
        ),
        (
            "run --foo x",
            125,
            "unknown flag: --foo\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'docker run --help' for more information\n",
        ),
        (
            "ps extra",
            1,
            "docker: 'docker ps' accepts no arguments\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n",
        ),
        (
            "container list x",
            1,
            "docker: 'docker container ls' accepts no arguments\n\nUsage:  docker container ls [OPTIONS]\n\nRun 'docker container ls --help' for more information\n",
        ),
        (
            "rename x",
            1,
            "docker: 'docker rename' requires 2 arguments\n\nUsage:  docker rename CONTAINER NEW_NAME\n\nRun 'docker rename --help' for more information\n",
        ),
        (
            "foo",
            1,
            "docker: unknown command: docker foo\n\nRun 'docker --help' for more information\n",
        ),
        (
            "container foo",
            1,
            "docker: unknown command: docker container foo\n\nUsage:  docker container\n\nRun 'docker container --help' for more information\n",
        ),
        ("bake x", 1, "docker: bake is not supported: it is not there yet\n"),
        (
            "build",
            1,
            "docker: 'docker build' requires 1 argument\n\nUsage:  docker build [OPTIONS] PATH | URL | -\n\nRun 'docker build --help' for more information\n",
        ),
        (
            "swarm init",
            1,
            "docker: swarm is not supported: Ferry has no swarm: use compose on one machine, and contexts for several\n",
        ),
        (
            "pull --disable-content-trust=false x",
            1,
            "content trust is not supported: name the image by its digest\n",
        ),
        (
            "create --use-api-socket x",
            125,
            "docker: --use-api-socket is not supported: mount the socket with -v /nonexistent.sock:/var/run/docker.sock\n\nRun 'docker create --help' for more information\n",
        ),
        (
            "ps",
            1,
            "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?\n",
        ),
        (
            "run x",
            125,
            "docker: Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?\n\nRun 'docker run --help' for more information\n",
        ),
        (
            "run --pull foo x",
            125,
            "docker: invalid pull option: 'foo': must be one of \"always\", \"missing\" or \"never\"\n\nRun 'docker run --help' for more information\n",
        ),
        (
            "run UPPER",
            125,
            "docker: invalid reference format: repository name (library/UPPER) must be lowercase\n\nRun 'docker run --help' for more information\n",
        ),
        (
            "run -d -a stdout x",
            1,
            "conflicting options: cannot specify both --attach and --detach\n",
        ),
        ("run -it x", 1, "the input device is not a TTY\n"),
        (
            "inspect --type foo x",
            1,
            "unknown type: \"foo\": must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"\n",
        ),
        (
            "logs --since x y",
            1,
            "invalid value for \"since\": failed to parse value as time or duration: \"x\"\n",
        ),
        (
            "update x",
            1,
            "you must provide one or more flags when using this command\n",
        ),
        (
            "--foo ps",
            125,
            "unknown flag: --foo\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information\n",
        ),
    ] {
        let (exit, printed, complained) = run(line).await;
        assert_eq!(
            (exit, printed.as_str(), complained.as_str()),
            (code, "", complaint),
            "{line}"
        );
    }
}

#[tokio::test]
async fn help_goes_to_stdout() {
    let (code, printed, complained) = run("wait --help").await;
    assert_eq!(
        (code, printed.as_str(), complained.as_str()),
        (
            0,
            "Usage:  docker wait CONTAINER [CONTAINER...]\n\nBlock until one or more containers stop, then print their exit codes\n\nAliases:\n  docker container wait, docker wait\n",
            ""
        )
    );
    assert!(
        run("ps -h")
            .await
            .1
            .starts_with("Flag shorthand -h has been deprecated, use --help\nUsage:  docker ps [OPTIONS]\n")
    );
    assert!(
        run("help container rm")
            .await
            .1
            .starts_with("Usage:  docker container rm [OPTIONS] CONTAINER")
    );
    assert_eq!(run("--version").await.1, "Docker version 1.2.3, build unknown\n");
    for line in ["", "--help", "container --help", "image --help", "system --help"] {
        assert_eq!(run(line).await.0, 0);
    }
}

#[test]
fn every_command_has_flags_that_read() {
    for spec in SPECS {
        let lines = spec
            .flags
            .lines()
            .chain(spec.own.lines())
            .filter(|line| !line.starts_with(' '))
            .count();
        assert_eq!(spec.definitions().len(), lines, "{}", spec.name);
    }
}

#[test]
fn a_failed_start_becomes_dockers_exit_code() {
    for (message, code) in [
        ("exec: \"x\": executable file not found in $PATH", 127),
        ("stat /nope: no such file or directory", 127),
        ("exec: \"/etc\": is a directory: permission denied", 126),
        ("name in use", 125),
    ] {
        assert_eq!(run::start_code(message), code);
    }
}

#[test]
fn platforms_travel_as_json() {
    assert_eq!(
        platform_json("linux/arm64/v8"),
        r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
    );
}
