use super::health::Health;
use crate::Timestamp;
use crate::wire::{omit, wire};

pub mod status {
    pub const CREATED: &str = "created";
    pub const RUNNING: &str = "running";
    pub const PAUSED: &str = "paused";
    pub const RESTARTING: &str = "restarting";
    pub const REMOVING: &str = "removing";
    pub const EXITED: &str = "exited";
    pub const DEAD: &str = "dead";
    /// In the order Docker's error texts list them.
    pub const ALL: [&str; 7] = [CREATED, RUNNING, PAUSED, RESTARTING, REMOVING, EXITED, DEAD];
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct State {
        /// One of [`status`].
        pub status: String,
        pub running: bool,
        pub paused: bool,
        pub restarting: bool,
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        pub dead: bool,
        /// 0 when there is no process.
        pub pid: i64,
        pub exit_code: i64,
        pub error: String,
        pub started_at: Timestamp,
        pub finished_at: Timestamp,
        #[serde(skip_serializing_if = "omit")]
        pub health: Option<Health>,
    }
}
