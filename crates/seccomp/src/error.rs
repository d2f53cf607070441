//! Why a profile cannot be used.

/// Display is one lowercase clause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not JSON, or not of a profile's shape.
    #[error("decoding seccomp profile failed")]
    Json(#[source] serde_json::Error),

    /// Two fields that exclude each other.
    #[error("both '{0}' and '{1}' are specified in the seccomp profile, use either '{0}' or '{1}'")]
    Both(&'static str, &'static str),

    /// `minKernel` is not of the form `4.8`.
    #[error("invalid kernel version {0:?} in the seccomp profile, expected \"<kernel>.<major>\"")]
    KernelVersion(String),

    /// A condition on an argument that no system call has.
    #[error("system call {call:?} has a condition on argument {index}; arguments are 0 to 5")]
    Argument { call: String, index: usize },

    /// Who waits for the answer to a notification could not be told about it.
    #[error("SCMP_ACT_NOTIFY cannot be used {0}")]
    Notify(&'static str),

    /// An action or flag outside the specification.
    #[error("unknown seccomp action or flag {0:?}")]
    Unknown(String),

    /// More instructions than the kernel takes (`BPF_MAXINSNS`).
    #[error("seccomp profile needs {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
