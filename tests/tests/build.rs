//! `ferry build`: the command line that hands its directories over, and what is kept of builds.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ferry_testkit::{Output, Program, Run, TestDaemon, peer, signal, wait_until};
use tempfile::TempDir;

/// An engine with busybox, a context, and settings of Docker's command line.
pub struct Place {
    pub engine: TestDaemon,
    pub context: TempDir,
    pub home: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self::on(TestDaemon::start())
    }

    pub fn on(engine: TestDaemon) -> Self {
        engine.busybox();
        let [context, home] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { engine, context, home }
    }

    /// Docker's command line has its plugins. `None`, saying so, where there are none.
    pub fn with_plugins() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        peer::link_plugins(home.path(), &["docker-buildx", "docker-compose"])?;
        Some(Self { home, ..Self::new() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.context.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn command(&self) -> Run {
        self.engine.command(Program::Ferry).directory(self.context.path())
    }

    pub fn ferry(&self, line: &str) -> Output {
        self.command().args(line.split(' ')).output()
    }

    pub fn docker_command(&self) -> Run {
        let run = self.engine.command(Program::Docker).directory(self.context.path());
        run.env("DOCKER_CONFIG", self.home.path())
            .env("BUILDKIT_PROGRESS", "plain")
    }

    pub fn docker(&self, line: &str) -> Output {
        self.docker_command().args(line.split(' ')).output()
    }

    /// What a command prints in a container of an image.
    pub fn inside(&self, image: &str, script: &str) -> String {
        self.engine.ferry(["run", "--rm", image, "sh", "-c", script]).ok()
    }

    /// How many steps were not done again; the base never is.
    pub fn remembered(output: &Output) -> usize {
        let cached = output.stderr.lines().filter(|line| line.ends_with("CACHED"));
        cached.count().saturating_sub(1)
    }

    pub fn processes(&self, command: &[u8]) -> usize {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(command)).count()
    }

    pub fn is_clean(&self) {
        let check = self.engine.ferry(["system", "check"]);
        assert_eq!(check.code, 0, "{check:?}");
    }
}

#[test]
fn only_what_changed_is_done_again() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN echo first > /first\nCOPY src /src\nRUN cat /src/a /first > /both\nCMD [\"cat\", \"/both\"]\n",
    );
    place.write(".dockerignore", "src/out\n");
    place.write("src/a", "one\n");
    place.write("src/out", "x");
    let first = place.ferry("build -t app .");
    assert_eq!(Place::remembered(&first), 0, "{first:?}");
    first.ok();
    assert_eq!(place.inside("app", "cat /both; ls /src"), "one\nfirst\na");

    let again = place.ferry("build -t app .");
    assert_eq!(Place::remembered(&again), 3, "{again:?}");
    place.write("src/out", "what is left out does not matter");
    assert_eq!(Place::remembered(&place.ferry("build -t app .")), 3);
    place.write("src/a", "two\n");
    let third = place.ferry("build -t app .");
    assert_eq!(Place::remembered(&third), 1, "{third:?}");
    assert_eq!(place.engine.ferry(["run", "--rm", "app"]).ok(), "two\nfirst");
    // The old content once more: the files are known, and what was made of them.
    place.write("src/a", "one\n");
    assert_eq!(Place::remembered(&place.ferry("build -t app .")), 3);
    assert_eq!(Place::remembered(&place.ferry("build --no-cache -t app .")), 0);
}

#[test]
fn a_result_goes_where_it_is_to_go() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox AS made\nRUN mkdir /out && echo it > /out/it && chmod 750 /out/it\nFROM scratch\nCOPY --from=made /out /\n",
    );
    place.ferry("build -o result .").ok();
    assert_eq!(std::fs::read_to_string(place.path("result/it")).unwrap(), "it\n");
    let mode = std::fs::metadata(place.path("result/it")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
    place.ferry("build -o type=tar,dest=out.tar .").ok();
    let list = Run::new("tar").args(["tf"]).args([place.path("out.tar")]).ok();
    assert_eq!(list, "it");
    let quiet = place.ferry("build -q --iidfile id -t small .").ok();
    assert_eq!(quiet, std::fs::read_to_string(place.path("id")).unwrap());
    place.ferry("build -o type=docker,dest=image.tar -t other .").ok();
    place.ferry("rmi small").ok();
    place.ferry("load -i image.tar").ok();
    assert_eq!(place.ferry("image inspect -f {{.Id}} other").ok(), quiet);

    let file = "FROM busybox\nRUN echo piped > /piped\n";
    let piped = place.command().args(["build", "-t", "piped", "-"]).input(file).output();
    piped.ok();
    assert_eq!(place.inside("piped", "cat /piped"), "piped");
    place.write("f", "f");
    let with = "FROM busybox\nCOPY f /\n";
    let with = place
        .command()
        .args(["build", "-t", "with", "-f", "-", "."])
        .input(with);
    with.ok();
    assert_eq!(place.inside("with", "cat /f"), "f");
}

#[test]
fn a_secret_is_in_no_layer_and_no_log() {
    const SECRET: &str = "b1c7e3f0-nobody-may-see-this";
    let place = Place::new();
    place.write("token", SECRET);
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=token,required wc -c < /run/secrets/token > /size\nRUN ! test -e /run/secrets/token\n",
    );
    let built = place.ferry("build --progress plain --secret id=token,src=token -t app .");
    assert!(!built.stderr.contains(SECRET), "{built:?}");
    built.ok();
    assert_eq!(place.inside("app", "cat /size"), SECRET.len().to_string());
    let root = place.engine.data_root();
    let found = Run::new("grep").args(["-rlF", SECRET]).args([&root]).output();
    assert_eq!(found.stdout, "", "{found:?}");
    // Without it the step is known: what it is given is no part of its key.
    let again = place.ferry("build --secret id=token,src=Dockerfile -t app .");
    assert_eq!(Place::remembered(&again), 2, "{again:?}");
    let without = place.ferry("build --no-cache -t app .");
    assert!(without.stderr.contains("token"), "{without:?}");
    without.fails(1);
}

#[test]
fn a_failure_shows_the_step_and_its_line() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN echo said before; exit 7\nRUN echo never\n",
    );
    let failed = place.ferry("build -t app .");
    for text in ["said before", "   2 | >>> RUN echo said before; exit 7", "exit code: 7"] {
        assert!(failed.stderr.contains(text), "{text}: {failed:?}");
    }
    assert_eq!(failed.code, 1);
    place.ferry("image inspect app").fails(1);
    for (options, text) in [
        ("--platform linux/amd64,linux/arm64 .", "platform"),
        ("--sbom true .", "--sbom"),
        ("nowhere", "nowhere"),
        ("-f missing .", "missing"),
        ("--target nothing .", "nothing"),
    ] {
        let refused = place.ferry(&format!("build {options}"));
        assert!(
            refused.stderr.contains(text) && refused.code == 1,
            "{options}: {refused:?}"
        );
    }
}

#[test]
fn a_client_that_is_killed_takes_its_build_along() {
    let place = Place::new();
    place.write("Dockerfile", "FROM busybox\nRUN echo begun; sleep 5432\n");
    let running = place.command().args(["build", "--progress", "plain", "."]).spawn();
    running.wait_for_error("begun");
    wait_until("the step runs", || place.processes(b"sleep\x005432") == 1);
    running.signal(signal::KILL);
    running.finish();
    wait_until("the step is gone", || place.processes(b"sleep\x005432") == 0);
    place.is_clean();
}

#[test]
fn an_engine_that_is_killed_goes_on_from_the_finished_steps() {
    let mut place = Place::new();
    let steps = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\nRUN echo three > /three\n";
    place.write("Dockerfile", &format!("{steps}RUN echo begun; sleep 6543\n"));
    let running = place.command().args(["build", "--progress", "plain", "."]).spawn();
    running.wait_for_error("begun");
    // The layers of steps get their digests behind, within moments.
    std::thread::sleep(std::time::Duration::from_secs(1));
    place.engine.kill9();
    let ended = running.finish();
    assert_ne!(ended.code, 0, "{ended:?}");
    place.engine.start_again();
    wait_until("the step is gone", || place.processes(b"sleep\x006543") == 0);
    place.is_clean();
    place.write("Dockerfile", &format!("{steps}RUN cat /one /two /three > /all\n"));
    let again = place.ferry("build -t app .");
    assert_eq!(Place::remembered(&again), 3, "{again:?}");
    assert_eq!(place.inside("app", "cat /all"), "one\ntwo\nthree");
    place.is_clean();
}

#[test]
fn what_is_kept_is_shown_and_removed() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c head -c 5000 /dev/zero > /c/f\nRUN head -c 70000 /dev/zero > /big\n",
    );
    place.ferry("build .").ok();
    let (_, usage) = place.engine.api("GET", "/system/df?type=build-cache", None);
    let kept = usage["BuildCache"].as_array().unwrap();
    assert!(kept.iter().any(|entry| entry["Type"] == "exec.cachemount"), "{kept:?}");
    assert!(kept.iter().any(|entry| entry["Size"] == 70_000), "{kept:?}");
    let total: u64 = kept.iter().filter_map(|entry| entry["Size"].as_u64()).sum();
    for program in [Program::Ferry, Program::Docker] {
        let run = |line: &str| place.engine.command(program).args(line.split(' ')).ok();
        let shown = run("system df -v");
        assert!(shown.contains("exec.cachemount") && shown.contains("70kB"), "{shown}");
    }
    let same = |line: &str| {
        let of = |program| place.engine.command(program).args(line.split(' ')).ok();
        // Ages may tick between the two.
        let mut tries = (0..5).map(|_| (of(Program::Ferry), of(Program::Docker)));
        assert!(
            tries.any(|(ours, dockers)| ours == dockers),
            "{line}: {}",
            of(Program::Ferry)
        );
    };
    same("system df");
    same("system df -v");
    let (status, answer) = place.engine.api("POST", "/build/prune?reserved-space=much", None);
    assert_eq!(status, 400);
    assert_eq!(
        answer["message"],
        "reserved-space is in bytes and expects an integer, got much"
    );
    let none = place
        .engine
        .docker(["builder", "prune", "-f", "--filter", "until=24h"])
        .ok();
    assert!(
        none.ends_with("Total:\t0B") || none.contains("Total reclaimed space: 0B"),
        "{none}"
    );
    let of = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.map(|rest| rest.trim().to_owned())
    };
    let used = place.ferry("builder du").ok();
    let summary = place.ferry("system df --format {{.Type}}:{{.Size}}").ok();
    let private = of(&used, "Private:").or_else(|| of(&used, "Total:"));
    assert_eq!(of(&summary, "Build Cache:"), private, "{used}");
    let alone = place.ferry("builder du --filter type=exec.cachemount").ok();
    assert!(alone.contains("*   true ") && alone.lines().count() == 2, "{alone}");
    let gone = place.ferry("builder prune -f").ok();
    assert!(gone.starts_with("Deleted build cache objects:\n"), "{gone}");
    let (_, left) = place.engine.api("GET", "/system/df?type=build-cache", None);
    let left = left["BuildCache"].as_array().unwrap();
    let left: u64 = left.iter().filter_map(|entry| entry["Size"].as_u64()).sum();
    assert!(left < total, "{left} of {total}");
    let shown = place.ferry("builder du --verbose").ok();
    assert!(shown.contains("Mutable:      false\nReclaimable:  true\n"), "{shown}");
    let used = place.ferry("builder du").ok();
    let gone = place.ferry("builder prune -af").ok();
    assert_eq!(
        of(&gone, "Total reclaimed space: "),
        of(&used, "Reclaimable:"),
        "{used}"
    );
    assert_eq!(place.ferry("builder du").ok().lines().last(), Some("Total:\t\t0B"));
    let (_, nothing) = place.engine.api("GET", "/system/df?type=build-cache", None);
    assert_eq!(nothing["BuildCache"].as_array().unwrap().len(), 0, "{nothing}");
    place.is_clean();
    let again = place.ferry("build .");
    assert_eq!(Place::remembered(&again), 0, "{again:?}");
}

/// The one layer that has a file, of those the store has.
fn layer_with(place: &Place, file: &str, content: &str) -> Vec<PathBuf> {
    let layers = std::fs::read_dir(place.engine.data_root().join("layers"))
        .unwrap()
        .flatten();
    let found = layers.map(|layer| layer.path().join("fs").join(file));
    found
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text == content))
        .collect()
}

#[test]
fn files_that_did_not_change_are_the_last_builds() {
    let place = Place::new();
    place.write("Dockerfile", "FROM busybox\nCOPY . /all\n");
    for number in 0..20 {
        place.write(&format!("src/{number}"), &format!("file {number}\n"));
    }
    place.ferry("build -t one .").ok();
    place.write("src/7", "changed\n");
    place.write("src/new", "new\n");
    std::fs::remove_file(place.path("src/9")).unwrap();
    place.ferry("build -t two .").ok();
    let listing = "cd /all/src && cat 7 new 8; ls | wc -l";
    assert_eq!(place.inside("two", listing), "changed\nnew\nfile 8\n20");
    assert_eq!(
        place.inside("one", "cd /all/src && cat 7 9; ls | wc -l"),
        "file 7\nfile 9\n20"
    );
    let links = |path: &PathBuf| std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(path).unwrap());
    let same = layer_with(&place, "all/src/8", "file 8\n");
    assert_eq!(same.iter().map(links).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(
        layer_with(&place, "all/src/7", "changed\n")
            .iter()
            .map(links)
            .collect::<Vec<_>>(),
        [1]
    );
    // Other modes and owners are other files, whatever they contain; the first image keeps its own.
    std::fs::set_permissions(place.path("src/8"), std::fs::Permissions::from_mode(0o700)).unwrap();
    place.ferry("build -t three .").ok();
    assert_eq!(place.inside("three", "stat -c %a /all/src/8"), "700");
    assert_eq!(place.inside("one", "stat -c %a /all/src/8"), "644");
    // A container that writes to one image's file leaves the other's.
    let written = "echo x > /all/src/3; cat /all/src/3";
    assert_eq!(place.inside("three", written), "x");
    assert_eq!(place.inside("one", "cat /all/src/3"), "file 3");
    place.ferry("rmi one").ok();
    place.ferry("builder prune -af").ok();
    assert_eq!(place.inside("two", listing), "changed\nnew\nfile 8\n20");
    place.is_clean();
}

#[test]
fn a_build_may_have_many_steps() {
    let place = Place::new();
    let steps = (0..250).map(|number| format!("RUN true {number}\n"));
    let stages = (0..1000).map(|number| format!("FROM s{number} AS s{}\n", number + 1));
    let file: String = ["FROM busybox AS s0\n".to_owned()]
        .into_iter()
        .chain(steps)
        .chain(stages)
        .collect();
    place.write("Dockerfile", &file);
    place.ferry("build --network none -t app .").ok();
    assert_eq!(Place::remembered(&place.ferry("build --network none -t app .")), 250);
}

#[test]
fn what_is_kept_goes_by_itself_as_daemon_json_says() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules = r#"{"builder": {"gc": {"policy": [{"filter": ["type=exec.cachemount"], "all": true}]}}}"#;
    std::fs::write(file.path(), rules).unwrap();
    let engine = TestDaemon::builder()
        .arg("--config-file")
        .arg(&file.path().to_string_lossy())
        .start();
    let place = Place::on(engine);
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/cache touch /cache/a && echo done > /b\n",
    );
    place.ferry("build -t app .").ok();
    let kept = || place.engine.ferry(["system", "df", "-v"]).ok();
    wait_until("the cache mount is gone", || !kept().contains("exec.cachemount"));
    assert!(kept().contains("regular"), "{}", kept());
    // Entitlements are the daemon's to grant.
    place.write("Dockerfile", "FROM busybox\nRUN --security=insecure true\n");
    let why = place.ferry("build --allow security.insecure .").fails(1);
    assert!(
        why.contains("granting entitlement security.insecure is not allowed"),
        "{why}"
    );
    place.is_clean();
}

#[test]
fn why_a_step_is_done_is_told() {
    let place = Place::new();
    let file = |run: &str, argument: &str| {
        format!("FROM busybox\nARG A={argument}\nRUN echo $A > /a\nCOPY src /src\nRUN {run}\n")
    };
    let told = |more: &str| {
        let built = place.ferry(&format!("build --explain{more} ."));
        let lines: Vec<String> = built.stderr.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.starts_with("not cached: "));
        at.map_or(Vec::new(), |at| lines[at..].to_vec())
    };
    place.write("Dockerfile", &file("cat /src/b/c", "1"));
    place.write("src/b/c", "one\n");
    place.write("src/d", "d\n");
    assert_eq!(told("")[1], "    nothing is remembered of a step like it");
    assert_eq!(told(""), Vec::<String>::new());

    place.write("src/b/c", "two\n");
    let copied = told("");
    assert_eq!(
        copied[..2],
        ["not cached: [3/4] COPY src /src", "    src/b/c is not as it was"]
    );
    assert_eq!(
        copied[2..],
        ["not cached: [4/4] RUN cat /src/b/c", "    the files below changed"]
    );

    place.write("Dockerfile", &file("cat /src/d", "1"));
    assert_eq!(
        told("")[1],
        "    the instruction is another one: it was RUN cat /src/b/c"
    );
    // Arguments are in the name of a step that uses them, and in what the others are run with.
    let argument = told(" --build-arg A=2");
    assert_eq!(
        argument[1],
        "    the instruction is another one: it was RUN echo 1 > /a"
    );
    assert!(argument[5].contains("environment, arguments"), "{argument:?}");
    assert_eq!(told(" --no-cache")[1], "    it was asked for by --no-cache");
}

#[test]
fn a_step_that_failed_can_be_looked_into() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nENV WORD=there\nWORKDIR /work\nUSER 7\nRUN echo left > /tmp/it; mkdir /nowhere\n",
    );
    let shell = place.command().args("build --debug-on-error .".split(' '));
    let output = shell.input("cat /tmp/it; pwd; id -u; echo $WORD\n").output();
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(output.stdout.trim_end(), "left\n/work\n7\nthere");
    assert!(
        output.stderr.contains("did not complete successfully: exit code: 1"),
        "{output:?}"
    );
    assert_eq!(place.engine.ferry(["images", "-aq"]).ok().lines().count(), 1);
    assert_eq!(place.engine.ferry(["ps", "-aq"]).ok(), "");
    place.is_clean();
}

#[test]
fn a_build_with_an_epoch_is_the_same_bit_for_bit() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nCOPY src /src\nRUN mkdir /made && date > /dev/null && echo it > /made/it && ln -s it /made/link\nWORKDIR /new\n",
    );
    place.write("src/a", "a\n");
    let build = |tag: &str, more: &str| {
        let output = place.ferry(&format!(
            "build -q{more} -t {tag} --build-arg SOURCE_DATE_EPOCH=1700000000 ."
        ));
        output.ok()
    };
    let first = build("one", "");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    std::fs::File::open(place.path("src/a"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    assert_eq!(build("two", " --no-cache"), first);
    let archive = |tag: &str| {
        let path = place.path(tag);
        place.engine.ferry(["save", "-o", &path.to_string_lossy(), "one"]).ok();
        std::fs::read(path).unwrap()
    };
    assert_eq!(archive("x.tar"), archive("y.tar"));
    let times = place.inside("one", "stat -c %Y /src/a /made /made/it /made/link /new");
    assert_eq!(times.lines().collect::<Vec<_>>(), ["1700000000"; 5]);
    // Without one, times are what they were.
    place.ferry("build -q -t now .").ok();
    assert_ne!(place.inside("now", "stat -c %Y /made/it"), "1700000000");
    // What is older than the epoch keeps its time.
    let file = std::fs::File::open(place.path("src/a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5))
        .unwrap();
    build("old", " --no-cache");
    assert_eq!(place.inside("old", "stat -c %Y /src/a"), "5");
}

#[test]
fn a_step_that_fails_fails_once() {
    let place = Place::new();
    let stages = (0..6).map(|number| format!("FROM busybox AS s{number}\nCOPY --from=bad /it /it\n"));
    let copies = (0..6).map(|number| format!("COPY --from=s{number} /it /{number}\n"));
    let file: String = ["FROM busybox AS bad\nRUN echo tried; exit 3\n".to_owned()]
        .into_iter()
        .chain(stages)
        .chain(["FROM scratch\n".to_owned()])
        .chain(copies)
        .collect();
    place.write("Dockerfile", &file);
    let why = place.ferry("build --progress plain .").fails(1);
    assert_eq!(why.lines().filter(|line| line.ends_with(" tried")).count(), 2, "{why}");
    assert!(why.ends_with("exit code: 3"), "{why}");
}

#[test]
fn stages_are_made_beside_each_other() {
    let place = Place::new();
    let stages = (0..6).map(|number| format!("FROM busybox AS s{number}\nRUN sleep 1; echo {number} > /it\n"));
    let copies = (0..6).map(|number| format!("COPY --from=s{number} /it /{number}\n"));
    let last = ["FROM busybox\n".to_owned()].into_iter().chain(copies);
    place.write("Dockerfile", &stages.chain(last).collect::<String>());
    let started = std::time::Instant::now();
    place.ferry("build --network none -t app .").ok();
    let time = started.elapsed();
    assert!(time < std::time::Duration::from_secs(4), "{time:?}");
    assert_eq!(place.inside("app", "cat /0 /5"), "0\n5");
    assert_eq!(Place::remembered(&place.ferry("build --network none -t app .")), 12);
}
