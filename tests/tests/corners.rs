//! The corners of the layer format: images of hand-made tars in Ferry's registry, pulled from there by Ferry, Docker Engine and
//! containerd, and compared entry by entry as a program in a container sees them. Where one of the three differs from Ferry,
//! [`explained`] says why, and a difference that is explained and not there fails as well.

mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use ferry_testkit::images::{sha256, sha512};
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

/// Those that look the same in a user namespace of the container's own: no ids beyond 65,535, no attributes of the initial one.
const IN_USER_NAMESPACES: [&str; 6] = [
    "whiteouts",
    "whiteouts-last",
    "opaque-root",
    "links",
    "links-below",
    "parents",
];

/// How many there are in [`explained`].
const REASONS: usize = 13;

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
    let (mut wrong, mut reasons) = (Vec::new(), BTreeSet::new());
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
                let run = || tree(engines.ctr(line).args([name.as_str(), corner.name]));
                // ctr now and then ends before it has passed on what the container wrote.
                match run() {
                    Ok(nothing) if nothing.is_empty() => run(),
                    walked => walked,
                }
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
        if IN_USER_NAMESPACES.contains(&corner.name) {
            let line = ["run", "--rm", "--network=none", "--userns=auto", &name];
            let inside = tree(ferry(&engines, &line)).unwrap();
            let seen = |tree: &Tree| -> Vec<String> {
                tree.iter()
                    .skip(1)
                    .map(|(path, line)| format!("{path} {line}"))
                    .collect()
            };
            assert_eq!(seen(&inside), seen(&ours), "{} in a user namespace", corner.name);
        }
        for (peer, theirs) in [(Peer::Docker, docker), (Peer::Containerd, containerd)] {
            wrong.extend(compare(corner.name, &ours, peer, theirs, &mut reasons));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(
        reasons.len(),
        REASONS,
        "differences that are explained and not there: {reasons:#?}"
    );
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
        let digest = match corner.name {
            "sha512" if media_type.contains("layer") => format!("sha512:{}", sha512(bytes)),
            _ => format!("sha256:{}", sha256(bytes)),
        };
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

fn compare(
    corner: &str,
    ours: &Tree,
    peer: Peer,
    theirs: Result<Tree, String>,
    reasons: &mut BTreeSet<&'static str>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(said) => {
            let said = said.trim_end();
            match explained(corner, peer, "", "", said) {
                Some(reason) => drop(reasons.insert(reason)),
                None => wrong.push(format!("{corner}: {peer:?} refuses it: {said}")),
            }
            return wrong;
        }
    };
    let mut paths: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let nothing = String::new();
        let (our, their) = (ours.get(path).unwrap_or(&nothing), theirs.get(path).unwrap_or(&nothing));
        if our == their {
            continue;
        }
        if let Some(reason) = explained(corner, peer, path, our, their) {
            reasons.insert(reason);
        } else {
            wrong.push(format!("{corner}: {path}\n    Ferry      {our}\n    {peer:?} {their}"));
        }
    }
    wrong
}

/// Why a difference is right: `our` and `their` are what the walks say, or nothing where there is nothing; without a path, `their`
/// is why the peer refuses the image.
fn explained(corner: &str, peer: Peer, path: &str, our: &str, their: &str) -> Option<&'static str> {
    use Peer::{Containerd, Docker};
    let but_for_time = || without_time(our) == without_time(their);
    let (reason, holds) = match (corner, peer, path) {
        (_, _, "/") => ("the top is as old as the container", but_for_time()),
        ("whiteouts", _, "/odd/samedir/old") => (
            "a directory beside a whiteout of its name: theirs uncovers what is below",
            our.is_empty(),
        ),
        ("whiteouts-last", _, "") => (
            "a whiteout after an entry of its name: they refuse it",
            their.contains("file exists"),
        ),
        ("opaque-root", _, "/gone" | "/odd/gone") => ("overlayfs does not look at the mark of the top", our.is_empty()),
        ("links-below", _, "") => (
            "a hard link into a layer below: they refuse it",
            their.contains("no such file or directory"),
        ),
        ("attributes", Docker, "/odd/binary" | "/odd/attributed-link") => (
            "attributes of a link: theirs go to its target",
            our.replace(" trusted.note=of a link", "") == their.replace(" trusted.note=of a link", ""),
        ),
        ("attributes", Containerd, "/odd/trusted" | "/odd/attributed-link") => (
            "containerd leaves out trusted attributes",
            our.split_once(" trusted.").is_some_and(|(before, _)| before == their),
        ),
        ("duplicates" | "duplicates-through-a-link", Docker, "") => (
            "this Docker refuses duplicates",
            their.contains("duplicates of file paths"),
        ),
        ("parents", _, "/odd/made" | "/odd/made/for") => {
            ("directories that no archive has are as old as the pull", but_for_time())
        }
        ("parents", Docker, "/odd/low") => (
            "a directory that only the layer below has: Docker forgets its owner, mode and attributes",
            our.starts_with("mode=41770 owner=5:6")
                && our.ends_with("user.note=kept")
                && their.starts_with("mode=40755 owner=0:0"),
        ),
        ("parents", Containerd, "/odd/low") => (
            "a directory that only the layer below has: containerd forgets its time",
            but_for_time(),
        ),
        ("numbers" | "times", _, _) => (
            // Nothing of Docker's depends on it: digests and `commit` take times from archives and files as they are, and who
            // keeps old files in an image wants to see their times. A file system that has no such times says so itself.
            "theirs make 1970 of times before it, and Ferry keeps them",
            our.contains(" mtime=-") && their.contains(" mtime=0.000000000") && but_for_time(),
        ),
        ("sparse-gnu", _, "") => (
            "they know no sparse file of GNU's old format",
            their.contains("header type 83"),
        ),
        _ => return None,
    };
    holds.then_some(reason)
}

fn without_time(line: &str) -> String {
    let words = line.split(' ').filter(|word| !word.starts_with("mtime="));
    words.collect::<Vec<_>>().join(" ")
}
