//! Real servers from Debian in containers, and real clients of them.

use std::time::Duration;

use ferry_testkit::images;
use ferry_testkit::{Neighbour, TestDaemon, wait_within};

pub const SERVICES: &str = "services:12";
/// A data base is initialised first, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);

/// With the image of Debian's servers, or `None`, saying so, where it cannot be made.
pub fn daemon_with_services() -> Option<TestDaemon> {
    let tar = images::debian_services()?;
    let daemon = TestDaemon::start();
    let import = ["import", tar.to_str().unwrap(), SERVICES];
    daemon.run(import).time(Duration::from_secs(120)).output().ok();
    Some(daemon)
}

/// Starts a container of Debian's servers that runs a shell script.
#[track_caller]
fn serve(daemon: &TestDaemon, name: &str, options: &[&str], script: &str) {
    let before = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    daemon.cli(before.chain([SERVICES, "sh", "-ec", script])).ok();
}

/// nginx with a page that tells who asks, and one of 8 MiB.
const PAGES: &str = r#"
echo 'server { listen 80; listen [::]:80; root /srv; location = /who { return 200 "$remote_addr\n"; } }' >/etc/nginx/conf.d/pages.conf
mkdir -p /srv; head -c 8388608 /dev/urandom >/srv/big; sha256sum </srv/big >/srv/sum
exec nginx -g 'daemon off;'
"#;

#[test]
fn slow_nginx_is_fetched_from_the_host_a_container_and_a_neighbour_host() {
    let Some(daemon) = daemon_with_services() else { return };
    let neighbour = Neighbour::new(&daemon, "out0", "198.51.100");
    daemon
        .cli(["network", "create", "--ipv6", "--subnet", "fd00:5::/64", "n"])
        .ok();
    let ports = ["--network", "n", "-p", "8080:80", "-p", "127.0.0.1:8081:80"];
    serve(&daemon, "web", &ports, PAGES);
    serve(&daemon, "client", &["--network", "n"], "exec sleep 1000");
    serve(&daemon, "stranger", &[], "exec sleep 1000");
    let on = |container: &str, url: &str| {
        let fetched = daemon.cli(["exec", container, "timeout", "3", "wget", "-q", "-O", "-", url]);
        fetched.stdout.trim_end().to_owned()
    };
    let curl = |url: &str| {
        let fetched = daemon.in_namespace(&["curl", "-s", "-m", "3", url]).output();
        fetched.stdout.trim_end().to_owned()
    };
    let outside = |url: &str| {
        let fetched = neighbour.run(&format!("curl -s -m 3 {url}")).output();
        fetched.stdout.trim_end().to_owned()
    };
    wait_within(START, "nginx answers", || !curl("http://127.0.0.1:8080/who").is_empty());

    let address = |name: &str, what: &str| daemon.field(name, &format!("/NetworkSettings/Networks/n/{what}"));
    let (web, web6) = (address("web", "IPAddress"), address("web", "GlobalIPv6Address"));
    let gateway = address("web", "Gateway");
    let client = address("client", "IPAddress");
    // The host: by its loopback, by its addresses, and by the container's own.
    assert_eq!(curl("http://127.0.0.1:8080/who"), gateway);
    assert_eq!(curl("http://127.0.0.1:8081/who"), gateway);
    assert_eq!(curl("http://198.51.100.1:8080/who"), "198.51.100.1");
    assert_eq!(curl(&format!("http://{web}/who")), gateway);
    assert_eq!(curl(&format!("http://[{web6}]/who")), address("web", "IPv6Gateway"));
    // A neighbour on the network: by name, and by the published port of the host.
    // A name with addresses of both families: IPv6 goes first.
    assert_eq!(on("client", "http://web/who"), address("client", "GlobalIPv6Address"));
    assert_eq!(on("client", &format!("http://{web}/who")), client);
    assert_eq!(
        on("client", &format!("http://[{web6}]/who")),
        address("client", "GlobalIPv6Address")
    );
    assert_eq!(on("client", &format!("http://{gateway}:8080/who")), gateway);
    // A container of another network: by the published port alone.
    let stranger = daemon.field("stranger", "/NetworkSettings/Networks/bridge/IPAddress");
    assert_eq!(on("stranger", &format!("http://{gateway}:8080/who")), stranger);
    assert_eq!(on("stranger", &format!("http://{web}/who")), "");
    assert_eq!(on("stranger", "http://web/who"), "");
    // A host on the wire: by the published port, and seen with its own address; not what is published on the loopback.
    assert_eq!(outside("http://198.51.100.1:8080/who"), "198.51.100.2");
    assert_eq!(outside("http://198.51.100.1:8081/who"), "");
    neighbour.run(&format!("ip route add {web} via 198.51.100.1")).ok();
    assert_eq!(outside(&format!("http://{web}/who")), "");
    // What is large comes whole, by every way.
    let sum = curl("http://127.0.0.1:8080/sum");
    assert_eq!(
        daemon
            .in_namespace(&["sh", "-c", "curl -s 127.0.0.1:8080/big | sha256sum"])
            .ok(),
        sum
    );
    assert_eq!(neighbour.run("curl -s 198.51.100.1:8080/big | sha256sum").ok(), sum);
    let summed = "busybox wget -q -O - http://web/big | sha256sum";
    assert_eq!(daemon.cli(["exec", "client", "sh", "-c", summed]).ok(), sum);
}

const DATA_BASE: &str = r#"
initdb -D /tmp/db -A trust --no-sync --no-locale -E UTF8 >/dev/null
echo 'host all all all trust' >>/tmp/db/pg_hba.conf
exec postgres -D /tmp/db -k /tmp -c 'listen_addresses=*' -c fsync=off -c shared_buffers=16MB
"#;

const CACHE: &str = "exec redis-server --bind 0.0.0.0 --protected-mode no --save ''";

/// A page that is made of what the data base and the cache say.
const APPLICATION: &str = r#"
mkdir -p /srv/cgi-bin
cat >/srv/cgi-bin/page <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
psql -h db -U postgres -Atc 'select sum(n) from generate_series(1, 1000) n'
redis-cli -h cache incr visits
END
chmod 755 /srv/cgi-bin/page
exec busybox httpd -f -p 8000 -h /srv
"#;

const FRONT: &str = r#"
echo 'server { listen 80; location / { proxy_pass http://app:8000; } }' >/etc/nginx/conf.d/front.conf
exec nginx -g 'daemon off;'
"#;

#[test]
fn slow_an_application_reaches_its_data_base_and_the_front_does_not() {
    let Some(daemon) = daemon_with_services() else { return };
    daemon.cli(["network", "create", "front"]).ok();
    daemon.cli(["network", "create", "--internal", "back"]).ok();
    const PATH: &str = "PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let back = ["--network", "back", "-e", PATH];
    serve(&daemon, "db", &[&back[..], &["--user", "postgres"]].concat(), DATA_BASE);
    let cache = [&back[..], &["--user", "redis", "--network-alias", "cache"]].concat();
    serve(&daemon, "redis-1", &cache, CACHE);
    serve(&daemon, "app", &["--network", "front", "-e", PATH], APPLICATION);
    daemon.cli(["network", "connect", "back", "app"]).ok();
    // nginx asks for the application's name once, when it starts.
    serve(
        &daemon,
        "web",
        &["--network", "front", "-e", PATH, "-p", "8080:80"],
        FRONT,
    );

    let psql = |container: &str, host: &str, query: &str| {
        let line = ["exec", container, "psql", "-h", host, "-U", "postgres", "-Atc", query];
        daemon.run(line).env("PGCONNECT_TIMEOUT", "3").output()
    };
    wait_within(START, "the data base answers the application", || {
        psql("app", "db", "select 1").code == 0
    });
    let made = psql(
        "app",
        "db",
        "create table t as select n from generate_series(1, 100000) n; select count(*) from t",
    );
    assert!(made.stdout.ends_with("100000\n"), "{made:?}");
    // 100,000 rows in one answer, and into the data base again through a second connection.
    let copied = "psql -h db -U postgres -c 'copy t to stdout' | psql -h db -U postgres -c 'copy t from stdin'";
    assert_eq!(daemon.cli(["exec", "app", "sh", "-c", copied]).ok(), "COPY 100000");
    let redis = |args: &[&str]| {
        daemon
            .cli(["exec", "app", "redis-cli", "-h", "cache"].iter().chain(args))
            .ok()
    };
    assert_eq!(redis(&["set", "a", "b"]), "OK");
    assert_eq!(redis(&["get", "a"]), "b");

    let page = |expected: &str| {
        let seen = daemon
            .in_namespace(&["curl", "-s", "-m", "10", "http://127.0.0.1:8080/cgi-bin/page"])
            .output();
        assert_eq!(seen.stdout, expected, "{seen:?}");
    };
    page("500500\n1\n");
    page("500500\n2\n");

    // The front knows neither the name nor a way to the address, of either server.
    let address = |name: &str| daemon.field(name, "/NetworkSettings/Networks/back/IPAddress");
    let (db, cache) = (address("db"), address("redis-1"));
    let by_name = psql("web", "db", "select 1");
    assert!(
        by_name.stderr.contains("could not translate host name \"db\""),
        "{by_name:?}"
    );
    for (host, port) in [(&db, "5432"), (&cache, "6379")] {
        let knock = |container: &str| {
            daemon
                .cli(["exec", container, "busybox", "nc", "-w", "2", host, port])
                .code
        };
        assert_eq!(knock("app"), 0, "{host}");
        assert_ne!(knock("web"), 0, "{host}");
    }
    // And what is at the back has no way to the front.
    let web = daemon.field("web", "/NetworkSettings/Networks/front/IPAddress");
    assert_ne!(
        daemon.cli(["exec", "db", "busybox", "nc", "-w", "2", &web, "80"]).code,
        0
    );
}
