//! What can go wrong with a request, by what a client can do about it.

pub(crate) use ferry_kit::error::chain;
use ferry_runtime::Kind as StartKind;

pub type Result<T> = std::result::Result<T, Error>;

/// An error a client sees: the kind decides the HTTP status and the exit code, the message is the whole story.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

/// What kind of error: one HTTP status each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: 400.
    Invalid,
    /// What it names is not there: 404.
    NotFound,
    /// What it names is in the wrong state, or taken: 409.
    Conflict,
    /// It may not be done, to anything of that kind: 403.
    Forbidden,
    /// Ferry does not do this: 501.
    Unsupported,
    /// The container's program did not come to run: 400 or 500, and 126 or 127 for `run`.
    Start(StartFailure),
    /// Anything else: 500.
    Internal,
}

/// Why a program did not come to run, as Docker tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// 127.
    NotFound,
    /// 126.
    NotExecutable,
    /// 125.
    Setup,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Something failed that the client is not to blame for: what was being done, and the chain of causes.
    pub fn internal(what: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Kind::Internal, format!("{what}: {}", chain(error)))
    }

    /// The exit code that a container gets which did not start.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            Kind::Start(StartFailure::NotFound) => 127,
            Kind::Start(StartFailure::NotExecutable) => 126,
            _ => 128,
        }
    }
}

impl From<ferry_supervise::Error> for Error {
    fn from(error: ferry_supervise::Error) -> Self {
        match &error {
            ferry_supervise::Error::Start(failure) => {
                let kind = match failure.kind {
                    StartKind::NotFound => StartFailure::NotFound,
                    StartKind::NotExecutable => StartFailure::NotExecutable,
                    StartKind::Setup => StartFailure::Setup,
                };
                let mut text = failure.message.clone();
                // Docker's words; clients look for the last two.
                if kind == StartFailure::NotExecutable && text.ends_with("is a directory") {
                    text.push_str(": permission denied");
                }
                Self::new(Kind::Start(kind), text)
            }
            ferry_supervise::Error::Gone => Self::conflict("the process is not running"),
            ferry_supervise::Error::Lost | ferry_supervise::Error::Refused(_) | ferry_supervise::Error::Io(_) => {
                Self::new(Kind::Internal, chain(&error))
            }
        }
    }
}

/// Docker's statuses: what is not there or may not be seen is 404, everything else 500.
impl From<&ferry_distribution::Error> for Error {
    fn from(error: &ferry_distribution::Error) -> Self {
        let kind = match error {
            error if error.is_not_found() || error.is_denied() => Kind::NotFound,
            _ => Kind::Internal,
        };
        Self::new(kind, chain(error))
    }
}

impl From<ferry_distribution::Error> for Error {
    fn from(error: ferry_distribution::Error) -> Self {
        Self::from(&error)
    }
}

impl From<ferry_storage::Error> for Error {
    fn from(error: ferry_storage::Error) -> Self {
        use ferry_storage::Error as E;
        let kind = match &error {
            E::NotFound { .. } | E::OtherPlatform { .. } => Kind::NotFound,
            E::Conflict(_) => Kind::Conflict,
            E::Ambiguous { .. } | E::Invalid(_) | E::TooLarge { .. } | E::Archive { .. } => Kind::Invalid,
            _ => Kind::Internal,
        };
        Self::new(kind, chain(&error))
    }
}
