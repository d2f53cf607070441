//! Debian packages that are unpacked below the target directory, never installed: an apt with sources and lists of its
//! own, so nothing of the machine's is read or changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::shell;

/// The packages of one suite; everything it needs lies in one directory.
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Fetches the lists of `suite` into `dir`.
    pub fn update(dir: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "state", "deb"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("create {}", dir.display()))?;
        }
        let source = format!("deb [trusted=yes] {} {suite} main\n", mirror());
        fs::write(dir.join("sources.list"), source)?;
        fs::write(dir.join("state/status"), "")?;
        let apt = Self { dir: dir.to_owned() };
        shell::run(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// What a package depends on, by name.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = shell::output(self.command("apt-cache").args(["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it below `into`.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        shell::run(self.command("apt-get").args(["download", package]))?;
        let deb = self.only_deb()?;
        shell::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
        fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))
    }

    fn command(&self, program: &str) -> Command {
        let dir = self.dir.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State={dir}/state"),
            format!("Dir::State::status={dir}/state/status"),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.arg("-q").current_dir(self.dir.join("deb"));
        command
    }

    fn only_deb(&self) -> Result<PathBuf> {
        let dir = self.dir.join("deb");
        let entry = fs::read_dir(&dir)?
            .next()
            .ok_or_else(|| anyhow!("nothing was downloaded into {}", dir.display()))?;
        Ok(entry?.path())
    }
}

/// The mirror this machine uses, or Debian's.
fn mirror() -> String {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let uri = sources
        .lines()
        .find_map(|line| line.strip_prefix("URIs:")?.split_whitespace().next());
    uri.unwrap_or("http://deb.debian.org/debian").to_owned()
}
