use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What somebody shows a registry. Debug prints no secret.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A refresh token (OAuth 2), as `docker login` gets from some token servers.
    Identity {
        username: String,
        token: String,
    },
    /// A bearer token that is shown to the registry as it is.
    Registry {
        token: String,
    },
}

impl Credentials {
    pub fn basic(username: &str, password: &str) -> Self {
        Self::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    pub fn is_anonymous(&self) -> bool {
        *self == Self::Anonymous
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(crate) fn basic_header(&self) -> Option<String> {
        match self {
            Self::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Self::Identity { username, .. } => write!(f, "Identity({username:?}, …)"),
            Self::Registry { .. } => f.write_str("Registry(…)"),
        }
    }
}
