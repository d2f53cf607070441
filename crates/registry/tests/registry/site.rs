//! A registry in a directory of its own, and requests to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use ferry_image::Digest;
use ferry_registry::{
    Access, Auth, AuthConfig, FileSystem, FileSystemOptions, Options, Patience, Registry, Rule, router,
};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A thousandth of what is waited for otherwise.
pub const HASTE: Patience = Patience {
    stall: Duration::from_millis(60),
    whole: Duration::from_millis(300),
};

pub struct Site {
    router: Router,
    dir: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn code(&self) -> String {
        let json = serde_json::from_slice(&self.body).unwrap_or(json!(null));
        json["errors"][0]["code"].as_str().unwrap_or("none").to_owned()
    }
}

impl Site {
    pub fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub fn open_with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = scratch();
        let storage = FileSystem::open(dir.path(), FileSystemOptions::default()).unwrap();
        let mut options = Options {
            delete: true,
            ..Options::default()
        };
        change(&mut options);
        Self {
            router: router(Registry::new(storage, Auth::open(), options)),
            dir,
        }
    }

    /// `rw` and `ro` of team/, `other` of elsewhere/; nobody may delete.
    pub fn with_rights() -> Self {
        let both = [Access::Pull, Access::Push];
        Self::with_rules(vec![
            rule("group:readers", "team/**", &both[..1]),
            rule("user:rw", "team/*", &both),
            rule("user:other", "elsewhere/**", &both),
        ])
    }

    /// Users `ro` (of the group readers), `rw` and `other`. All such sites take each other's tokens.
    pub fn with_rules(rules: Vec<Rule>) -> Self {
        Self::with_users(&["ro", "rw", "other"], &["ro"], rules)
    }

    /// The same with these users, and these in the group readers.
    pub fn with_users(users: &[&str], readers: &[&str], rules: Vec<Rule>) -> Self {
        let dir = scratch();
        let users: String = users.iter().map(|user| user_line(user)).collect();
        std::fs::write(dir.path().join("htpasswd"), users).unwrap();
        let config = AuthConfig {
            htpasswd: Some(dir.path().join("htpasswd")),
            groups: BTreeMap::from([(
                "readers".to_owned(),
                readers.iter().map(|&user| user.to_owned()).collect(),
            )]),
            rights: Some(rules),
            ..AuthConfig::default()
        };
        let storage = FileSystem::open(dir.path(), FileSystemOptions::default()).unwrap();
        let options = Options {
            delete: true,
            patience: HASTE,
            ..Options::default()
        };
        let auth = Auth::new(&config, &[1; 32]).unwrap();
        Self {
            router: router(Registry::new(storage, auth, options)),
            dir,
        }
    }

    /// Replaces the file of users in one step.
    pub fn set_users(&self, lines: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, lines).unwrap();
        std::fs::rename(new, self.dir.path().join("htpasswd")).unwrap();
    }

    /// The same directory with another server.
    pub async fn again(self) -> Self {
        self.again_with(|_| {}).await
    }

    pub async fn again_with(self, change: impl FnOnce(&mut Options)) -> Self {
        let Self { router: old, dir } = self;
        drop(old);
        let mut options = Options {
            delete: true,
            ..Options::default()
        };
        change(&mut options);
        for _ in 0..100 {
            if let Ok(storage) = FileSystem::open(dir.path(), FileSystemOptions::default()) {
                let router = router(Registry::new(storage, Auth::open(), options));
                return Self { router, dir };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the directory stays locked");
    }

    /// Every file below the directory, with its time.
    pub fn files(&self) -> BTreeMap<PathBuf, SystemTime> {
        let (mut files, mut waiting) = (BTreeMap::new(), vec![self.dir.path().to_owned()]);
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
                match metadata.is_dir() {
                    true => waiting.push(path),
                    false => drop(files.insert(path, metadata.modified().unwrap())),
                }
            }
        }
        files
    }

    pub fn basic(user: &str) -> String {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:secret"))
        )
    }

    pub async fn token(&self, user: &str, scope: &str) -> String {
        let basic = Self::basic(user);
        let headers = [("authorization", basic.as_str())];
        let answer = self
            .send(
                Method::GET,
                &format!("/token?service=ferry-registry&scope={scope}"),
                if user.is_empty() { &[] } else { &headers },
                "",
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        format!("Bearer {}", answer.json()["token"].as_str().unwrap())
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "here:5000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn blob(&self, repository: &str, content: &[u8]) -> String {
        self.blob_as(repository, content, "").await
    }

    pub async fn blob_as(&self, repository: &str, content: &[u8], authorization: &str) -> String {
        let digest = Digest::of(content).to_string();
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &[][..]
        } else {
            &headers[..]
        };
        let answer = self.send(Method::POST, &path, headers, content.to_vec()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        digest
    }

    pub async fn manifest(&self, repository: &str, reference: &str, content: &str) -> Answer {
        self.send(
            Method::PUT,
            &format!("/v2/{repository}/manifests/{reference}"),
            &[],
            content.to_owned(),
        )
        .await
    }
}

/// A directory in memory, where there is such a file system: a disk that others keep busy takes seconds for a sync.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A line of htpasswd: the same for a user each time.
pub fn user_line(user: &str) -> String {
    static HASH: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| bcrypt::hash("secret", 4).unwrap());
    format!("{user}:{}\n", *HASH)
}

pub fn rule(who: &str, repositories: &str, allow: &[Access]) -> Rule {
    Rule {
        who: vec![who.to_owned()],
        repositories: vec![repositories.to_owned()],
        allow: allow.to_vec(),
    }
}

pub fn image(config: &str, config_size: usize, layer: &str, layer_size: usize) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size }],
    })
    .to_string()
}
