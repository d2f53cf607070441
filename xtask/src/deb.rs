//! The Debian package: the shipped binary, its units, and what it can print about itself.
//!
//! ```text
//! packaging/systemd, packaging/debian ─┐
//! target/…/dist/ferry ─────────────────┴─▶ target/deb/root ─ dpkg-deb ─▶ target/deb/ferry_VERSION_ARCH.deb
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::workspace::Workspace;

/// Files as they lie in packaging/, and in the package.
const FILES: [(&str, &str); 3] = [
    ("systemd/ferry.service", "usr/lib/systemd/system/ferry.service"),
    ("systemd/ferry.socket", "usr/lib/systemd/system/ferry.socket"),
    ("debian/daemon.json", "etc/ferry/daemon.json"),
];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// What the binary prints about itself, if it can, and where shells and man look for it.
const PRINTED: [(&[&str], &str); 4] = [
    (&["completion", "bash"], "usr/share/bash-completion/completions/ferry"),
    (&["completion", "zsh"], "usr/share/zsh/vendor-completions/_ferry"),
    (
        &["completion", "fish"],
        "usr/share/fish/vendor_completions.d/ferry.fish",
    ),
    (&["man"], "usr/share/man/man1/ferry.1"),
];

/// What Debian keeps compressed (policy 12.1 and 12.7).
const COMPRESSED: [&str; 2] = ["usr/share/man/man1/ferry.1", "usr/share/doc/ferry/changelog"];

/// Makes the package of a binary, the shipped one if none is given, and says where it is.
pub fn run(workspace: &Workspace, binary: Option<&str>) -> Result<()> {
    let binary = match binary {
        Some(path) => PathBuf::from(path),
        None => workspace.build_dist()?,
    };
    let package = build(workspace, &binary)?;
    println!("{}", package.display());
    Ok(())
}

fn build(workspace: &Workspace, binary: &Path) -> Result<PathBuf> {
    let place = workspace.target.join("deb");
    let root = place.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("remove the package before")?;
    }
    let packaging = workspace.root.join("packaging");
    put(&root.join("usr/bin/ferry"), &read(binary)?, 0o755)?;
    for (from, to) in FILES {
        put(&root.join(to), &read(&packaging.join(from))?, 0o644)?;
    }
    let copyright = read(&workspace.root.join("LICENSE"))?;
    put(&root.join("usr/share/doc/ferry/copyright"), &copyright, 0o644)?;
    for (arguments, to) in PRINTED {
        match printed(binary, arguments) {
            Some(text) => put(&root.join(to), &text, 0o644)?,
            None => println!("not there, left out: ferry {}", arguments.join(" ")),
        }
    }
    let changes = read(&workspace.root.join("CHANGELOG.md"))?;
    put(&root.join("usr/share/doc/ferry/changelog"), &changes, 0o644)?;
    for path in COMPRESSED
        .map(|path| root.join(path))
        .iter()
        .filter(|path| path.exists())
    {
        shell::run(Command::new("gzip").arg("-9n").arg(path))?;
    }
    let (version, architecture) = (version(workspace)?, architecture(&workspace.triple)?);
    let control = String::from_utf8(read(&packaging.join("debian/control"))?)?;
    let control = control
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE@", &(size(&root)?.div_ceil(1024)).to_string());
    let sums = shell::output(
        Command::new("sh")
            .current_dir(&root)
            .args(["-c", "find usr -type f -exec md5sum {} +"]),
    )?;
    let about = root.join("DEBIAN");
    put(&about.join("control"), control.as_bytes(), 0o644)?;
    put(&about.join("md5sums"), sums.as_bytes(), 0o644)?;
    put(
        &about.join("conffiles"),
        &read(&packaging.join("debian/conffiles"))?,
        0o644,
    )?;
    for script in SCRIPTS {
        put(
            &about.join(script),
            &read(&packaging.join("debian").join(script))?,
            0o755,
        )?;
    }
    let package = place.join(format!("ferry_{version}_{architecture}.deb"));
    shell::run(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&root)
            .arg(&package),
    )?;
    Ok(package)
}

fn version(workspace: &Workspace) -> Result<String> {
    let packages = workspace.metadata["packages"].as_array().into_iter().flatten();
    let mut versions = packages
        .filter(|package| package["name"] == "ferry")
        .map(|package| &package["version"]);
    let version = versions.next().and_then(serde_json::Value::as_str);
    Ok(format!(
        "{}-1",
        version.context("cargo metadata has no version of ferry")?
    ))
}

/// Debian's name of it.
fn architecture(triple: &str) -> Result<&'static str> {
    match triple.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("Debian's name of {triple} is not known"),
    }
}

/// `None` when the binary has no such command.
fn printed(binary: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new(binary).args(arguments).output().ok()?;
    (output.status.success() && !output.stdout.is_empty()).then_some(output.stdout)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// With its directories.
fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let what = || format!("write {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(what)?;
    }
    fs::write(path, content).with_context(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(what)
}

/// Bytes of all files below.
fn size(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += match metadata.is_dir() {
            true => size(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(sum)
}
