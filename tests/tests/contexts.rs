//! Contexts, hosts over ssh, and docker's plugins: the command line without an engine of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ferry_testkit::{Output, Program, TestDaemon, peer};

use super::compat::split;

/// Runs a line with a configuration directory of its own.
fn run(engine: &TestDaemon, program: Program, directory: &Path, line: &str) -> Output {
    let mut run = engine.command(program).args(split(line));
    run = run.env("DOCKER_CONFIG", directory).directory(directory);
    run.output()
}

#[test]
fn contexts_are_docker_s_byte_for_byte() {
    let engine = TestDaemon::start();
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [docker, ferry] = [&directories[0], &directories[1]].map(tempfile::TempDir::path);
    for directory in [docker, ferry] {
        std::fs::write(directory.join("ca"), "x").unwrap();
        std::fs::write(directory.join("pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    }
    let mut differences = Vec::new();
    for line in [
        "context ls",
        "context create c1 --docker host=tcp://127.0.0.1:1 --description 'my ctx'",
        "context create c1 --docker host=tcp://127.0.0.1:1",
        "context create default",
        "context create 'bad name'",
        "context create c2 --docker host=ssh://u@h",
        "context create c3 --docker foo=x",
        "context create c4",
        "context create c5 --from c1",
        "context create c6 --from nosuch",
        "context create c7 --docker from=c1",
        "context create t1 --docker host=tcp://h:1,ca=ca,cert=ca,key=ca",
        "context create t2 --docker host=tcp://h:1,ca=nofile",
        "context create t3 --docker host=tcp://h:1,skip-tls-verify=true",
        "context ls",
        "context ls -q",
        "context ls --format json",
        "context ls --format '{{.Name}} {{.Nothing}}'",
        "context use c1",
        "context show",
        "--context c5 context show",
        "context inspect c1",
        "context inspect c1 nosuch",
        "context inspect t3",
        "context inspect -f '{{.Name}} {{.Endpoints.docker.Host}}' c1",
        "context inspect default",
        "context update c1 --description new",
        "context update c1 --docker host=tcp://127.0.0.1:2",
        "context inspect c1",
        "context update nosuch --description new",
        "context rm nosuch default",
        "context rm -f nosuch",
        "context rm -f c1",
        "context rm c7",
        "context use nosuch",
        "context use default",
        "--context nosuch ps",
        "--context c5 -H unix:///x ps",
        "context export c5",
        "context export c5",
        "context export nosuch",
        "context import c9 c5.dockercontext",
        "context import c9 c5.dockercontext",
        "context import c10 ca",
        "context inspect c9",
        "context use",
        "context",
        "context --help",
        "context create --help",
        "context ls --help",
        "context rm --help",
        "context export --help",
        "system dial-stdio --help",
    ] {
        let of = |program: Program, directory: &Path| {
            let output = run(&engine, program, directory, line);
            let text = format!("{}\n{}\n{}", output.code, output.stdout, output.stderr);
            let text = text.replace(&directory.display().to_string(), "DIR");
            text.replace("ferry", "docker").replace("Ferry", "Docker")
        };
        let (theirs, ours) = (of(Program::Docker, docker), of(Program::Ferry, ferry));
        // What is wrong with an archive is said in other words.
        if theirs != ours && !line.contains("c10") {
            differences.push(format!("`{line}`\ndocker: {theirs}\nferry: {ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // Either reads what the other has written.
    for (program, directory) in [(Program::Docker, ferry), (Program::Ferry, docker)] {
        let listed = run(&engine, program, directory, "context ls -q").ok();
        assert_eq!(listed, "c2\nc4\nc5\nc9\ndefault\nt3");
    }
}

/// `ssh` is a stand-in here, which runs the command as a shell on the other side would.
#[test]
fn an_engine_is_reached_by_its_context_and_over_ssh() {
    let engine = TestDaemon::start();
    let directory = tempfile::tempdir().unwrap();
    let at = |line: &str| run(&engine, Program::Ferry, directory.path(), line);
    let host = format!("unix://{}", engine.socket().display());
    at(&format!("context create here --docker host={host}")).ok();
    at("context create nowhere --docker host=unix:///nowhere.sock").ok();
    at("--context here ps").ok();
    let failed = at("--context nowhere ps");
    assert!(
        failed.code == 1 && failed.stderr.contains("unix:///nowhere.sock"),
        "{failed:?}"
    );

    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$(dirname \"$0\")/seen\"\nwhile [ \"$1\" != -- ]; do shift; done\nexec sh -c \"$3\"\n";
    for (name, content) in [
        ("ssh", script.to_owned()),
        (
            "ferry",
            format!("#!/bin/sh\nexec {} \"$@\"\n", ferry_testkit::tools::ferry().display()),
        ),
    ] {
        let path = bin.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let remote = format!("ssh://me@elsewhere:2222{}", engine.socket().display());
    engine.busybox();
    let over = |line: &str| {
        let words = ["-H", &remote].into_iter().map(str::to_owned).chain(split(line));
        engine.command(Program::Ferry).args(words).env("PATH", &path).output()
    };
    assert_eq!(over("run --rm busybox echo hello").ok(), "hello");
    let seen = std::fs::read_to_string(bin.join("seen")).unwrap();
    assert!(seen.contains("-p\n2222\n--\nme@elsewhere\n"), "{seen}");
    let code = over("run --rm busybox sh -c 'exit 7'").code;
    assert_eq!(code, 7);
}

#[test]
fn a_plugin_is_run_with_the_engine_s_place() {
    let engine = TestDaemon::start();
    let directory = tempfile::tempdir().unwrap();
    let plugins = directory.path().join("cli-plugins");
    std::fs::create_dir(&plugins).unwrap();
    let path = plugins.join("docker-greet");
    std::fs::write(&path, "#!/bin/sh\necho \"$DOCKER_HOST\" \"$@\"\nexit 9\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&engine, Program::Ferry, directory.path(), "greet --world x");
    assert_eq!(
        (output.code, output.stdout),
        (9, format!("{} greet --world x\n", engine.host()))
    );
    let output = run(&engine, Program::Ferry, directory.path(), "nosuchplugin");
    assert!(output.stderr.contains("unknown command"), "{output:?}");
}

/// The real one, as a plugin.
#[test]
fn ferry_compose_is_docker_compose() {
    let directory = tempfile::tempdir().unwrap();
    if peer::link_plugins(directory.path(), &["docker-compose"]).is_none() {
        return;
    }
    let engine = TestDaemon::start();
    engine.busybox();
    let file = "name: shop\nservices:\n  web: {image: 'busybox:latest', command: sleep 1000}\n";
    std::fs::write(directory.path().join("compose.yaml"), file).unwrap();
    let ferry = |line: &str| run(&engine, Program::Ferry, directory.path(), line);
    ferry("compose up -d").ok();
    assert_eq!(engine.field("shop-web-1", "/State/Running"), "true");
    assert_eq!(ferry("compose exec -T web echo hello").ok(), "hello");
    assert_eq!(ferry("compose exec -T web sh -c 'exit 5'").code, 5);
    ferry("compose down -t 0").ok();
    assert_eq!(engine.cli(["ps", "-aq"]).ok(), "");
}
