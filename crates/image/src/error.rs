//! What a name may get wrong. The texts are Docker's.

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid reference format")]
    ReferenceFormat,
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    ReferenceUppercase { name: String },
    /// Only the tag or the digest would be right in lower case.
    #[error("repository name must be lowercase")]
    Uppercase,
    #[error("repository name must not be more than 255 characters")]
    NameTooLong,
    /// A full image id where a name is wanted.
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    NameIsId { name: String },
    #[error("invalid tag format")]
    Tag,
    #[error("invalid checksum digest format")]
    DigestFormat,
    #[error("invalid checksum digest length")]
    DigestLength,
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    #[error("{specifier:?}: {reason}: invalid argument")]
    Platform { specifier: String, reason: String },
}
