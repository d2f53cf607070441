//! Ferry's registry with the real clients: what one pushes another pulls.

use std::time::Duration;

use ferry_testkit::{Engines, Run, wait_within};

const REGISTRY: &str = "127.0.0.1:5000";

/// The machine's Ferry is called runc: under another name it is the whole program.
fn serve(engines: &Engines) {
    engines.sh("cp /run/ferry/runc /run/real/ferry; mkdir -p /data/registry");
    engines.sh(&format!(
        "exec setsid /run/real/ferry registry serve --root /data/registry --listen {REGISTRY} --allow-delete \
         >/run/registry.log 2>&1 </dev/null & ip link set lo up"
    ));
    wait_within(Duration::from_secs(10), "the registry answers", || {
        curl(engines, "/healthz").output().code == 0
    });
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
