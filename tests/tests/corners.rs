//! The corners of the layer format: images of hand-made tars in Ferry's registry, pulled from there by Ferry, Docker Engine and
//! containerd, and compared entry by entry as a program in a container sees them. Where one of the three differs from Ferry,
//! [`explained`] says why, and a difference that is explained and not there fails as well.

mod images;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use ferry_testkit::images::sha256;
use ferry_testkit::{Engines, Output, Run, wait_within};
use serde_json::{Value, json};

use self::images::{Corner, corners};

const REGISTRY: &str = "127.0.0.1:5000";
const FERRY: &str = "/run/real/ferry";
const SOCKET: &str = "unix:///run/ferry-engine.sock";
/// What engines put into the root themselves, or mount.
const THEIRS: [&str; 6] = ["/proc", "/sys", "/dev", "/etc", "/run", "/.dockerenv"];

/// A blob or manifest as a registry takes it: `put DIGEST FILE`.
const PUT: &str = r#"
    put() {
        at=$(curl -fsS -X POST -o /dev/null -D - $URL/blobs/uploads/ | tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
        case $at in /*) at=http://127.0.0.1:5000$at ;; esac
        case $at in *\?*) at="$at&" ;; *) at="$at?" ;; esac
        curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary @$2 "${at}digest=$1"
    }
"#;

/// A tree: what the walk says of each path.
type Tree = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Docker,
    Containerd,
}

#[test]
fn odd_layers_are_what_docker_engine_and_containerd_make_of_them() {
    let Some(engines) = Engines::with_docker() else { return };
    engines.start_containerd();
    start(&engines);
    let mut wrong = Vec::new();
    for corner in corners() {
        let name = push(&engines, &corner);
        let ours = match ferry(&engines, &["pull", "-q", &name]).output() {
            Output { code: 0, .. } => tree(ferry(
                &engines,
                &["run", "--rm", "--network=none", "--cap-add=SYS_ADMIN", &name],
            )),
            failed => Err(failed.stderr),
        };
        let docker = match engines.docker(["pull", "-q", &name]).output() {
            Output { code: 0, .. } => tree(engines.docker([
                "run",
                "--rm",
                "--runtime=real",
                "--network=none",
                "--cap-add=SYS_ADMIN",
                &name,
            ])),
            failed => Err(failed.stderr),
        };
        let containerd = match engines.ctr(["image", "pull", "--plain-http", &name]).output() {
            Output { code: 0, .. } => {
                let group = format!("{}/{}", engines.cgroup(), corner.name);
                let line = [
                    "run",
                    "--rm",
                    "--runc-binary",
                    Engines::RUNC,
                    "--cgroup",
                    &group,
                    "--cap-add",
                    "CAP_SYS_ADMIN",
                ];
                tree(engines.ctr(line).args([name.as_str(), corner.name]))
            }
            failed => Err(failed.stderr),
        };
        let ours = match (ours, corner.refused) {
            (Ok(tree), None) => tree,
            (Err(said), Some(wanted)) if said.contains(wanted) => continue,
            (ours, _) => {
                wrong.push(format!("{}: Ferry: {ours:?}", corner.name));
                continue;
            }
        };
        assert!(ours.len() > 2, "{}: {ours:?}", corner.name);
        for (peer, theirs) in [(Peer::Docker, docker), (Peer::Containerd, containerd)] {
            compare(corner.name, &ours, peer, theirs, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Ferry's registry and Ferry's engine. The machine's Ferry is called runc: under another name it is the whole program.
fn start(engines: &Engines) {
    engines.sh(&format!(
        "cp {} {FERRY}; mkdir -p /data/registry /data/ferry; ip link set lo up",
        Engines::FERRY
    ));
    engines.sh(&format!(
        "exec setsid {FERRY} registry serve --root /data/registry --listen {REGISTRY} >/run/registry.log 2>&1 </dev/null &"
    ));
    engines.sh(&format!(
        "exec setsid {FERRY} daemon --data-root /data/ferry --exec-root /run/ferry-engine --host {SOCKET} --bridge=none \
         --pidfile /run/ferry-engine.pid --cgroup-parent {} >/run/ferry-engine.log 2>&1 </dev/null &",
        engines.cgroup()
    ));
    wait_within(Duration::from_secs(10), "Ferry and its registry answer", || {
        ferry(engines, &["version"]).output().code == 0
            && engines
                .run("curl")
                .args(["-fsS", "http://127.0.0.1:5000/healthz"])
                .output()
                .code
                == 0
    });
}

fn ferry(engines: &Engines, line: &[&str]) -> Run {
    engines.run(FERRY).args(["-H", SOCKET]).args(line)
}

/// Puts an image into the registry as it is: no client has a say in it. Returns its name.
fn push(engines: &Engines, corner: &Corner) -> String {
    let dir = format!("/tmp/corners/{}", corner.name);
    let here = engines.path(&dir);
    fs::create_dir_all(&here).unwrap();
    let mut script = format!("cd {dir}; URL=http://{REGISTRY}/v2/corners/{}; {PUT}", corner.name);
    let mut put = |bytes: &[u8], media_type: &str| -> Value {
        let digest = format!("sha256:{}", sha256(bytes));
        let file = &digest["sha256:".len()..];
        fs::write(here.join(file), bytes).unwrap();
        script += &format!("put {digest} {file}\n");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layers: Vec<Value> = corner
        .layers
        .iter()
        .map(|layer| put(&layer.blob, &layer.media_type))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(&corner.configuration(), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    });
    fs::write(here.join("manifest"), manifest.to_string()).unwrap();
    script += "curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @manifest $URL/manifests/1";
    engines.sh(&script);
    format!("{REGISTRY}/corners/{}:1", corner.name)
}

fn tree(run: Run) -> Result<Tree, String> {
    let output = run.output();
    if output.code != 0 {
        return Err(output.stderr);
    }
    let lines = output.stdout.lines().map(|line| line.split_once(" mode=").unwrap());
    let theirs = |path: &str| {
        THEIRS.iter().any(|theirs| {
            path.strip_prefix(theirs)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    Ok(lines
        .filter(|(path, _)| !theirs(path))
        .map(|(path, rest)| (path.to_owned(), format!("mode={rest}")))
        .collect())
}

fn compare(corner: &str, ours: &Tree, peer: Peer, theirs: Result<Tree, String>, wrong: &mut Vec<String>) {
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(said) => {
            let said = said.trim_end();
            if !explained(corner, peer, "", "", said) {
                wrong.push(format!("{corner}: {peer:?} refuses it: {said}"));
            }
            return;
        }
    };
    let mut paths: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let nothing = String::new();
        let (our, their) = (ours.get(path).unwrap_or(&nothing), theirs.get(path).unwrap_or(&nothing));
        if our != their && !explained(corner, peer, path, our, their) {
            wrong.push(format!("{corner}: {path}\n    Ferry      {our}\n    {peer:?} {their}"));
        }
    }
}

/// Whether a difference is known and why it is right: `our` and `their` are what the walks say, or nothing where there is
/// nothing; without a path, `their` is why the peer refuses the image.
fn explained(corner: &str, peer: Peer, path: &str, our: &str, their: &str) -> bool {
    let _ = (corner, peer, path, our, their);
    false
}
