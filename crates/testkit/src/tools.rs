//! Where the programs are that tests run.

use std::path::{Path, PathBuf};

/// Cargo's target directory: `.cargo/config.toml` names a target, so this test is TARGET/TRIPLE/PROFILE/deps/NAME. Not by the
/// cache tag, which cargo leaves out of a directory that was there before it.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    match exe.ancestors().nth(4) {
        Some(target) => target.to_owned(),
        None => panic!("{} is in no target directory", exe.display()),
    }
}

/// The `ferry` binary of the profile this test was built in (`FERRY_BIN` says otherwise).
#[track_caller]
pub fn ferry() -> PathBuf {
    if let Some(path) = std::env::var_os("FERRY_BIN") {
        return path.into();
    }
    // …/<profile>/deps/<test> → …/<profile>/ferry
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().and_then(Path::parent).unwrap().join("ferry");
    assert!(
        path.is_file(),
        "{} is not built: run `cargo xtask test`",
        path.display()
    );
    path
}

/// Docker's own command line: what set-up unpacked (`FERRY_TEST_DOCKER` says otherwise).
#[track_caller]
pub fn docker() -> PathBuf {
    if let Some(path) = std::env::var_os("FERRY_TEST_DOCKER") {
        return path.into();
    }
    let path = target().join("tools/docker/usr/bin/docker");
    assert!(
        path.is_file(),
        "no docker CLI in {}: run `cargo xtask setup`",
        path.display()
    );
    path
}

/// Where set-up has unpacked OCI runtimes that lack some mitigations.
#[track_caller]
pub fn old_runtimes() -> PathBuf {
    let path = target().join("tools/runtimes");
    assert!(
        path.is_dir(),
        "no runtimes in {}: run `cargo xtask setup`",
        path.display()
    );
    path
}

/// A Python that has docker-py.
#[track_caller]
pub fn python() -> PathBuf {
    let path = target().join("tools/python/bin/python");
    assert!(
        path.exists(),
        "no Python in {}: run `cargo xtask setup`",
        path.display()
    );
    path
}

/// A profile of AppArmor's in its binary form, where set-up compiled one.
pub fn apparmor_profile() -> Option<PathBuf> {
    let path = target().join("tools/apparmor/profile");
    path.is_file().then_some(path)
}

/// A policy of SELinux's in its binary form, where set-up compiled one.
pub fn selinux_policy() -> Option<PathBuf> {
    let path = target().join("tools/selinux/policy");
    path.is_file().then_some(path)
}

/// A directory for what is expensive to make, kept between runs.
pub fn fixtures() -> PathBuf {
    let dir = target().join("fixtures");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
