//! Ferry's registry with the real clients: what one pushes another pulls.

use std::time::Duration;

use ferry_testkit::{Engines, Run, wait_within};

const REGISTRY: &str = "127.0.0.1:5000";

/// Docker takes no certificate from its files for an address of the machine itself, and does not check the server's.
const SECURE: &str = "registry.test:5443";
/// A line of htpasswd, the one that crypt_blowfish's own tests have: the password is `U*U`.
const USER: &str = "ann:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// Two authorities, one for servers and one for clients, and a certificate of each.
const CERTIFICATES: &str = r#"
    mkdir -p /run/certs; cd /run/certs
    new() { name=$1; shift; openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key "$@"; }
    for ca in servers clients; do new $ca -x509 -days 2 -out $ca.crt; done
    echo "subjectAltName=DNS:registry.test" >names
    for name in server client; do
        new $name -out $name.csr
        openssl x509 -req -in $name.csr -CA ${name}s.crt -CAkey ${name}s.key -days 2 -extfile names -out $name.crt
    done
    ip addr add 198.51.100.1/32 dev lo
    echo "198.51.100.1 registry.test" >>/etc/hosts
"#;

fn serve(engines: &Engines) {
    serve_with(engines, &format!("--listen {REGISTRY} --allow-delete"));
    wait_within(Duration::from_secs(10), "the registry answers", || {
        curl(engines, "/healthz").output().code == 0
    });
}

/// The machine's Ferry is called runc: under another name it is the whole program.
fn serve_with(engines: &Engines, options: &str) {
    engines.sh("cp /run/ferry/runc /run/real/ferry; mkdir -p /data/registry");
    engines.sh(&format!(
        "exec setsid /run/real/ferry registry serve --root /data/registry {options} \
         >/run/registry.log 2>&1 </dev/null & ip link set lo up"
    ));
}

fn curl(engines: &Engines, path: &str) -> Run {
    engines.run("curl").args(["-fsS", &format!("http://{REGISTRY}{path}")])
}

#[test]
fn skopeo_and_oras_push_pull_and_find_each_others_content() {
    let Some(engines) = Engines::start() else { return };
    serve(&engines);
    engines.sh("mkdir -p /tmp/x; cd /tmp/x; echo hello >f.txt");
    let reference = format!("{REGISTRY}/oras/a:1");
    engines.sh(&format!(
        "cd /tmp/x; oras push --plain-http {reference} f.txt:text/plain"
    ));
    engines.sh(&format!(
        "cd /tmp/x; oras attach --plain-http --artifact-type x/y {reference} f.txt:text/plain"
    ));
    let found = engines.sh(&format!("oras discover --plain-http {reference}"));
    assert!(found.contains("x/y"), "{found}");
    engines.sh(&format!(
        "skopeo copy --src-tls-verify=false --dest-tls-verify=false docker://{reference} docker://{REGISTRY}/skopeo/a:2"
    ));
    let text = engines.sh(&format!(
        "mkdir /tmp/y; cd /tmp/y; oras pull --plain-http {REGISTRY}/skopeo/a:2 >/dev/null; cat f.txt"
    ));
    assert_eq!(text.trim(), "hello");
    let catalog = curl(&engines, "/v2/_catalog").ok();
    assert_eq!(catalog.trim(), r#"{"repositories":["oras/a","skopeo/a"]}"#);
    let collected = engines.sh("/run/real/ferry registry gc --root /data/registry");
    assert!(collected.starts_with("removed 0 blobs"), "{collected}");
}

#[test]
fn docker_and_podman_pull_what_the_other_pushed() {
    let Some(engines) = Engines::with_docker() else { return };
    serve(&engines);
    let reference = format!("{REGISTRY}/docker/busybox:1");
    engines.docker(["tag", "busybox", &reference]).ok();
    engines.docker(["push", &reference]).ok();
    engines
        .podman(Engines::RUNC, ["pull", "--tls-verify=false", &reference])
        .ok();
    let other = format!("{REGISTRY}/podman/busybox:1");
    engines
        .podman(Engines::RUNC, ["push", "--tls-verify=false", &reference, &other])
        .ok();
    engines.docker(["rmi", &reference]).ok();
    engines.docker(["pull", &other]).ok();
}

#[test]
fn docker_and_skopeo_get_in_with_a_certificate_and_a_password_and_not_without() {
    let Some(engines) = Engines::with_docker() else { return };
    engines.sh(CERTIFICATES);
    engines.sh(&format!("echo '{USER}' >/run/htpasswd"));
    serve_with(
        &engines,
        "--listen 198.51.100.1:5443 --tls-cert /run/certs/server.crt --tls-key /run/certs/server.key \
         --tls-client-ca /run/certs/clients.crt --htpasswd /run/htpasswd",
    );
    let curl = |args: &str| {
        let line = format!("curl -sS --cacert /run/certs/servers.crt {args}/v2/ 2>&1");
        engines.run("sh").args(["-c", &line]).output().stdout
    };
    let url = format!("https://{SECURE}");
    wait_within(Duration::from_secs(10), "the registry answers", || {
        curl(&url).contains("certificate required")
    });
    let certificate = "--cert /run/certs/client.crt --key /run/certs/client.key";
    assert!(curl(&format!("{certificate} {url}")).contains("UNAUTHORIZED"));
    assert!(curl(&format!("http://{SECURE}")).contains("this port speaks HTTPS"));

    let login = |password: &str| engines.docker(["login", "-u", "ann", "-p", password, SECURE]);
    let folder = format!("/etc/docker/certs.d/{SECURE}");
    let unknown = login("U*U").output().fails(1);
    assert!(unknown.contains("certificate signed by unknown authority"), "{unknown}");
    engines.sh(&format!("mkdir -p {folder}; cp /run/certs/servers.crt {folder}/ca.crt"));
    let required = login("U*U").output().fails(1);
    assert!(required.contains("certificate required"), "{required}");
    engines.sh(&format!(
        "cd {folder}; cp /run/certs/client.crt client.cert; cp /run/certs/client.key ."
    ));
    let wrong = login("wrong").output().fails(1);
    assert!(wrong.contains("wrong user or password"), "{wrong}");
    login("U*U").ok();
    let reference = format!("{SECURE}/team/busybox:1");
    engines.docker(["tag", "busybox", &reference]).ok();
    engines.docker(["push", &reference]).ok();
    engines.docker(["rmi", &reference]).ok();
    engines.docker(["pull", &reference]).ok();
    let inspect = format!("skopeo inspect --cert-dir {folder} docker://{reference}");
    engines.sh(&format!("{inspect} --creds 'ann:U*U'"));
    engines
        .run("sh")
        .args(["-c", &format!("{inspect} --no-creds")])
        .output()
        .fails(1);
    engines.docker(["logout", SECURE]).ok();
    engines.docker(["rmi", &reference]).ok();
    assert!(
        engines
            .docker(["pull", &reference])
            .output()
            .fails(1)
            .contains("denied")
    );
}

/// Its transfer service unpacks for the snapshotters of its configuration alone, and says "no unpack platforms defined" for
/// others, whoever serves the image: with those the client has to do it (`--local`).
#[test]
fn containerd_pulls_and_unpacks_what_it_pushed_with_a_token_by_form() {
    let Some(engines) = Engines::start() else { return };
    engines.sh(&format!("echo '{USER}' >/run/htpasswd"));
    serve_with(&engines, &format!("--listen {REGISTRY} --htpasswd /run/htpasswd"));
    engines.start_containerd();
    let archive = ferry_testkit::images::busybox_archive();
    engines.ctr(["image", "import", "-"]).input(archive).ok();
    let (busybox, reference) = ("docker.io/library/busybox:latest", format!("{REGISTRY}/ctr/busybox:1"));
    let ctr = |verb: &str, flags: &[&str], user: &str| {
        let line = engines.ctr(["image", verb, "--plain-http", "--user", user]);
        line.args(flags).args([&reference])
    };
    ctr("push", &[], "ann:U*U").args([busybox]).ok();
    engines.ctr(["image", "rm", "--sync", busybox]).ok();
    let refused = ctr("pull", &[], "ann:wrong").output().fails(1);
    assert!(refused.contains("401 Unauthorized"), "{refused}");
    ctr("pull", &[], "ann:U*U").ok();
    engines.ctr(["image", "rm", "--sync", &reference]).ok();
    ctr("pull", &["--local", "--snapshotter", "native"], "ann:U*U").ok();
    let snapshots = engines.ctr(["snapshots", "--snapshotter", "native", "ls"]).ok();
    assert!(snapshots.lines().count() > 1, "{snapshots}");
    let log = engines.sh("cat /run/registry.log");
    assert!(log.contains("method=\"POST\" path=\"/token\" status=200"), "{log}");
}
