//! Profiles of AppArmor's for the tests of it, the engine's own among them, compiled here and loaded by the test: Debian's kernel has AppArmor, and this
//! machine's need not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::shell;

const SUITE: &str = "bookworm";
const PACKAGE: &str = "apparmor";

/// Everything but one file. What the tests look for is in `tests/tests/oci_apparmor.rs` and `apparmor.rs`.
const PROFILE: &str = "\
profile ferry-test-oci flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  unix,
  deny /secret rw,
}
";

/// That of containers which ask for none.
const DEFAULT: &str = include_str!("../../../crates/engine/src/apparmor/docker-default");

/// The compiled profiles, below `tools`; made once, by a compiler that is only unpacked.
pub fn profile(tools: &Path) -> Result<PathBuf> {
    let dir = tools.join("apparmor");
    let compiled = dir.join("profile");
    let source = format!("{PROFILE}\n{DEFAULT}");
    if compiled.is_file() && fs::read_to_string(dir.join("source")).is_ok_and(|made| made == source) {
        return Ok(compiled);
    }
    let (lists, fresh) = (tools.join("apt").join(PACKAGE), tools.join("apparmor.new"));
    let _ = fs::remove_dir_all(&fresh);
    Apt::update(&lists, SUITE)?.unpack(PACKAGE, &fresh)?;
    fs::write(fresh.join("source"), &source).context("write the profile")?;
    let mut compiler = Command::new(fresh.join("sbin/apparmor_parser"));
    // For the interface of a kernel that is older than the guest's, which takes it; nothing is asked of this kernel's.
    compiler.args(["--quiet", "--skip-kernel-load", "--skip-cache", "--features-file"]);
    compiler.arg(fresh.join("etc/apparmor.d/abi/3.0"));
    compiler
        .arg("--ofile")
        .arg(fresh.join("profile"))
        .arg(fresh.join("source"));
    shell::output(&mut compiler)?;
    let _ = fs::remove_dir_all(&dir);
    fs::rename(&fresh, &dir).context("put the profile in place")?;
    fs::remove_dir_all(&lists).context("remove the package lists")?;
    Ok(compiled)
}
