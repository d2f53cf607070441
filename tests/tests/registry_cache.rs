//! Ferry's registry as a cache of another one, with the real clients before it and the CNCF registry behind it.

use std::time::Duration;

use ferry_testkit::images::{self, Layer};
use ferry_testkit::{Engines, Registry, TestDaemon, tools, wait_within};
use serde_json::json;

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
fn it_stays_within_its_size_and_what_went_is_pulled_again() {
    let daemon = TestDaemon::start();
    let Some(upstream) = Registry::cncf(&daemon) else {
        return;
    };
    let size = 4 << 20;
    let origin = format!("docker.io=http://{}", Registry::CNCF);
    let cache = Registry::start(
        &daemon,
        &[
            "--upstream",
            &origin,
            "--cache-size",
            &size.to_string(),
            "--upstream-ttl",
            "0",
        ],
    );
    let far = |number: usize| format!("{}/library/n:{number}", Registry::CNCF);
    let near = |number: usize| format!("{CACHE}/docker.io/library/n:{number}");
    let layer = |number: usize| {
        let mut noise = images::noise(1 << 20);
        noise[..8].copy_from_slice(&number.to_be_bytes());
        noise
    };
    let count = 12;
    let pull = |number: usize| {
        daemon.cli(["pull", "-q", &near(number)]).ok();
        let shown = daemon
            .cli(["run", "--rm", "--network=none", &near(number), "sha256sum", "/layer"])
            .ok();
        assert!(shown.starts_with(&images::sha256(&layer(number))), "{number}: {shown}");
        daemon.cli(["rmi", "-f", &near(number)]).ok();
    };
    for number in 0..count {
        let image = images::above_busybox(&far(number), Layer::new().file("layer", &layer(number), 0o644));
        daemon.run(["load", "-q"]).input(images::docker_archive(&[image])).ok();
        daemon.cli(["push", "-q", &far(number)]).ok();
        daemon.cli(["rmi", &far(number)]).ok();
    }
    // A pushed image is no cached one, and takes no room of theirs.
    let own = format!("{CACHE}/127.0.0.1/own:1");
    let image = images::above_busybox(&own, Layer::new().file("layer", &images::noise(6 << 20), 0o644));
    daemon.run(["load", "-q"]).input(images::docker_archive(&[image])).ok();
    daemon.cli(["push", "-q", &own]).ok();
    daemon.cli(["rmi", &own]).ok();
    let blobs = cache.root().join("blobs");
    let bytes = || {
        let line = ["find", blobs.to_str().unwrap(), "-type", "f", "-printf", "%s\n"];
        let sizes = daemon.in_namespace(&line).ok();
        sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum::<u64>()
    };
    let pushed = bytes();
    // The largest image: a mebibyte, and busybox.
    let most = pushed + size + (1 << 20) + (2 << 20);
    for number in (0..count).chain(0..count) {
        pull(number);
        wait_within(Duration::from_secs(10), "it is within its size", || bytes() <= most);
    }
    println!("{pushed} bytes pushed, {} in all after {} pulls", bytes(), 2 * count);
    // It knows no referrers, nor their tags.
    let none = format!(
        "http://{CACHE}/v2/docker.io/library/n/referrers/sha256:{}",
        images::sha256(b"x")
    );
    let none = daemon.in_namespace(&["curl", "-fsS", &none]).ok();
    assert!(none.contains(r#""manifests":[]"#), "{none}");
    let tags = cache.root().join("repositories/docker.io/library/n/_tags");
    let kept = std::fs::read_dir(tags).unwrap().count();
    assert!((1..count).contains(&kept), "{kept} of {count} tags are kept");
    // Without its upstream the last one is there, and the first is not; what was pushed is.
    drop(upstream);
    pull(count - 1);
    daemon.cli(["pull", "-q", &near(0)]).fails(1);
    daemon.cli(["pull", "-q", &own]).ok();
    drop(cache);
    daemon.finish();
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
    // A signature, by its subject.
    let curl = |line: &[&str]| {
        let line: Vec<&str> = ["curl", "-fsS"].iter().chain(line).copied().collect();
        daemon.in_namespace(&line).ok()
    };
    let (far, near) = (
        format!("http://{UPSTREAM}/v2/library/box"),
        format!("http://{CACHE}/v2/docker.io/library/box"),
    );
    let head = curl(&["-I", "-H", "Accept: */*", &format!("{far}/manifests/1")]);
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.unwrap().split_once(": ").unwrap().1.trim().to_owned()
    };
    let (kind, subject) = (header("content-type"), header("docker-content-digest"));
    let blob = format!("sha256:{}", images::sha256(b"{}"));
    let upload = format!("{far}/blobs/uploads/?digest={blob}");
    curl(&[
        "-X",
        "POST",
        "-H",
        "Content-Type: application/octet-stream",
        "-d",
        "{}",
        &upload,
    ]);
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let part = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": blob, "size": 2 });
    let signature = json!({
        "schemaVersion": 2, "mediaType": oci, "artifactType": "x/signature", "config": part, "layers": [part],
        "subject": { "mediaType": kind, "digest": subject, "size": header("content-length").parse::<u64>().unwrap() },
    })
    .to_string();
    let digest = format!("sha256:{}", images::sha256(signature.as_bytes()));
    let kind = format!("Content-Type: {oci}");
    curl(&[
        "-X",
        "PUT",
        "-H",
        &kind,
        "-d",
        &signature,
        &format!("{far}/manifests/{digest}"),
    ]);
    let referrers = format!("{near}/referrers/{subject}");
    let listed = curl(&[&referrers]);
    assert!(listed.contains(&digest) && listed.contains("x/signature"), "{listed}");
    assert_eq!(curl(&[&format!("{near}/manifests/{digest}")]), signature);
    let pulled = daemon.cli(["pull", "box:1"]).ok();
    assert!(pulled.contains("Downloaded newer image for box:1"), "{pulled}");
    drop(upstream);
    let listed = curl(&["-i", &referrers]);
    assert!(
        listed.contains(&digest) && listed.to_ascii_lowercase().contains("warning: 111"),
        "{listed}"
    );
    daemon.cli(["rmi", "box:1"]).ok();
    assert_eq!(
        daemon.cli(["run", "--rm", "box:1", "echo", "here"]).ok().lines().last(),
        Some("here")
    );
    drop(cache);
    daemon.finish();
}
