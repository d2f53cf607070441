//! Who asks, and what they may do.
//!
//! ```text
//! Authorization: Basic   ─▶ htpasswd ([`passwords`])            ─▶ a user, with all the rights the rules give
//!                Bearer  ─▶ own token ([`token`], from /token)  ─▶ a user, with those rights that the token names as well
//!                        ─▶ foreign token ([`jwks`])            ─▶ a subject; what the token grants, or else the rules
//!                none    ─▶ anonymous                           ─▶ what the rules give to everybody
//! ```
//! Without any configuration everybody may do everything. With credentials that are wrong, nobody is anonymous: the answer is
//! 401. A right that is taken from a user is gone at once also from the tokens they hold, because the rules are asked each time;
//! and all of them with the user's password, when that is changed or the user removed.

mod jwks;
mod jwt;
mod passwords;
mod rights;
mod throttle;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::failure::{Answer, Code, Failure};
use crate::http::{Peer, json};
use crate::name::Name;

pub use self::rights::{Access, Rule};
pub use self::token::Grant;

use self::jwks::Issuer;
use self::passwords::{Passwords, Verdict};
use self::rights::Rights;
use self::throttle::Throttle;
use self::token::Signer;

/// Longest `Authorization` that is looked at.
const HEADER_MAX: usize = 16 << 10;

/// Why there can be no registry with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}, line {line}: {reason}", path.display())]
    Htpasswd {
        path: PathBuf,
        line: usize,
        reason: &'static str,
    },
    #[error("{}: {reason}", path.display())]
    Keys { path: PathBuf, reason: String },
    #[error("rights: {0}")]
    Rule(String),
    #[error("no random numbers: {0}")]
    Random(String),
}

/// Who may do what, as configuration files have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// A file of `user:$2y$…` lines, as `htpasswd -B` writes them.
    pub htpasswd: Option<PathBuf>,
    /// Groups of users.
    pub groups: std::collections::BTreeMap<String, Vec<String>>,
    /// Without any, users may pull and push everywhere, and nobody else anything.
    pub rights: Option<Vec<Rule>>,
    /// The realm that Basic authentication names.
    pub realm: Option<String>,
    /// The address of `/token` as clients reach it; without, it is where the request went.
    pub token_realm: Option<String>,
    /// The service that tokens are for.
    pub service: Option<String>,
    /// Seconds for which an own token is valid.
    pub token_seconds: Option<u64>,
    /// Others whose tokens are taken.
    pub issuers: Vec<jwks::Config>,
}

/// Asks everybody who they are, and knows what they may.
#[derive(Debug)]
pub struct Auth(Option<Known>);

#[derive(Debug)]
struct Known {
    passwords: Option<Passwords>,
    rights: Rights,
    signer: Signer,
    issuers: Vec<Issuer>,
    throttle: Throttle,
    realm: String,
    token_realm: Option<String>,
}

/// Somebody who asks.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    name: Option<Arc<str>>,
    /// Of the password that was shown, for a token.
    stamp: String,
    groups: Vec<String>,
    limits: Limits,
}

/// What a token does to the rights of its holder.
#[derive(Clone, Debug, Default)]
enum Limits {
    #[default]
    None,
    /// Only these, of those the rules give.
    Within(Vec<Grant>),
    /// These, whatever the rules say: another issuer decides.
    Exactly(Vec<Grant>),
}

impl Caller {
    /// `None` for anonymous.
    pub fn name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }
}

impl Auth {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self(None)
    }

    /// Reads the files that the configuration names. `secret` is the key of own tokens, 32 bytes. Blocks.
    pub fn new(config: &Config, secret: &[u8; 32]) -> Result<Self, Error> {
        let passwords = config.htpasswd.as_deref().map(Passwords::read).transpose()?;
        let service = config.service.clone().unwrap_or_else(|| "ferry-registry".to_owned());
        let issuers = config.issuers.iter().map(|issuer| Issuer::read(issuer, &service));
        Ok(Self(Some(Known {
            passwords,
            rights: Rights::new(config.rights.clone(), &config.groups)?,
            issuers: issuers.collect::<Result<_, _>>()?,
            signer: Signer::new(secret, service, config.token_seconds.unwrap_or(300)),
            throttle: Throttle::default(),
            realm: config.realm.clone().unwrap_or_else(|| "Ferry registry".to_owned()),
            token_realm: config.token_realm.clone(),
        })))
    }

    pub fn has_tokens(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.passwords.is_some())
    }

    /// Wrong credentials are an error, none are not.
    pub async fn identify(&self, parts: &Parts, peer: Option<Peer>) -> Answer<Caller> {
        let Some(known) = &self.0 else {
            return Ok(Caller::default());
        };
        let Some(header) = parts.headers.get(AUTHORIZATION) else {
            return Ok(Caller::default());
        };
        let refused = |why: &str| Failure::unauthorized(why, known.challenge(None, parts, peer));
        let text = header.to_str().ok().filter(|text| text.len() <= HEADER_MAX);
        let (scheme, rest) = text
            .and_then(|text| text.split_once(' '))
            .ok_or_else(|| refused("Authorization is neither Basic nor Bearer"))?;
        if scheme.eq_ignore_ascii_case("basic") {
            known.basic(rest, parts, peer).await
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let refused = |why: String| {
                let challenge = format!("{},error=\"invalid_token\"", known.challenge(None, parts, peer));
                Failure::unauthorized(format!("the token is not taken: {why}"), challenge)
            };
            known.bearer(rest.trim()).map_err(refused)
        } else {
            Err(refused("Authorization is neither Basic nor Bearer"))
        }
    }

    /// Whether the caller may.
    pub fn may(&self, caller: &Caller, repository: &Name, access: Access) -> bool {
        let Some(known) = &self.0 else {
            return true;
        };
        let by_rules = || {
            known
                .rights
                .allow(caller.name.as_deref(), &caller.groups, repository, access)
        };
        match &caller.limits {
            Limits::None => by_rules(),
            Limits::Within(grants) => grants.iter().any(|grant| grant.allows(repository, access)) && by_rules(),
            Limits::Exactly(grants) => grants.iter().any(|grant| grant.allows(repository, access)),
        }
    }

    /// That the caller may; else what to do about it.
    pub fn require(
        &self,
        caller: &Caller,
        repository: &Name,
        access: Access,
        parts: &Parts,
        peer: Option<Peer>,
    ) -> Answer<()> {
        if self.may(caller, repository, access) {
            return Ok(());
        }
        let Some(known) = &self.0 else { return Ok(()) };
        let challenge = known.challenge(Some((repository, access)), parts, peer);
        let message = format!(
            "{} on repository {repository} needs a right that {} has not",
            access.text(),
            match &caller.name {
                Some(name) => format!("{name:?}"),
                None => "anonymous".to_owned(),
            }
        );
        Err(match (&caller.limits, &caller.name) {
            // With another token it may be possible.
            (Limits::Within(_) | Limits::Exactly(_), _) => {
                Failure::unauthorized(message, format!("{challenge},error=\"insufficient_scope\""))
            }
            (Limits::None, None) => Failure::unauthorized(message, challenge),
            (Limits::None, Some(_)) => Failure::new(Code::Denied, message),
        })
    }

    /// That the caller has shown credentials, where there are any.
    pub fn require_known(&self, caller: &Caller, parts: &Parts, peer: Option<Peer>) -> Answer<()> {
        match &self.0 {
            Some(known) if caller.name.is_none() && matches!(caller.limits, Limits::None) => Err(
                Failure::unauthorized("who are you?", known.challenge(None, parts, peer)),
            ),
            _ => Ok(()),
        }
    }

    /// `/token`: a token for what is asked for and allowed (distribution's token specification, and its OAuth 2 form).
    /// `asked` is the query of a GET, or the form of a POST.
    pub async fn token(&self, parts: &Parts, asked: &[u8], peer: Option<Peer>) -> Answer {
        let Some(known) = &self.0 else {
            return Err(Failure::new(Code::Unsupported, "there are no tokens here").status(StatusCode::NOT_FOUND));
        };
        let mut caller = match parts
            .headers
            .get(AUTHORIZATION)
            .map(|header| header.to_str().unwrap_or_default())
        {
            None => Caller::default(),
            Some(header) => match header.split_once(' ') {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => known.basic(rest, parts, peer).await?,
                _ => {
                    return Err(Failure::unauthorized(
                        "a token is for a user and a password",
                        known.basic_challenge(),
                    ));
                }
            },
        };
        let query = crate::http::Query::parse(&String::from_utf8_lossy(asked));
        if parts.method == Method::POST {
            let form = parts
                .headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
            if !form {
                return Err(Failure::new(Code::Unsupported, "a token is asked for with a form")
                    .status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
            }
            match (query.get("grant_type"), query.get("username"), query.get("password")) {
                (Some("password"), Some(user), Some(password)) => {
                    caller = known.check(user, password, parts, peer).await?;
                }
                _ => {
                    return Err(Failure::new(
                        Code::Unsupported,
                        "grant_type must be password, with username and password: there are no refresh tokens",
                    )
                    .status(StatusCode::BAD_REQUEST));
                }
            }
        }
        let scopes = query.all("scope").flat_map(str::split_whitespace);
        let grants = token::parse_scopes(scopes).into_iter().filter_map(|grant| {
            let name: Name = grant.name.parse().ok()?;
            grant.filter(|access| self.may(&caller, &name, access))
        });
        Ok(json(&known.signer.sign(
            caller.name.as_deref(),
            &caller.stamp,
            &grants.collect::<Vec<_>>(),
        )))
    }
}

impl Known {
    async fn basic(&self, encoded: &str, parts: &Parts, peer: Option<Peer>) -> Answer<Caller> {
        let decoded = STANDARD
            .decode(encoded.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => self.check(user, password, parts, peer).await,
            None => Err(Failure::unauthorized(
                "Basic credentials are base64 of user:password",
                self.challenge(None, parts, peer),
            )),
        }
    }

    async fn check(&self, user: &str, password: &str, parts: &Parts, peer: Option<Peer>) -> Answer<Caller> {
        let refused = || Failure::unauthorized("wrong user or password", self.challenge(None, parts, peer));
        let Some(passwords) = &self.passwords else {
            return Err(refused());
        };
        if let Some(verdict) = passwords.known(user, password) {
            return self.caller(user, verdict).ok_or_else(refused);
        }
        let address = peer.map(|peer| peer.address.ip());
        if let Some(seconds) = self.throttle.blocked(address) {
            return Err(Failure::later("too many wrong passwords from this address", seconds));
        }
        let Some(verdict) = passwords.verify(user, password).await else {
            return Err(Failure::later("too many passwords are being checked", 1));
        };
        if matches!(verdict, Verdict::Wrong) {
            self.throttle.failed(address);
            tracing::warn!(user = %format!("{user:.64}").escape_debug(), peer = ?address, "wrong user or password");
        }
        self.caller(user, verdict).ok_or_else(refused)
    }

    fn caller(&self, user: &str, verdict: Verdict) -> Option<Caller> {
        let Verdict::Right(hash) = verdict else { return None };
        Some(Caller {
            name: Some(user.into()),
            stamp: self.signer.stamp(user, &hash),
            ..Caller::default()
        })
    }

    fn bearer(&self, text: &str) -> Result<Caller, String> {
        let parsed = jwt::Token::parse(text)?;
        let now = jwt::now();
        if parsed.is_own() {
            let claims = self.signer.verify(&parsed, now)?;
            if !claims.sub.is_empty() {
                let hash = self
                    .passwords
                    .as_ref()
                    .and_then(|passwords| passwords.hash(&claims.sub));
                let stamp = hash.map(|hash| self.signer.stamp(&claims.sub, &hash));
                if stamp != Some(claims.stamp) {
                    return Err("its user has another password by now, or is none any more".to_owned());
                }
            }
            return Ok(Caller {
                name: Some(claims.sub).filter(|name| !name.is_empty()).map(Into::into),
                limits: Limits::Within(claims.access),
                ..Caller::default()
            });
        }
        let issuer = self
            .issuers
            .iter()
            .find(|issuer| issuer.is_of(&parsed))
            .ok_or("nobody here trusts its issuer")?;
        let claims = issuer.verify(&parsed, now)?;
        Ok(Caller {
            name: Some(claims.sub).filter(|name| !name.is_empty()).map(Into::into),
            groups: claims.groups,
            limits: claims.access.map_or(Limits::None, Limits::Exactly),
            ..Caller::default()
        })
    }

    fn basic_challenge(&self) -> String {
        format!("Basic realm=\"{}\"", quoted(&self.realm))
    }

    /// Where to get a token, and for what; or that a password is wanted.
    fn challenge(&self, scope: Option<(&Name, Access)>, parts: &Parts, peer: Option<Peer>) -> String {
        if self.passwords.is_none() && self.token_realm.is_none() {
            return format!("Bearer realm=\"{}\"", quoted(&self.realm));
        }
        let realm = match &self.token_realm {
            Some(realm) => realm.clone(),
            None => {
                let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
                let Some(host) = host.or(parts.uri.authority().map(http::uri::Authority::as_str)) else {
                    return self.basic_challenge();
                };
                let scheme = if peer.is_some_and(|peer| peer.tls) {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{host}/token")
            }
        };
        let scope = scope
            .map(|(name, access)| format!(",scope=\"repository:{name}:{}\"", access.scope()))
            .unwrap_or_default();
        format!(
            "Bearer realm=\"{}\",service=\"{}\"{scope}",
            quoted(&realm),
            quoted(self.signer.service())
        )
    }
}

fn quoted(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '\\'))
        .collect()
}

/// The key of own tokens, from its file; made if it is not there. Blocks.
pub fn secret(path: &Path) -> std::io::Result<[u8; 32]> {
    match std::fs::read(path) {
        Ok(bytes) => {
            <[u8; 32]>::try_from(bytes).map_err(|_| std::io::Error::other("it is no key of 32 bytes: remove it"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            let stored = ferry_kit::AtomicFile::replace(path, &key, 0o600, ferry_kit::Durability::Power);
            stored.map_err(std::io::Error::other)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}
