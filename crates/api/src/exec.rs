//! Further processes in a running container.

use crate::wire::{omit, wire};

wire! {
    /// The body of `POST /containers/{id}/exec`.
    #[serde(rename_all = "PascalCase")]
    pub struct Create {
        pub user: String,
        pub privileged: bool,
        pub tty: bool,
        /// Rows and columns.
        #[serde(skip_serializing_if = "omit")]
        pub console_size: Option<[u64; 2]>,
        pub attach_stdin: bool,
        pub attach_stderr: bool,
        pub attach_stdout: bool,
        pub detach_keys: String,
        pub env: Option<Vec<String>>,
        pub working_dir: String,
        pub cmd: Option<Vec<String>>,
        /// Sent by old clients and not looked at: what counts is [`Start::detach`].
        pub detach: bool,
    }

    /// What `POST /containers/{id}/exec` answers.
    #[serde(rename_all = "PascalCase")]
    pub struct Created {
        pub id: String,
    }

    /// The body of `POST /exec/{id}/start`.
    #[serde(rename_all = "PascalCase")]
    pub struct Start {
        pub detach: bool,
        pub tty: bool,
        #[serde(skip_serializing_if = "omit")]
        pub console_size: Option<[u64; 2]>,
    }

    /// `GET /exec/{id}/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        #[serde(rename = "ID")]
        pub id: String,
        pub running: bool,
        /// `null` until the process has ended.
        pub exit_code: Option<i64>,
        pub process_config: Option<ProcessConfig>,
        pub open_stdin: bool,
        pub open_stderr: bool,
        pub open_stdout: bool,
        pub can_remove: bool,
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Bytes in base64; `null` for the engine's own default.
        pub detach_keys: Option<String>,
        /// In the host's pid namespace; 0 before the start.
        pub pid: i64,
    }

    #[serde(rename_all = "camelCase")]
    pub struct ProcessConfig {
        pub tty: bool,
        /// The program; the rest of the command are `arguments`.
        pub entrypoint: String,
        pub arguments: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub privileged: Option<bool>,
        #[serde(skip_serializing_if = "omit")]
        pub user: String,
    }
}
