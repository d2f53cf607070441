use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Descriptor;
use crate::wire::{omit, plain, wire};

wire! {
    /// One line of the stream that pull, push, load, import and the classic build answer with
    /// (`jsonmessage.JSONMessage`).
    ///
    /// Written with [`crate::json::message`]. Once the stream has begun an error is a line of it: both `error` and
    /// `error_message`.
    #[serde(rename_all = "camelCase")]
    pub struct Message {
        /// Output of a build, or the last words of a load.
        #[serde(skip_serializing_if = "omit")]
        pub stream: String,
        #[serde(skip_serializing_if = "omit")]
        pub status: String,
        /// `{}` for a step that has no progress to show yet.
        #[serde(rename = "progressDetail", skip_serializing_if = "omit")]
        pub progress: Option<Progress>,
        /// The same as a bar, for clients that draw none: `[==>    ]  1.2MB/3.4MB`.
        #[serde(rename = "progress", skip_serializing_if = "omit")]
        pub progress_message: String,
        /// What the line is about: a layer's short digest.
        #[serde(skip_serializing_if = "omit")]
        pub id: String,
        #[serde(rename = "errorDetail", skip_serializing_if = "omit")]
        pub error: Option<MessageError>,
        #[serde(rename = "error", skip_serializing_if = "omit")]
        pub error_message: String,
        #[serde(skip_serializing_if = "omit")]
        pub aux: Option<Aux>,
    }

    #[serde(rename_all = "lowercase")]
    pub struct Progress {
        #[serde(skip_serializing_if = "omit")]
        pub current: i64,
        #[serde(skip_serializing_if = "omit")]
        pub total: i64,
        /// Seconds since the Unix epoch.
        #[serde(skip_serializing_if = "omit")]
        pub start: i64,
        #[serde(rename = "hidecounts", skip_serializing_if = "omit")]
        pub hide_counts: bool,
        /// Empty is bytes.
        #[serde(skip_serializing_if = "omit")]
        pub units: String,
    }

    #[serde(rename_all = "camelCase")]
    pub struct MessageError {
        #[serde(skip_serializing_if = "omit")]
        pub code: i64,
        #[serde(skip_serializing_if = "omit")]
        pub message: String,
    }
}

/// A result for programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Aux {
    /// After a push.
    Pushed {
        #[serde(rename = "Tag")]
        tag: String,
        #[serde(rename = "Digest")]
        digest: String,
        /// Bytes of the manifest.
        #[serde(rename = "Size")]
        size: i64,
    },
    /// Of a push that sent the manifest for one platform where the image came by an index (`auxprogress`).
    #[serde(rename_all = "camelCase")]
    OnlyPlatform {
        /// True.
        manifest_pushed_instead_of_index: bool,
        original_index: Box<Descriptor>,
        selected_manifest: Box<Descriptor>,
    },
    /// After a classic build.
    Built {
        #[serde(rename = "ID")]
        id: String,
    },
    Other(Value),
}

impl Default for Aux {
    fn default() -> Self {
        Self::Other(Value::Null)
    }
}

plain!(Aux);

impl Message {
    pub fn status(status: impl Into<String>) -> Self {
        Self {
            status: status.into(),
            ..Self::default()
        }
    }

    pub fn stream(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            ..Self::default()
        }
    }

    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error: Some(MessageError {
                message: message.clone(),
                ..MessageError::default()
            }),
            error_message: message,
            ..Self::default()
        }
    }
}
