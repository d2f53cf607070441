//! `docker-credential-<name>`: github.com/docker/docker-credential-helpers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{TOKEN, from_parts};
use crate::error::bounded;
use crate::{Credentials, Error, Result};

const OUTPUT_MAX: u64 = 1 << 20;
/// What Docker's helpers say, on their standard output.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// How helpers are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperOptions {
    /// Where they are; `None` for the search path of this process.
    pub directory: Option<PathBuf>,
    /// Helpers may ask a person.
    pub patience: Duration,
}

impl Default for HelperOptions {
    fn default() -> Self {
        Self {
            directory: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// One helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    program: PathBuf,
    patience: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, rename = "ServerURL")]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helper {
    /// `name` as in config.json: `pass`, `secretservice`, `ecr-login`.
    pub fn new(name: &str, options: &HelperOptions) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(Error::Options(format!("{name:?} is no name of a credential helper")));
        }
        let program = PathBuf::from(format!("docker-credential-{name}"));
        Ok(Self {
            program: options
                .directory
                .as_ref()
                .map_or(program.clone(), |directory| directory.join(&program)),
            patience: options.patience,
        })
    }

    /// `None` when it has none for that registry.
    pub async fn get(&self, key: &str) -> Result<Option<Credentials>> {
        let (ok, output) = self.run("get", key.as_bytes()).await?;
        if !ok {
            return match is_not_found(&output) {
                true => Ok(None),
                false => Err(self.failed("exit status 1", &output)),
            };
        }
        let entry: Entry = serde_json::from_slice(&output).map_err(|_| self.failed("it gave no JSON", b""))?;
        let credentials = from_parts(entry.username, entry.secret, String::new(), String::new());
        Ok((!credentials.is_anonymous()).then_some(credentials))
    }

    pub async fn store(&self, key: &str, credentials: &Credentials) -> Result<()> {
        let (username, secret) = match credentials {
            Credentials::Basic { username, password } => (username.as_str(), password.as_str()),
            Credentials::Identity { token, .. } => (TOKEN, token.as_str()),
            Credentials::Anonymous | Credentials::Registry { .. } => return Ok(()),
        };
        let entry = Entry {
            server: key.to_owned(),
            username: username.to_owned(),
            secret: secret.to_owned(),
        };
        let input = serde_json::to_vec(&entry).map_err(|error| Error::Options(error.to_string()))?;
        match self.run("store", &input).await? {
            (true, _) => Ok(()),
            (false, output) => Err(self.failed("exit status 1", &output)),
        }
    }

    /// What is not there is erased already.
    pub async fn erase(&self, key: &str) -> Result<()> {
        match self.run("erase", key.as_bytes()).await? {
            (false, output) if !is_not_found(&output) => Err(self.failed("exit status 1", &output)),
            _ => Ok(()),
        }
    }

    /// Usernames by registry.
    pub async fn list(&self) -> Result<BTreeMap<String, String>> {
        match self.run("list", b"unused").await? {
            (true, output) => serde_json::from_slice(&output).map_err(|_| self.failed("it gave no JSON", b"")),
            (false, output) => Err(self.failed("exit status 1", &output)),
        }
    }

    /// Whether it succeeded, and what it said.
    async fn run(&self, action: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
        let child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let name = self.program.display();
        let mut child = child.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                self.failed(&format!("exec: \"{name}\": executable file not found in $PATH"), b"")
            }
            _ => self.failed(&error.to_string(), b""),
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let talk = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A helper need not read.
                    let _ = stdin.write_all(input).await;
                }
            };
            let ((), output) = tokio::join!(write, read(stdout));
            let output = output?;
            Ok::<_, std::io::Error>((child.wait().await?.success(), output))
        };
        match tokio::time::timeout(self.patience, talk).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(self.failed(&error.to_string(), b"")),
            Err(_) => Err(self.failed(&format!("it did not end within {} s", self.patience.as_secs()), b"")),
        }
    }

    fn failed(&self, reason: &str, output: &[u8]) -> Error {
        Error::Helper {
            program: self.program.display().to_string(),
            reason: reason.to_owned(),
            output: bounded(&String::from_utf8_lossy(output), 512),
        }
    }
}

async fn read(stdout: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(OUTPUT_MAX + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > OUTPUT_MAX {
        return Err(std::io::Error::other(format!("it said more than {OUTPUT_MAX} bytes")));
    }
    Ok(output)
}

fn is_not_found(output: &[u8]) -> bool {
    String::from_utf8_lossy(output).trim() == NOT_FOUND
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::ConfigFile;

    /// Keeps one secret a file.
    const SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 2
case $1 in
store) cat >kept ;;
get) [ -f kept ] && cat kept && exit 0; echo "credentials not found in native keychain"; exit 1 ;;
erase) rm -f kept ;;
list) [ -f kept ] && echo '{"r:5000":"me"}' || echo '{}' ;;
esac
"#;

    fn helper(directory: &std::path::Path, name: &str, script: &str) -> HelperOptions {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        HelperOptions {
            directory: Some(directory.to_owned()),
            patience: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn a_helper_keeps_the_secret_and_the_file_only_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let options = helper(dir.path(), "test", SCRIPT);
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"credsStore":"test"}"#).unwrap();
        let mut file = ConfigFile::load(&path).unwrap();
        assert!(file.credentials("r:5000", &options).await.unwrap().is_anonymous());
        file.store("r:5000", &Credentials::basic("me", "secret"), &options)
            .await
            .unwrap();
        file.save().unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("secret\""));
        assert_eq!(
            std::fs::read_to_string(dir.path().join("kept")).unwrap(),
            r#"{"ServerURL":"r:5000","Username":"me","Secret":"secret"}"#
        );
        let mut file = ConfigFile::load(&path).unwrap();
        assert_eq!(
            file.credentials("r:5000", &options).await.unwrap(),
            Credentials::basic("me", "secret")
        );
        assert_eq!(file.all(&options).await.unwrap().len(), 1);
        let token = Credentials::Identity {
            username: "me".to_owned(),
            token: "t".to_owned(),
        };
        file.store("r:5000", &token, &options).await.unwrap();
        let kept = file.credentials("r:5000", &options).await.unwrap();
        assert!(matches!(kept, Credentials::Identity { token, .. } if token == "t"));
        assert!(file.erase("r:5000", &options).await.unwrap());
        assert!(!dir.path().join("kept").exists());
    }

    #[tokio::test]
    async fn helpers_that_misbehave_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = helper(dir.path(), "fails", "#!/bin/sh\necho no bus; exit 1\n");
        let failed = Helper::new("fails", &options)
            .unwrap()
            .get("x")
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(failed, "error getting credentials - err: exit status 1, out: `no bus`");
        helper(dir.path(), "endless", "#!/bin/sh\nexec yes\n");
        assert!(
            Helper::new("endless", &options)
                .unwrap()
                .get("x")
                .await
                .unwrap_err()
                .to_string()
                .contains("more than")
        );
        helper(dir.path(), "hangs", "#!/bin/sh\nexec sleep 100\n");
        options.patience = Duration::from_millis(200);
        assert!(
            Helper::new("hangs", &options)
                .unwrap()
                .get("x")
                .await
                .unwrap_err()
                .to_string()
                .contains("did not end")
        );
        let missing = Helper::new("missing", &options)
            .unwrap()
            .get("x")
            .await
            .unwrap_err()
            .to_string();
        assert!(missing.contains("executable file not found in $PATH"), "{missing}");
        for name in ["", "../x", "a b", "a/b"] {
            assert!(Helper::new(name, &options).is_err());
        }
    }
}
