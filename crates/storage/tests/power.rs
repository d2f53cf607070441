//! Power cuts: a file system that is shut down at once keeps what the disk had, and the machine comes up in another boot.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferry_storage::{Batch, CheckOptions, Durability, RemoveOptions, Store};
use support::registry::Registry;
use support::{Fixture, names, tar};

const CHILD: &str = "FERRY_TEST_POWER";

/// Runs itself again in a mount namespace of its own.
#[test]
fn a_power_cut_after_a_pull_leaves_the_image_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
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

fn sh(script: &str, args: &[&Path]) {
    let output = Command::new("sh")
        .args(["-ec", script, "sh"])
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A machine with a disk.
struct Machine {
    disk: PathBuf,
    mounted: PathBuf,
    boot: PathBuf,
    boots: u32,
}

impl Machine {
    fn new(dir: &Path) -> Self {
        let machine = Self {
            disk: dir.join("disk"),
            mounted: dir.join("mounted"),
            boot: dir.join("boot"),
            boots: 0,
        };
        std::fs::create_dir(&machine.mounted).unwrap();
        std::fs::write(&machine.boot, "").unwrap();
        sh(
            "truncate -s 256M \"$1\"; mkfs.ext4 -q \"$1\"; mount --bind \"$2\" /proc/sys/kernel/random/boot_id",
            &[&machine.disk, &machine.boot],
        );
        machine
    }

    fn boot(&mut self) -> Store {
        self.boots += 1;
        std::fs::write(&self.boot, format!("boot {}\n", self.boots)).unwrap();
        sh("mount -o loop \"$1\" \"$2\"", &[&self.disk, &self.mounted]);
        self.open()
    }

    fn open(&self) -> Store {
        Store::open(&self.mounted.join("ferry")).unwrap()
    }

    /// Cuts the power while `work` is done, or so long after it.
    fn cut(&self, store: Store, wait: Duration, work: impl FnOnce(&Store)) {
        // EXT4_IOC_SHUTDOWN without a last write of the journal. Started before, since a start takes as long as the sync.
        let script = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
        let mut cutter = Command::new("python3")
            .args(["-c", script])
            .arg(&self.mounted)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        cutter.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        work(&store);
        std::thread::sleep(wait);
        cutter.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(cutter.wait().unwrap().success());
        drop(store);
        self.unmount();
    }

    fn unmount(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        // The engine's threads may still hold a file.
        while !Command::new("umount").arg(&self.mounted).status().unwrap().success() {
            assert!(Instant::now() < end, "the file system is busy");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn fixture(tag: &'static str, files: usize) -> Registry {
    let layer = |layer: usize| {
        let files: Vec<_> = (0..files)
            .map(|at| {
                (
                    format!("{tag}-{layer}-{at}"),
                    vec![u8::try_from(at % 251).unwrap(); 3000 + at],
                )
            })
            .collect();
        let files: Vec<_> = files.iter().map(|(name, content)| (&name[..], &content[..])).collect();
        tar(&files)
    };
    Registry::of(&Fixture::new(tag, &[layer(0), layer(1), layer(2)]))
}

fn pull(registry: &Registry, store: &Store) {
    tokio::task::block_in_place(|| registry.pull(store)).unwrap();
}

const CONTENTS: CheckOptions = CheckOptions {
    contents: true,
    repair: false,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, in a namespace of its own"]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let mut machine = Machine::new(Path::new(&dir));
    let store = machine.boot();
    let (old, new) = (fixture("old:1", 20), fixture("new:1", 400));
    pull(&old, &store);
    settled(&store).await;
    let mut store = Some(store);
    let (mut whole, mut gone) = (0, 0);
    for wait in [0, 0, 0, 0, 5, 20, 80, 200, 1000] {
        let running = store.take().unwrap();
        machine.cut(running, Duration::from_millis(wait), |running| pull(&new, running));

        let running = machine.boot();
        let checked = running.images.check(CONTENTS).unwrap();
        assert!(checked.findings.is_empty(), "after {wait} ms: {:?}", checked.findings);
        assert!(running.problems().is_empty(), "{:?}", running.problems());
        running.images.resolve("old:1").unwrap();
        match running.images.resolve("new:1") {
            Ok(_) => {
                whole += 1;
                let options = RemoveOptions {
                    force: true,
                    prune: true,
                };
                running.images.remove("new:1", options, Vec::new()).await.unwrap();
            }
            Err(_) => gone += 1,
        }
        assert_eq!(names(&machine.mounted.join("ferry/layers")).len(), 3, "after {wait} ms");
        store = Some(running);
    }
    println!("{whole} whole, {gone} gone");
    assert!(whole > 0 && gone > 0, "{whole} whole, {gone} gone");

    // The engine's death is no power cut: nothing is read through, and the sync goes on.
    let running = store.take().unwrap();
    pull(&new, &running);
    drop(running);
    let running = machine.open();
    running.images.resolve("new:1").unwrap();
    settled(&running).await;
    machine.cut(running, Duration::ZERO, |_| ());
    let running = machine.boot();
    running.images.resolve("new:1").unwrap();

    // A record of another boot, and a file that did not reach the disk.
    let image = running.images.resolve("new:1").unwrap();
    let root = machine.mounted.join("ferry");
    let layer = root.join("layers").join(image.layers[1].chain_id.encoded());
    std::fs::write(layer.join("fs/new:1-1-7"), "").unwrap();
    drop(running);
    sh(
        "python3 -c 'import json, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
for (key,) in c.execute(\"SELECT key FROM documents WHERE kind = \\\"image\\\"\").fetchall():
    body = json.dumps({\"key\": key, \"image\": key, \"boot\": \"boot 0\"}).encode()
    c.execute(\"INSERT INTO documents VALUES (\\\"unsynced\\\", ?, 1, ?)\", (key, body))
c.commit()' \"$1\"",
        &[&root.join("ferry.db")],
    );
    let running = machine.open();
    assert!(running.images.resolve("new:1").is_err());
    running.images.resolve("old:1").unwrap();
    assert!(running.images.check(CONTENTS).unwrap().findings.is_empty());
    pull(&new, &running);
    drop(running);
    machine.unmount();
}

/// Waits until what was pulled is on disk. A commit of the other kind that comes after it has nothing left to sync.
async fn settled(store: &Store) {
    let end = Instant::now() + Duration::from_secs(20);
    while store.images.is_settling() {
        assert!(Instant::now() < end, "the sync does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.db.commit(Batch::default(), Durability::Power).await.unwrap();
}
