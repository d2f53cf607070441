//! A real distribution: Debian bookworm, bootstrapped once from the mirror and kept below `target/fixtures`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::sha256;
use crate::command::Run;
use crate::tools;

const MIRROR: &str = "http://deb.debian.org/debian";

/// The tar of a minimal bookworm root with Perl and Python; a minute the first time, and again when the mirror changed.
/// `None`, saying so, where it is not there and cannot be made.
pub fn debian_root() -> Option<PathBuf> {
    let dir = tools::fixtures();
    let lock = File::create(dir.join("debian.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let release = Run::new("curl")
        .args(["-sf", "-m", "20", &format!("{MIRROR}/dists/bookworm/Release")])
        .output();
    if release.code != 0 {
        let kept = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
        let kept = kept
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .max();
        if kept.is_none() {
            eprintln!("skipped: no Debian root, and {MIRROR} cannot be reached");
        }
        return kept;
    }
    let tar = dir.join(format!("debian-{}.tar", &sha256(release.stdout.as_bytes())[..12]));
    if !tar.is_file() {
        let fresh = dir.join("debian.new");
        Run::new("mmdebstrap")
            .args([
                "--variant=minbase",
                "--mode=root",
                "--format=tar",
                "--aptopt=Acquire::Check-Valid-Until \"false\"",
            ])
            .args(["--include=perl,python3-minimal", "bookworm"])
            .args([fresh.as_os_str()])
            .args([MIRROR])
            .time(Duration::from_secs(400))
            .output()
            .ok();
        fs::rename(fresh, &tar).unwrap();
    }
    Some(tar)
}
