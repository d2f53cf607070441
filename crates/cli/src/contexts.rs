//! Contexts: engines by name, kept where docker keeps them (docker/cli `cli/context/store`).
//!
//! ```text
//! ~/.docker/contexts/meta/<sha256 of the name>/meta.json
//! ~/.docker/contexts/tls/<the same>/docker/{ca,cert,key}.pem
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ferry_image::Digest;
use ferry_kit::atomic::{AtomicFile, Durability};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

pub const DEFAULT: &str = "default";
/// What the default context says of itself.
pub const DEFAULT_ABOUT: &str = "Current DOCKER_HOST based configuration";
const NAMES: &str = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$";
/// Of a file of a context's: certificates are small.
const FILE_MAX: u64 = 1 << 20;
/// The files of a context's TLS, as options and on disk.
pub const TLS: [(&str, &str); 3] = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Context {
    pub name: String,
    pub metadata: Map<String, Value>,
    pub endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    #[serde(rename = "Host")]
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
}

impl Context {
    pub fn description(&self) -> &str {
        self.metadata
            .get("Description")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn describe(&mut self, text: &str) {
        match text {
            "" => self.metadata.remove("Description"),
            text => self.metadata.insert("Description".to_owned(), text.into()),
        };
    }

    pub fn endpoint(&self) -> Endpoint {
        self.endpoints.get("docker").cloned().unwrap_or_default()
    }
}

/// The contexts of one configuration directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn of(config_directory: &Path) -> Self {
        Self {
            root: config_directory.join("contexts"),
        }
    }

    pub fn metadata_path(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(id(name))
    }

    pub fn tls_path(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(id(name))
    }

    pub fn load(&self, name: &str) -> Result<Context> {
        let path = self.metadata_path(name).join("meta.json");
        match read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Failure::new(format!("context {name:?}: parsing {}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(format!(
                "context {name:?}: context not found: open {}: no such file or directory",
                path.display()
            ))),
            Err(error) => Err(Failure::new(format!(
                "context {name:?}: open {}: {}",
                path.display(),
                crate::failure::io_text(&error)
            ))),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.metadata_path(name).join("meta.json").exists()
    }

    /// In no order; and what is wrong with those that cannot be read.
    pub fn all(&self) -> (Vec<Context>, Vec<String>) {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.root.join("meta")).into_iter().flatten().flatten() {
            let path = entry.path().join("meta.json");
            match read(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))
            {
                Ok(context) => all.push(context),
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
        }
        (all, wrong)
    }

    /// Files by option (`ca`, `cert`, `key`); what is not given is not there afterwards.
    pub fn save(&self, context: &Context, tls: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let directory = self.metadata_path(&context.name);
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("context {:?}: {error}", context.name));
        fs::create_dir_all(&directory).map_err(|error| failed(&error))?;
        let text = serde_json::to_vec(context).map_err(|error| failed(&error))?;
        AtomicFile::replace(directory.join("meta.json"), &text, 0o644, Durability::Process)
            .map_err(|error| failed(&error))?;
        let secrets = self.tls_path(&context.name);
        if let Err(error) = fs::remove_dir_all(&secrets)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(&error));
        }
        for (option, file) in TLS {
            let Some(content) = tls.get(option) else { continue };
            let directory = secrets.join("docker");
            use std::os::unix::fs::DirBuilderExt as _;
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| failed(&error))?;
            AtomicFile::replace(directory.join(file), content, 0o600, Durability::Process)
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Files by option.
    pub fn tls(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let directory = self.tls_path(name).join("docker");
        let file = |(option, file): (&str, &str)| Some((option.to_owned(), read(&directory.join(file)).ok()?));
        TLS.into_iter().filter_map(file).collect()
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        for path in [self.metadata_path(name), self.tls_path(name)] {
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::new(format!(
                        "context {name:?}: remove {}: {}",
                        path.display(),
                        crate::failure::io_text(&error)
                    )));
                }
            }
        }
        Ok(())
    }
}

pub fn check_name(name: &str) -> Result<()> {
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
    match name {
        "" => Err(Failure::new("context name cannot be empty")),
        DEFAULT => Err(Failure::new("\"default\" is a reserved context name")),
        name if first && rest && name.len() > 1 => Ok(()),
        name => Err(Failure::new(format!(
            "context name {name:?} is invalid, names are validated against regexp \"{NAMES}\""
        ))),
    }
}

/// A file of the user's, bounded.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn id(name: &str) -> String {
    Digest::of(name).encoded().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_lie_where_docker_looks_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path());
        let mut context = Context {
            name: "c1".into(),
            ..Context::default()
        };
        context.describe("my ctx");
        let host = "tcp://127.0.0.1:1".to_owned();
        let skip_tls_verify = false;
        context
            .endpoints
            .insert("docker".into(), Endpoint { host, skip_tls_verify });
        store
            .save(&context, &[("ca".to_owned(), b"x".to_vec())].into())
            .unwrap();
        let id = "d0f631ca1ddba8db3bcfcb9e057cdc98d0379f1bee00e75a545147a27dadd982";
        let text = fs::read_to_string(directory.path().join(format!("contexts/meta/{id}/meta.json"))).unwrap();
        assert_eq!(
            text,
            r#"{"Name":"c1","Metadata":{"Description":"my ctx"},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":false}}}"#
        );
        assert!(
            directory
                .path()
                .join(format!("contexts/tls/{id}/docker/ca.pem"))
                .exists()
        );
        assert_eq!(store.load("c1").unwrap(), context);
        store.save(&context, &BTreeMap::new()).unwrap();
        assert!(!store.tls_path("c1").exists());
        store.remove("c1").unwrap();
        assert!(store.all().0.is_empty() && store.load("c1").is_err());
        fs::create_dir_all(store.metadata_path("bad")).unwrap();
        fs::write(store.metadata_path("bad").join("meta.json"), "{").unwrap();
        assert_eq!((store.all().0.len(), store.all().1.len()), (0, 1));
    }

    #[test]
    fn names_are_dockers() {
        for name in ["c1", "a.b+c-d_e"] {
            check_name(name).unwrap();
        }
        for name in ["", "x", "default", "a b", "-a", "a/b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
