//! Which certificates the command line believes and shows: `--tls…`, the environment, or a context's files (docker/cli
//! `cli/flags/options.go` and `cli/context/docker/load.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_client::Material;

use crate::environment::Environment;
use crate::failure::{Failure, Result, io_text};
use crate::flags::Matches;
use crate::{contexts, contexts::TLS};

/// Whether the environment asks for TLS, whatever the options say.
pub fn is_in(env: &Environment) -> bool {
    ["DOCKER_TLS", "DOCKER_TLS_VERIFY"]
        .iter()
        .any(|name| env.variable(name).is_some())
}

/// What `--tls`, `--tlsverify` and their like mean; `None` without any of them. Fails when a file that was asked for, or the
/// usual `ca.pem`, is not there.
pub fn of_options(global: &Matches, env: &Environment, config_directory: &Path) -> Result<Option<Material>> {
    let verify = match global.is_set("tlsverify") {
        true => global.switch("tlsverify"),
        false => env.variable("DOCKER_TLS_VERIFY").is_some(),
    };
    let wanted = global.switch("tls") || (!global.is_set("tls") && env.variable("DOCKER_TLS").is_some());
    // Docker turns TLS on also for `--tlsverify=false`.
    if !wanted && !verify && !global.is_set("tlsverify") {
        return Ok(None);
    }
    let directory = env
        .variable("DOCKER_CERT_PATH")
        .map_or_else(|| config_directory.to_owned(), PathBuf::from);
    let mut files = BTreeMap::new();
    for (option, name) in TLS {
        let flag = format!("tls{}", option.replace("ca", "cacert"));
        let given = global.get(&flag).filter(|path| !path.is_empty());
        let path = given.map_or_else(|| directory.join(name), |path| env.directory.join(path));
        match contexts::read(&path) {
            Ok(content) => drop(files.insert(option.to_owned(), content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() && option != "ca" => {}
            Err(error) => {
                return Err(Failure::new(format!(
                    "Failed to initialize: unable to resolve docker endpoint: open {}: {}",
                    path.display(),
                    io_text(&error)
                )));
            }
        }
    }
    Ok(Some(material(&files, !verify)))
}

/// A context's; `None` when it has no files and believes nobody in particular.
pub fn of_context(files: &BTreeMap<String, Vec<u8>>, skip_verify: bool) -> Option<Material> {
    (!files.is_empty() || skip_verify).then(|| material(files, skip_verify))
}

pub fn unusable(reason: &str) -> Failure {
    Failure::new(format!(
        "Failed to initialize: unable to resolve docker endpoint: failed to retrieve context tls info: {reason}"
    ))
}

fn material(files: &BTreeMap<String, Vec<u8>>, skip_verify: bool) -> Material {
    Material {
        ca: files.get("ca").cloned(),
        certificate: files.get("cert").cloned(),
        key: files.get("key").cloned(),
        skip_verify,
    }
}
