//! A full disk: what fails leaves nothing, and what removes things works.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use ferry_storage::{Batch, Durability, Error, ImportOptions, LoadOptions, RemoveOptions, Store};
use support::{Fixture, names, pack, tar};

const CHILD: &str = "FERRY_TEST_SMALL_DISK";

/// Runs itself again in a mount namespace of its own with a small file system.
#[test]
fn a_full_disk_stops_additions_and_no_removal() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=24m none \"$1\" && exec \"$0\" --exact child --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(dir.path())
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    while file.write_all(&[1; 64]).is_ok() {}
}

fn free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).unwrap().f_bavail
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, on a file system of its own"]
async fn child() {
    let Some(disk) = std::env::var_os(CHILD) else { return };
    let root = Path::new(&disk).join("ferry");
    let store = Store::open(&root).unwrap();
    let (one, two) = (
        Fixture::busybox("one:1"),
        Fixture::new("two:1", &[tar(&[("two", &vec![b'2'; 1 << 20])])]),
    );
    let load = |store: &Store, fixture: &Fixture| {
        let archive = pack(&fixture.docker_legacy());
        tokio::task::block_in_place(|| store.images.load(&archive[..], &LoadOptions::default(), |_| {})).map(drop)
    };
    load(&store, &one).unwrap();
    let image = store.images.resolve("one:1").unwrap();
    let snapshot = store
        .snapshots
        .prepare("full", &image, Vec::new(), None, Batch::default(), Durability::Process)
        .await
        .unwrap();
    fill(&snapshot.upper.join("file"));
    assert_eq!(free(&root), 0);

    let before = names(&root.join("layers"));
    let error = load(&store, &two).unwrap_err();
    assert!(
        matches!(&error, Error::NoSpace { path, .. } if path.starts_with(&root)),
        "{error:?}"
    );
    let import = tar(&[("f", &vec![b'x'; 1 << 20])]);
    let error =
        tokio::task::block_in_place(|| store.images.import(&import[..], &ImportOptions::default())).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert!(
        store
            .snapshots
            .prepare("more", &image, Vec::new(), None, Batch::default(), Durability::Process)
            .await
            .is_err()
    );
    assert_eq!(names(&root.join("layers")), before);
    assert_eq!(names(&root.join("containers")), ["full"]);
    fill(&root.join("filler"));

    // A restart on the full disk.
    drop(store);
    let store = Store::open(&root).unwrap();
    fill(&root.join("more"));
    assert_eq!(free(&root), 0);
    let options = RemoveOptions {
        force: true,
        prune: true,
    };
    store.images.remove("one:1", options, Vec::new()).await.unwrap();
    store.snapshots.remove("full").await.unwrap();
    for _ in 0..500 {
        if names(&root.join("tmp")).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(free(&root) > 0);
    assert!(names(&root.join("layers")).is_empty());
    load(&store, &two).unwrap();
    let store = {
        drop(store);
        Store::open(&root).unwrap()
    };
    assert_eq!(store.images.list().len(), 1);
    assert!(store.snapshots.containers().is_empty());
}
