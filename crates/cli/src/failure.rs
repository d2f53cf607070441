use ferry_client::Error;
pub use ferry_kit::error::io_text;

/// How a command ends when it does not succeed: what goes to stderr (nothing when empty) and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// Worded as docker words it.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Connect { host, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("permission denied while trying to connect to the Docker daemon socket at {host}")
        }
        Error::Connect { host, .. } => {
            format!("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")
        }
        Error::Tls { host, reason }
            if reason.contains("certificate required") || reason.contains("bad certificate") =>
        {
            format!(
                "error during connect: the server at {host} probably has client authentication (--tlsverify) enabled; check your TLS \
             client certification settings: {reason}"
            )
        }
        Error::Tls { reason, .. } => format!("error during connect: {reason}"),
        Error::Api { message, .. } => format!("Error response from daemon: {message}"),
        Error::Upload(source) => io_text(source),
        Error::Json(source) => source.to_string(),
        Error::Transport(source) => format!("error during connect: {source}"),
        other => other.to_string(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(describe(&error))
    }
}
