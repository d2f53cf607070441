//! Docker's config.json: who somebody is at which registry, kept there or by a helper program.
//!
//! Only what concerns credentials is known here. Everything else in the file stays as it is, in its order. Reading and writing
//! the file block; helpers are programs (`docker-credential-<name>`) that get a bounded time and may say a bounded amount.

mod header;
mod helper;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_kit::{AtomicFile, Durability};
use futures_util::future::BoxFuture;
use serde::Serialize as _;
use serde_json::{Map, Value};

pub use self::header::{registry_auth, registry_config};
pub use self::helper::{Helper, HelperOptions};
use crate::{Credentials, Error, Result};

/// What Docker Hub is called in the file.
pub const HUB: &str = "https://index.docker.io/v1/";
/// Larger is no configuration.
const FILE_MAX: u64 = 8 << 20;
const LINKS: usize = 40;
/// Username of an identity token, with helpers.
const TOKEN: &str = "<token>";

/// The content of a config.json.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

/// The name under which credentials for a registry are kept: Docker Hub's is special.
pub fn key(domain: &str) -> &str {
    match domain {
        ferry_image::DEFAULT_DOMAIN | "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

/// The registry that a key, or what a user typed, means: without scheme and path, and `docker.io` for all names of Docker Hub.
pub fn domain(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => ferry_image::DEFAULT_DOMAIN,
        host => host,
    }
}

impl ConfigFile {
    /// A file that is not there is an empty one.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Config {
            path: path.to_owned(),
            reason,
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    path: path.to_owned(),
                    content: Map::new(),
                });
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut text = Vec::new();
        file.take(FILE_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > FILE_MAX {
            return Err(wrong(format!("it has more than {FILE_MAX} bytes")));
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self {
                path: path.to_owned(),
                content: Map::new(),
            });
        }
        let content = serde_json::from_slice(&text).map_err(|error| wrong(format!("parsing config file: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// A setting of another part of Docker's; `None` removes it.
    pub fn set_text(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.content.insert(key.to_owned(), value.into()),
            None => self.content.remove(key),
        };
    }

    /// Atomically, for its owner alone. Where the path is a link, the file it leads to is replaced.
    pub fn save(&self) -> Result<()> {
        let wrong = |reason: String| Error::Config {
            path: self.path.clone(),
            reason,
        };
        let target = followed(&self.path).map_err(|error| wrong(error.to_string()))?;
        if let Some(directory) = target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            use std::os::unix::fs::DirBuilderExt as _;
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|error| wrong(error.to_string()))?;
        }
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        self.content
            .serialize(&mut serializer)
            .map_err(|error| wrong(error.to_string()))?;
        AtomicFile::replace(&target, &text, 0o600, Durability::Power).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            wrong(format!("{error}{}", source.unwrap_or_default()))
        })
    }

    /// What is kept for a registry, in the file or by its helper.
    pub fn credentials<'a>(
        &'a self,
        domain: &'a str,
        options: &'a HelperOptions,
    ) -> BoxFuture<'a, Result<Credentials>> {
        Box::pin(async move {
            let key = key(domain);
            match self.helper(key) {
                Some(name) => {
                    let found = Helper::new(&name, options)?.get(key).await?;
                    Ok(found.unwrap_or_default())
                }
                None => self.kept(key),
            }
        })
    }

    /// All credentials, by registry: what a build sends along.
    pub fn all<'a>(&'a self, options: &'a HelperOptions) -> BoxFuture<'a, Result<BTreeMap<String, Credentials>>> {
        Box::pin(async move {
            let mut found = BTreeMap::new();
            if let Some(store) = self.text("credsStore") {
                let helper = Helper::new(&store, options)?;
                for key in helper.list().await?.into_keys() {
                    if let Some(credentials) = helper.get(&key).await? {
                        found.insert(domain(&key).to_owned(), credentials);
                    }
                }
            } else {
                let keys = self.content.get("auths").and_then(Value::as_object);
                for key in keys.into_iter().flat_map(Map::keys) {
                    let credentials = self.kept(key)?;
                    if !credentials.is_anonymous() {
                        found.insert(domain(key).to_owned(), credentials);
                    }
                }
            }
            let helpers = self.content.get("credHelpers").and_then(Value::as_object);
            for (key, name) in helpers.into_iter().flatten() {
                let Some(name) = name.as_str().filter(|name| !name.is_empty()) else {
                    continue;
                };
                if let Some(credentials) = Helper::new(name, options)?.get(key).await? {
                    found.insert(domain(key).to_owned(), credentials);
                }
            }
            Ok(found)
        })
    }

    /// Keeps credentials, with the registry's helper or in the file, which is to be saved then. As Docker does, the file names
    /// a registry whose secret a helper keeps.
    pub fn store<'a>(
        &'a mut self,
        domain: &'a str,
        credentials: &'a Credentials,
        options: &'a HelperOptions,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let key = key(domain);
            let mut entry = Map::new();
            if let Some(name) = self.helper(key) {
                Helper::new(&name, options)?.store(key, credentials).await?;
            } else {
                match credentials {
                    Credentials::Basic { username, password } => {
                        entry.insert(
                            "auth".to_owned(),
                            STANDARD.encode(format!("{username}:{password}")).into(),
                        );
                    }
                    Credentials::Identity { username, token } => {
                        entry.insert("auth".to_owned(), STANDARD.encode(format!("{username}:")).into());
                        entry.insert("identitytoken".to_owned(), token.clone().into());
                    }
                    Credentials::Registry { token } => {
                        entry.insert("registrytoken".to_owned(), token.clone().into());
                    }
                    Credentials::Anonymous => {}
                }
            }
            let auths = self.content.entry("auths").or_insert_with(|| Map::new().into());
            if !auths.is_object() {
                *auths = Map::new().into();
            }
            if let Some(auths) = auths.as_object_mut() {
                auths.insert(key.to_owned(), entry.into());
            }
            Ok(())
        })
    }

    /// Forgets them. `false` when there were none in the file.
    pub fn erase<'a>(&'a mut self, domain: &'a str, options: &'a HelperOptions) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let key = key(domain).to_owned();
            if let Some(name) = self.helper(&key) {
                Helper::new(&name, options)?.erase(&key).await?;
            }
            let auths = self.content.get_mut("auths").and_then(Value::as_object_mut);
            let Some(auths) = auths else { return Ok(false) };
            let same: Vec<String> = auths.keys().filter(|other| matches(other, &key)).cloned().collect();
            for key in &same {
                auths.shift_remove(key);
            }
            Ok(!same.is_empty())
        })
    }

    /// Whether a secret for the registry lies in the file itself: no helper keeps it.
    pub fn is_plain(&self, domain: &str) -> bool {
        self.helper(key(domain)).is_none()
    }

    /// Whether the file names the registry.
    pub fn knows(&self, domain: &str) -> bool {
        self.entry(key(domain)).is_some()
    }

    fn entry(&self, key: &str) -> Option<&Map<String, Value>> {
        let auths = self.content.get("auths")?.as_object()?;
        let found = auths.get(key).or_else(|| {
            auths
                .iter()
                .find(|(other, _)| matches(other, key))
                .map(|(_, entry)| entry)
        });
        found?.as_object()
    }

    /// In the file itself.
    fn kept(&self, key: &str) -> Result<Credentials> {
        let Some(entry) = self.entry(key) else {
            return Ok(Credentials::Anonymous);
        };
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (mut username, mut password) = (text("username"), text("password"));
        let auth = text("auth");
        if !auth.is_empty() {
            let wrong = || Error::Config {
                path: self.path.clone(),
                reason: format!("invalid auth configuration file: the entry of {key} cannot be decoded"),
            };
            let decoded = STANDARD
                .decode(auth.as_bytes())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or_else(wrong)?;
            let (user, secret) = decoded.split_once(':').ok_or_else(wrong)?;
            (username, password) = (user.to_owned(), secret.trim_matches('\0').to_owned());
        }
        Ok(from_parts(
            username,
            password,
            text("identitytoken"),
            text("registrytoken"),
        ))
    }

    /// The helper's name.
    fn helper(&self, key: &str) -> Option<String> {
        let own = self
            .content
            .get("credHelpers")
            .and_then(|helpers| helpers.get(key))
            .and_then(Value::as_str);
        let own = own.filter(|name| !name.is_empty()).map(str::to_owned);
        own.or_else(|| self.text("credsStore"))
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = self.content.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// Old files have keys with a scheme or a path.
fn matches(other: &str, key: &str) -> bool {
    other == key || domain(other) == domain(key)
}

fn from_parts(username: String, password: String, identity: String, registry: String) -> Credentials {
    if !registry.is_empty() {
        return Credentials::Registry { token: registry };
    }
    if !identity.is_empty() {
        return Credentials::Identity {
            username,
            token: identity,
        };
    }
    if username == TOKEN {
        return Credentials::Identity {
            username: String::new(),
            token: password,
        };
    }
    if username.is_empty() && password.is_empty() {
        return Credentials::Anonymous;
    }
    Credentials::Basic { username, password }
}

/// Where a link leads; the path itself when it is none.
fn followed(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // No link, or nothing there yet.
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("too many levels of symbolic links"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn helpers() -> HelperOptions {
        HelperOptions::default()
    }

    #[tokio::test]
    async fn the_file_keeps_what_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let (real, path) = (dir.path().join("real.json"), dir.path().join("config.json"));
        let before = r#"{"zeta":{"b":1,"a":[2]},"auths":{"r.example":{"auth":"bWU6czpl","email":"x"},"https://index.docker.io/v1/":{"identitytoken":"t"}},"HttpHeaders":{"X":"y"}}"#;
        std::fs::write(&real, before).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("real.json", &path).unwrap();
        let mut file = ConfigFile::load(&path).unwrap();
        assert_eq!(
            file.credentials("r.example", &helpers()).await.unwrap(),
            Credentials::basic("me", "s:e")
        );
        let hub = file.credentials("docker.io", &helpers()).await.unwrap();
        assert_eq!(
            hub,
            Credentials::Identity {
                username: String::new(),
                token: "t".to_owned()
            }
        );
        file.store("localhost:5000", &Credentials::basic("u", "p"), &helpers())
            .await
            .unwrap();
        assert!(file.erase("docker.io", &helpers()).await.unwrap());
        assert!(!file.erase("docker.io", &helpers()).await.unwrap());
        file.save().unwrap();
        assert!(path.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&real).unwrap();
        let after = "{\n\t\"zeta\": {\n\t\t\"b\": 1,\n\t\t\"a\": [\n\t\t\t2\n\t\t]\n\t},\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"bWU6czpl\",\n\t\t\t\"email\": \"x\"\n\t\t},\n\t\t\"localhost:5000\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"X\": \"y\"\n\t}\n}";
        assert_eq!(text, after);
        let all = ConfigFile::load(&path).unwrap().all(&helpers()).await.unwrap();
        assert_eq!(all.into_keys().collect::<Vec<_>>(), ["localhost:5000", "r.example"]);
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_or_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let mut file = ConfigFile::load(&path).unwrap();
        assert!(file.credentials("x", &helpers()).await.unwrap().is_anonymous());
        file.store("x", &Credentials::basic("u", "p"), &helpers())
            .await
            .unwrap();
        file.save().unwrap();
        assert!(ConfigFile::load(&path).unwrap().knows("x"));
        for text in ["[]", "{", r#"{"auths":3"#] {
            std::fs::write(&path, text).unwrap();
            let error = ConfigFile::load(&path).unwrap_err().to_string();
            assert!(error.contains("config.json: parsing config file"), "{error}");
        }
        std::fs::write(&path, r#"{"auths":{"x":{"auth":"!"},"http://y/v1/":{"auth":"dTpw"}}}"#).unwrap();
        let file = ConfigFile::load(&path).unwrap();
        assert!(file.credentials("x", &helpers()).await.is_err());
        assert_eq!(
            file.credentials("y", &helpers()).await.unwrap(),
            Credentials::basic("u", "p")
        );
    }
}
