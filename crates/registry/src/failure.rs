//! Answers to what is not done: the specification's error codes, one table.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use crate::backend;
use crate::manifest;
use crate::name::Invalid;

/// OCI distribution-spec, "Error codes", and what distribution adds to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    RangeInvalid,
    PaginationNumberInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unknown,
}

impl Code {
    const fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::TagInvalid
            | Self::PaginationNumberInvalid => StatusCode::BAD_REQUEST,
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What is answered instead.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub status: StatusCode,
    pub message: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

pub type Answer<T = Response> = Result<T, Box<Failure>>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            code,
            status: code.status(),
            message: message.into(),
            headers: Vec::new(),
        })
    }

    pub fn status(mut self: Box<Self>, status: StatusCode) -> Box<Self> {
        self.status = status;
        self
    }

    pub fn header(mut self: Box<Self>, name: HeaderName, value: impl TryInto<HeaderValue>) -> Box<Self> {
        if let Ok(value) = value.try_into() {
            self.headers.push((name, value));
        }
        self
    }

    /// Asks for credentials.
    pub fn unauthorized(message: impl Into<String>, challenge: String) -> Box<Self> {
        Self::new(Code::Unauthorized, message).header(WWW_AUTHENTICATE, challenge)
    }

    pub fn later(message: impl Into<String>, seconds: u32) -> Box<Self> {
        Self::new(Code::TooManyRequests, message).header(RETRY_AFTER, seconds)
    }

    pub fn manifest_unknown(what: impl std::fmt::Display, repository: &crate::name::Name) -> Box<Self> {
        Self::new(
            Code::ManifestUnknown,
            format!("manifest {what} is not in repository {repository}"),
        )
    }

    pub fn blob_unknown(digest: &ferry_image::Digest, repository: &crate::name::Name) -> Box<Self> {
        Self::new(
            Code::BlobUnknown,
            format!("blob {digest} is not in repository {repository}"),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code.text(), "message": self.message }] });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<backend::Error> for Box<Failure> {
    fn from(error: backend::Error) -> Self {
        use backend::Error as E;
        let code = match &error {
            E::UploadUnknown => Code::BlobUploadUnknown,
            E::Range { .. } => Code::RangeInvalid,
            E::DigestMismatch { .. } => Code::DigestInvalid,
            E::TooLarge { .. } => Code::SizeInvalid,
            E::BlobUnknown(_) | E::ManifestUnknown(_) => Code::ManifestBlobUnknown,
            E::Size { .. } => Code::ManifestInvalid,
            E::InUse { .. } => Code::Denied,
            E::TooManyUploads { .. } => return Failure::later(error.to_string(), 10),
            E::Body(_) => Code::BlobUploadInvalid,
            E::Storage { .. } => Code::Unknown,
        };
        match &error {
            E::TooLarge { .. } => Failure::new(code, error.to_string()).status(StatusCode::PAYLOAD_TOO_LARGE),
            E::InUse { .. } => Failure::new(code, error.to_string()).status(StatusCode::CONFLICT),
            E::Body(cause) => Failure::new(code, format!("{error}: {cause}")),
            E::Storage { source, .. } => {
                // The client learns what failed, and the log why: paths and the like are nobody's business.
                tracing::error!(cause = %source, "{error}");
                let full = matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                );
                let failure = Failure::new(
                    code,
                    match full {
                        true => format!("the registry {error}: its disk is full"),
                        false => format!("the registry {error}: its log says why"),
                    },
                );
                if full {
                    failure.status(StatusCode::INSUFFICIENT_STORAGE)
                } else {
                    failure
                }
            }
            _ => Failure::new(code, error.to_string()),
        }
    }
}

impl From<manifest::Error> for Box<Failure> {
    fn from(error: manifest::Error) -> Self {
        let code = match &error {
            manifest::Error::Digest { .. } | manifest::Error::Mismatch { .. } => Code::DigestInvalid,
            _ => Code::ManifestInvalid,
        };
        let failure = Failure::new(code, error.to_string());
        match error {
            manifest::Error::TooLarge => failure.status(StatusCode::PAYLOAD_TOO_LARGE),
            _ => failure,
        }
    }
}

impl From<Invalid> for Box<Failure> {
    fn from(invalid: Invalid) -> Self {
        let code = match invalid {
            Invalid::Name => Code::NameInvalid,
            Invalid::Tag => Code::TagInvalid,
            Invalid::Upload => Code::BlobUploadUnknown,
            Invalid::Digest => Code::DigestInvalid,
        };
        Failure::new(code, invalid.to_string())
    }
}
