//! Where things are: the repository, the target directory, the binaries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::shell;

pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    /// `cargo metadata --no-deps`.
    pub metadata: Value,
    /// The host's target triple: what `host-tuple` in .cargo/config.toml means.
    pub triple: String,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        let text = shell::output(shell::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
        let metadata: Value = serde_json::from_str(&text).context("parse cargo metadata")?;
        let field = |name: &str| {
            metadata[name]
                .as_str()
                .map(PathBuf::from)
                .ok_or_else(|| anyhow!("cargo metadata has no {name}"))
        };
        let (root, target) = (field("workspace_root")?, field("target_directory")?);
        let version = shell::output(std::process::Command::new("rustc").arg("-vV"))?;
        let triple = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .ok_or_else(|| anyhow!("rustc -vV names no host"))?
            .to_owned();
        std::env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))?;
        Ok(Self {
            root,
            target,
            metadata,
            triple,
        })
    }

    /// The `ferry` binary of a profile, built or not.
    pub fn binary(&self, profile: &str) -> PathBuf {
        self.target.join(&self.triple).join(profile).join("ferry")
    }

    pub fn build_dist(&self) -> Result<PathBuf> {
        shell::step("build --profile dist", || {
            shell::run(shell::cargo().args(["build", "--profile", "dist", "--package", "ferry"]))
        })?;
        Ok(self.binary("dist"))
    }

    /// What set-up fetches for the tests: `docker` and a Python environment.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}

pub fn mebibytes(path: &Path) -> Result<f64> {
    let length = std::fs::metadata(path)
        .with_context(|| format!("stat {}", path.display()))?
        .len();
    Ok(f64::from(u32::try_from(length / 1024)?) / 1024.0)
}
