//! Logging drivers, their options, rotation, and what is left of a log when something went wrong.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, wait_until};

/// The files of the container's log.
fn files(daemon: &TestDaemon, container: &str) -> Vec<PathBuf> {
    let dir = daemon
        .data_root()
        .join("containers")
        .join(daemon.field(container, "/Id"))
        .join("log");
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn run(daemon: &TestDaemon, name: &str, options: &[&str], script: &str) {
    let args = ["run", "--name", name].into_iter().chain(options.iter().copied());
    daemon.cli(args.chain([BUSYBOX, "sh", "-c", script])).ok();
}

#[test]
fn the_daemons_driver_and_options_are_every_containers() {
    let daemon = TestDaemon::builder()
        .arg("--log-driver=local")
        .arg("--log-opt=max-size=50k")
        .arg("--log-opt=max-file=3")
        .start();
    daemon.busybox();
    run(&daemon, "c1", &["--log-opt", "max-file=4"], "seq 1 30000");
    let config = daemon
        .cli(["inspect", "-f", "{{json .HostConfig.LogConfig}}", "c1"])
        .ok();
    assert_eq!(config, r#"{"Type":"local","Config":{"max-file":"4","max-size":"50k"}}"#);
    assert_eq!(daemon.cli(["info", "-f", "{{.LoggingDriver}}"]).ok(), "local");
    assert_eq!(daemon.cli(["inspect", "-f", "{{.LogPath}}", "c1"]).ok(), "");
    let log = daemon.cli(["logs", "c1"]).ok();
    let numbers: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&30_000));
    assert!(numbers[0] > 1 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(daemon.cli(["logs", "--tail", "2", "c1"]).ok(), "29999\n30000");
    // The engine compresses what was rotated, and nothing changes for who reads.
    wait_until("rotated files are compressed", || {
        let rotated = files(&daemon, "c1");
        rotated.len() == 4
            && rotated
                .iter()
                .filter(|path| path.extension().is_some_and(|end| end == "gz"))
                .count()
                == 3
    });
    assert_eq!(daemon.cli(["logs", "c1"]).ok(), log);
    // Options of another driver are not the default's.
    run(&daemon, "c2", &["--log-driver", "json-file"], "echo hi");
    let config = daemon
        .cli(["inspect", "-f", "{{json .HostConfig.LogConfig}}", "c2"])
        .ok();
    assert_eq!(config, r#"{"Type":"json-file","Config":{}}"#);
}

#[test]
fn attributes_are_written_and_shown_with_details() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let options = "-e A=1 -e B=2 --label x=y --log-opt env=A --log-opt labels=x --log-opt tag={{.Name}}/{{.ImageName}}";
    let options: Vec<&str> = options.split(' ').collect();
    run(&daemon, "c1", &options, "echo hi");
    let text = std::fs::read_to_string(daemon.field("c1", "/LogPath")).unwrap();
    let attributes = format!(r#""attrs":{{"A":"1","tag":"c1/{BUSYBOX}","x":"y"}},"time""#);
    assert!(text.contains(&attributes), "{text}");
    let shown = daemon.cli(["logs", "--details", "c1"]).ok();
    assert!(
        shown.starts_with("A=1,tag=c1%2F") && shown.ends_with(",x=y hi"),
        "{shown}"
    );
}

#[test]
fn syslog_gets_lines_that_logs_shows_too() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let socket = daemon.dir().join("syslog");
    let server = UnixDatagram::bind(&socket).unwrap();
    let address = format!("syslog-address=unixgram://{}", socket.display());
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag={{.Name}}",
        "--log-opt",
        "syslog-format=rfc5424",
    ];
    run(&daemon, "c1", &options, "echo out; sleep 0.1; echo err >&2");
    let mut buffer = [0; 1024];
    let mut messages = [(); 2].map(|()| {
        let count = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    });
    messages.sort();
    assert!(
        messages[0].starts_with("<27>1 ") && messages[0].ends_with(" c1 - err\n"),
        "{messages:?}"
    );
    assert!(
        messages[1].starts_with("<30>1 ") && messages[1].ends_with(" c1 - out\n"),
        "{messages:?}"
    );
    assert_eq!(daemon.cli(["logs", "c1"]).ok(), "out");
    let refused = daemon.cli([
        "run",
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-address=tcp://127.0.0.1:9",
        BUSYBOX,
        "true",
    ]);
    assert!(
        refused.stderr.contains("failed to initialize logging driver"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_syslog_server_may_have_a_name() {
    let hosts =
        "cp /etc/hosts $DIR/hosts; echo 127.0.0.1 logs.example >> $DIR/hosts; mount --bind $DIR/hosts /etc/hosts";
    let daemon = TestDaemon::builder().set_up(hosts).start();
    daemon.busybox();
    let server = daemon.in_namespace(&["busybox", "nc", "-l", "-p", "5514"]).spawn();
    let to = |name: &str| {
        let address = format!("syslog-address=tcp://{name}:5514");
        daemon.cli([
            "run",
            "--rm",
            "--log-driver",
            "syslog",
            "--log-opt",
            &address,
            BUSYBOX,
            "echo",
            "hello",
        ])
    };
    ferry_testkit::wait_until("the server listens", || {
        let sockets = daemon.in_namespace(&["cat", "/proc/net/tcp", "/proc/net/tcp6"]).ok();
        sockets
            .lines()
            .any(|line| line.contains(":158A ") && line.contains(" 0A "))
    });
    to("logs.example").ok();
    let said = server.finish().ok();
    assert!(said.starts_with("<30>") && said.ends_with("]: hello"), "{said}");
    let failed = to("no.such.example");
    assert_eq!(failed.code, 125, "{failed:?}");
    let why = "failed to initialize logging driver: dial tcp: lookup no.such.example: ";
    assert!(failed.stderr.contains(why), "{}", failed.stderr);
}

/// In `$DIR`: an authority, a server's certificate of it for the name logs.example, and a client's.
const CERTIFICATES: &str = r#"
    cp /etc/hosts hosts; echo 127.0.0.1 logs.example other.example >> hosts; mount --bind hosts /etc/hosts
    new() { name=$1; shift; openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key "$@" 2>/dev/null; }
    new ca -x509 -days 2 -out ca.pem
    new other -x509 -days 2 -out other.pem
    echo subjectAltName=DNS:logs.example >names
    for name in server client; do
        new $name -out $name.csr
        openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out $name.pem 2>/dev/null
    done
"#;

/// Prints what one client with a certificate says until it closes, properly. It ends its part of the greeting, with the
/// session's tickets, when the client has said everything.
const SYSLOG_OVER_TLS: &str = r#"
import os, socket, ssl, sys, time
os.chdir(sys.argv[1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.load_verify_locations("ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
with socket.create_server(("127.0.0.1", 6514)) as listener:
    client = context.wrap_socket(
        listener.accept()[0], server_side=True, suppress_ragged_eofs=False, do_handshake_on_connect=False
    )
    client.setblocking(False)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            time.sleep(0.5)
    client.setblocking(True)
    while piece := client.recv(65536):
        sys.stdout.buffer.write(piece)
"#;

#[test]
fn syslog_goes_over_tls_to_whom_the_certificate_is_for() {
    let daemon = TestDaemon::builder()
        .set_up(&format!("cd $DIR; {CERTIFICATES}"))
        .start();
    daemon.busybox();
    let file = |name: &str| daemon.dir().join(name).display().to_string();
    let serve = || {
        let server = daemon.in_namespace(&["python3", "-c", SYSLOG_OVER_TLS, &daemon.dir().display().to_string()]);
        let server = server.spawn();
        ferry_testkit::wait_until("the server listens", || {
            let sockets = daemon.in_namespace(&["cat", "/proc/net/tcp", "/proc/net/tcp6"]).ok();
            sockets
                .lines()
                .any(|line| line.contains(":1972 ") && line.contains(" 0A "))
        });
        server
    };
    let to = |name: &str, more: &[String]| {
        let mut line = vec!["run".to_owned(), "--rm".to_owned(), "--log-driver=syslog".to_owned()];
        line.push(format!("--log-opt=syslog-address=tcp+tls://{name}:6514"));
        line.extend(more.iter().map(|option| format!("--log-opt=syslog-{option}")));
        line.extend([BUSYBOX, "sh", "-c", "echo hello; seq 1 3000; printf end"].map(str::to_owned));
        daemon.cli(&line)
    };
    let identity = [
        format!("tls-cert={}", file("client.pem")),
        format!("tls-key={}", file("client.key")),
    ];
    let with = |more: &[String]| [&identity[..], more].concat();
    let ca = format!("tls-ca-cert={}", file("ca.pem"));

    let server = serve();
    to("logs.example", &with(&[ca.clone(), "format=rfc5424".to_owned()])).ok();
    let said = server.finish().ok();
    let (length, first) = said.split_once(' ').unwrap();
    assert!(first.starts_with("<30>1 "), "{first:.200}");
    let first = &first[..length.parse().unwrap()];
    assert!(first.ends_with(" - hello\n"), "{first:?}");
    assert_eq!(said.lines().count(), 3002, "{said:.500}");
    assert!(said.trim_end().ends_with(" - end"), "{said:.500}");

    let server = serve();
    to("logs.example", &with(&["tls-skip-verify=true".to_owned()])).ok();
    let said = server.finish().ok();
    assert!(
        said.starts_with("<30>") && said.lines().next().unwrap().ends_with("]: hello"),
        "{said:.200}"
    );

    let driver = "failed to initialize logging driver: ";
    for (name, options, why) in [
        (
            "logs.example",
            with(&[]),
            "x509: certificate signed by unknown authority",
        ),
        (
            "logs.example",
            with(&[format!("tls-ca-cert={}", file("other.pem"))]),
            "x509: certificate signed by unknown authority",
        ),
        (
            "other.example",
            with(std::slice::from_ref(&ca)),
            "x509: certificate is valid for logs.example, not other.example",
        ),
        (
            "logs.example",
            with(&["tls-ca-cert=/nope".to_owned()]),
            "/nope: No such file",
        ),
    ] {
        let server = serve();
        let failed = to(name, &options);
        assert_eq!(failed.code, 125, "{failed:?}");
        assert!(
            failed.stderr.contains(driver) && failed.stderr.contains(why),
            "{why}: {}",
            failed.stderr
        );
        drop(server);
    }
}

#[test]
fn no_line_of_a_short_life_is_lost() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    for round in 0..40 {
        let (name, driver) = (format!("c{round}"), ["json-file", "local"][round % 2]);
        let script = "seq 1 2000; echo last; printf end";
        daemon
            .cli([
                "run",
                "-d",
                "--name",
                &name,
                "--log-driver",
                driver,
                BUSYBOX,
                "sh",
                "-c",
                script,
            ])
            .ok();
    }
    for round in 0..40 {
        let name = format!("c{round}");
        daemon.cli(["wait", &name]).ok();
        let log = daemon.cli(["logs", &name]).ok();
        assert!(
            log.lines().count() == 2002 && log.ends_with("2000\nlast\nend"),
            "{name}: {log}"
        );
    }
}

#[test]
fn of_a_damaged_log_the_rest_is_shown_and_the_damage_said() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    for driver in ["json-file", "local"] {
        let name = driver.replace('-', "");
        run(&daemon, &name, &["--log-driver", driver], "seq 1 20000");
        let path = files(&daemon, &name).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000..1200].fill(0xee);
        bytes.truncate(bytes.len() - 3);
        std::fs::write(&path, &bytes).unwrap();
        let output = daemon.cli(["logs", &name]);
        assert_eq!(output.code, 0);
        assert!(
            output.stdout.starts_with("1\n2\n") && output.stdout.ends_with("19999\n"),
            "{driver}"
        );
        assert!(
            output.stderr.contains("cannot be read: it is damaged"),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains("it ends in the middle"), "{}", output.stderr);
        // Another run goes on with lines that can be read.
        daemon.cli(["start", "-a", &name]).ok();
        assert!(daemon.cli(["logs", "--tail", "1", &name]).ok() == "20000");
    }
}
