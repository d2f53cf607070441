//! A profile of AppArmor's for the test of it, compiled here and loaded by the test: Debian's kernel has AppArmor, and this
//! machine's need not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::shell;

const SUITE: &str = "bookworm";
const PACKAGE: &str = "apparmor";

/// Everything but one file. What the test looks for is in `tests/tests/oci_apparmor.rs`.
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

/// The compiled profile, below `tools`; made once, by a compiler that is only unpacked.
pub fn profile(tools: &Path) -> Result<PathBuf> {
    let dir = tools.join("apparmor");
    let compiled = dir.join("profile");
    if compiled.is_file() {
        return Ok(compiled);
    }
    let (lists, fresh) = (tools.join("apt").join(PACKAGE), tools.join("apparmor.new"));
    let _ = fs::remove_dir_all(&fresh);
    Apt::update(&lists, SUITE)?.unpack(PACKAGE, &fresh)?;
    fs::write(fresh.join("source"), PROFILE).context("write the profile")?;
    let mut compiler = Command::new(fresh.join("sbin/apparmor_parser"));
    // For the interface of a kernel that is older than the guest's, which takes it; nothing is asked of this kernel's.
    compiler.args(["--quiet", "--skip-kernel-load", "--skip-cache", "--features-file"]);
    compiler.arg(fresh.join("etc/apparmor.d/abi/3.0"));
    compiler
        .arg("--ofile")
        .arg(fresh.join("profile"))
        .arg(fresh.join("source"));
    shell::output(&mut compiler)?;
    fs::rename(&fresh, &dir).context("put the profile in place")?;
    fs::remove_dir_all(&lists).context("remove the package lists")?;
    Ok(compiled)
}
