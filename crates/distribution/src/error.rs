//! What can go wrong between us and a registry. Where scripts know Docker's words, the words are Docker's.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ferry_image::Digest;
use http::StatusCode;
use serde::Deserialize;

const DENIED: &str = "requested access to the resource is denied";

/// What Docker says when a password is wanted and it has none; scripts look for it.
const NO_BASIC: &str = "no basic auth credentials";

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error("{0}")]
    Options(String),
    /// Of the registry's certificates or keys on this machine.
    #[error("cannot use {}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    /// `repository` as people write it.
    #[error("pull access denied for {repository}, repository does not exist or may require 'docker login': {answer}")]
    PullDenied {
        registry: String,
        repository: String,
        answer: Box<Answer>,
    },
    #[error("manifest for {reference} not found: {answer}")]
    ManifestUnknown {
        registry: String,
        reference: String,
        answer: Box<Answer>,
    },
    #[error("repository {repository} not found: {answer}")]
    RepositoryUnknown {
        registry: String,
        repository: String,
        answer: Box<Answer>,
    },
    #[error("blob {digest} of {registry}/{repository} not found: {answer}")]
    BlobUnknown {
        registry: String,
        repository: String,
        digest: Digest,
        answer: Box<Answer>,
    },
    /// Any other answer that is a failure: `unauthorized`, `denied`, `toomanyrequests`, 5xx.
    #[error("{method} {url:?}: {answer}")]
    Refused {
        method: &'static str,
        url: String,
        answer: Box<Answer>,
    },
    /// Credentials that a registry does not take, in Docker's words.
    #[error("login attempt to {url} failed with status: {status}")]
    Login { url: String, status: StatusCode },
    /// No answer, or a connection that broke and could not be mended. `cause` is worded as Go does.
    #[error("{method} {url:?}: {cause}")]
    Network {
        method: &'static str,
        url: String,
        cause: String,
        /// There was no connection at all: nobody there, or certificates that do not fit.
        unreachable: bool,
    },
    /// The answer makes no sense, or is a lie.
    #[error("the registry {registry} gave a wrong answer for {subject}: {reason}")]
    Answer {
        registry: String,
        subject: String,
        reason: String,
    },
    #[error("{subject} from {registry} is not what was asked for: its digest is {actual}, not {expected}")]
    Digest {
        registry: String,
        subject: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("{subject} from {registry} has more than {limit} bytes")]
    TooLarge {
        registry: String,
        subject: String,
        limit: u64,
    },
    #[error(
        "{subject} from {registry} is in Docker Image manifest version 2, schema 1, which is not supported: \
         ask its author to upgrade it to the OCI Format or Docker Image manifest v2, schema 2 \
         (https://docs.docker.com/go/deprecated-image-specs/)"
    )]
    Schema1 { registry: String, subject: String },
    /// What is to be pushed cannot be read.
    #[error("cannot read {what}")]
    Source { what: String, source: io::Error },
    /// Docker's config.json.
    #[error("{}: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    #[error("error getting credentials - err: {reason}, out: `{output}`")]
    Helper {
        program: String,
        reason: String,
        output: String,
    },
}

/// What a registry says when it refuses: the first error of its JSON, or as much as can be said without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// `MANIFEST_UNKNOWN`, `UNAUTHORIZED`, `DENIED`, `TOOMANYREQUESTS`, …; empty without one.
    pub code: String,
    pub message: String,
    /// It asked to be left alone for so long.
    pub retry_after: Option<Duration>,
}

/// As the CNCF registry's client prints them: `manifest unknown: manifest unknown`.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (_, NO_BASIC) => f.write_str(NO_BASIC),
            ("", "") => write!(f, "unexpected status from registry: {}", self.status),
            ("", message) => write!(f, "unexpected status from registry: {}: {message}", self.status),
            (code, "") => f.write_str(&words(code)),
            (code, message) => write!(f, "{}: {message}", words(code)),
        }?;
        match self.retry_after {
            Some(time) => write!(f, " (try again in {} s)", time.as_secs()),
            None => Ok(()),
        }
    }
}

fn words(code: &str) -> String {
    code.to_lowercase().replace('_', " ")
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<One>,
    /// Some servers (and gateways) send this instead.
    #[serde(default, alias = "error")]
    details: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Answer {
    /// From the answer's body, of which a few kilobytes are enough.
    pub(crate) fn new(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let parsed: Option<Body> = serde_json::from_slice(body).ok();
        let first = parsed.as_ref().and_then(|body| body.errors.first());
        let (code, message) = match (first, &parsed) {
            (Some(one), _) => (one.code.clone(), one.message.clone()),
            (None, Some(body)) => {
                let said = body
                    .message
                    .clone()
                    .or_else(|| body.details.as_ref()?.as_str().map(str::to_owned));
                (String::new(), said.unwrap_or_default())
            }
            // HTML and the like is no message for a person.
            (None, None) => (String::new(), String::new()),
        };
        let code = match code.as_str() {
            "" => match status {
                StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
                StatusCode::FORBIDDEN => "DENIED",
                StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
                _ => "",
            }
            .to_owned(),
            _ => bounded(&code, 64),
        };
        let message = match (code.as_str(), message.as_str()) {
            ("UNAUTHORIZED", "") => "authentication required".to_owned(),
            ("DENIED", "") => DENIED.to_owned(),
            _ => bounded(&message, 1024),
        };
        Self {
            status,
            code,
            message,
            retry_after,
        }
    }

    pub(crate) fn denied(status: StatusCode) -> Self {
        Self {
            status,
            code: "DENIED".to_owned(),
            message: DENIED.to_owned(),
            retry_after: None,
        }
    }

    pub(crate) fn no_basic() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: "UNAUTHORIZED".to_owned(),
            message: NO_BASIC.to_owned(),
            retry_after: None,
        }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.code == "DENIED" || (self.status == StatusCode::FORBIDDEN && self.code != "UNAUTHORIZED")
    }
}

/// Text of a stranger, for a terminal: short, and without control characters.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    let mut kept: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect();
    if text.chars().nth(most).is_some() {
        kept.push('…');
    }
    kept.trim().to_owned()
}

impl Error {
    /// The registry, repository, manifest or blob is not there (or, for [`PullDenied`](Self::PullDenied), not for us).
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::PullDenied { .. }
            | Self::ManifestUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::BlobUnknown { .. } => true,
            Self::Refused { answer, .. } => answer.is_unknown(),
            _ => false,
        }
    }

    /// Credentials are missing or wrong.
    pub fn is_unauthorized(&self) -> bool {
        if let Self::Login { status, .. } = self {
            return *status == StatusCode::UNAUTHORIZED;
        }
        self.answer()
            .is_some_and(|answer| answer.status == StatusCode::UNAUTHORIZED || answer.code == "UNAUTHORIZED")
    }

    /// We are who we say, and may not.
    pub fn is_denied(&self) -> bool {
        self.answer().is_some_and(Answer::is_denied)
    }

    pub fn is_rate_limit(&self) -> bool {
        self.answer()
            .is_some_and(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS)
    }

    /// Nobody answered as a registry does.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Network { .. })
    }

    /// What the registry said, when it said anything.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::PullDenied { answer, .. }
            | Self::ManifestUnknown { answer, .. }
            | Self::RepositoryUnknown { answer, .. }
            | Self::BlobUnknown { answer, .. }
            | Self::Refused { answer, .. } => Some(answer),
            _ => None,
        }
    }
}

/// For consumers that read: the error itself is kept inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Network { .. } => io::ErrorKind::ConnectionAborted,
            error if error.is_not_found() => io::ErrorKind::NotFound,
            error if error.is_denied() || error.is_unauthorized() => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_dockers_do() {
        let text =
            |status, body: &str| Answer::new(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None).to_string();
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(text(404, unknown), "manifest unknown: manifest unknown");
        assert_eq!(text(401, ""), "unauthorized: authentication required");
        assert_eq!(
            text(403, "<html>"),
            "denied: requested access to the resource is denied"
        );
        assert_eq!(
            text(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow"}]}"#),
            "toomanyrequests: slow"
        );
        assert_eq!(
            text(500, "<html>x</html>"),
            "unexpected status from registry: 500 Internal Server Error"
        );
        assert_eq!(
            text(401, r#"{"details":"incorrect username or password"}"#),
            "unauthorized: incorrect username or password"
        );
        let long = format!(
            r#"{{"errors":[{{"code":"X","message":"{}\u001b[31m"}}]}}"#,
            "y".repeat(5000)
        );
        assert!(text(400, &long).len() < 1100);
    }
}
