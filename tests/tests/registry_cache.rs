//! Ferry's registry as a cache of another one, with the real clients before it and the CNCF registry behind it.

use std::time::Duration;

use ferry_testkit::images;
use ferry_testkit::{Engines, Registry, TestDaemon, tools, wait_within};

const CACHE: &str = "127.0.0.1:5000";
const UPSTREAM: &str = "127.0.0.1:5100";

/// docker-registry with `library/box:1`, and a cache of it that calls it docker.io.
fn serve(engines: &Engines) {
    engines.sh(&format!(
        "ip link set lo up; cp /run/ferry/runc /run/real/ferry; mkdir -p /data/upstream /data/cache
         printf 'version: 0.1\\nstorage: {{filesystem: {{rootdirectory: /data/upstream}}}}\\nhttp: {{addr: \"{UPSTREAM}\"}}\\n' >/run/upstream.yml
         exec setsid docker-registry serve /run/upstream.yml >/run/upstream.log 2>&1 </dev/null & echo $! >/run/upstream.pid
         exec setsid /run/real/ferry registry serve --root /data/cache --listen {CACHE} --upstream docker.io=http://{UPSTREAM} \
           --upstream-ttl 0 >/run/cache.log 2>&1 </dev/null &"
    ));
    for address in [CACHE, UPSTREAM] {
        let url = format!("http://{address}/v2/");
        wait_within(Duration::from_secs(10), "the registries answer", || {
            engines.run("curl").args(["-fsS", &url]).output().code == 0
        });
    }
    engines
        .run("sh")
        .args(["-c", "cat >/data/box.tar"])
        .input(images::busybox_archive())
        .ok();
    engines.sh(&format!(
        "skopeo copy --dest-tls-verify=false docker-archive:/data/box.tar docker://{UPSTREAM}/library/box:1"
    ));
}

#[test]
fn docker_containerd_podman_and_skopeo_pull_through_it_also_when_its_upstream_has_gone() {
    let Some(engines) = Engines::start() else { return };
    serve(&engines);
    engines.start_docker(&[&format!("--registry-mirror=http://{CACHE}")]);
    engines.start_containerd();
    engines.sh(&format!(
        "mkdir -p /run/hosts/docker.io; cat >/run/hosts/docker.io/hosts.toml <<X
server = \"http://127.0.0.1:1\"
[host.\"http://{CACHE}\"]
  capabilities = [\"pull\", \"resolve\"]
X"
    ));
    let here = format!("{CACHE}/docker.io/library/box:1");
    let pull_all = || {
        engines.docker(["pull", "box:1"]).ok();
        engines.docker(["rmi", "box:1"]).ok();
        engines
            .ctr(["image", "pull", "--hosts-dir", "/run/hosts", "docker.io/library/box:1"])
            .ok();
        engines.ctr(["image", "rm", "--sync", "docker.io/library/box:1"]).ok();
        engines
            .podman(Engines::RUNC, ["pull", "--tls-verify=false", &here])
            .ok();
        engines.podman(Engines::RUNC, ["rmi", &here]).ok();
        engines.sh(&format!("skopeo inspect --tls-verify=false docker://{here}"));
    };
    pull_all();
    let blobs = "grep -c '\"GET /v2/library/box/blobs/' /run/upstream.log || true";
    let asked: u32 = engines.sh(blobs).trim().parse().unwrap();
    let stored: u32 = engines
        .sh("ls /data/cache/repositories/docker.io/library/box/_blobs | wc -l")
        .trim()
        .parse()
        .unwrap();
    assert!(stored >= 2, "{stored}");
    assert!(
        asked == stored,
        "{asked} requests for {stored} blobs\n{}",
        engines.sh("cat /run/upstream.log")
    );

    let pushed = format!("skopeo copy --dest-tls-verify=false docker-archive:/data/box.tar docker://{here} 2>&1");
    let refused = engines.run("sh").args(["-c", &pushed]).output();
    assert!(
        refused.code != 0 && refused.stdout.contains("is a cache of"),
        "{}",
        refused.stdout
    );

    engines.sh("kill $(cat /run/upstream.pid)");
    let gone = format!("http://{UPSTREAM}/v2/");
    wait_within(Duration::from_secs(10), "the upstream has gone", || {
        engines.run("curl").args(["-fsS", &gone]).output().code != 0
    });
    pull_all();
    let log = engines.sh("cat /run/cache.log");
    assert!(log.contains("what is here is given, and may be old"), "{log}");
}

#[test]
fn ferry_pulls_through_it_as_a_mirror() {
    let daemon = TestDaemon::builder()
        .arg(&format!("--registry-mirror=http://{CACHE}"))
        .start();
    let (ferry, root) = (tools::ferry(), daemon.dir().join("upstream"));
    let line = [
        ferry.to_str().unwrap(),
        "registry",
        "serve",
        "--listen",
        UPSTREAM,
        "--root",
        root.to_str().unwrap(),
    ];
    let upstream = daemon.in_namespace(&line).time(Duration::from_secs(600)).spawn();
    let cache = Registry::start(&daemon, &["--upstream", &format!("docker.io=http://{UPSTREAM}")]);
    daemon.busybox();
    let origin = format!("{UPSTREAM}/library/box:1");
    daemon.cli(["tag", "busybox", &origin]).ok();
    daemon.cli(["push", &origin]).ok();
    daemon.cli(["rmi", "busybox", &origin]).ok();
    let pulled = daemon.cli(["pull", "box:1"]).ok();
    assert!(pulled.contains("Downloaded newer image for box:1"), "{pulled}");
    drop(upstream);
    daemon.cli(["rmi", "box:1"]).ok();
    assert_eq!(
        daemon.cli(["run", "--rm", "box:1", "echo", "here"]).ok().lines().last(),
        Some("here")
    );
    drop(cache);
    daemon.finish();
}
