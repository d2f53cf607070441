//! OCI runtimes beside Ferry's own: dockerd's `runtimes` and `default-runtime`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ferry_engine::config::{OWN_RUNTIME, Runtime, Runtimes};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::File;
use super::settings::Both;

/// The one kind of shim whose options say which runtime it calls.
const RUNC_SHIM: &str = "io.containerd.runc.v2";

#[derive(Debug, Default, Clone, Args)]
pub struct RuntimeFlags {
    /// Register an additional OCI compatible runtime, as name=path
    #[arg(long = "add-runtime", value_name = "runtime")]
    pub runtimes: Vec<String>,
    /// Default OCI runtime for containers [default: ferry]
    #[arg(long = "default-runtime", value_name = "string")]
    pub default: Option<String>,
}

/// As in daemon.json: `{"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}`.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Entry {
    path: Option<String>,
    runtime_args: Option<Vec<String>>,
    runtime_type: Option<String>,
    options: Option<Map<String, Value>>,
}

pub fn of(
    flags: RuntimeFlags,
    file: &mut File,
    both: &mut Both,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Runtimes> {
    let entries = file.runtimes.take().unwrap_or_default();
    let shown: Vec<String> = entries.keys().cloned().collect();
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    both.pick("runtimes", list(&flags.runtimes), list(&shown));
    let default = both.pick("default-runtime", flags.default, file.default_runtime.take());
    let mut runtimes = Runtimes::default();
    let variable = environment("PATH").unwrap_or_default();
    let of_flags = flags.runtimes.iter().map(|text| flag(text));
    let of_file = entries.into_iter().map(|(name, entry)| runtime(name, entry));
    for given in of_flags.chain(of_file) {
        let (name, mut runtime) = given.context("runtimes")?;
        if name == OWN_RUNTIME || name.is_empty() {
            bail!("runtimes: runtime name '{name}' is reserved");
        }
        runtime.path = found(&runtime.path, &variable).with_context(|| format!("runtimes: {name}"))?;
        if runtimes.known.insert(name.clone(), runtime).is_some() {
            bail!("runtimes: '{name}' was already registered");
        }
    }
    if let Some(name) = default.filter(|name| !name.is_empty()) {
        if !runtimes.has(&name) {
            bail!("specified default runtime '{name}' does not exist");
        }
        runtimes.default = name;
    }
    Ok(runtimes)
}

fn flag(text: &str) -> Result<(String, Runtime)> {
    let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        bail!("{text:?} is no runtime: give it as name=path");
    };
    let runtime = Runtime {
        path: path.trim().into(),
        args: Vec::new(),
    };
    Ok((name.trim().to_owned(), runtime))
}

fn runtime(name: String, entry: Entry) -> Result<(String, Runtime)> {
    let options = entry.options.unwrap_or_default();
    let kind = entry.runtime_type.filter(|kind| !kind.is_empty());
    let path = match (entry.path.filter(|path| !path.is_empty()), kind.as_deref()) {
        (Some(_), Some(_)) => bail!("{name}: cannot configure both path and runtimeType for the same runtime"),
        (None, None) => bail!("{name}: either a runtimeType or a path must be configured"),
        (Some(path), None) if options.is_empty() => path,
        (Some(_), None) => bail!("{name}: options cannot be used with a path: give runtimeArgs"),
        (None, Some(RUNC_SHIM)) => binary(&name, &options)?,
        (None, Some(kind)) => bail!(
            "{name}: the shim {kind} is not there: Ferry's own shim calls a runtime by its path: give \"path\" and \"runtimeArgs\""
        ),
    };
    let args = entry.runtime_args.unwrap_or_default();
    if kind.is_some() && !args.is_empty() {
        bail!("{name}: runtimeArgs cannot be used with a runtimeType: give a path");
    }
    let path = path.into();
    Ok((name, Runtime { path, args }))
}

/// What the options of containerd's shim for runc come to.
fn binary(name: &str, options: &Map<String, Value>) -> Result<String> {
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let other = options
        .iter()
        .find(|(key, value)| *key != "BinaryName" && is_set(value));
    if let Some((key, _)) = other {
        bail!("{name}: the option {key} is not there: give \"path\" and \"runtimeArgs\"");
    }
    match options.get("BinaryName").and_then(Value::as_str) {
        Some(path) if !path.is_empty() => Ok(path.to_owned()),
        _ => bail!("{name}: the option BinaryName must say which runtime is called"),
    }
}

/// A name is looked for in `PATH`; one that is not there stays a name, and containers with it say so.
fn found(path: &Path, variable: &str) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    if path.components().count() > 1 {
        bail!(
            "{} is neither an absolute path nor a name to be found in PATH",
            path.display()
        );
    }
    let places = variable.split(':').filter(|place| place.starts_with('/'));
    let found = places
        .map(|place| Path::new(place).join(path))
        .find(|path| path.is_file());
    Ok(found.unwrap_or_else(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn runtimes(line: &str, file: &str) -> Result<Runtimes> {
        let flags = super::super::flags::Flags::try_parse_from(std::iter::once("d").chain(line.split_whitespace()))?;
        let mut file = serde_json::from_str(file)?;
        of(flags.runtimes, &mut file, &mut Both::default(), &|_| {
            Some("/nowhere:/bin".into())
        })
    }

    #[test]
    fn flags_and_file_name_runtimes() {
        let usual = runtimes("", "{}").unwrap();
        assert_eq!((usual.default.as_str(), usual.known.len()), ("ferry", 0));
        let flags = runtimes("--add-runtime crun=/usr/bin/crun --default-runtime crun", "{}").unwrap();
        assert_eq!(flags.default, "crun");
        assert_eq!(flags.known["crun"].path, Path::new("/usr/bin/crun"));
        let file = r#"{"default-runtime":"runc","runtimes":{"a":{"path":"sh","runtimeArgs":["--debug"]},
            "b":{"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":"/b","SystemdCgroup":false}}}}"#;
        let file = runtimes("", file).unwrap();
        assert_eq!(file.known["a"].path, Path::new("/bin/sh"));
        assert_eq!(file.known["a"].args, ["--debug"]);
        assert_eq!(file.known["b"].path, Path::new("/b"));
        assert_eq!(file.default, "runc", "it is Ferry's own");
    }

    #[test]
    fn what_cannot_be_called_is_refused_by_name() {
        for (line, file, words) in [
            ("--add-runtime x", "{}", "name=path"),
            ("--add-runtime ferry=/x", "{}", "'ferry' is reserved"),
            ("--add-runtime a=b/c", "{}", "neither an absolute path"),
            ("--add-runtime a=/a --add-runtime a=/b", "{}", "already registered"),
            (
                "--default-runtime a",
                "{}",
                "specified default runtime 'a' does not exist",
            ),
            ("", r#"{"runtimes":{"a":{}}}"#, "either a runtimeType or a path"),
            ("", r#"{"runtimes":{"a":{"path":"/a","runtimeType":"x"}}}"#, "both path"),
            (
                "",
                r#"{"runtimes":{"a":{"runtimeType":"io.containerd.kata.v2"}}}"#,
                "io.containerd.kata.v2 is not there",
            ),
            (
                "",
                r#"{"runtimes":{"a":{"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":"/b","SystemdCgroup":true}}}}"#,
                "SystemdCgroup is not there",
            ),
            (
                "",
                r#"{"runtimes":{"a":{"runtimeType":"io.containerd.runc.v2"}}}"#,
                "BinaryName",
            ),
        ] {
            let message = format!("{:#}", runtimes(line, file).unwrap_err());
            assert!(message.contains(words), "{line} {file}: {message}");
        }
        assert!(runtimes("", r#"{"runtimes":{"a":{"paths":"/a"}}}"#).is_err());
    }
}
