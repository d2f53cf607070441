//! The real `docker build`, buildx, bake and compose, which speak BuildKit's protocol.

use std::path::Path;

use ferry_testkit::{Output, Run, signal, wait_until};

use crate::build::Place;

/// How many bytes of the context came.
fn sent(output: &Output) -> &str {
    let lines = output.stderr.lines();
    let mut told = lines.filter_map(|line| line.split_once("transferring context:"));
    told.next_back().map(|(_, sent)| sent.trim()).unwrap_or_default()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn docker_build_sends_a_context_once() {
    let Some(place) = Place::with_plugins() else { return };
    place.write(
        "Dockerfile",
        "FROM busybox\nCOPY src /src\nRUN cat /src/a > /made && echo said\nCMD [\"cat\", \"/made\"]\n",
    );
    place.write(".dockerignore", "src/left-out\n");
    place.write("src/a", &"a".repeat(100_000));
    place.write("src/left-out", "x");
    place.write("src/ü b", "odd");
    let first = place.docker("build -t app .");
    assert!(first.stderr.contains("said"), "{first:?}");
    assert!(sent(&first).contains("kB"), "{first:?}");
    first.ok();
    assert_eq!(place.inside("app", "wc -c < /made; cd /src; echo *"), "100000\na ü b");

    let again = place.docker("build -t app .");
    let nothing = sent(&again);
    assert!(nothing.ends_with("done") && !nothing.contains('B'), "{again:?}");
    assert!(again.stderr.contains("CACHED"), "{again:?}");
    again.ok();

    place.write("src/b", "more");
    std::fs::remove_file(place.path("src/ü b")).unwrap();
    let third = place.docker("build -q -t app .");
    assert!(third.ok().starts_with("sha256:"));
    assert_eq!(place.inside("app", "cd /src; echo *"), "a b");
}

/// moby/buildkit#4950: what a client sends is compared with what it sent before, by sizes and times.
#[test]
fn directories_of_one_name_are_not_taken_for_each_other() {
    let Some(place) = Place::with_plugins() else { return };
    let both = [("one", "first!"), ("two", "second")];
    for (parent, text) in both {
        place.write(&format!("{parent}/app/f"), text);
        place.write(&format!("{parent}/app/Dockerfile"), "FROM busybox\nCOPY f /f\n");
    }
    let context = place.context.path();
    Run::new("find")
        .args([context])
        .args(["-exec", "touch", "-d", "@1700000000", "{}", "+"])
        .ok();
    for round in 0..2 {
        for (parent, text) in both {
            place.docker(&format!("build -t {parent} {parent}/app")).ok();
            assert_eq!(place.inside(parent, "cat /f"), text, "{round}");
            // By the same path: the shell's own.
            let run = place.docker_command().directory(context.join(parent).join("app"));
            run.args(["build", "-t", "here", "."]).output().ok();
            assert_eq!(place.inside("here", "cat /f"), text, "{round}");
        }
    }
}

#[test]
fn what_fails_is_shown_with_its_lines() {
    let Some(place) = Place::with_plugins() else { return };
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
        place.write("Dockerfile", dockerfile);
        let output = place.docker("build .");
        assert!(
            output.stderr.contains(lines) && output.stderr.contains(message),
            "{output:?}"
        );
        assert_eq!(output.code, 1);
    }
    let output = place.docker("build -f Nothing .");
    assert!(
        output
            .stderr
            .contains("failed to read dockerfile: open Nothing: no such file or directory")
    );
    place.write("Dockerfile", "FROM busybox\nENV a b\n");
    let output = place.docker("build --check .");
    assert!(
        output.stdout.contains("LegacyKeyValueFormat") && output.code == 1,
        "{output:?}"
    );
    assert!(place.docker("build --call outline .").code == 0);
    for (options, text) in [
        ("--platform linux/amd64,linux/arm64", "several platforms"),
        ("--build-arg BUILDKIT_SYNTAX=me/mine", "me/mine"),
    ] {
        let output = place.docker(&format!("build {options} ."));
        assert!(output.stderr.contains(text) && output.code == 1, "{output:?}");
    }
}

#[test]
fn results_secrets_and_archives_go_over_the_session() {
    let Some(place) = Place::with_plugins() else { return };
    let secret = place.home.path().join("secret");
    std::fs::write(&secret, "opensesame").unwrap();
    place.write(
        "Dockerfile",
        "FROM busybox AS b\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /n\nFROM scratch\nCOPY --from=b /n /d/n\n",
    );
    let line = format!("build --secret id=s,src={} -o out .", secret.display());
    place.docker(&line).ok();
    assert_eq!(read(&place.path("out/d/n")).trim(), "10");
    place.docker(&line.replace("-o out", "-o type=tar,dest=out.tar")).ok();
    let listed = Run::new("tar").args(["tf"]).args([place.path("out.tar")]).ok();
    assert!(listed.contains("d/n"), "{listed}");
    place
        .docker(&line.replace("-o out", "-o type=docker,dest=image.tar"))
        .ok();
    assert!(place.path("image.tar").metadata().unwrap().len() > 1000);
    // A Dockerfile, and then a whole context, on standard input.
    let run = place
        .docker_command()
        .args(["build", "-t", "piped", "-"])
        .input("FROM busybox\nRUN echo x > /x\n");
    run.output().ok();
    assert_eq!(place.inside("piped", "cat /x"), "x");
    let archive = Run::new("tar")
        .args(["c", "-C"])
        .args([place.context.path()])
        .args(["Dockerfile"]);
    let archive = archive.into_command().output().unwrap().stdout;
    let run = place
        .docker_command()
        .args(["build", "--secret"])
        .args([format!("id=s,src={}", secret.display())]);
    run.args(["-t", "tarred", "-"]).input(archive).output().ok();
}

#[test]
fn bake_and_compose_build_what_depends_on_each_other() {
    let Some(place) = Place::with_plugins() else { return };
    place.write(
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
    place.docker("buildx bake --metadata-file meta.json").ok();
    assert_eq!(place.inside("baked-app", "cat /app /copied"), "yes\nbase");
    assert!(read(&place.path("meta.json")).contains("containerimage.digest"));
    place.write(
        "compose.yaml",
        "name: shop\nservices:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM busybox\\nRUN echo web > /x\"}\n  \
         db:\n    build: {context: ., dockerfile_inline: \"FROM busybox\\nRUN echo db > /x\"}\n",
    );
    place.docker("compose build").ok();
    assert_eq!(place.inside("shop-web", "cat /x"), "web");
    assert_eq!(place.inside("shop-db", "cat /x"), "db");
}

#[test]
fn a_build_whose_client_goes_leaves_nothing_running() {
    let Some(place) = Place::with_plugins() else { return };
    place.write("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4321\n");
    let running = place.docker_command().args(["build", "."]).spawn();
    let processes = || place.processes(b"sleep\x004321");
    // The step's name is shown before it runs.
    wait_until("the build's process is there", || processes() == 1);
    running.signal(signal::KILL);
    running.finish();
    wait_until("the build's process is gone", || processes() == 0);
}

#[test]
fn buildx_lists_what_is_kept_and_what_was() {
    let Some(place) = Place::with_plugins() else { return };
    place.write("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo logged\n");
    place.write("f", "f");
    place.docker("build .").ok();
    let listed = place.docker("buildx ls").ok();
    assert!(listed.contains("running") && listed.contains("linux/amd64"), "{listed}");
    place.docker("buildx inspect default").ok();
    let used = place.docker("buildx du --verbose").ok();
    assert!(used.contains("source.local"), "{used}");
    let logs = place.docker("buildx history logs");
    assert!(
        logs.stderr.contains("logged") || logs.stdout.contains("logged"),
        "{logs:?}"
    );
    let history = place.docker("buildx history ls").ok();
    assert!(history.contains("Completed"), "{history}");
    let pruned = place.docker("buildx prune -af").ok();
    assert!(pruned.contains("Total:"), "{pruned}");
    let left = place.docker("buildx du").ok();
    assert!(left.contains("Total:") && left.contains("0B"), "{left}");
    place.docker("build .").ok();
}
