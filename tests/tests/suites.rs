//! What the suites of docker-py and dockerode found (CONTRIBUTING.md says how to run them), one test a finding.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Run, tools};
use serde_json::{Value, json};

#[track_caller]
fn post(engine: &Engine, path: &str, body: &Value) -> Value {
    let (status, answer) = engine.api("POST", path, Some(body));
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

fn connect(engine: &Engine) -> UnixStream {
    let stream = UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What a script says that has docker-py.
#[track_caller]
fn python(engine: &Engine, script: &str) -> String {
    let run = Run::new(tools::python()).args(["-c", script]);
    run.env("DOCKER_HOST", engine.host()).ok()
}

/// Reads until the answer ends with `end`.
#[track_caller]
fn read_until(stream: &mut UnixStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_container_that_was_killed_has_ended_when_the_kill_is_answered() {
    let engine = Engine::start();
    for round in 0..5 {
        let name = format!("c{round}");
        engine.sleeper(&name, &[]);
        let (status, _) = engine.api("POST", &format!("/containers/{name}/kill"), None);
        assert_eq!(status, 204);
        let state = engine.inspect(&name)["State"].clone();
        assert_eq!(
            (&state["Running"], &state["ExitCode"]),
            (&json!(false), &json!(137)),
            "{state}"
        );
        let (status, answer) = engine.api("DELETE", &format!("/containers/{name}"), None);
        assert_eq!(status, 204, "{answer}");
    }
    // A signal that it survives is not waited for.
    engine.sleeper("stays", &[]);
    let begin = std::time::Instant::now();
    engine.cli(["kill", "-s", "WINCH", "stays"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(engine.field("stays", "/State/Running"), "true");
}

#[test]
fn a_variable_without_a_value_is_shown_and_takes_the_default_away() {
    let engine = Engine::start();
    engine.busybox();
    let create = json!({"Image": BUSYBOX, "Cmd": ["/bin/sleep", "1000"], "Env": ["PATH", "BLANK=", "ONE=1"]});
    post(&engine, "/containers/create?name=c1", &create);
    let env = engine.inspect("c1")["Config"]["Env"].clone();
    for entry in ["PATH", "BLANK=", "ONE=1"] {
        assert!(env.as_array().unwrap().contains(&json!(entry)), "{env}");
    }
    engine.cli(["start", "c1"]).ok();
    let own = engine
        .cli(["exec", "-e", "ONE", "-e", "BLANK=2", "c1", "/bin/env"])
        .ok();
    let own: Vec<&str> = own.lines().collect();
    assert!(own.contains(&"BLANK=2") && !own.contains(&"BLANK="), "{own:?}");
    assert!(
        !own.iter()
            .any(|line| line.starts_with("ONE") || line.starts_with("PATH")),
        "{own:?}"
    );
}

/// dockerode, unless it is told to hijack: the query as JSON, an answer without a length, and input behind it.
#[test]
fn input_reaches_a_container_without_an_upgrade() {
    let engine = Engine::start();
    engine.busybox();
    let create = json!({"Image": BUSYBOX, "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true, "AttachStdin": true,
                        "AttachStdout": true});
    post(&engine, "/containers/create?name=c1", &create);
    let body = r#"{"stream":true,"stdin":true,"stdout":true}"#;
    let request = format!(
        "POST /containers/c1/attach?stream=true&stdin=true&stdout=true HTTP/1.1\r\nHost: d\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(&engine);
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_until(&mut stream, "\r\n\r\n");
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    );
    engine.cli(["start", "c1"]).ok();
    stream.write_all(b"through\n").unwrap();
    assert!(read_until(&mut stream, "through\n").starts_with("\u{1}\0\0\0\0\0\0\u{8}"));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    let (_, ended) = engine.api("POST", "/containers/c1/wait", None);
    assert_eq!(ended["StatusCode"], 0);

    // An exec too; and the next request has a connection of its own.
    engine.sleeper("c2", &[]);
    let exec = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "Tty": true});
    let exec = post(&engine, "/containers/c2/exec", &exec)["Id"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = r#"{"Tty":true}"#;
    let request = format!(
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(&engine);
    stream.write_all(request.as_bytes()).unwrap();
    read_until(&mut stream, "\r\n\r\n");
    stream.write_all(b"typed\n").unwrap();
    read_until(&mut stream, "typed\r\ntyped\r\n");
}

#[test]
fn who_is_refused_in_the_midst_of_an_upload_reads_why() {
    let engine = Engine::start();
    for pause in [0, 50] {
        let mut stream = connect(&engine);
        let size = 4 << 20;
        let head = format!(
            "PUT /containers/none/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        stream.write_all(&vec![0; size]).unwrap();
        let answer = read_until(&mut stream, "}\n");
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && answer.contains("No such container: none"),
            "{answer}"
        );
    }
    // One who promises more and says nothing is answered, too.
    let mut stream = connect(&engine);
    let head = "POST /containers/none/start HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    read_until(&mut stream, "}\n");
}

#[test]
fn an_ipv6_subnet_of_a_network_without_ipv6_is_kept_and_warned_of() {
    let engine = Engine::start();
    engine.busybox();
    let ipam = json!({"Driver": "default", "Config": [{"Subnet": "2001:389::/64"}]});
    let created = post(&engine, "/networks/create", &json!({"Name": "n", "IPAM": ipam}));
    if engine.is_ferry() {
        let warning = created["Warning"].as_str().unwrap();
        assert!(
            warning.contains("2001:389::/64") && warning.contains("--ipv6"),
            "{warning}"
        );
    }
    if engine.is_ferry() {
        let made = engine.cli(["network", "create", "--subnet", "2001:38b::/64", "said"]);
        assert!(
            made.stderr
                .contains("WARNING: the network has no IPv6, and 2001:38b::/64"),
            "{made:?}"
        );
    }
    let (_, network) = engine.api("GET", "/networks/n", None);
    assert_eq!(network["EnableIPv6"], json!(false));
    assert_eq!(network["IPAM"]["Options"], Value::Null);
    assert_eq!(network["IPAM"]["Config"][0], json!({"Subnet": "2001:389::/64"}));
    let endpoint = json!({"n": {"IPAMConfig": {"IPv6Address": "2001:389::f00d"}}});
    let create = json!({"Image": BUSYBOX, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "n"},
                        "NetworkingConfig": {"EndpointsConfig": endpoint}});
    post(&engine, "/containers/create?name=c1", &create);
    engine.cli(["start", "c1"]).ok();
    let own = engine.inspect("c1")["NetworkSettings"]["Networks"]["n"].clone();
    assert_eq!(own["IPAMConfig"]["IPv6Address"], "2001:389::f00d");
    assert_eq!(own["GlobalIPv6Address"], "");
    assert_ne!(own["IPAddress"], "");
    // Where the network has IPv6, it is used.
    let ipam = json!({"Config": [{"Subnet": "2001:38a::/64"}]});
    post(
        &engine,
        "/networks/create",
        &json!({"Name": "n6", "EnableIPv6": true, "IPAM": ipam}),
    );
    let create = create
        .to_string()
        .replace("2001:389", "2001:38a")
        .replace("\"n\"", "\"n6\"");
    post(
        &engine,
        "/containers/create?name=c2",
        &serde_json::from_str(&create).unwrap(),
    );
    engine.cli(["start", "c2"]).ok();
    let address = engine.field("c2", "/NetworkSettings/Networks/n6/GlobalIPv6Address");
    assert_eq!(address, "2001:38a::f00d");
}

#[test]
fn an_endpoint_keeps_the_options_of_others() {
    let engine = Engine::start();
    engine.busybox();
    let create = |key: &str| {
        json!({"Image": BUSYBOX, "Cmd": ["true"],
               "NetworkingConfig": {"EndpointsConfig": {"bridge": {"DriverOpts": {key: "on"}}}}})
    };
    post(&engine, "/containers/create?name=c1", &create("com.docker-py.setting"));
    let kept = engine.inspect("c1")["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"].clone();
    assert_eq!(kept, json!({"com.docker-py.setting": "on"}));
    engine.cli(["start", "c1"]).ok();
    if engine.is_ferry() {
        let unknown = create("com.docker.network.endpoint.nothing");
        let (status, answer) = engine.api("POST", "/containers/create", Some(&unknown));
        assert_eq!(status, 400);
        assert!(
            answer["message"]
                .as_str()
                .unwrap()
                .contains("com.docker.network.endpoint.nothing")
        );
    }
}

#[test]
fn what_is_mounted_in_etc_can_be_copied_from_a_container_that_never_ran() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli(["create", "--name", "c1", BUSYBOX, "cat", "/etc/hosts"])
        .ok();
    for file in ["hosts", "hostname", "resolv.conf"] {
        engine.cli(["cp", &format!("c1:/etc/{file}"), "-"]).ok();
    }
    let changed = engine.cli(["diff", "c1"]).ok();
    assert_eq!(changed, "", "nothing of that is a change");
    engine.cli(["start", "-a", "c1"]).ok();
}

/// A log that comes together with the answer is lost to docker-py; and it spells some keys in its own way.
#[test]
fn docker_py_reads_a_log_and_is_understood() {
    let engine = Engine::start();
    engine.busybox();
    let script = r#"
import docker, os
client = docker.from_env().api
c = client.create_container("busybox:latest", "echo hello")
client.start(c); client.wait(c)
for _ in range(20):
    out = client.attach(c, stream=False, logs=True)
    assert out == b"hello\n", out
c = client.create_container("busybox:latest", "true", host_config=client.create_host_config(cpu_rt_period=1000, cpu_rt_runtime=500))
host = client.inspect_container(c)["HostConfig"]
if os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"):
    assert (host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]) == (1000, 500), host
client._general_configs["detachKeys"] = "ctrl-p"
c = client.create_container("busybox:latest", "sleep 1000")
client.start(c)
e = client.exec_create(c, "cat", stdin=True, tty=True)
sock = client.exec_start(e, tty=True, socket=True)._sock
sock.settimeout(10)
sock.sendall(b"\x10")
assert sock.recv(100) == b"", "not detached"
print("done")
"#;
    assert_eq!(python(&engine, script), "done");
}

/// What docker-py says of a build: `pull=False`, in Python's words; and what it reads of one: a program's complaints in red, and
/// no cache but the images it names.
#[test]
fn docker_py_builds() {
    let engine = Engine::start();
    engine.busybox();
    let script = r#"
import docker, io
client = docker.from_env().api
def build(text, **more):
    return [line.get("stream", line.get("error", "")) for line in client.build(fileobj=io.BytesIO(text), decode=True, **more)]
text = b"FROM busybox\nENV FOO=bar\nRUN touch baz\nRUN echo out; echo err >&2\n"
first = build(text, tag="build1")
assert first[-1] == "Successfully tagged build1:latest\n", first
assert "out\n" in first and "\x1b[91merr\n\x1b[0m" in first, first
cached = lambda lines: sum("Using cache" in line for line in lines)
again = build(text, cache_from=["build1"])
assert cached(again) == 3 and again[0].startswith("Step 1"), again
none = build(text, cache_from=["nosuchtag"])
assert cached(none) == 0 and "out\n" in none, none
assert cached(build(text, cache_from=["nosuchtag", "build1"])) == 3
c = client.create_container("busybox", "true", runtime="runc")
assert client.inspect_container(c)["HostConfig"]["Runtime"] == "runc"
c = client.create_container("busybox", "true", runtime="nobody's")
assert client.inspect_container(c)["HostConfig"]["Runtime"] == "ferry"
for _ in range(20):
    c = client.create_container("busybox", "echo said")
    client.start(c)
    assert client.logs(c) == b"said\n"
print("done")
"#;
    assert_eq!(python(&engine, script), "done");
}
