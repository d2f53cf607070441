//! A disk that is full at any moment: what is brought in fails with the reason, leaves nothing, and succeeds once there is room.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use ferry_testkit::images::{self, Compression, Image, Layer};
use ferry_testkit::{Output, Registry, TestDaemon, Wire, wait_for_none};

const APP: &str = "127.0.0.1:5000/team/app:1";
/// What the file system may take for itself: directories that have grown.
const SLACK: u64 = 512 << 10;

/// An engine whose data root is a file system of 64 MiB.
struct Small {
    daemon: TestDaemon,
}

/// What is there: images, and the names in the store.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    images: String,
    files: BTreeSet<String>,
}

impl Small {
    fn start() -> Self {
        let daemon = TestDaemon::builder().disk(64).start();
        Self { daemon }
    }

    /// The data root, as the engine sees it.
    fn path(&self, name: &str) -> PathBuf {
        let engine = self.daemon.engine_pid();
        PathBuf::from(format!(
            "/proc/{engine}/root{}",
            self.daemon.data_root().join(name).display()
        ))
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
        entries
            .map(|entry| format!("{dir}/{}", entry.file_name().to_string_lossy()))
            .collect()
    }

    fn held(&self) -> Held {
        let dirs = ["layers", "blobs/sha256", "containers", "tmp"];
        Held {
            images: self.daemon.cli(["images", "-a", "--no-trunc"]).ok(),
            files: dirs.iter().flat_map(|dir| self.names(dir)).collect(),
        }
    }

    /// The same, once what was removed is gone.
    fn settled(&self) -> Held {
        wait_for_none("what is to be deleted", || self.names("tmp"));
        self.held()
    }

    /// Bytes of the parts of blobs.
    fn parts(&self) -> u64 {
        let parts = self.names("ingest");
        parts
            .iter()
            .map(|part| fs::metadata(self.path(part)).unwrap().len())
            .sum()
    }

    /// Bytes of the database, whose log grows, and what is set aside for it.
    fn database(&self) -> u64 {
        let files = ["ferry.db", "ferry.db-wal", "ferry.db-shm", "reserve"];
        let size = |file| fs::metadata(self.path(file)).map_or(0, |data| data.blocks() * 512);
        files.into_iter().map(size).sum()
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path("")).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Leaves so many bytes free.
    fn fill(&self, leave: u64) {
        self.empty();
        self.settled();
        let mut file = fs::File::create(self.path("ballast")).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        // The map of such a file takes blocks, too.
        let mut size = self.free().saturating_sub(leave);
        while size > 0 && rustix::fs::fallocate(&file, flags, 0, size).is_err() {
            file.set_len(0).unwrap();
            size = size.saturating_sub(16 << 10);
        }
        file.seek(SeekFrom::End(0)).unwrap();
        let block = [0; 4096];
        while self.free() > leave && file.write_all(&block).and_then(|()| file.sync_all()).is_ok() {}
    }

    fn empty(&self) {
        let _ = fs::remove_file(self.path("ballast"));
    }

    /// Does something with more and more room, from none to enough: `work` fails for lack of space each time until it succeeds, and
    /// whenever it failed everything is as it was before. `again` is what is done with all the room there is, and undone.
    fn sweep(&mut self, work: impl Fn(&Self) -> Output, again: impl Fn(&Self, u64), undo: impl Fn(&Self)) {
        let before = self.settled();
        let (room, database) = (self.free(), self.database());
        work(self).ok();
        let need = room - self.free();
        undo(self);
        wait_for_none("what is left by something that was undone", || self.difference(&before));
        let (mut failures, mut step) = (0, 0);
        loop {
            // Coarse while data is written, fine near the end, where records are.
            let leave = match step {
                0..16 => need * step / 16,
                _ => need + (step - 16) * (48 << 10),
            };
            step += 1;
            self.fill(leave);
            let output = work(self);
            let at = format!("with {leave} of {need} bytes free");
            if output.code == 0 {
                self.empty();
                println!("{at} it succeeds, after {failures} failures");
                undo(self);
                break;
            }
            failures += 1;
            let said = output.fails(1);
            assert!(said.contains("no space left on device"), "{at}: {said}");
            assert!(
                said.contains(&self.daemon.data_root().display().to_string()),
                "{at}, where is it full? {said}"
            );
            if step % 4 == 0 {
                // It comes up on a full disk, and nothing half-done comes to light.
                self.daemon.kill9();
                self.daemon.start_again();
            }
            wait_for_none(&at, || self.difference(&before));
            let checked = self.daemon.cli(["system", "check"]).ok();
            assert!(checked.ends_with("nothing is wrong"), "{at}: {checked}");
            self.empty();
            let (parts, free) = (self.parts(), self.free());
            assert!(
                free + parts + self.database() + SLACK >= room + database,
                "{at}: {free} bytes are free, there were {room}; parts hold {parts}"
            );
            again(self, parts);
            assert!(step < 64, "{at}: it never succeeds");
        }
        assert!(failures > 8, "{failures} failures");
        wait_for_none("what is left in the end", || self.difference(&before));
    }

    fn difference(&self, before: &Held) -> Vec<String> {
        let now = self.held();
        let mut wrong: Vec<String> = now.files.symmetric_difference(&before.files).cloned().collect();
        if now.images != before.images {
            wrong.push(now.images);
        }
        wrong
    }

    fn prune_and_finish(self) {
        self.daemon.cli(["image", "prune", "-f"]).ok();
        assert_eq!(self.parts(), 0, "parts after a prune");
        self.daemon.finish();
    }
}

/// A large file, many small ones, one that compresses well, and next to nothing.
fn app(compression: Compression) -> Image {
    let mut many = Layer::new().dir("many", 0o755);
    for number in 0..600 {
        let text = format!("{number} ").repeat(number % 400 + 1);
        many = many.file(&format!("many/{number}"), text.as_bytes(), 0o644);
    }
    let layers = vec![
        Layer::new().file("noise", &images::noise(3 << 20), 0o644).finish(),
        many.finish(),
        Layer::new().file("zeros", &vec![b'0'; 4 << 20], 0o644).finish(),
        Layer::new().file("small", b"small", 0o644).finish(),
    ];
    Image::new(APP, layers)
        .config("Cmd", serde_json::json!(["/none"]))
        .compression(compression)
}

#[test]
fn a_pull_fails_with_the_reason_and_leaves_nothing() {
    let mut small = Small::start();
    let registry = Registry::start(&small.daemon, &[]);
    let image = app(Compression::Gzip);
    small
        .daemon
        .run(["load", "-q"])
        .input(images::docker_archive(std::slice::from_ref(&image)))
        .ok();
    small.daemon.cli(["push", "-q", APP]).ok();
    small.daemon.cli(["rmi", APP]).ok();
    let wire = Wire::start(&small.daemon, u64::MAX);
    let name = "127.0.0.1:5001/team/app:1";
    let pull = |small: &Small| small.daemon.cli(["pull", "-q", name]);
    let undo = |small: &Small| drop(small.daemon.cli(["rmi", name]).ok());
    // The packed form is the registry's.
    pull(&small).ok();
    let blobs: u64 = small
        .names("blobs/sha256")
        .iter()
        .map(|blob| fs::metadata(small.path(blob)).unwrap().len())
        .sum();
    undo(&small);
    let again = |small: &Small, parts: u64| {
        assert_eq!(parts, 0, "they can come again, and others need the room");
        let sent = wire.bytes();
        pull(small).ok();
        let sent = wire.bytes() - sent;
        assert!(sent <= blobs + blobs / 20 + (64 << 10), "{sent} bytes came, of {blobs}");
        undo(small);
    };
    small.sweep(pull, again, undo);
    drop(registry);
    small.prune_and_finish();
}

#[test]
fn a_load_fails_with_the_reason_and_leaves_nothing() {
    let mut small = Small::start();
    let archive = images::docker_archive(&[app(Compression::Gzip)]);
    let load = |small: &Small| small.daemon.run(["load", "-q"]).input(archive.clone()).output();
    let undo = |small: &Small| drop(small.daemon.cli(["rmi", APP]).ok());
    let again = |small: &Small, parts: u64| {
        assert_eq!(parts, 0);
        load(small).ok();
        undo(small);
    };
    small.sweep(load, again, undo);
    small.prune_and_finish();
}

#[test]
fn a_commit_fails_with_the_reason_and_leaves_nothing() {
    let mut small = Small::start();
    let script = "dd if=/dev/urandom of=/noise bs=64k count=40 2>/dev/null; \
        mkdir /many; for n in $(seq 300); do echo $n >/many/$n; done";
    small.daemon.busybox();
    small
        .daemon
        .cli(["run", "--name", "made", images::BUSYBOX, "sh", "-c", script])
        .ok();
    let commit = |small: &Small| small.daemon.cli(["commit", "made", "made:1"]);
    let undo = |small: &Small| drop(small.daemon.cli(["rmi", "made:1"]).ok());
    let again = |small: &Small, _| {
        commit(small).ok();
        undo(small);
    };
    small.sweep(commit, again, undo);
    small.prune_and_finish();
}

#[test]
fn an_import_fails_with_the_reason_and_leaves_nothing() {
    let mut small = Small::start();
    let tar = app(Compression::None).layers.swap_remove(0);
    let import = |small: &Small| {
        small
            .daemon
            .run(["import", "-", "imported:1"])
            .input(tar.clone())
            .output()
    };
    let undo = |small: &Small| drop(small.daemon.cli(["rmi", "imported:1"]).ok());
    let again = |small: &Small, _| {
        import(small).ok();
        undo(small);
    };
    small.sweep(import, again, undo);
    small.prune_and_finish();
}

/// What is packed for a registry takes room, for as long as it is sent.
#[test]
fn a_push_fails_with_the_reason_and_goes_on_when_there_is_room() {
    let small = Small::start();
    let registry = Registry::start(&small.daemon, &[]);
    small
        .daemon
        .run(["load", "-q"])
        .input(images::docker_archive(&[app(Compression::None)]))
        .ok();
    let before = small.settled();
    for leave in [0, 64 << 10, 1 << 20, 2 << 20] {
        small.fill(leave);
        let said = small.daemon.cli(["push", APP]).fails(1);
        assert!(
            said.contains("no space left on device"),
            "with {leave} bytes free: {said}"
        );
        wait_for_none("what a push leaves", || small.difference(&before));
    }
    small.empty();
    small.daemon.cli(["push", "-q", APP]).ok();
    wait_for_none("what a push leaves", || small.difference(&before));
    small.daemon.cli(["rmi", APP]).ok();
    small.daemon.cli(["pull", "-q", APP]).ok();
    drop(registry);
    small.prune_and_finish();
}

/// As many files as the file system takes, with room for bytes.
#[test]
fn a_disk_without_inodes_is_full_as_well() {
    let small = Small::start();
    let before = small.settled();
    let archive = images::docker_archive(&[app(Compression::Gzip)]);
    let ballast = small.path("ballast.d");
    fs::create_dir(&ballast).unwrap();
    let stat = rustix::fs::statvfs(small.path("")).unwrap();
    for number in 0..stat.f_favail.saturating_sub(300) {
        fs::File::create(ballast.join(number.to_string())).unwrap();
    }
    let said = small
        .daemon
        .run(["load", "-q"])
        .input(archive.clone())
        .output()
        .fails(1);
    assert!(said.contains("no space left on device"), "{said}");
    wait_for_none("what is left", || small.difference(&before));
    fs::remove_dir_all(&ballast).unwrap();
    small.daemon.run(["load", "-q"]).input(archive).ok();
    small.prune_and_finish();
}
