//! `linux.rootfsPropagation` and the options of mounts: what of the host's later mounts a container sees, and that nothing
//! of its own reaches the host unless `shared` was asked for. The expectations are runc's (1.3.6), but where it is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_testkit::Bundle;
use serde_json::{Value, json};

/// Three file systems of the host: shared, private, and one that receives from another. The first two have one below.
struct Host {
    dir: PathBuf,
    _mounted: Mounted,
}

/// Mounts that go when the test ends, however it does: before the bundle that they are in.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["--recursive", "--lazy"])
            .arg(&self.0)
            .status();
    }
}

fn mount(args: &[&str], target: &Path) {
    let done = Command::new("mount").args(args).arg(target).status().unwrap();
    assert!(done.success(), "mount {args:?} {}", target.display());
}

impl Host {
    fn new(bundle: &Bundle) -> Self {
        let dir = bundle.path().join("host");
        fs::create_dir(&dir).unwrap();
        let host = Self {
            _mounted: Mounted(dir.clone()),
            dir,
        };
        mount(&["-t", "tmpfs", "--make-private", "tmpfs"], &host.dir);
        for (name, kind) in [
            ("shared", "--make-shared"),
            ("private", "--make-private"),
            ("master", "--make-shared"),
        ] {
            let path = host.dir.join(name);
            fs::create_dir(&path).unwrap();
            mount(&["-t", "tmpfs", kind, "tmpfs"], &path);
            for place in ["below", "later", "inside"] {
                fs::create_dir(path.join(place)).unwrap();
            }
            if name != "master" {
                mount(&["-t", "tmpfs", "tmpfs"], &path.join("below"));
            }
        }
        let slave = host.dir.join("slave");
        fs::create_dir(&slave).unwrap();
        mount(&["--bind", &host.dir.join("master").display().to_string()], &slave);
        mount(&["--make-slave"], &slave);
        host
    }

    /// What is mounted at a place.
    fn sees(&self, place: &str) -> bool {
        let place = self.dir.join(place).display().to_string();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().any(|line| line.split(' ').nth(4) == Some(&place))
    }
}

/// A container that sees the host's file systems at `/shared`, `/private` and `/slave`, and `/bind`, the first without what
/// is below; with these options each.
fn container(propagation: Option<&str>, option: Option<&str>) -> (Bundle, Host) {
    let mut bundle = Bundle::sleeping();
    let host = Host::new(&bundle);
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.and(&format!("process.capabilities.{set}"), json!("CAP_SYS_ADMIN"));
    }
    bundle = bundle.and(
        "mounts",
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }),
    );
    for (target, source, kind) in [
        ("/bind", "shared", "bind"),
        ("/shared", "shared", "rbind"),
        ("/private", "private", "rbind"),
        ("/slave", "slave", "rbind"),
    ] {
        let options: Vec<&str> = [kind].into_iter().chain(option).collect();
        let source = host.dir.join(source);
        bundle = bundle.and(
            "mounts",
            json!({ "destination": target, "type": "bind", "source": source, "options": options }),
        );
    }
    if let Some(propagation) = propagation {
        bundle.set("linux.rootfsPropagation", json!(propagation));
    }
    (bundle, host)
}

/// The optional fields of mountinfo without their numbers: `-`, `shared`, `master`, `shared,master`, `unbindable`.
fn kinds(bundle: &Bundle, places: &[&str]) -> Vec<String> {
    let table = bundle.exec("cat /proc/self/mountinfo").ok();
    let of = |place: &&str| {
        let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
        let line = line.unwrap_or_else(|| panic!("no {place} in {table}"));
        let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
        let fields: Vec<&str> = fields.map(|field| field.split(':').next().unwrap()).collect();
        if fields.is_empty() {
            "-".to_owned()
        } else {
            fields.join(",")
        }
    };
    places.iter().map(of).collect()
}

/// Which of the host's mounts arrive, and which of the container's get out.
fn exchange(bundle: &Bundle, host: &Host) -> (Vec<&'static str>, Vec<&'static str>) {
    for source in ["shared", "private", "master"] {
        mount(&["-t", "tmpfs", "tmpfs"], &host.dir.join(source).join("later"));
    }
    let table = bundle.exec("cat /proc/self/mountinfo").ok();
    let binds = ["bind", "shared", "private", "slave"];
    let is_there = |place: &str| table.lines().any(|line| line.split(' ').nth(4) == Some(place));
    let arrived = binds
        .into_iter()
        .filter(|bind| is_there(&format!("/{bind}/later")))
        .collect();
    for bind in binds {
        bundle.exec(&format!("mount -t tmpfs tmpfs /{bind}/inside")).ok();
    }
    bundle
        .exec("mount -t tmpfs tmpfs /etc && mkdir /new && mount -t tmpfs tmpfs /new")
        .ok();
    let places = [
        "shared/inside",
        "private/inside",
        "slave/inside",
        "master/inside",
        "../rootfs/etc",
        "../rootfs/new",
    ];
    let out = places.into_iter().filter(|place| host.sees(place)).collect();
    (arrived, out)
}

#[test]
fn root_binds_receive_what_the_root_s_propagation_says() {
    const RECEIVING: ([&str; 6], [&str; 3]) = (
        ["master", "master", "master", "-", "-", "master"],
        ["bind", "shared", "slave"],
    );
    let other = std::env::var_os("FERRY_TEST_RUNTIME").is_some();
    // The binds; which receive; / and /proc; what gets out.
    type Row = (
        Option<&'static str>,
        [&'static str; 6],
        &'static [&'static str],
        [&'static str; 2],
        &'static [&'static str],
    );
    let rows: [Row; 9] = [
        (None, RECEIVING.0, &RECEIVING.1, ["-", "-"], &[]),
        (Some("rslave"), RECEIVING.0, &RECEIVING.1, ["-", "-"], &[]),
        (Some("rprivate"), ["-"; 6], &[], ["-", "-"], &[]),
        (
            Some("shared"),
            ["shared", "shared", "shared", "-", "-", "master"],
            &RECEIVING.1,
            ["shared", "-"],
            &["shared/inside"],
        ),
        (
            Some("rshared"),
            ["shared", "shared", "shared", "shared", "shared", "shared,master"],
            &RECEIVING.1,
            ["shared", "shared"],
            &["shared/inside"],
        ),
        // Not as runc, where these are of the mount of / alone and what else is shared stays shared with the host.
        (Some("slave"), RECEIVING.0, &RECEIVING.1, ["-", "-"], &[]),
        (Some("private"), RECEIVING.0, &RECEIVING.1, ["-", "-"], &[]),
        (Some("unbindable"), RECEIVING.0, &RECEIVING.1, ["unbindable", "-"], &[]),
        // Not as runc, which refuses every bind mount then.
        (Some("runbindable"), ["unbindable"; 6], &[], ["unbindable"; 2], &[]),
    ];
    for (propagation, binds, receive, root, out) in rows {
        if other && matches!(propagation, Some("slave" | "private" | "unbindable" | "runbindable")) {
            continue;
        }
        let (bundle, host) = container(propagation, None);
        bundle.up();
        let places = [
            "/bind",
            "/shared",
            "/shared/below",
            "/private",
            "/private/below",
            "/slave",
        ];
        assert_eq!(kinds(&bundle, &places), binds, "{propagation:?}");
        assert_eq!(kinds(&bundle, &["/", "/proc"]), root, "{propagation:?}");
        assert_eq!(kinds(&bundle, &["/tmp"]), root[1..], "{propagation:?}");
        let (arrived, left) = exchange(&bundle, &host);
        assert_eq!((arrived.as_slice(), left.as_slice()), (receive, out), "{propagation:?}");
    }
    Bundle::sleeping()
        .with("linux.rootfsPropagation", json!("bogus"))
        .call(&["create", "c"])
        .fails(1, "rootfsPropagation=bogus is not supported");
}

#[test]
fn root_a_mount_s_own_option_comes_on_top_of_it() {
    type Row = (
        Option<&'static str>,
        &'static str,
        [&'static str; 5],
        &'static [&'static str],
        &'static [&'static str],
    );
    let all: &[&str] = &["bind", "shared", "slave"];
    let rows: [Row; 9] = [
        (None, "rprivate", ["-", "-", "-", "-", "-"], &[], &[]),
        (None, "private", ["-", "-", "master", "-", "-"], &[], &[]),
        (None, "rslave", ["master", "master", "master", "-", "master"], all, &[]),
        // Shared with whom it clones, and not with the host.
        (
            None,
            "shared",
            ["shared,master", "shared,master", "master", "shared", "shared,master"],
            all,
            &[],
        ),
        (
            None,
            "rshared",
            [
                "shared,master",
                "shared,master",
                "shared,master",
                "shared",
                "shared,master",
            ],
            all,
            &[],
        ),
        (
            None,
            "unbindable",
            ["unbindable", "unbindable", "master", "unbindable", "unbindable"],
            &[],
            &[],
        ),
        // What Docker writes for a volume that is to be shared with the host.
        (
            Some("shared"),
            "rshared",
            ["shared", "shared", "shared", "shared", "shared,master"],
            all,
            &["shared/inside"],
        ),
        (Some("shared"), "rprivate", ["-"; 5], &[], &[]),
        // The root's is set last.
        (
            Some("rslave"),
            "rshared",
            ["master", "master", "master", "-", "master"],
            all,
            &[],
        ),
    ];
    for (propagation, option, binds, receive, out) in rows {
        let (bundle, host) = container(propagation, Some(option));
        bundle.up();
        let places = ["/bind", "/shared", "/shared/below", "/private", "/slave"];
        assert_eq!(kinds(&bundle, &places), binds, "{propagation:?} {option}");
        let (arrived, left) = exchange(&bundle, &host);
        assert_eq!(
            (arrived.as_slice(), left.as_slice()),
            (receive, out),
            "{propagation:?} {option}"
        );
    }
}

#[test]
fn root_nothing_gets_out_of_a_user_namespace() {
    let maps = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    for propagation in [None, Some("shared"), Some("rshared"), Some("private")] {
        let (mut bundle, host) = container(propagation, None);
        let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
        // Without what is mounted below a namespace that owns nothing of it may not see it.
        mounts.retain(|mount| mount["destination"] != "/bind");
        bundle = bundle
            .and("linux.namespaces", json!({ "type": "user" }))
            .with("linux.uidMappings", maps.clone())
            .with("linux.gidMappings", maps.clone());
        bundle.up();
        let expected = if propagation == Some("rshared") {
            "shared,master"
        } else {
            "master"
        };
        assert_eq!(
            kinds(&bundle, &["/shared", "/shared/below", "/slave"]),
            [expected; 3],
            "{propagation:?}"
        );
        mount(&["-t", "tmpfs", "tmpfs"], &host.dir.join("shared/later"));
        bundle.exec("grep -q ' /shared/later ' /proc/self/mountinfo").ok();
        bundle.exec("mount -t tmpfs tmpfs /shared/inside").ok();
        assert!(!host.sees("shared/inside"), "{propagation:?}");
    }
}

#[test]
fn root_what_is_mounted_in_the_root_follows_too() {
    for (propagation, expected, out) in [
        (Value::Null, "master", false),
        (json!("rprivate"), "-", false),
        (json!("private"), "master", false),
        (json!("shared"), "shared", true),
    ] {
        let other = std::env::var_os("FERRY_TEST_RUNTIME").is_some();
        if other && propagation == "private" {
            continue;
        }
        let (mut bundle, host) = container(None, None);
        let inside = bundle.rootfs().join("data");
        fs::create_dir(&inside).unwrap();
        bundle.set("linux.rootfsPropagation", propagation.clone());
        let below = Mounted(inside.clone());
        mount(&["--bind", &host.dir.join("shared").display().to_string()], &inside);
        bundle.up();
        assert_eq!(kinds(&bundle, &["/data"]), [expected], "{propagation}");
        bundle.exec("mount -t tmpfs tmpfs /data/inside").ok();
        assert_eq!(host.sees("shared/inside"), out, "{propagation}");
        bundle.call(&["delete", "--force", "c"]).ok();
        drop(below);
    }
}
