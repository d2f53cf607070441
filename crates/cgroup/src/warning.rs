//! What did not take effect as it was asked for.

use std::fmt;

/// A limit that was asked for and does not hold as asked. The container runs all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The kernel, or the hierarchies mounted here, have no such limit; it was left out.
    Unsupported {
        /// Name of the limit as the OCI specification spells it, such as `memory.swap`.
        limit: String,
        asked: String,
        /// The file or controller that is missing.
        missing: String,
    },
    /// The version of control groups that is mounted here has nothing that this limit could become; it was left out.
    NoCounterpart { limit: String, asked: String, version: u8 },
    /// The kernel took the value and holds another one.
    Adjusted { limit: String, asked: String, held: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { limit, asked, missing } => {
                write!(f, "{limit} {asked} is not applied: this kernel offers no {missing}")
            }
            Self::NoCounterpart { limit, asked, version } => {
                write!(
                    f,
                    "{limit} {asked} is not applied: cgroup v{version} has nothing like it"
                )
            }
            Self::Adjusted { limit, asked, held } => write!(f, "{limit}: asked for {asked}, the kernel holds {held}"),
        }
    }
}
