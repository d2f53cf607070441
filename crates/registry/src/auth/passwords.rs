//! `htpasswd`: users and bcrypt hashes.
//!
//! A hash takes tens of milliseconds on purpose, and clients send the password with every request: what was right is
//! remembered for a while, by a keyed hash. A user who is not there costs as much time as most who are. Few hashes are computed
//! at once, so that nobody can keep the machine busy with them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ring::hmac;
use tokio::sync::Semaphore;

use crate::cache::Cache;

use super::Error;

/// How long a password that was right is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
const ENTRIES: usize = 8192;
/// Hashes at once, and how long one waits for its turn.
const HASHES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);
/// Costs more than a second and a half on any machine.
const COST_MAX: u32 = 15;
/// How often the file is looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With the hash that the file has of it.
    Right(Arc<str>),
    Wrong,
}

#[derive(Debug)]
pub struct Passwords {
    path: PathBuf,
    file: Mutex<Loaded>,
    key: hmac::Key,
    remembered: Cache<Instant>,
    turns: Semaphore,
}

/// Hashes by user.
#[derive(Debug, Default)]
struct Users {
    hashes: HashMap<String, Arc<str>>,
    /// One that costs what most do, for those who are nobody.
    usual: Arc<str>,
}

#[derive(Debug)]
struct Loaded {
    users: Arc<Users>,
    stamp: Option<SystemTime>,
    looked: Instant,
    /// Of what is remembered: what was right with another file is not.
    version: u64,
}

impl Passwords {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let users = parse(path)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Error::Random(error.to_string()))?;
        Ok(Self {
            file: Mutex::new(Loaded {
                users: Arc::new(users),
                stamp: stamp(path),
                looked: Instant::now(),
                version: 0,
            }),
            path: path.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            remembered: Cache::new(ENTRIES),
            turns: Semaphore::new(HASHES),
        })
    }

    /// The users as the file has them now. One that became unreadable stays as it was.
    fn users(&self) -> (Arc<Users>, u64) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.looked.elapsed() >= LOOK {
            file.looked = Instant::now();
            let stamp = stamp(&self.path);
            if stamp != file.stamp {
                match parse(&self.path) {
                    Ok(users) => {
                        file.users = Arc::new(users);
                        file.stamp = stamp;
                        file.version += 1;
                    }
                    Err(error) => tracing::error!(%error, "the changed htpasswd file is not taken"),
                }
            }
        }
        (file.users.clone(), file.version)
    }

    fn remember(&self, version: u64, user: &str, password: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&version.to_be_bytes());
        context.update(&user.len().to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let tag = context.sign();
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is remembered.
    pub fn known(&self, user: &str, password: &str) -> Option<Verdict> {
        let (users, version) = self.users();
        let since = self.remembered.get(&self.remember(version, user, password))?;
        let hash = users.hashes.get(user)?;
        (since.elapsed() < REMEMBERED).then(|| Verdict::Right(hash.clone()))
    }

    /// The hash of a user's password; `None` for somebody who is no user, or no more.
    pub fn hash(&self, user: &str) -> Option<Arc<str>> {
        self.users().0.hashes.get(user).cloned()
    }

    /// `None` when too many are asking.
    pub async fn verify(&self, user: &str, password: &str) -> Option<Verdict> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await.ok()?.ok()?;
        let (users, version) = self.users();
        let known = users.hashes.get(user).cloned();
        let (hash, text) = (
            known.clone().unwrap_or_else(|| users.usual.clone()),
            password.to_owned(),
        );
        let right = tokio::task::spawn_blocking(move || bcrypt::verify(text, &hash).unwrap_or(false)).await;
        drop(turn);
        let Some(hash) = known.filter(|_| right.unwrap_or(false)) else {
            return Some(Verdict::Wrong);
        };
        let key = self.remember(version, user, password);
        self.remembered.remove(&key);
        self.remembered
            .insert(&key, Instant::now(), 1, self.remembered.changes());
        Some(Verdict::Right(hash))
    }
}

fn stamp(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn parse(path: &Path) -> Result<Users, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut users = Users::default();
    let mut costs: HashMap<u32, usize> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason| Error::Htpasswd {
            path: path.to_owned(),
            line: number + 1,
            reason,
        };
        let (user, hash) = line
            .split_once(':')
            .filter(|(user, _)| !user.is_empty())
            .ok_or_else(|| wrong("it is not user:hash"))?;
        let parts: bcrypt::HashParts = hash
            .parse()
            .map_err(|_| wrong("the hash is not bcrypt's: make it with htpasswd -B"))?;
        if parts.get_cost() > COST_MAX {
            return Err(wrong("the hash has a cost above 15: every log-in would take seconds"));
        }
        let count = costs.entry(parts.get_cost()).or_default();
        *count += 1;
        let (count, hash) = (*count, Arc::<str>::from(hash));
        if costs.values().all(|other| *other <= count) {
            users.usual = hash.clone();
        }
        users.hashes.insert(user.to_owned(), hash);
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_bcrypt_is_taken_and_what_was_right_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let hash = bcrypt::hash("secret", 4).unwrap();
        fs::write(&path, format!("# users\nann:{hash}\n")).unwrap();
        let passwords = Passwords::read(&path).unwrap();
        assert_eq!(passwords.known("ann", "secret"), None);
        assert_eq!(passwords.verify("ann", "wrong").await, Some(Verdict::Wrong));
        assert_eq!(passwords.verify("bob", "secret").await, Some(Verdict::Wrong));
        assert_eq!(passwords.verify("nobody", "").await, Some(Verdict::Wrong));
        let right = Some(Verdict::Right(hash.as_str().into()));
        assert_eq!(passwords.verify("ann", "secret").await, right);
        assert_eq!(passwords.known("ann", "secret"), right);
        assert_eq!(passwords.known("ann", "wrong"), None);
        for line in ["ann", ":x", "ann:$apr1$x$y", "ann:plain", "ann:{SHA}x"] {
            fs::write(&path, line).unwrap();
            assert!(
                matches!(Passwords::read(&path), Err(Error::Htpasswd { line: 1, .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn nobody_costs_what_most_users_cost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let lines = [("a", 5), ("b", 4), ("c", 4), ("d", 6)];
        let lines = lines.map(|(user, cost)| format!("{user}:{}\n", bcrypt::hash("secret", cost).unwrap()));
        fs::write(&path, lines.concat()).unwrap();
        let usual: bcrypt::HashParts = parse(&path).unwrap().usual.parse().unwrap();
        assert_eq!(usual.get_cost(), 4);
    }

    #[tokio::test]
    async fn a_user_that_is_removed_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        fs::write(&path, format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
        let passwords = Passwords::read(&path).unwrap();
        assert!(matches!(
            passwords.verify("ann", "secret").await,
            Some(Verdict::Right(_))
        ));
        fs::write(&path, "").unwrap();
        let old = fs::File::options().write(true).open(&path).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        passwords.file.lock().unwrap().looked = Instant::now().checked_sub(LOOK * 2).unwrap();
        assert_eq!(passwords.known("ann", "secret"), None);
        assert_eq!(passwords.verify("ann", "secret").await, Some(Verdict::Wrong));
    }
}
