use crate::Timestamp;
use crate::wire::{omit, wire};

pub mod health_status {
    pub const NONE: &str = "none";
    pub const STARTING: &str = "starting";
    pub const HEALTHY: &str = "healthy";
    pub const UNHEALTHY: &str = "unhealthy";
    pub const ALL: [&str; 4] = [NONE, STARTING, HEALTHY, UNHEALTHY];
}

wire! {
    /// How to check that a container is healthy. Durations are nanoseconds; 0 inherits the image's, then Docker's
    /// defaults
    /// (30 s, 30 s, 0 s, 5 s, 3 retries); otherwise at least 1 ms.
    #[serde(rename_all = "PascalCase")]
    pub struct HealthCheck {
        /// Empty inherits; `["NONE"]` disables; `["CMD", arg, …]` runs; `["CMD-SHELL", command]` runs in a shell.
        /// Ferry's own: `["HTTP", ":8080/path"]` and `["TCP", ":5432"]` need no program in the container.
        #[serde(skip_serializing_if = "omit")]
        pub test: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub interval: i64,
        #[serde(skip_serializing_if = "omit")]
        pub timeout: i64,
        #[serde(skip_serializing_if = "omit")]
        pub start_period: i64,
        #[serde(skip_serializing_if = "omit")]
        pub start_interval: i64,
        #[serde(skip_serializing_if = "omit")]
        pub retries: i64,
        /// Ferry's own: what becomes of a container that turns unhealthy: `none`, `restart`, `kill` or `stop`.
        #[serde(skip_serializing_if = "omit")]
        pub on_failure: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Health {
        /// One of [`health_status`].
        pub status: String,
        pub failing_streak: i64,
        /// The last five checks, oldest first.
        pub log: Option<Vec<HealthResult>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct HealthResult {
        pub start: Timestamp,
        pub end: Timestamp,
        /// 0 healthy, 1 unhealthy, anything else an error of the check.
        pub exit_code: i64,
        /// The first 4096 bytes.
        pub output: String,
    }
}
