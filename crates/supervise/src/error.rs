use std::io;

use ferry_runtime::Failure;

/// Why the shim could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program did not come to run; the kind decides the exit code.
    #[error("{}", .0.message)]
    Start(Failure),
    /// The shim refused a request about a running container.
    #[error("{0}")]
    Refused(String),
    /// There is no such process (any more).
    #[error("the process is not running")]
    Gone,
    /// The shim does not answer.
    #[error("the container's supervisor is not there")]
    Lost,
    #[error("talk to the container's supervisor")]
    Io(#[from] io::Error),
}
