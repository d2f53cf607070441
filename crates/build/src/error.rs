//! Why a build ended.

use ferry_dockerfile::Range;
use ferry_image::Digest;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request, the Dockerfile or what it names is wrong: in BuildKit's words where it has some.
    #[error("{0}")]
    Invalid(String),
    /// Something of the client's or of a registry's is not there.
    #[error("{0}")]
    NotFound(String),
    /// There is no Dockerfile of that name.
    #[error("failed to read dockerfile: open {0}: no such file or directory")]
    NoDockerfile(String),
    /// The Dockerfile is wrong.
    #[error("{}", .0.error)]
    Dockerfile(Box<Written>),
    /// A step failed.
    #[error("{0}")]
    Step(Box<Failed>),
    /// Whoever asked has gone, or said so.
    #[error("the build was canceled")]
    Canceled,
    /// What Ferry itself, its disk or its kernel could not do.
    #[error("{0}")]
    Internal(String),
}

/// What is wrong with a Dockerfile, and the file.
#[derive(Debug, Clone)]
pub struct Written {
    pub error: ferry_dockerfile::Error,
    pub filename: String,
    /// All of it; empty as long as nobody added it.
    pub source: Vec<u8>,
    /// The lines it is about, as BuildKit shows them.
    pub excerpt: String,
}

/// A step that failed.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{why}")]
pub struct Failed {
    /// Which, by [`crate::progress::Vertex::id`].
    pub vertex: String,
    /// As progress shows it: `[2/3] RUN make`.
    pub name: String,
    /// `process "/bin/sh -c make" did not complete successfully: exit code: 2`
    pub why: String,
    /// The process, if one was started: its arguments.
    pub command: String,
    /// Of a process that ended so.
    pub exit_code: Option<i32>,
    /// Its files as it left them, if that was asked for.
    pub image: Option<Digest>,
    /// The lines of the Dockerfile it stands on.
    pub ranges: Vec<Range>,
    /// The Dockerfile; empty as long as nobody added it.
    pub filename: String,
    pub file: Vec<u8>,
    pub excerpt: String,
}

impl Failed {
    /// Adds the Dockerfile, and the lines of it as BuildKit shows them.
    pub(crate) fn show(&mut self, filename: &str, file: &[u8]) {
        filename.clone_into(&mut self.filename);
        self.file = file.to_vec();
        self.excerpt = crate::solve::excerpt(filename, file, &self.ranges);
    }
}

impl Error {
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    pub fn internal(what: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        use std::fmt::Write as _;
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        Self::Internal(text)
    }
}

impl From<ferry_dockerfile::Error> for Error {
    fn from(error: ferry_dockerfile::Error) -> Self {
        Self::Dockerfile(Box::new(Written {
            error,
            filename: String::new(),
            source: Vec::new(),
            excerpt: String::new(),
        }))
    }
}

impl From<ferry_dockerfile::Problem> for Error {
    fn from(problem: ferry_dockerfile::Problem) -> Self {
        ferry_dockerfile::Error::from(problem).into()
    }
}
