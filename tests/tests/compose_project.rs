//! A project of several services as people have them, with the real Docker Compose: it comes up in order, is looked at,
//! changed, scaled, hit by crashes of its services and of the engine, and goes down.

use std::path::{Path, PathBuf};

use ferry_testkit::{Engine, Output, Run, wait_until};

const FILE: &str = r#"
name: store
x-service: &service
  image: busybox:latest
  init: true
  restart: unless-stopped
  stop_grace_period: 1s
  logging: {driver: json-file, options: {max-size: 1m, max-file: "2"}}
services:
  db:
    <<: *service
    command: ["sh", "-ec", "cat /run/secrets/password > /data/seen; sleep 1; echo ready > /data/ready; exec nc -ll -p 5432 -e echo rows"]
    environment: {PASSWORD_FILE: /run/secrets/password}
    secrets: [password, {source: token, target: token, mode: 0400}]
    volumes: ["data:/data"]
    healthcheck: {test: ["CMD", "test", "-s", "/data/ready"], interval: 500ms, timeout: 5s, retries: 60}
    networks: [back]
    ulimits: {nofile: {soft: 2000, hard: 3000}}
  cache:
    <<: *service
    command: nc -ll -p 6379 -e echo PONG
    healthcheck: {test: "nc -w 2 localhost 6379 < /dev/null | grep -q PONG", interval: 500ms, timeout: 5s, retries: 60}
    read_only: true
    tmpfs: ["/tmp:size=1m"]
    mem_limit: 64m
    cpus: 0.5
    cap_drop: [ALL]
    networks: [back]
  migrate:
    image: busybox:latest
    command: sh -ec 'nc -w 5 db 5432 < /dev/null > /data/migrated; echo migrated'
    volumes: ["data:/data"]
    networks: [back]
    depends_on: {db: {condition: service_healthy}}
  api:
    <<: *service
    command: sh -ec 'cat /data/migrated > /tmp/rows; echo "begins as $$ROLE"; exec nc -ll -p 8000 -e sh /srv/answer'
    env_file: api.env
    environment: {GREETING: "${GREETING:-hello}"}
    configs: [{source: answer, target: /srv/answer}]
    volumes: ["data:/data:ro"]
    expose: ["8000"]
    networks: {front: {aliases: [backend]}, back: {}}
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  web:
    <<: *service
    command: nc -ll -p 80 -e nc -w 5 backend 8000
    ports: ["8080:80", "127.0.0.1:9000-9001:9000-9001/udp"]
    networks: [front]
    depends_on: {api: {condition: service_started, restart: true}}
  debug:
    image: busybox:latest
    profiles: [debug]
    command: sleep 1000
    networks: [front]
networks:
  front: {}
  back: {internal: true}
volumes:
  data: {labels: {keep: "yes"}}
secrets:
  password: {file: ./password.txt}
  token: {environment: TOKEN}
configs:
  answer:
    content: |
      echo "$$GREETING from $$ROLE: $$(cat /tmp/rows) $$(nc -w 2 cache 6379 < /dev/null)"
"#;

struct Project {
    engine: Engine,
    compose: PathBuf,
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Project {
    fn start() -> Option<Self> {
        let compose = ferry_testkit::peer::compose()?;
        let engine = Engine::start();
        engine.busybox();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("compose.yaml", FILE);
        write("password.txt", "swordfish");
        write("api.env", "ROLE=first\n# not this\nUNUSED=\n");
        Some(Self {
            engine,
            compose,
            file: directory.path().join("compose.yaml"),
            _directory: directory,
        })
    }

    fn directory(&self) -> &Path {
        self.file.parent().unwrap()
    }

    fn run_with(&self, environment: &[(&str, &str)], line: &[&str]) -> Output {
        let run = Run::new(&self.compose)
            .env("DOCKER_HOST", self.engine.host())
            .env("HOME", self.directory())
            .env("PATH", "/usr/bin:/bin")
            .env("TOKEN", "t0ken");
        let run = environment.iter().fold(run, |run, (name, value)| run.env(name, value));
        run.args(["-f".as_ref(), self.file.as_os_str()]).args(line).output()
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        self.run_with(&[], &line.split(' ').collect::<Vec<_>>()).ok()
    }

    #[track_caller]
    fn inside(&self, service: &str, script: &str) -> Output {
        self.run_with(&[], &["exec", "-T", service, "sh", "-c", script])
    }

    fn id(&self, service: &str) -> String {
        self.engine.field(&format!("store-{service}-1"), "/Id")
    }

    fn page(&self) -> String {
        let fetch = self
            .engine
            .in_namespace(&["busybox", "nc", "-w", "5", "127.0.0.1", "8080"]);
        fetch.input("").output().stdout
    }

    #[track_caller]
    fn answers(&self, text: &str) {
        wait_until(&format!("the page is {text:?}"), || self.page().trim_end() == text);
    }

    /// Service, state and health of all that there are.
    fn states(&self) -> Vec<String> {
        let list = self.run("ps -a --format {{.Service}}:{{.State}}:{{.Health}}:{{.ExitCode}}");
        let mut lines: Vec<_> = list.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

#[test]
fn a_project_lives_as_its_file_says() {
    let Some(mut project) = Project::start() else { return };
    let up = [
        "cache:running:healthy:0",
        "db:running:healthy:0",
        "migrate:exited::0",
        "web:running::0",
    ];
    let all = |more: &[&str]| {
        let mut all: Vec<String> = up.iter().chain(more).map(|&line| line.to_owned()).collect();
        all.sort();
        all
    };
    project.run("up -d --wait");
    assert_eq!(project.states(), all(&["api:running::0"]));
    project.answers("hello from first: rows PONG");

    // Secrets, limits, networks as they were asked for.
    let secrets = project.inside(
        "db",
        "cat /run/secrets/password; cat /run/secrets/token; cat /data/seen; ulimit -n",
    );
    assert_eq!(secrets.ok(), "swordfisht0kenswordfish2000");
    let cache = project.inside(
        "cache",
        "touch /file 2> /dev/null || touch /tmp/file && grep CapEff /proc/self/status",
    );
    assert_eq!(cache.ok(), "CapEff:\t0000000000000000");
    assert_eq!(
        project.engine.field("store-cache-1", "/HostConfig/Memory"),
        (64 << 20).to_string()
    );
    let hidden = project.inside("web", "nc -w 1 db 5432 < /dev/null");
    assert_ne!(hidden.code, 0, "{hidden:?}");
    assert!(project.run("logs --no-color api").contains("begins as first"));
    assert_eq!(project.run("logs --no-color --no-log-prefix migrate"), "migrated");
    assert_eq!(project.run("port web 80"), "0.0.0.0:8080");
    assert!(project.run("top cache").contains("nc -ll -p 6379"));
    assert!(project.run("images").contains("busybox"));
    let copy = project.directory().join("seen");
    project.run(&format!("cp db:/data/seen {}", copy.display()));
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "swordfish");

    // Once more changes nothing.
    let ids = ["db", "cache", "api", "web"].map(|service| project.id(service));
    project.run("up -d --wait");
    assert_eq!(["db", "cache", "api", "web"].map(|service| project.id(service)), ids);

    // A profile, a run of its own, a pause.
    project.run("--profile debug up -d");
    assert_eq!(project.states(), all(&["api:running::0", "debug:running::0"]));
    assert_eq!(project.run("run --rm -T --no-deps migrate cat /data/migrated"), "rows");
    let failing = project.run_with(
        &[],
        &["run", "--rm", "-T", "--no-deps", "migrate", "sh", "-c", "exit 7"],
    );
    assert_eq!(failing.code, 7, "{failing:?}");
    project.run("pause cache");
    assert!(project.states().iter().any(|state| state.starts_with("cache:paused")));
    project.run("unpause cache");
    project.run("--profile debug rm -sf debug");

    // More of one, by one name.
    project.run("up -d --scale api=3 --no-recreate");
    wait_until("three of it are found", || {
        project
            .inside("web", "nslookup backend | grep -c 'Address.*172'")
            .stdout
            .trim()
            == "3"
    });
    project.run("up -d --scale api=1 --no-recreate");
    wait_until("one is left", || {
        project
            .inside("web", "nslookup backend | grep -c 'Address.*172'")
            .stdout
            .trim()
            == "1"
    });
    project.answers("hello from first: rows PONG");

    // Another configuration: what depends on it is started again, the rest is left alone.
    let before = project.engine.field("store-web-1", "/State/StartedAt");
    project
        .run_with(&[("GREETING", "goodbye")], &["up", "-d", "--wait"])
        .ok();
    project.answers("goodbye from first: rows PONG");
    assert_eq!(
        ["db", "cache"].map(|service| project.id(service)),
        [ids[0].clone(), ids[1].clone()]
    );
    assert_ne!(project.id("api"), ids[2]);
    assert_ne!(project.engine.field("store-web-1", "/State/StartedAt"), before);
    std::fs::write(project.directory().join("api.env"), "ROLE=second\n").unwrap();
    project
        .run_with(&[("GREETING", "goodbye")], &["up", "-d", "--wait"])
        .ok();
    project.answers("goodbye from second: rows PONG");

    // A crash is mended by the restart policy; one that was stopped stays so.
    let pid = project.engine.field("store-cache-1", "/State/Pid");
    project.inside("cache", "kill $(pidof nc)");
    wait_until("the cache is back", || {
        project.engine.field("store-cache-1", "/State/Pid") != pid
            && project.states().contains(&"cache:running:healthy:0".to_owned())
    });
    project.answers("goodbye from second: rows PONG");
    project.run("stop -t 0 cache");
    let states = project.states();
    assert!(
        states.iter().any(|state| state.starts_with("cache:exited")),
        "{states:?}"
    );
    project.run("start cache");
    wait_until("the cache is well", || {
        project.states().contains(&"cache:running:healthy:0".to_owned())
    });

    // Nobody notices that the engine dies.
    if let Engine::Ferry(daemon) = &mut project.engine {
        daemon.kill9();
    }
    if project.engine.is_ferry() {
        assert_eq!(project.page().trim_end(), "goodbye from second: rows PONG");
    }
    if let Engine::Ferry(daemon) = &mut project.engine {
        daemon.start_again();
    }
    wait_until("all is as it was", || project.states() == all(&["api:running::0"]));
    project.answers("goodbye from second: rows PONG");

    // Down without its data, and with.
    project.run("down");
    assert_eq!(project.engine.cli(["ps", "-aq"]).ok(), "");
    let volumes = || {
        project
            .engine
            .cli(["volume", "ls", "-q", "--filter", "label=keep=yes"])
            .ok()
    };
    assert_eq!(volumes(), "store_data");
    project.run("up -d --wait db");
    assert_eq!(project.inside("db", "cat /data/migrated").ok(), "rows");
    project.run("down -v");
    assert_eq!(volumes(), "");
    let networks = project.engine.cli([
        "network",
        "ls",
        "--filter",
        "label=com.docker.compose.project=store",
        "-q",
    ]);
    assert_eq!(networks.ok(), "");
}
