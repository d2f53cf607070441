//! The way to a registry: certificates, proxies and credential helpers, as the machine's administrator sets them up.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ferry_testkit::images::{self, Layer};
use ferry_testkit::{Program, Registry, Run, Running, TestDaemon, tools, wait_within};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// No address of the machine itself, for which nothing is checked.
const HOST: &str = "198.51.100.1";
const SECURE: &str = "registry.test:5443";
const APP: &str = "registry.test:5443/team/app:1";

/// An /etc of its own with names, two authorities, and a certificate of each.
const MACHINE: &str = r#"
    mkdir $DIR/etc $DIR/work $DIR/certs
    mount -t overlay -o lowerdir=/etc,upperdir=$DIR/etc,workdir=$DIR/work none /etc
    ip addr add 198.51.100.1/32 dev lo
    ip addr add 198.51.100.2/32 dev lo
    echo "198.51.100.1 registry.test plain.test direct.test" >>/etc/hosts
    cd $DIR/certs
    new() { name=$1; shift; openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key "$@" 2>/dev/null; }
    for ca in servers clients; do new $ca -x509 -days 2 -out $ca.crt; done
    echo "subjectAltName=DNS:registry.test" >names
    for name in server client; do
        new $name -out $name.csr
        openssl x509 -req -in $name.csr -CA ${name}s.crt -CAkey ${name}s.key -days 2 -extfile names -out $name.crt 2>/dev/null
    done
"#;

fn load(daemon: &TestDaemon, reference: &str) {
    let image = images::above_busybox(reference, Layer::new().file("content", b"1", 0o644));
    let archive = images::docker_archive(std::slice::from_ref(&image));
    daemon.run(["load", "-q"]).input(archive).ok();
}

fn certificate(daemon: &TestDaemon, name: &str) -> String {
    daemon.dir().join("certs").join(name).display().to_string()
}

/// `ferry registry serve` at [`SECURE`].
fn serve_securely(daemon: &TestDaemon, args: &[&str]) -> Running {
    let root = daemon.dir().join("secure");
    fs::create_dir_all(&root).unwrap();
    let (cert, key) = (certificate(daemon, "server.crt"), certificate(daemon, "server.key"));
    let listen = format!("{HOST}:5443");
    let ferry = tools::ferry();
    let mut line = vec![
        ferry.to_str().unwrap(),
        "registry",
        "serve",
        "--root",
        root.to_str().unwrap(),
    ];
    line.extend(["--listen", &listen, "--tls-cert", &cert, "--tls-key", &key]);
    line.extend(args);
    let server = daemon.in_namespace(&line).time(Duration::from_secs(600)).spawn();
    wait_within(Duration::from_secs(10), "the registry listens", || {
        let probe = format!("exec 3<>/dev/tcp/{HOST}/5443");
        daemon.in_namespace(&["bash", "-c", &probe]).output().code == 0
    });
    server
}

#[test]
fn authorities_and_client_certificates_are_those_of_certs_d() {
    let daemon = TestDaemon::builder().set_up(MACHINE).start();
    let authority = certificate(&daemon, "clients.crt");
    let server = serve_securely(&daemon, &["--tls-client-ca", &authority]);
    load(&daemon, APP);
    let unknown = daemon.cli(["push", APP]).fails(1);
    assert!(
        unknown.contains(SECURE) && unknown.contains("certificate signed by unknown authority"),
        "{unknown}"
    );
    let give = |folder: &str, file: &str, name: &str| {
        let script = format!("mkdir -p {folder}; cp {} {folder}/{name}", certificate(&daemon, file));
        daemon.in_namespace(&["sh", "-ec", &script]).ok();
    };
    // Whose they are is looked up each time: no restart.
    let docker = format!("/etc/docker/certs.d/{SECURE}");
    give(&docker, "servers.crt", "ca.crt");
    let required = daemon.cli(["push", APP]).fails(1);
    // The first, or another one where the connection ended before the server's reason was read.
    let said = [
        "tls: certificate required",
        "may require a client certificate",
        "closed because of a broken pipe",
    ];
    assert!(said.iter().any(|said| required.contains(said)), "{required}");
    let ferry = format!("/etc/ferry/certs.d/{SECURE}");
    for (file, name) in [
        ("servers.crt", "ca.crt"),
        ("client.crt", "client.cert"),
        ("client.key", "client.key"),
    ] {
        give(&ferry, file, name);
    }
    daemon.cli(["push", "-q", APP]).ok();
    daemon.cli(["rmi", APP]).ok();
    daemon.docker(["pull", "-q", APP]).ok();
    // The certificate is for the name.
    let other = format!("{HOST}:5443/team/app:1");
    for (file, name) in [
        ("servers.crt", "ca.crt"),
        ("client.crt", "client.cert"),
        ("client.key", "client.key"),
    ] {
        give(&format!("/etc/ferry/certs.d/{HOST}:5443"), file, name);
    }
    let wrong = daemon.cli(["pull", &other]).fails(1);
    assert!(wrong.contains("certificate") && wrong.contains(HOST), "{wrong}");
    drop(server);
    daemon.finish();
}

/// An upstream by TLS, with an authority of the site's own, that gives tokens to the user joe.
struct Secured {
    daemon: TestDaemon,
    password: PathBuf,
}

impl Secured {
    fn start() -> Self {
        let daemon = TestDaemon::builder().set_up(MACHINE).start();
        // `secret`, bcrypt.
        let users = "joe:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
        fs::write(daemon.dir().join("htpasswd"), users).unwrap();
        let password = daemon.dir().join("password");
        fs::write(&password, "secret\n").unwrap();
        Self { daemon, password }
    }

    /// `auth` is what its file has beside the users.
    fn upstream(&self, auth: &str) -> Running {
        let config = self.daemon.dir().join("upstream.json");
        let users = self.daemon.dir().join("htpasswd");
        let text = format!(r#"{{"auth":{{"htpasswd":"{}"{auth}}}}}"#, users.display());
        fs::write(&config, text).unwrap();
        serve_securely(&self.daemon, &["--config", config.to_str().unwrap()])
    }

    fn cache(&self, more: &[&str]) -> Registry {
        let mut line = vec!["--upstream", "https://registry.test:5443", "--upstream-ttl", "0"];
        line.extend(["--upstream-user", "joe", "--upstream-password-file"]);
        line.push(self.password.to_str().unwrap());
        line.extend(more);
        Registry::start(&self.daemon, &line)
    }

    fn trust(&self, authority: &str) {
        let authority = certificate(&self.daemon, authority);
        let dir = format!("/etc/ferry/certs.d/{SECURE}");
        let script = format!("mkdir -p {dir}; cp {authority} {dir}/ca.crt");
        self.daemon.in_namespace(&["sh", "-ec", &script]).ok();
    }
}

/// A cache, as it is meant.
#[test]
fn a_cache_reaches_its_upstream_with_an_authority_of_the_site_and_a_token() {
    let site = Secured::start();
    let (daemon, upstream) = (&site.daemon, site.upstream(""));
    site.trust("servers.crt");
    load(daemon, APP);
    daemon.cli(["push", APP]).fails(1);
    let login = daemon.run(["login", "-u", "joe", "--password-stdin", SECURE]);
    login.input("secret\n").ok();
    daemon.cli(["push", "-q", APP]).ok();
    daemon.cli(["rmi", APP]).ok();
    let here = format!("{}/team/app:1", Registry::ADDRESS);

    site.trust("clients.crt");
    let cache = site.cache(&[]);
    let unknown = daemon.cli(["pull", &here]).fails(1);
    assert!(unknown.contains("certificate signed by unknown authority"), "{unknown}");
    site.trust("servers.crt");
    daemon.cli(["pull", "-q", &here]).ok();
    daemon.cli(["rmi", &here]).ok();
    daemon.docker(["pull", "-q", &here]).ok();
    daemon.cli(["rmi", &here]).ok();
    drop(cache);

    // A right that was taken away is missed here as well, whatever is cached.
    fs::write(&site.password, "guess").unwrap();
    let cache = site.cache(&[]);
    let denied = daemon.cli(["pull", &here]).fails(1);
    assert!(denied.contains("denied") || denied.contains("unauthorized"), "{denied}");
    drop((cache, upstream));
    site.daemon.finish();
}

/// An upstream that names somebody else's token server. Nobody listens there: who asks it nevertheless says so.
#[test]
fn cve_2026_33540_a_cache_shows_its_password_to_no_stranger() {
    let site = Secured::start();
    site.trust("servers.crt");
    let upstream = site.upstream(r#","token-realm":"https://plain.test:5444/token""#);
    let here = format!("{}/team/app:1", Registry::ADDRESS);
    // Its own domain is `registry.test` alone: `.test` is everybody's.
    let cache = site.cache(&[]);
    let refused = site.daemon.cli(["pull", &here]).fails(1);
    assert!(
        refused.contains("name plain.test:5444 as its token server"),
        "{refused}"
    );
    drop(cache);
    let cache = site.cache(&["--upstream-token-server", "plain.test:5444"]);
    let asked = site.daemon.cli(["pull", &here]).fails(1);
    assert!(
        asked.contains("plain.test:5444") && asked.contains("connection refused"),
        "{asked}"
    );
    drop((cache, upstream));
    site.daemon.finish();
}

/// A port of which somebody could think that it is served, and an upstream that is none.
#[test]
fn a_cache_of_nothing_says_so_before_it_listens() {
    let daemon = TestDaemon::start();
    let root = daemon.dir().join("none");
    let ferry = tools::ferry();
    let line = [
        ferry.to_str().unwrap(),
        "registry",
        "serve",
        "--root",
        root.to_str().unwrap(),
    ];
    for (wrong, why) in [
        (&["--upstream", "https://x.test/below"][..], "not below /below"),
        (
            &["--upstream", "https://x.test", "--upstream-except", "UPPER"],
            "upstream-except",
        ),
        (&["--cache-size", "1GB"], "give --upstream as well"),
        (
            &["--upstream", "https://x.test", "--cache-size", "0"],
            "0 keeps nothing",
        ),
    ] {
        let line: Vec<&str> = line.iter().chain(wrong).copied().collect();
        let output = daemon.in_namespace(&line).output();
        assert!(!output.stderr.contains("listens"), "{output:?}");
        let said = output.fails(1);
        assert!(said.contains(why), "{wrong:?}: {said}");
    }
    daemon.finish();
}

/// What listens at 198.51.100.2:3128, and takes everything to [`HOST`].
struct Proxy {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(daemon: &TestDaemon) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let network = fs::File::open(daemon.network()).unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let listener = TcpListener::bind("198.51.100.2:3128").unwrap();
            ready.send(()).unwrap();
            for client in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || pass(client, &log));
            }
        });
        is_ready.recv().unwrap();
        Self { seen }
    }

    /// The first lines of all requests since the last call, with ` as <credentials>` behind them.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// One request: `CONNECT host:port`, or `GET http://host:port/…`, after which the connection ends.
fn pass(client: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |line: &String| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.to_owned())
    };
    let user = head.iter().find_map(header);
    log.lock()
        .unwrap()
        .push(format!("{} as {}", head[0], user.as_deref().unwrap_or("nobody")));
    let mut words = head[0].split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let port = |authority: &str| authority.rsplit_once(':')?.1.parse::<u16>().ok();
    let mut server = if method == "CONNECT" {
        let server = TcpStream::connect((HOST, port(target)?)).ok()?;
        (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        server
    } else {
        let (authority, path) = target.strip_prefix("http://")?.split_once('/')?;
        let mut server = TcpStream::connect((HOST, port(authority)?)).ok()?;
        let rest = head[1..]
            .iter()
            .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let rest: String = rest.map(|line| format!("{line}\r\n")).collect();
        server
            .write_all(format!("{method} /{path} HTTP/1.1\r\n{rest}Connection: close\r\n\r\n").as_bytes())
            .ok()?;
        server
    };
    let (mut to_client, mut from_server) = (client, server.try_clone().ok()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        server.write_all(&buffer[..count]).ok()?;
    }
    server.shutdown(Shutdown::Write).ok()
}

#[test]
fn proxies_are_used_but_for_hosts_that_are_excluded() {
    let daemon = TestDaemon::builder()
        .set_up(MACHINE)
        .arg("--http-proxy=http://198.51.100.2:3128")
        .arg("--https-proxy=http://ann:secret@198.51.100.2:3128")
        .arg("--no-proxy=direct.test,10.0.0.0/8")
        .arg("--insecure-registry=plain.test:5000")
        .arg("--insecure-registry=direct.test:5000")
        .start();
    let script = format!(
        "mkdir -p /etc/ferry/certs.d/{SECURE}; cp {} /etc/ferry/certs.d/{SECURE}/ca.crt",
        certificate(&daemon, "servers.crt")
    );
    daemon.in_namespace(&["sh", "-ec", &script]).ok();
    let secure = serve_securely(&daemon, &[]);
    // On the machine itself no proxy is asked, whatever is set.
    let plain = Registry::start(&daemon, &["--listen", "198.51.100.1:5000"]);
    let proxy = Proxy::start(&daemon);

    load(&daemon, APP);
    daemon.cli(["push", "-q", APP]).ok();
    daemon.cli(["rmi", APP]).ok();
    daemon.cli(["pull", "-q", APP]).ok();
    let seen = proxy.seen();
    // `ann:secret`.
    let connect = format!("CONNECT {SECURE} HTTP/1.1 as Basic YW5uOnNlY3JldA==");
    assert!(!seen.is_empty() && seen.iter().all(|line| *line == connect), "{seen:?}");

    for (host, through) in [("plain.test:5000", true), ("direct.test:5000", false)] {
        let name = format!("{host}/team/app:1");
        daemon.cli(["tag", APP, &name]).ok();
        daemon.cli(["push", "-q", &name]).ok();
        daemon.cli(["rmi", &name]).ok();
        daemon.cli(["pull", "-q", &name]).ok();
        let seen = proxy.seen();
        assert_eq!(seen.iter().any(|line| line.starts_with("GET ")), through, "{seen:?}");
        // An insecure registry is tried with TLS first.
        let (url, tls) = (format!(" http://{host}/v2/"), format!("CONNECT {host} "));
        assert!(
            seen.iter()
                .all(|line| line.starts_with(&tls) || (line.contains(&url) && line.ends_with("as nobody"))),
            "{seen:?}"
        );
    }
    let info = daemon.cli(["info", "--format", "{{json .}}"]).ok();
    assert!(
        info.contains(r#""HttpsProxy":"http://xxxxx:xxxxx@198.51.100.2:3128""#),
        "{info}"
    );
    drop((secure, plain));
    daemon.finish();
}

/// A credential helper that keeps everything in one file (docker-credential-helpers' protocol).
const HELPER: &str = r#"#!/bin/sh
kept=$(dirname "$0")/kept
echo "$1" >>"$kept.calls"
case $1 in
store) cat >"$kept";;
get) read -r server; grep -q "\"$server\"" "$kept" 2>/dev/null && cat "$kept" || { echo "credentials not found in native keychain"; exit 1; };;
erase) rm -f "$kept";;
list) echo '{}';;
esac
"#;

#[test]
fn passwords_are_with_the_credential_helper_and_not_in_the_file() {
    let daemon = TestDaemon::start();
    let passwords = daemon.dir().join("htpasswd");
    // `secret`, bcrypt.
    fs::write(
        &passwords,
        "joe:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
    )
    .unwrap();
    let registry = Registry::start(&daemon, &["--htpasswd", passwords.to_str().unwrap()]);
    let name = format!("{}/team/app:1", Registry::ADDRESS);
    load(&daemon, &name);
    for (program, settings) in [
        (Program::Ferry, r#"{"credsStore":"test"}"#),
        (Program::Ferry, r#"{"credHelpers":{"127.0.0.1:5000":"test"}}"#),
        (Program::Docker, r#"{"credsStore":"test"}"#),
    ] {
        let dir = daemon.dir().join("client");
        fs::create_dir(&dir).unwrap();
        let helper = dir.join("docker-credential-test");
        fs::write(&helper, HELPER).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("config.json"), settings).unwrap();
        let mut path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<PathBuf>>();
        path.insert(0, dir.clone());
        let path = std::env::join_paths(path).unwrap();
        let run = |line: &[&str]| -> Run {
            let command = daemon.command(program);
            command.args(line).env("DOCKER_CONFIG", &dir).env("PATH", &path)
        };
        run(&["push", "-q", &name]).output().fails(1);
        let login = run(&["login", "-u", "joe", "--password-stdin", Registry::ADDRESS]);
        let said = login.input("secret\n").output();
        assert!(!said.stderr.contains("unencrypted"), "{said:?}");
        assert_eq!(said.ok(), "Login Succeeded");
        let kept = fs::read_to_string(dir.join("kept")).unwrap();
        assert!(
            kept.contains(r#""Username":"joe""#) && kept.contains(r#""Secret":"secret""#),
            "{kept}"
        );
        let file = fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(!file.contains("am9lOnNlY3JldA") && !file.contains("secret"), "{file}");
        run(&["push", "-q", &name]).ok();
        daemon.cli(["rmi", &name]).ok();
        run(&["pull", "-q", &name]).ok();
        run(&["logout", Registry::ADDRESS]).ok();
        assert!(!dir.join("kept").exists());
        run(&["pull", "-q", &name]).output().fails(1);
        fs::remove_dir_all(&dir).unwrap();
    }
    drop(registry);
    daemon.finish();
}
