/// Why a zone or settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the zone does not begin with \"{}\"", crate::zone::HEADER)]
    Header,
    #[error("line {line} of the zone is not understood: {reason}")]
    Line { line: usize, reason: &'static str },
    #[error("{what} is larger than {limit}")]
    TooLarge { what: &'static str, limit: usize },
    #[error("the resolver's settings are not understood")]
    Settings(#[from] serde_json::Error),
}
