//! Bad input: a message that names the thing, the right status and exit code, and nothing left behind.

use ferry_testkit::images::{self, BUSYBOX, Layer};
use ferry_testkit::{Engine, TestDaemon, wait_until};
use serde_json::{Value, json};

use crate::hostile::free_kibibytes;

/// A failed run with this exit code whose message contains `wanted`; no container is left of it.
#[track_caller]
fn run_fails(engine: &Engine, args: &[&str], code: i32, wanted: &str) {
    let output = engine.cli(["run", "--rm"].iter().chain(args));
    assert!(
        output.stderr.contains(wanted),
        "{args:?} should say {wanted:?}: {output:?}"
    );
    assert_eq!(output.code, code, "{output:?}");
    assert_eq!(output.stdout, "");
    wait_until("no container is left", || engine.cli(["ps", "-aq"]).ok().is_empty());
}

#[track_caller]
fn api_fails(engine: &Engine, method: &str, path: &str, body: Option<&Value>, status: u16, message: &str) {
    let (found, answer) = engine.api(method, path, body);
    assert_eq!(
        (found, answer["message"].as_str().unwrap_or_default()),
        (status, message),
        "{method} {path}: {answer}"
    );
}

#[test]
fn containers_and_images_that_are_not_there_are_named() {
    let engine = Engine::start();
    engine.busybox();
    for verb in [
        "start", "stop", "kill", "pause", "unpause", "restart", "logs", "top", "wait", "attach", "rm",
    ] {
        let message = engine.cli([verb, "nobody"]).fails(1);
        assert!(message.contains("No such container: nobody"), "{verb}: {message}");
    }
    assert!(
        engine
            .cli(["exec", "nobody", "true"])
            .fails(1)
            .contains("No such container: nobody")
    );
    assert!(
        engine
            .cli(["rename", "nobody", "x"])
            .fails(1)
            .contains("No such container: nobody")
    );
    let message = engine.cli(["rmi", "nothing"]).fails(1);
    assert!(message.contains("No such image: nothing:latest"), "{message}");
    api_fails(
        &engine,
        "GET",
        "/v1.51/containers/nobody/json",
        None,
        404,
        "No such container: nobody",
    );
    api_fails(
        &engine,
        "DELETE",
        "/v1.51/images/nothing",
        None,
        404,
        "No such image: nothing:latest",
    );
    api_fails(
        &engine,
        "POST",
        "/v1.51/containers/create",
        Some(&json!({"Image": "nothing"})),
        404,
        "No such image: nothing:latest",
    );
    api_fails(&engine, "GET", "/v1.51/nowhere", None, 404, "page not found");
}

#[test]
fn an_image_that_cannot_be_had_is_125() {
    let engine = Engine::start();
    let output = engine.cli(["run", "--rm", "--pull", "never", "localhost:1/nothing:1", "true"]);
    let message = output.fails(125);
    assert!(message.contains("No such image: localhost:1/nothing:1"), "{message}");
    let message = engine.cli(["run", "--rm", "Nothing:1", "true"]).fails(125);
    assert!(
        message.contains("invalid reference format: repository name (library/Nothing) must be lowercase"),
        "{message}"
    );
    assert_eq!(engine.cli(["run", "--rm", "--pull", "never", "", "true"]).code, 125);
}

#[test]
fn a_name_that_is_taken_or_malformed_is_refused() {
    let engine = Engine::start();
    let id = engine.sleeper("taken", &[]);
    let message = engine.cli(["run", "--name", "taken", BUSYBOX, "true"]).fails(125);
    let wanted = format!(
        "Conflict. The container name \"/taken\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    assert!(message.contains(&wanted), "{message}");
    for bad in ["a b", "-x", "a/b", "ü", "x"] {
        let output = engine.cli(["create", &format!("--name={bad}"), BUSYBOX]);
        let message = output.fails(1);
        assert!(
            message.contains(&format!(
                "Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )),
            "{message}"
        );
    }
    api_fails(
        &engine,
        "POST",
        "/v1.51/containers/create?name=taken",
        Some(&json!({"Image": "busybox"})),
        409,
        &wanted,
    );
}

#[test]
fn malformed_flags_are_125_and_say_which() {
    let engine = Engine::start();
    let mut wrong = Vec::new();
    engine.busybox();
    for (args, wanted) in [
        (&["--nonsense", BUSYBOX, "true"][..], "unknown flag: --nonsense"),
        (&["-e"], "flag needs an argument: 'e' in -e"),
        (&[], "requires at least 1 argument"),
        (&["-v", "relative:relative", BUSYBOX, "true"], "invalid"),
        (&["-v", "/a:/b:nonsense", BUSYBOX, "true"], "invalid mode: nonsense"),
        (
            &["-v", "/a:b", BUSYBOX, "true"],
            "invalid mount path: 'b' mount path must be absolute",
        ),
        (
            &["--mount", "type=nonsense,target=/x", BUSYBOX, "true"],
            "invalid mount config for type \"nonsense\": mount type unknown",
        ),
        (&["--mount", "source=/a", BUSYBOX, "true"], "invalid"),
        (&["--tmpfs", "relative", BUSYBOX, "true"], "mount path must be absolute"),
        (
            &["--cap-add", "NONSENSE", BUSYBOX, "true"],
            "invalid CapAdd: unknown capability: \"CAP_NONSENSE\"",
        ),
        (&["--security-opt", "nonsense", BUSYBOX, "true"], "nonsense"),
        (
            &["--device", "/dev/nonsense", BUSYBOX, "true"],
            "error gathering device information while adding custom device \"/dev/nonsense\": no such file or directory",
        ),
        (
            &["-w", "relative", BUSYBOX, "true"],
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        (&["--stop-signal", "NONSENSE", BUSYBOX, "true"], "NONSENSE"),
        (
            &["--pid", "container:nobody", BUSYBOX, "true"],
            "No such container: nobody",
        ),
        (&["--pid", "nonsense", BUSYBOX, "true"], "--pid: invalid PID mode"),
        (
            &["--userns", "nonsense", BUSYBOX, "true"],
            "--userns: invalid USER mode",
        ),
        (
            &["--env-file", "/nowhere", BUSYBOX, "true"],
            "open /nowhere: no such file or directory",
        ),
        (
            &["-u", "nobody-knows", BUSYBOX, "true"],
            "unable to find user nobody-knows: no matching entries in passwd file",
        ),
        (
            &["-u", "root:nobody-knows", BUSYBOX, "true"],
            "unable to find group nobody-knows: no matching entries in group file",
        ),
    ] {
        let output = engine.cli(["run", "--rm"].iter().chain(args));
        if !output.stderr.contains(wanted) || ![125, 126, 127, 1].contains(&output.code) {
            wrong.push(format!(
                "{args:?} should say {wanted:?}: {} {}",
                output.code, output.stderr
            ));
        }
        wait_until("no container is left", || engine.cli(["ps", "-aq"]).ok().is_empty());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(engine.cli(["run", "--nonsense"]).code, 125);
    assert_ne!(engine.cli(["nonsense"]).code, 0);
}

#[test]
fn commands_that_cannot_be_run_are_127_or_126() {
    let engine = Engine::start();
    engine.busybox();
    let layer = Layer::new()
        .file("text", b"not executable", 0o644)
        .file("interpreted", b"#!/no/such/interpreter\n", 0o755)
        .file("foreign", &foreign_elf(), 0o755)
        .file("garbage", &[0, 1, 2, 3], 0o755)
        .dir("directory", 0o755)
        .symlink("loop", "loop");
    engine.load(&images::docker_archive(&[images::above_busybox("bad:1", layer)]));
    run_fails(
        &engine,
        &["bad:1", "nope"],
        127,
        "exec: \"nope\": executable file not found in $PATH",
    );
    run_fails(
        &engine,
        &["bad:1", "/nope"],
        127,
        "exec: \"/nope\": stat /nope: no such file or directory",
    );
    run_fails(&engine, &["bad:1", "/text"], 126, "exec: \"/text\": permission denied");
    run_fails(
        &engine,
        &["bad:1", "/directory"],
        126,
        "exec: \"/directory\": is a directory",
    );
    // What only execve finds out: 255 on Docker, whose runtime exits with it inside the container.
    let code = |code: i32| if engine.is_ferry() { code } else { 255 };
    run_fails(
        &engine,
        &["bad:1", "/interpreted"],
        code(127),
        "exec /interpreted: no such file or directory",
    );
    run_fails(
        &engine,
        &["bad:1", "/foreign"],
        code(126),
        "exec /foreign: exec format error",
    );
    run_fails(
        &engine,
        &["bad:1", "/garbage"],
        code(126),
        "exec /garbage: exec format error",
    );
    run_fails(&engine, &["bad:1", "/loop"], 125, "too many levels of symbolic links");
    let wanted = "Cannot mkdir: /etc/passwd is not a directory";
    run_fails(&engine, &["-w", "/etc/passwd", "bad:1", "true"], 125, wanted);
}

/// A 64-bit ELF header for aarch64.
fn foreign_elf() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18] = 183;
    elf[20] = 1;
    elf[32] = 64;
    elf[52] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf
}

#[test]
fn an_image_of_another_architecture_says_so() {
    let engine = Engine::start();
    let image = images::Image {
        architecture: "arm64".into(),
        references: vec!["arm:1".into()],
        ..images::busybox()
    };
    engine.load(&images::docker_archive(&[image]));
    let output = engine.cli(["run", "--rm", "arm:1", "echo", "x"]);
    let wanted = "The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64";
    assert!(output.stderr.contains(wanted), "{output:?}");
}

#[test]
fn bodies_that_are_no_json_or_hold_nonsense_are_400() {
    let engine = Engine::start();
    engine.busybox();
    let socket = engine.socket();
    let send = |content: &str, body: &[u8]| {
        ferry_testkit::http::request(socket, "POST", "/v1.51/containers/create", content, body).unwrap()
    };
    for body in [&b"{"[..], b"[]", b"\"x\"", b"{\"Image\": 7}", b"\xff\xfe", b"{}{}x"] {
        let answer = send("application/json", body);
        assert_eq!(
            answer.status,
            400,
            "{:?}: {}",
            String::from_utf8_lossy(body),
            String::from_utf8_lossy(&answer.body)
        );
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(answer["message"].is_string());
    }
    assert_eq!(send("text/plain", b"{\"Image\": \"busybox\"}").status, 400);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(send("application/json", deep.as_bytes()).status, 400);
    for (path, status) in [
        ("/v1.51/containers/json?filters=nonsense", 400),
        ("/v1.51/images/json?filters={", 400),
    ] {
        assert_eq!(engine.api("GET", path, None).0, status, "{path}");
    }
    assert_eq!(engine.api("GET", "/_ping", None).0, 200);
}

#[test]
fn bodies_are_read_as_go_reads_them() {
    let engine = Engine::start();
    engine.busybox();
    let send = |path: &str, body: &str| {
        let answer =
            ferry_testkit::http::request(engine.socket(), "POST", path, "application/json", body.as_bytes()).unwrap();
        (
            answer.status,
            serde_json::from_slice::<Value>(&answer.body).unwrap_or_default(),
        )
    };
    let create = format!(
        r#"{{"image":"nobody","IMAGE":"{BUSYBOX}","cmd":["true"],"labels":{{"A":"1","a":"2"}},
            "hostconfig":{{"memory":9000000,"Memory":8000000,"restartpolicy":{{"NAME":"no"}}}}}}"#
    );
    let (status, _) = send("/v1.51/containers/create?name=c1", &create);
    assert_eq!(status, 201);
    let (_, found) = engine.api("GET", "/v1.51/containers/c1/json", None);
    assert_eq!(found["HostConfig"]["Memory"], 8_000_000);
    assert_eq!(found["Config"]["Labels"], json!({ "A": "1", "a": "2" }));
    let (status, made) = send(
        "/v1.51/volumes/create",
        r#"{"name":"v1","NAME":"v2","Labels":{"a":"1"},"labels":{"b":"2"}}"#,
    );
    assert_eq!((status, &made["Name"]), (201, &json!("v2")));
    assert_eq!(made["Labels"], json!({ "a": "1", "b": "2" }));
    assert_eq!(send("/v1.51/containers/create", r#"{"image":5}"#).0, 400);
    engine.cli(["rm", "c1"]).ok();
    engine.cli(["volume", "rm", "v2"]).ok();
}

#[test]
fn odd_bytes_on_the_socket_do_no_harm() {
    use std::io::{Read, Write};
    let daemon = TestDaemon::start();
    for bytes in [
        &b"\0\0\0\0\0\0\0\0"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage",
        b"POST /containers/create HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /\r\n",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(2)))
            .unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let idle: Vec<_> = (0..200)
        .map(|_| std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap())
        .collect();
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    drop(idle);
}

#[test]
fn a_full_disk_fails_clearly_and_recovers() {
    let daemon = TestDaemon::builder().disk(64).start();
    daemon.busybox();
    daemon.sleeper("before", &[]);
    let data = daemon.data_root().display().to_string();
    daemon
        .in_namespace(&[
            "sh",
            "-c",
            &format!("dd if=/dev/zero of={data}/ballast bs=64k 2>/dev/null; sync {data}; true"),
        ])
        .ok();
    let output = daemon
        .run(["load"])
        .input(images::docker_archive(&[images::above_busybox(
            "big:1",
            Layer::new().file("x", &vec![7; 8 << 20], 0o644),
        )]))
        .output();
    assert!(
        output.clone().fails(1).contains("no space left on device"),
        "{output:?}"
    );
    let output = daemon.try_sh(&[], "true");
    if output.code != 0 {
        assert_eq!(output.code, 125);
        assert!(output.stderr.contains("no space left on device"), "{output:?}");
    }
    daemon.cli(["exec", "before", "true"]).ok();
    daemon.cli(["ps", "-a"]).ok();
    daemon.cli(["stop", "-t", "0", "before"]).ok();
    daemon.in_namespace(&["rm", &format!("{data}/ballast")]).ok();
    assert!(
        free_kibibytes(&daemon) > 40_000,
        "something of the failures is still there"
    );
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    daemon.cli(["start", "before"]).ok();
}

#[test]
fn a_container_that_fills_the_disk_is_its_own_problem() {
    let daemon = TestDaemon::builder().disk(64).start();
    let output = daemon.try_sh(&[], "dd if=/dev/zero of=/big bs=64k");
    assert!(output.stderr.contains("No space left on device"), "{output:?}");
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

#[test]
fn containers_are_removed_from_a_disk_that_another_one_keeps_full() {
    let mut daemon = TestDaemon::builder().disk(64).start();
    daemon.busybox();
    for number in 0..40 {
        let name = format!("old{number}");
        daemon.cli(["create", "--name", &name, "busybox", "true"]).ok();
    }
    daemon.sleeper("hog", &[]);
    let fill = "dd if=/dev/zero of=/big bs=64k; dd if=/dev/zero of=/rest bs=1";
    let output = daemon.cli(["exec", "hog", "sh", "-c", fill]);
    assert!(output.stderr.contains("No space left on device"), "{output:?}");
    for number in 0..40 {
        daemon.cli(["rm", &format!("old{number}")]).ok();
    }
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.cli(["ps", "-a", "--format", "{{.Names}}"]).ok(), "hog");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    daemon.cli(["rm", "-f", "hog"]).ok();
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let mut args = daemon.daemon_args();
    let output = ferry_testkit::Run::new(ferry_testkit::tools::ferry())
        .args(&args)
        .output();
    assert_ne!(output.code, 0, "{output:?}");
    // With a socket of its own as well: the data root is what is held.
    for (option, value) in [
        ("--exec-root", "run2"),
        ("--host", "other.sock"),
        ("--pidfile", "other.pid"),
    ] {
        let at = args.iter().position(|arg| arg == option).unwrap() + 1;
        let path = daemon.dir().join(value).display().to_string();
        args[at] = if option == "--host" {
            format!("unix://{path}")
        } else {
            path
        };
    }
    let output = ferry_testkit::Run::new(ferry_testkit::tools::ferry())
        .args(&args)
        .output();
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains(&daemon.data_root().display().to_string()),
        "{output:?}"
    );
    daemon.cli(["exec", "c1", "true"]).ok();
}

#[test]
fn a_data_root_of_a_newer_version_is_left_alone() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.stop();
    let database = daemon.data_root().join("ferry.db");
    let python = format!(
        "import sqlite3; c = sqlite3.connect('{}'); c.execute('PRAGMA user_version = 9999'); c.commit()",
        database.display()
    );
    ferry_testkit::Run::new("python3").args(["-c", &python]).ok();
    let output = ferry_testkit::Run::new(ferry_testkit::tools::ferry())
        .args(daemon.daemon_args())
        .output();
    assert_ne!(output.code, 0, "{output:?}");
    assert!(
        output.stderr.contains("newer") && output.stderr.contains(&daemon.data_root().display().to_string()),
        "{output:?}"
    );
    let python = python.replace("9999", "1");
    ferry_testkit::Run::new("python3").args(["-c", &python]).ok();
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let daemon = TestDaemon::start();
    let ferry = daemon.dir().join("ferry");
    std::fs::copy(ferry_testkit::tools::ferry(), &ferry).unwrap();
    let line = format!(
        "chmod 755 {0} {1}; exec setpriv --reuid 65534 --regid 65534 --clear-groups {1} daemon --data-root /var/tmp/x --host unix:///var/tmp/x.sock",
        daemon.dir().display(),
        ferry.display()
    );
    let output = ferry_testkit::Run::new("sh").args(["-c", &line]).output();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("root"), "{output:?}");
    let line = format!(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups {} ps",
        ferry.display()
    );
    let output = ferry_testkit::Run::new("sh")
        .args(["-c", &line])
        .env("DOCKER_HOST", daemon.host())
        .output();
    assert_ne!(output.code, 0);
    assert!(output.stderr.to_lowercase().contains("permission denied"), "{output:?}");
}

#[test]
fn an_engine_that_is_not_there_is_said_so() {
    let engine = Engine::start();
    let run = engine
        .run(["ps"])
        .env("DOCKER_HOST", "unix:///nowhere/at/all.sock")
        .output();
    assert!(run.clone().fails(1).contains("unix:///nowhere/at/all.sock"), "{run:?}");
    let run = engine
        .run(["run", "--rm", BUSYBOX, "true"])
        .env("DOCKER_HOST", "unix:///nowhere/at/all.sock")
        .output();
    assert!(
        run.clone().fails(125).contains("unix:///nowhere/at/all.sock"),
        "{run:?}"
    );
    let run = engine.run(["ps"]).env("DOCKER_HOST", "nonsense").output();
    assert!(run.code != 0 && !run.stderr.is_empty(), "{run:?}");
}

#[test]
fn daemon_arguments_and_configuration_are_checked() {
    let daemon = TestDaemon::start();
    let ferry = ferry_testkit::tools::ferry();
    let try_with = |args: &[&str]| ferry_testkit::Run::new(&ferry).args(["daemon"]).args(args).output();
    assert_ne!(try_with(&["--nonsense"]).code, 0);
    let file = daemon.dir().join("daemon.json");
    let root = daemon.dir().join("data2").display().to_string();
    for (content, wanted) in [("{ no json", "daemon.json"), (r#"{"nonsense-key": 1}"#, "nonsense-key")] {
        std::fs::write(&file, content).unwrap();
        let output = try_with(&["--data-root", &root, "--config-file", file.to_str().unwrap()]);
        assert!(output.code != 0 && output.stderr.contains(wanted), "{output:?}");
    }
    let output = try_with(&["--data-root", &root, "--host", "nonsense://x"]);
    assert!(output.code != 0 && output.stderr.contains("nonsense"), "{output:?}");
}
