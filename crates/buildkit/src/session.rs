//! What a client's session is called for.

/// A directory of the client's, as packets of [`crate::fsutil`].
pub const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// A build's result to the client, as packets or as plain bytes.
pub const RESULT: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// What the client sends instead of a directory.
pub const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
pub const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
pub const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
pub const AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
pub const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
pub const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
pub const CONTENT_READ: &str = "/containerd.services.content.v1.Content/Read";
pub const CONTENT_WRITE: &str = "/containerd.services.content.v1.Content/Write";
pub const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Headers of `POST /session`, and metadata of `Control.Session`.
pub mod header {
    pub const ID: &str = "x-docker-expose-session-uuid";
    pub const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
    /// One for each call that the session serves.
    pub const METHOD: &str = "x-docker-expose-session-grpc-method";
}

/// Metadata of calls.
pub mod metadata {
    /// Of [`super::FILES`].
    pub const DIRECTORY: &str = "dir-name";
    pub const FOLLOW: &str = "followpaths";
    pub const EXCLUDE: &str = "exclude-patterns";
    /// Behind the name of another one: `1` if its values are encoded as in a URL's query.
    pub const ENCODED: &str = "-encoded";
    /// Of [`super::UPLOAD`].
    pub const URL_PATH: &str = "urlpath";
    pub const URL_HOST: &str = "urlhost";
    /// Of [`super::RESULT`]: the number of the output.
    pub const OUTPUT: &str = "buildkit-attachable-exporter-id";
    /// Before the name of an attribute of an output.
    pub const ATTRIBUTE: &str = "exporter-md-";
    /// Of [`super::AGENT`].
    pub const AGENT_ID: &str = "buildkit.ssh.id";
    /// Of calls of [`super::CONTENT_INFO`] and its like: which of the client's content stores.
    pub const STORE: &str = "buildkit-attachable-store-id";
    /// Of every call of a frontend: the build it belongs to.
    pub const BUILD: &str = "buildkit-controlapi-buildid";
}
