//! What is in the caller's session keyring is out of a container's reach.

use std::io;
use std::sync::{Mutex, mpsc};

use ferry_sys::process::new_session_keyring;
use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Bundle, Engine};
use rustix::process::Uid;
use serde_json::json;

/// Nobody's but these tests'. A key is listed for its owner and for those who have it in a keyring, not for root.
const OWNER: u32 = 54_321;
const CROWD: u32 = 54_322;
/// How many of the owner's keys the process can reach: the keyring itself, if it is in that session.
const COUNT: &str = "grep -c ' 54321 ' /proc/keys";

/// Runs `what` in a session keyring that belongs to [`OWNER`].
fn with_keyring<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            make_keyring(OWNER).unwrap();
            what()
        });
        thread.join().unwrap()
    })
}

/// It belongs to the thread's real user.
fn make_keyring(owner: u32) -> io::Result<()> {
    rustix::thread::set_thread_res_uid(Uid::from_raw(owner), Uid::ROOT, Uid::ROOT).unwrap();
    let made = new_session_keyring();
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).unwrap();
    made
}

/// One that writes what it reaches, and goes on.
fn bundle() -> Bundle {
    Bundle::sh(&format!("{COUNT} >/count; sleep 60")).with("linux.maskedPaths", json!([]))
}

/// With those of the host's users that are named, by the same numbers inside but for the first, who is root there.
fn in_user_namespace(bundle: Bundle, hosts: &[u32]) -> Bundle {
    let mut maps = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let inside = if index == 0 { 0 } else { *host };
        maps.push(json!({ "containerID": inside, "hostID": host, "size": 1 }));
    }
    bundle
        .and("linux.namespaces", json!({ "type": "user" }))
        .with("linux.uidMappings", json!(maps))
        .with(
            "linux.gidMappings",
            json!([
                { "containerID": 0, "hostID": hosts[0], "size": 1 },
                { "containerID": 1, "hostID": 1, "size": 1000 },
            ]),
        )
}

/// What the first process and another one reach of what the callers of `create` and `exec` have.
fn reached(bundle: &Bundle, create: &[&str]) -> [String; 2] {
    std::fs::write(bundle.rootfs().join("count"), "").unwrap();
    std::os::unix::fs::chown(bundle.rootfs().join("count"), owner_of(bundle), None).unwrap();
    with_keyring(|| bundle.call(create)).ok();
    bundle.call(&["start", "c"]).ok();
    let count = bundle.rootfs().join("count");
    let read = || std::fs::read_to_string(&count).unwrap().trim().to_owned();
    ferry_testkit::wait_until("it has counted", || !read().is_empty());
    let exec = with_keyring(|| bundle.exec(COUNT));
    [read(), exec.stdout.trim().to_owned()]
}

fn owner_of(bundle: &Bundle) -> Option<u32> {
    let root = &bundle.spec["linux"]["uidMappings"][0]["hostID"];
    root.as_u64().map(|id| u32::try_from(id).unwrap())
}

#[test]
fn root_neither_create_nor_exec_hands_the_caller_s_keys_on() {
    assert_eq!(reached(&bundle(), &["create", "c"]), ["0", "0"]);
    let mapped = in_user_namespace(bundle(), &[0, OWNER]);
    assert_eq!(reached(&mapped, &["create", "c"]), ["0", "0"]);
}

#[test]
fn root_without_a_new_keyring_the_caller_s_is_kept_by_exec_too() {
    let create = ["create", "--no-new-keyring", "c"];
    assert_eq!(reached(&bundle(), &create), ["1", "1"]);
    let mapped = in_user_namespace(bundle(), &[0, OWNER]);
    assert_eq!(reached(&mapped, &create), ["1", "1"]);
}

/// Keys are counted by user, and whoever is root in a user namespace can use up what there is before `exec` comes.
#[test]
fn root_a_container_whose_user_has_no_room_for_keys_gets_none_of_the_caller_s() {
    let limit: usize = std::fs::read_to_string("/proc/sys/kernel/keys/maxkeys")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (ready, waiting) = mpsc::channel();
    let hold = Mutex::new(());
    std::thread::scope(|scope| {
        let held = hold.lock();
        // Each has one of its own, and the last none any more.
        for _ in 0..=limit {
            let (ready, hold) = (ready.clone(), &hold);
            scope.spawn(move || {
                // The first that somebody has is given to him in any case.
                let made = make_keyring(CROWD).and_then(|()| make_keyring(CROWD));
                ready.send(made).unwrap();
                drop(hold.lock());
            });
        }
        let refused = waiting.iter().take(limit + 1).filter(Result::is_err).count();
        let mapped = in_user_namespace(bundle(), &[CROWD, OWNER]);
        let reached = std::panic::catch_unwind(|| reached(&mapped, &["create", "c"]));
        drop(held);
        assert!(refused > 0, "there is room for {limit} keys and more");
        assert_eq!(reached.unwrap(), ["0", "0"]);
    });
}

/// Also not the engine's, which has those of the session in which it was started on demand.
#[test]
fn the_engine_s_keys_get_into_no_container_and_no_exec() {
    let engine = with_keyring(Engine::start);
    assert_eq!(engine.try_sh(&["--privileged"], COUNT).stdout.trim(), "0");
    engine
        .cli([
            "run",
            "--detach",
            "--privileged",
            "--name",
            "keys",
            BUSYBOX,
            "sleep",
            "60",
        ])
        .ok();
    let exec = engine.cli(["exec", "--privileged", "keys", "sh", "-c", COUNT]);
    assert_eq!(exec.stdout.trim(), "0");
}
