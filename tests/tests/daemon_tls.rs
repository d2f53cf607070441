//! The API over TCP with TLS, from Docker's command line and from Ferry's; and that it is not there without.

use std::path::Path;
use std::process::Command;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Output, Program, TestDaemon, wait_until};

const PORT: &str = "2376";

/// Certificates of openssl's: `ca`, `other` (an authority nobody asked for), `server`, `client`, `expired` and `stranger`.
const CERTIFICATES: &str = r#"
set -e
authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" -keyout $1.key -out $1.pem; }
signed() { # name authority days extensions
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout $1.key -out $1.csr
    printf '%s\n' "$4" >$1.ext
    openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days $3 -extfile $1.ext -out $1.pem
}
authority ca; authority other
signed server ca 30 "subjectAltName=IP:127.0.0.1,DNS:localhost"
signed client ca 30 "extendedKeyUsage=clientAuth"
signed stranger other 30 "extendedKeyUsage=clientAuth"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=expired -keyout expired.key -out expired.csr
openssl x509 -req -in expired.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile client.ext -not_before 20200101000000Z -not_after 20200201000000Z -out expired.pem 2>/dev/null ||
    { touch index; echo 01 >serial; printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\nCN=supplied\n' >ca.conf
      openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in expired.csr -extfile client.ext -startdate 20200101000000Z -enddate 20200201000000Z -out expired.pem -notext; }
for name in client stranger expired; do mkdir $name; cp ca.pem $name/ca.pem; cp $name.pem $name/cert.pem; cp $name.key $name/key.pem; done
mkdir nobody; cp ca.pem nobody
mkdir wrong; cp client/* wrong; cp other.pem wrong/ca.pem
"#;

fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .args(["-c", CERTIFICATES])
        .current_dir(&directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    directory
}

fn secured(directory: &Path, more: &[&str]) -> TestDaemon {
    let mut builder = TestDaemon::builder().arg(&format!("--host=tcp://127.0.0.1:{PORT}"));
    for (flag, file) in [
        ("tlscacert", "ca.pem"),
        ("tlscert", "server.pem"),
        ("tlskey", "server.key"),
    ] {
        builder = builder.arg(&format!("--{flag}={}", directory.join(file).display()));
    }
    for arg in more {
        builder = builder.arg(arg);
    }
    builder.start()
}

/// A command line of that program over TCP, with the certificates of that directory.
fn over(engine: &TestDaemon, program: Program, certificates: &Path, options: &[&str], line: &[&str]) -> Output {
    let binary = match program {
        Program::Ferry => ferry_testkit::tools::ferry(),
        Program::Docker => ferry_testkit::tools::docker(),
    };
    let host = format!("tcp://127.0.0.1:{PORT}");
    let mut words = vec![binary.to_str().unwrap(), "-H", &host];
    words.extend(options);
    words.extend(line);
    let run = engine.in_namespace(&words).env("DOCKER_CERT_PATH", certificates);
    run.env("DOCKER_CONFIG", certificates)
        .env("HOME", certificates)
        .output()
}

#[test]
fn whoever_has_a_certificate_of_the_authority_is_served_and_nobody_else() {
    let directory = certificates();
    let at = |name: &str| directory.path().join(name);
    let engine = secured(directory.path(), &["--tlsverify"]);
    engine.busybox();
    for program in [Program::Docker, Program::Ferry] {
        let verified = |name: &str, line: &[&str]| over(&engine, program, &at(name), &["--tlsverify"], line);
        let output = verified(
            "client",
            &["run", "--rm", "-i", BUSYBOX, "sh", "-c", "cat; echo end; exit 7"],
        );
        assert_eq!((output.code, output.stdout.as_str()), (7, "end\n"), "{output:?}");
        // Half of the connection is closed by the client, and the other half still brings what comes of it.
        let pipe = format!(
            "head -c 300000 /dev/zero | {} -H tcp://127.0.0.1:{PORT} --tlsverify run --rm -i {BUSYBOX} wc -c",
            match program {
                Program::Ferry => ferry_testkit::tools::ferry(),
                Program::Docker => ferry_testkit::tools::docker(),
            }
            .display()
        );
        let piped = engine
            .in_namespace(&["sh", "-c", &pipe])
            .env("DOCKER_CERT_PATH", at("client"));
        assert_eq!(piped.env("HOME", at("client")).output().ok(), "300000");

        let refused = |name: &str, words: &[&str]| {
            let output = verified(name, &["ps"]);
            let said = words.iter().any(|words| output.stderr.contains(words));
            assert!(output.code == 1 && said, "{program:?} {name}: {output:?}");
        };
        refused("wrong", &["certificate signed by unknown authority"]);
        refused("nobody", &["certificate required"]);
        refused(
            "expired",
            &["certificate expired", "expired certificate", "certificate_expired"],
        );
        refused(
            "stranger",
            &[
                "unknown certificate authority",
                "unknown authority",
                "unknown ca",
                "bad certificate",
                "certificate unknown",
                // The server says whose certificates it takes: Go sends none of another's.
                "certificate required",
            ],
        );
        // Whom the client does not verify still verifies it.
        let output = over(&engine, program, &at("wrong"), &["--tls"], &["ps", "-q"]);
        assert_eq!(output.code, 0, "{output:?}");
        let output = over(&engine, program, &at("client"), &[], &["ps"]);
        assert!(
            output.stderr.contains("Client sent an HTTP request to an HTTPS server"),
            "{output:?}"
        );
        let output = over(
            &engine,
            program,
            &at("."),
            &["--tlsverify", "--tlscacert", "no-such"],
            &["ps"],
        );
        assert!(
            output.stderr.contains("no-such: no such file or directory"),
            "{output:?}"
        );
    }
    engine.finish();
}

#[test]
fn a_context_holds_the_certificates_in_either_program() {
    let directory = certificates();
    let engine = secured(directory.path(), &["--tlsverify"]);
    let config = directory.path();
    let files = format!(
        "host=tcp://127.0.0.1:{PORT},ca={0}/ca.pem,cert={0}/client.pem,key={0}/client.key",
        config.display()
    );
    let skips = format!("{},skip-tls-verify=true", files.replace("/ca.pem", "/other.pem"));
    let wrong = files.replace("/ca.pem", "/other.pem");
    let run = |program: Program, line: &[&str]| {
        let binary = match program {
            Program::Ferry => ferry_testkit::tools::ferry(),
            Program::Docker => ferry_testkit::tools::docker(),
        };
        let words: Vec<&str> = [binary.to_str().unwrap()]
            .into_iter()
            .chain(line.iter().copied())
            .collect();
        engine
            .in_namespace(&words)
            .env("DOCKER_CONFIG", config)
            .env("HOME", config)
            .output()
    };
    for (maker, other) in [(Program::Docker, Program::Ferry), (Program::Ferry, Program::Docker)] {
        let name = |what: &str| format!("{what}-{maker:?}").to_lowercase();
        for (what, endpoint) in [("good", &files), ("skips", &skips), ("wrong", &wrong)] {
            run(maker, &["context", "create", &name(what), "--docker", endpoint]).ok();
        }
        for program in [maker, other] {
            for what in ["good", "skips"] {
                run(program, &["--context", &name(what), "ps", "-q"]).ok();
            }
            let output = run(program, &["--context", &name("wrong"), "ps"]);
            assert!(output.stderr.contains("unknown authority"), "{program:?}: {output:?}");
        }
    }
    engine.finish();
}

#[test]
fn tcp_without_tls_is_there_only_for_those_who_say_so() {
    let prepared = TestDaemon::builder().prepare();
    let try_with = |more: &[&str]| {
        let binary = ferry_testkit::tools::ferry();
        let mut args = prepared.daemon_args();
        args.push(format!("--host=tcp://127.0.0.1:{PORT}"));
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args.push("--validate".to_owned());
        let words: Vec<&str> = [binary.to_str().unwrap()]
            .into_iter()
            .chain(args.iter().map(String::as_str))
            .collect();
        prepared.in_namespace(&words).env("HOME", "/nonexistent").output()
    };
    let refused = try_with(&[]);
    assert!(
        refused.code == 1 && refused.stderr.contains("--tls=false"),
        "{refused:?}"
    );
    let refused = try_with(&["--tls"]);
    assert!(
        refused.code == 1
            && refused
                .stderr
                .contains("invalid TLS configuration: /nonexistent/.docker"),
        "{refused:?}"
    );
    assert_eq!(try_with(&["--tls=false"]).code, 0);
    prepared.finish();

    let builder = TestDaemon::builder().arg(&format!("--host=tcp://127.0.0.1:{PORT}"));
    let engine = builder.arg("--tls=false").start();
    for program in [Program::Docker, Program::Ferry] {
        over(&engine, program, Path::new("/nonexistent"), &[], &["ps", "-q"]).ok();
    }
    assert!(
        engine
            .log()
            .contains("Binding to IP address without --tlsverify is insecure"),
        "{}",
        engine.log()
    );
    engine.finish();
}

#[test]
fn certificates_are_read_again_at_a_reload() {
    let directory = certificates();
    let at = |name: &str| directory.path().join(name);
    let engine = secured(directory.path(), &["--tlsverify"]);
    let served = |name: &str| over(&engine, Program::Docker, &at(name), &["--tlsverify"], &["ps", "-q"]).code == 0;
    assert!(served("client") && !served("stranger"));
    // From now on the other authority's clients are let in; the server is still signed by the first.
    std::fs::copy(at("other.pem"), at("ca.pem")).unwrap();
    let pid = rustix::process::Pid::from_raw(engine.engine_pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    wait_until("the other authority counts", || served("stranger"));
    assert!(!served("client"));
    engine.finish();
}
