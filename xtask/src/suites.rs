//! The suites of clients that others wrote: docker-py's, from PyPI. The last source distribution that has its tests is 7.0.0;
//! they run with the client that is current.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::Workspace;

const SOURCE: &str = "docker==7.0.0";
/// Their own versions of pytest, and what they import.
const NEEDS: [&str; 4] = ["docker==7.1.0", "pytest==7.4.2", "pytest-timeout==2.1.0", "paramiko"];

/// Where the tests are, and a Python that can run them.
pub fn prepare(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let place = workspace.tools().join("suites");
    let (tests, python) = (place.join("docker-py"), place.join("python/bin/python"));
    if !tests.is_dir() || !python.exists() {
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&tests).with_context(|| format!("make {}", tests.display()))?;
        fetch(&place, &tests, &python)?;
    }
    Ok([tests, python])
}

fn fetch(place: &Path, tests: &Path, python: &Path) -> Result<()> {
    let environment = place.join("python");
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    let pip = || {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip
    };
    shell::run(pip().arg("install").args(NEEDS))?;
    let download = ["download", "--no-deps", "--no-binary", ":all:", "--dest"];
    shell::run(pip().args(download).arg(place).arg(SOURCE))?;
    let archive = place.join("docker-7.0.0.tar.gz");
    shell::run(
        Command::new("tar")
            .args(["--strip-components=1", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(tests),
    )?;
    // The tests are to import the client that was installed, not the one beside them.
    fs::remove_dir_all(tests.join("docker")).context("remove the older client")
}
