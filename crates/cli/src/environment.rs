use std::{collections::BTreeMap, path::PathBuf};

/// What `version` says about this program.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// `0.1.0`
    pub version: String,
    /// Commit, empty when it is not known.
    pub commit: String,
    /// When the binary was built, as docker prints it (`Tue Sep 15 11:02:57 2026`); empty when it is not known.
    pub time: String,
}

/// The process as commands see it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The name the program was started by, for messages and help: `ferry` or `docker`.
    pub program: String,
    pub build: Build,
    /// Environment variables, for `DOCKER_HOST` and its like and for `-e NAME`.
    pub variables: BTreeMap<String, String>,
    /// Relative paths on the command line start here.
    pub directory: PathBuf,
    /// The daemon when nothing else is said: `unix:///run/ferry/ferry.sock`.
    pub default_host: String,
}

impl Environment {
    /// Of a variable that is set and not empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether the configuration means another engine than the one of this machine: `context use` chose one.
    #[must_use]
    pub fn has_context(&self) -> bool {
        let config = crate::config::Config::load(&self.config_directory()).unwrap_or_default();
        !matches!(config.current_context.as_str(), "" | crate::contexts::DEFAULT)
    }

    /// `~/.docker`, or what `DOCKER_CONFIG` says.
    #[must_use]
    pub fn config_directory(&self) -> PathBuf {
        match (self.variable("DOCKER_CONFIG"), self.variable("HOME")) {
            (Some(directory), _) => directory.into(),
            (None, Some(home)) => PathBuf::from(home).join(".docker"),
            (None, None) => "/root/.docker".into(),
        }
    }
}
