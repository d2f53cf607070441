//! The one table from what went wrong to an HTTP status, and the body every failed request is answered with.

use axum::response::{IntoResponse, Response};
use ferry_api::{ErrorBody, json};
use ferry_engine::{Kind, StartFailure};
use http::{HeaderValue, StatusCode, header};

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// An answer with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// No route matches.
    pub fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// Ferry does not do this, or not yet; `what` is the subject: `volumes`.
    pub fn missing(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what}: not there yet in this version of ferry"),
        )
    }
}

/// Docker Engine 28.5.2's status for each kind.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid | Kind::Start(StartFailure::NotFound | StartFailure::NotExecutable) => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Start(StartFailure::Setup) | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ferry_engine::Error> for Failure {
    fn from(error: ferry_engine::Error) -> Self {
        Self::new(status(error.kind), error.message)
    }
}

impl From<ferry_build::Error> for Failure {
    fn from(error: ferry_build::Error) -> Self {
        let status = match &error {
            ferry_build::Error::NotFound(_) | ferry_build::Error::NoDockerfile(_) => StatusCode::NOT_FOUND,
            ferry_build::Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ferry_api::Error> for Failure {
    fn from(error: ferry_api::Error) -> Self {
        match error {
            ferry_api::Error::MalformedVersion => Self::no_page(),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        } else {
            tracing::debug!(status = self.status.as_u16(), "{}", self.message);
        }
        // A string always encodes.
        let body = json::body(&ErrorBody::new(self.message)).unwrap_or_default();
        let json = HeaderValue::from_static("application/json");
        (self.status, [(header::CONTENT_TYPE, json)], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_dockers_status() {
        for (kind, code) in [
            (Kind::Invalid, 400),
            (Kind::NotFound, 404),
            (Kind::Conflict, 409),
            (Kind::Forbidden, 403),
            (Kind::Unsupported, 501),
            (Kind::Start(StartFailure::NotFound), 400),
            (Kind::Start(StartFailure::NotExecutable), 400),
            (Kind::Start(StartFailure::Setup), 500),
            (Kind::Internal, 500),
        ] {
            assert_eq!(status(kind).as_u16(), code, "{kind:?}");
        }
    }
}
