//! References as the records and Docker's messages spell them: the one place that knows `ferry_image::Reference`.

use ferry_image::Reference;

use crate::{Error, Result};

/// Parses a name as a user types it; `latest` is added where neither tag nor digest is given.
pub fn parse(text: &str) -> Result<Reference> {
    text.parse()
        .map_err(|error: ferry_image::Error| Error::Invalid(error.to_string()))
}

/// The key of a record: `docker.io/library/busybox:latest`. With both tag and digest only the digest counts, as in Docker.
pub fn key(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => format!(
            "{}:{}",
            reference.name(),
            reference.tag().unwrap_or(ferry_image::DEFAULT_TAG)
        ),
    }
}

/// As Docker shows it: `busybox:latest`.
pub fn familiar(reference: &Reference) -> String {
    reference.familiar()
}

/// `docker.io/library/busybox`
pub fn repository(reference: &Reference) -> String {
    reference.name()
}

pub fn is_canonical(reference: &Reference) -> bool {
    reference.digest().is_some()
}
