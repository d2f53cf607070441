//! What can be wrong with a request before the engine sees it, and the body every failed request is answered with.

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The texts are the ones Docker Engine 28.5.2 answers with. All of them are status 400 but `MalformedVersion`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The `filters` parameter is not JSON of either accepted shape.
    #[error("invalid filter")]
    MalformedFilters,
    /// A filter the endpoint does not have, or a boolean filter without a value.
    #[error("invalid filter '{key}'")]
    InvalidFilter { key: String },
    /// A filter's values do not say one thing (`dangling=[true false]`).
    #[error("invalid filter '{key}=[{}]'", values.join(" "))]
    InvalidFilterValues { key: String, values: Vec<String> },
    /// A filter's value is not one the endpoint knows; `reason` says why.
    #[error("invalid filter '{key}={value}': {reason}")]
    InvalidFilterValue { key: String, value: String, reason: String },
    #[error(
        "client version {requested} is too old. Minimum supported API version is {minimum}, please upgrade your client to a newer version"
    )]
    VersionTooOld {
        requested: String,
        minimum: crate::ApiVersion,
    },
    #[error("client version {requested} is too new. Maximum supported API version is {maximum}")]
    VersionTooNew {
        requested: String,
        maximum: crate::ApiVersion,
    },
    /// Not digits and dots: no route matches, status 404.
    #[error("page not found")]
    MalformedVersion,
    /// A multiplexed stream announces a stream number above 3; what follows cannot be told apart any more.
    #[error("Unrecognized input header: {stream}")]
    UnknownStream { stream: u8 },
    /// Neither RFC 3339 nor, in a query, `seconds[.nanoseconds]`.
    #[error("invalid time {text:?}")]
    MalformedTime { text: String },
}

/// The body of every answer with a status of 400 and above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub message: String,
}

impl ErrorBody {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}
