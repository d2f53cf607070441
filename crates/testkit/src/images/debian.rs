//! A real distribution: roots of Debian bookworm, made once from the mirror and kept below `target/fixtures`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::sha256;
use crate::command::Run;
use crate::tools;

const MIRROR: &str = "http://deb.debian.org/debian";

/// Of what is unpacked with [`debian_services`], what no test needs: most of it.
const LEFT_OUT: &str = "usr/share/doc usr/share/man usr/share/locale usr/share/i18n usr/share/perl* usr/lib/postgresql/15/lib/bitcode \
     usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/libperl* usr/lib/x86_64-linux-gnu/libLLVM* \
     usr/lib/x86_64-linux-gnu/libz3*";

/// What the packages' own scripts would have made: a shell, users, alternatives, files that are copied.
const SET_UP: &str = "for name in $(bin/busybox --list); do [ -e bin/$name ] || ln -s busybox bin/$name; done\n\
     printf '%s\\n' root:x:0:0:root:/root:/bin/sh postgres:x:100:100::/var/lib/postgresql:/bin/sh \
       redis:x:101:101::/var/lib/redis:/bin/sh www-data:x:33:33::/var/www:/bin/sh nobody:x:65534:65534::/:/bin/false \
       >etc/passwd\n\
     printf '%s\\n' root:x:0: postgres:x:100: redis:x:101: www-data:x:33: nogroup:x:65534: >etc/group\n\
     mkdir -p root run tmp var/lib/nginx var/log/nginx; chmod 1777 tmp run\n\
     for name in iptables ip6tables; do for part in '' -save -restore; do \
       ln -sf xtables-nft-multi usr/sbin/$name$part; done; done\n\
     cp usr/share/ufw/iptables/*.rules usr/share/ufw/ufw.conf usr/share/ufw/*.init etc/ufw/";

/// The tar of a minimal bookworm root with Perl and Python; a minute the first time, and again when the mirror changed.
/// `None`, saying so, where it is not there and cannot be made.
pub fn debian_root() -> Option<PathBuf> {
    let options = ["--variant=minbase", "--include=perl,python3-minimal"];
    bootstrapped("debian", &options)
}

/// The tar of a root with nginx, PostgreSQL, Redis, iperf3 and ufw as Debian built them, and busybox around them. They are only
/// unpacked: half a minute the first time. `None` as of [`debian_root`].
pub fn debian_services() -> Option<PathBuf> {
    let trim = format!("--extract-hook=set -e; cd \"$1\"; rm -rf {LEFT_OUT}\n{SET_UP}");
    let options = [
        "--variant=extract",
        "--include=busybox-static,nginx-light,postgresql-15,redis-server,iperf3,ufw",
        &trim,
    ];
    bootstrapped("services", &options)
}

/// The root that mmdebstrap makes with these options, for the mirror as it is now. Other options need another name.
fn bootstrapped(name: &str, options: &[&str]) -> Option<PathBuf> {
    let dir = tools::fixtures();
    let lock = File::create(dir.join(format!("{name}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let release = Run::new("curl")
        .args(["-sf", "-m", "20", &format!("{MIRROR}/dists/bookworm/Release")])
        .output();
    let start = format!("{name}-");
    if release.code != 0 {
        let kept = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
        let is_one = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&start) && file.ends_with(".tar")
        };
        let kept = kept.filter(is_one).max();
        if kept.is_none() {
            eprintln!("skipped: no Debian root, and {MIRROR} cannot be reached");
        }
        return kept;
    }
    let tar = dir.join(format!("{start}{}.tar", &sha256(release.stdout.as_bytes())[..12]));
    if !tar.is_file() {
        let fresh = dir.join(format!("{name}.new"));
        Run::new("mmdebstrap")
            .args(["--mode=root", "--format=tar"])
            .args(["--aptopt=Acquire::Check-Valid-Until \"false\""])
            .args(options)
            .args(["bookworm"])
            .args([fresh.as_os_str()])
            .args([MIRROR])
            .time(Duration::from_secs(400))
            .output()
            .ok();
        fs::rename(fresh, &tar).unwrap();
    }
    Some(tar)
}
