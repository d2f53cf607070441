//! Docker's command line plugins: `docker-compose` beside us is `ferry compose`.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::Config;
use crate::environment::Environment;

/// Where packages put them, after the user's own directory.
const DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// Tells the plugin by which name it was asked for.
const ORIGINAL: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";

/// The plugin of a name that is no command of ours.
pub fn find(name: &str, config_directory: &Path, config: &Config) -> Option<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(plain) {
        return None;
    }
    let own = config_directory.join("cli-plugins");
    let extra = config.cli_plugins_extra_dirs.iter().map(PathBuf::from);
    extra
        .chain([own])
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(format!("docker-{name}")))
        .find(|path| {
            std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// The plugin with the words that were typed. `host` is where it finds the engine, when nothing else says so.
pub fn command(path: &Path, args: &[OsString], env: &Environment, host: Option<&str>) -> Command {
    let mut command = Command::new(path);
    command.args(args).env(ORIGINAL, &env.program);
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_a_program_of_the_right_name() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().join("cli-plugins");
        std::fs::create_dir(&plugins).unwrap();
        let path = plugins.join("docker-hello");
        std::fs::write(&path, "").unwrap();
        let find = |name: &str| find(name, directory.path(), &Config::default());
        assert_eq!(find("hello"), None, "not executable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("hello"), Some(path));
        for name in ["", "../cli-plugins/docker-hello", "Hello", "other"] {
            assert_eq!(find(name), None, "{name}");
        }
    }
}
