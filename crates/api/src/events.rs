//! What happened: the lines of `GET /events`, written with [`crate::json::message`].

use std::collections::BTreeMap;

use crate::wire::{omit, wire};

/// Values of [`Message::type`](Message).
pub mod kind {
    pub const BUILDER: &str = "builder";
    pub const CONTAINER: &str = "container";
    pub const DAEMON: &str = "daemon";
    pub const IMAGE: &str = "image";
    pub const NETWORK: &str = "network";
    pub const VOLUME: &str = "volume";
}

/// Values of [`Message::action`]. `exec_create`, `exec_start` and `health_status` are followed by `: ` and the command
/// or the status.
pub mod action {
    pub const ARCHIVE_PATH: &str = "archive-path";
    pub const ATTACH: &str = "attach";
    pub const COMMIT: &str = "commit";
    pub const CONNECT: &str = "connect";
    pub const COPY: &str = "copy";
    pub const CREATE: &str = "create";
    pub const DELETE: &str = "delete";
    pub const DESTROY: &str = "destroy";
    pub const DETACH: &str = "detach";
    pub const DIE: &str = "die";
    pub const DISCONNECT: &str = "disconnect";
    pub const EXEC_CREATE: &str = "exec_create";
    pub const EXEC_DETACH: &str = "exec_detach";
    pub const EXEC_DIE: &str = "exec_die";
    pub const EXEC_START: &str = "exec_start";
    pub const EXPORT: &str = "export";
    pub const EXTRACT_TO_DIR: &str = "extract-to-dir";
    pub const HEALTH_STATUS: &str = "health_status";
    pub const IMPORT: &str = "import";
    pub const KILL: &str = "kill";
    pub const LOAD: &str = "load";
    pub const MOUNT: &str = "mount";
    pub const OOM: &str = "oom";
    pub const PAUSE: &str = "pause";
    pub const PRUNE: &str = "prune";
    pub const PULL: &str = "pull";
    pub const PUSH: &str = "push";
    pub const RELOAD: &str = "reload";
    pub const REMOVE: &str = "remove";
    pub const RENAME: &str = "rename";
    pub const RESIZE: &str = "resize";
    pub const RESTART: &str = "restart";
    pub const SAVE: &str = "save";
    pub const START: &str = "start";
    pub const STOP: &str = "stop";
    pub const TAG: &str = "tag";
    pub const TOP: &str = "top";
    pub const UNMOUNT: &str = "unmount";
    pub const UNPAUSE: &str = "unpause";
    pub const UNTAG: &str = "untag";
    pub const UPDATE: &str = "update";
}

wire! {
    /// `status`, `id` and `from` repeat, for containers and images, what `action` and `actor` say.
    #[serde(rename_all = "PascalCase")]
    pub struct Message {
        #[serde(rename = "status", skip_serializing_if = "omit")]
        pub status: String,
        #[serde(rename = "id", skip_serializing_if = "omit")]
        pub id: String,
        /// The container's image.
        #[serde(rename = "from", skip_serializing_if = "omit")]
        pub from: String,
        /// One of [`kind`].
        pub r#type: String,
        pub action: String,
        pub actor: Actor,
        /// `local`.
        #[serde(rename = "scope", skip_serializing_if = "omit")]
        pub scope: String,
        /// Seconds since the Unix epoch.
        #[serde(rename = "time", skip_serializing_if = "omit")]
        pub time: i64,
        /// The same in nanoseconds.
        #[serde(rename = "timeNano", skip_serializing_if = "omit")]
        pub time_nano: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Actor {
        /// A container's id, an image's id or name, a volume's name.
        #[serde(rename = "ID")]
        pub id: String,
        pub attributes: Option<BTreeMap<String, String>>,
    }
}

impl Message {
    /// An event of this engine, with the three repeated fields as Docker fills them.
    pub fn new(
        kind: &str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
        at: jiff::Timestamp,
    ) -> Self {
        let (action, id) = (action.into(), id.into());
        let repeated = matches!(kind, kind::CONTAINER | kind::IMAGE);
        Self {
            status: if repeated { action.clone() } else { String::new() },
            id: if repeated { id.clone() } else { String::new() },
            from: if kind == kind::CONTAINER {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            r#type: kind.to_owned(),
            action,
            actor: Actor {
                id,
                attributes: Some(attributes),
            },
            scope: "local".to_owned(),
            time: at.as_second(),
            time_nano: i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}
