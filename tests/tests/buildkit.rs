//! The real `docker build`, buildx, bake and compose, which speak BuildKit's protocol.

use std::path::{Path, PathBuf};

use ferry_testkit::{Output, Program, Run, TestDaemon, signal, wait_until};
use tempfile::TempDir;

/// An engine, Docker's command line with its plugins, and a context.
struct Client {
    engine: TestDaemon,
    home: TempDir,
    context: TempDir,
}

impl Client {
    /// `None`, saying so, where there are no plugins.
    fn start() -> Option<Self> {
        let plugins = ["docker-buildx", "docker-compose"].map(ferry_testkit::peer::plugin);
        let [Some(buildx), Some(compose)] = plugins else {
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cli-plugins");
        std::fs::create_dir(&dir).unwrap();
        for program in [&buildx, &compose] {
            std::os::unix::fs::symlink(program, dir.join(program.file_name().unwrap())).unwrap();
        }
        let engine = TestDaemon::start();
        engine.busybox();
        Some(Self {
            engine,
            home,
            context: tempfile::tempdir().unwrap(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.context.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self) -> Run {
        let run = self
            .engine
            .command(Program::Docker)
            .env("DOCKER_CONFIG", self.home.path());
        run.env("BUILDKIT_PROGRESS", "plain").directory(self.context.path())
    }

    fn docker(&self, line: &str) -> Output {
        self.command().args(line.split(' ')).output()
    }

    /// What a command prints in a container of an image.
    fn inside(&self, image: &str, script: &str) -> String {
        self.engine.docker(["run", "--rm", image, "sh", "-c", script]).ok()
    }

    /// How many bytes of the context came.
    fn sent(&self, output: &Output) -> String {
        let mut lines = output
            .stderr
            .lines()
            .filter(|line| line.contains("transferring context:"));
        let last = lines.next_back().unwrap_or_default();
        last.split_once("transferring context:")
            .map_or(last, |(_, sent)| sent)
            .trim()
            .to_owned()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn docker_build_sends_a_context_once() {
    let Some(client) = Client::start() else { return };
    client.write(
        "Dockerfile",
        "FROM busybox\nCOPY src /src\nRUN cat /src/a > /made && echo said\nCMD [\"cat\", \"/made\"]\n",
    );
    client.write(".dockerignore", "src/left-out\n");
    client.write("src/a", &"a".repeat(100_000));
    client.write("src/left-out", "x");
    client.write("src/ü b", "odd");
    let first = client.docker("build -t app .");
    assert!(first.stderr.contains("said"), "{first:?}");
    assert!(client.sent(&first).contains("kB"), "{first:?}");
    first.ok();
    assert_eq!(client.inside("app", "wc -c < /made; cd /src; echo *"), "100000\na ü b");

    let again = client.docker("build -t app .");
    assert_eq!(client.sent(&again), "done", "{again:?}");
    assert!(again.stderr.contains("CACHED"), "{again:?}");
    again.ok();

    client.write("src/b", "more");
    std::fs::remove_file(client.path("src/ü b")).unwrap();
    let third = client.docker("build -q -t app .");
    assert!(third.ok().starts_with("sha256:"));
    assert_eq!(client.inside("app", "cd /src; echo *"), "a b");
}

#[test]
fn what_fails_is_shown_with_its_lines() {
    let Some(client) = Client::start() else { return };
    for (dockerfile, lines, message) in [
        (
            "FROM busybox\nRUN echo oops; exit 3\n",
            "   2 | >>> RUN echo oops; exit 3",
            "exit code: 3",
        ),
        (
            "FROM busybox\nRUNN x\n",
            "   2 | >>> RUNN x",
            "unknown instruction: RUNN (did you mean RUN?)",
        ),
        (
            "FROM busybox\nCOPY nothing /\n",
            "   2 | >>> COPY nothing /",
            "\"/nothing\": not found",
        ),
    ] {
        client.write("Dockerfile", dockerfile);
        let output = client.docker("build .");
        assert!(
            output.stderr.contains(lines) && output.stderr.contains(message),
            "{output:?}"
        );
        assert_eq!(output.code, 1);
    }
    let output = client.docker("build -f Nothing .");
    assert!(
        output
            .stderr
            .contains("failed to read dockerfile: open Nothing: no such file or directory")
    );
    client.write("Dockerfile", "FROM busybox\nENV a b\n");
    let output = client.docker("build --check .");
    assert!(
        output.stdout.contains("LegacyKeyValueFormat") && output.code == 1,
        "{output:?}"
    );
    assert!(client.docker("build --call outline .").code == 0);
    for (options, text) in [
        ("--platform linux/amd64,linux/arm64", "several platforms"),
        ("--build-arg BUILDKIT_SYNTAX=me/mine", "me/mine"),
    ] {
        let output = client.docker(&format!("build {options} ."));
        assert!(output.stderr.contains(text) && output.code == 1, "{output:?}");
    }
}

#[test]
fn results_secrets_and_archives_go_over_the_session() {
    let Some(client) = Client::start() else { return };
    let secret = client.home.path().join("secret");
    std::fs::write(&secret, "opensesame").unwrap();
    client.write(
        "Dockerfile",
        "FROM busybox AS b\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /n\nFROM scratch\nCOPY --from=b /n /d/n\n",
    );
    let line = format!("build --secret id=s,src={} -o out .", secret.display());
    client.docker(&line).ok();
    assert_eq!(read(&client.path("out/d/n")).trim(), "10");
    client.docker(&line.replace("-o out", "-o type=tar,dest=out.tar")).ok();
    let listed = Run::new("tar").args(["tf"]).args([client.path("out.tar")]).ok();
    assert!(listed.contains("d/n"), "{listed}");
    client
        .docker(&line.replace("-o out", "-o type=docker,dest=image.tar"))
        .ok();
    assert!(client.path("image.tar").metadata().unwrap().len() > 1000);
    // A Dockerfile, and then a whole context, on standard input.
    let run = client
        .command()
        .args(["build", "-t", "piped", "-"])
        .input("FROM busybox\nRUN echo x > /x\n");
    run.output().ok();
    assert_eq!(client.inside("piped", "cat /x"), "x");
    let archive = Run::new("tar")
        .args(["c", "-C"])
        .args([client.context.path()])
        .args(["Dockerfile"]);
    let archive = archive.into_command().output().unwrap().stdout;
    let run = client
        .command()
        .args(["build", "--secret"])
        .args([format!("id=s,src={}", secret.display())]);
    run.args(["-t", "tarred", "-"]).input(archive).output().ok();
}

#[test]
fn bake_and_compose_build_what_depends_on_each_other() {
    let Some(client) = Client::start() else { return };
    client.write(
        "docker-bake.hcl",
        r#"
group "default" {
  targets = ["app", "base"]
}
target "base" {
  dockerfile-inline = "FROM busybox\nRUN echo base > /base\nENV FROM_BASE=yes\n"
  tags = ["baked-base"]
}
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nRUN echo $FROM_BASE > /app\nCOPY --from=base /base /copied\n"
  tags = ["baked-app"]
}
"#,
    );
    client.docker("buildx bake --metadata-file meta.json").ok();
    assert_eq!(client.inside("baked-app", "cat /app /copied"), "yes\nbase");
    assert!(read(&client.path("meta.json")).contains("containerimage.digest"));
    client.write(
        "compose.yaml",
        "name: shop\nservices:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM busybox\\nRUN echo web > /x\"}\n  \
         db:\n    build: {context: ., dockerfile_inline: \"FROM busybox\\nRUN echo db > /x\"}\n",
    );
    client.docker("compose build").ok();
    assert_eq!(client.inside("shop-web", "cat /x"), "web");
    assert_eq!(client.inside("shop-db", "cat /x"), "db");
}

#[test]
fn a_build_whose_client_goes_leaves_nothing_running() {
    let Some(client) = Client::start() else { return };
    client.write("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4321\n");
    let running = client.command().args(["build", "."]).spawn();
    running.wait_for_error("begun");
    let processes = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"sleep\x004321")).count()
    };
    assert_eq!(processes(), 1);
    running.signal(signal::KILL);
    running.finish();
    wait_until("the build's process is gone", || processes() == 0);
}

#[test]
fn buildx_lists_what_is_kept_and_what_was() {
    let Some(client) = Client::start() else { return };
    client.write("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo logged\n");
    client.write("f", "f");
    client.docker("build .").ok();
    let listed = client.docker("buildx ls").ok();
    assert!(listed.contains("running") && listed.contains("linux/amd64"), "{listed}");
    client.docker("buildx inspect default").ok();
    let used = client.docker("buildx du --verbose").ok();
    assert!(used.contains("source.local"), "{used}");
    let logs = client.docker("buildx history logs");
    assert!(
        logs.stderr.contains("logged") || logs.stdout.contains("logged"),
        "{logs:?}"
    );
    let history = client.docker("buildx history ls").ok();
    assert!(history.contains("Completed"), "{history}");
    let pruned = client.docker("buildx prune -af").ok();
    assert!(pruned.contains("Total:"), "{pruned}");
    let left = client.docker("buildx du").ok();
    assert!(left.contains("Total:") && left.contains("0B"), "{left}");
    client.docker("build .").ok();
}
