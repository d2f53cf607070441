use crate::wire::{omit, wire};

/// The `condition` parameter; empty is `NOT_RUNNING`.
pub mod condition {
    pub const NOT_RUNNING: &str = "not-running";
    pub const NEXT_EXIT: &str = "next-exit";
    pub const REMOVED: &str = "removed";
}

wire! {
    /// `POST /containers/{id}/wait`.
    #[serde(rename_all = "PascalCase")]
    pub struct Wait {
        #[serde(skip_serializing_if = "omit")]
        pub error: Option<WaitError>,
        pub status_code: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct WaitError {
        #[serde(skip_serializing_if = "omit")]
        pub message: String,
    }
}
