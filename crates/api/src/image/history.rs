use crate::wire::{omit, wire};

wire! {
    /// One of `GET /images/{name}/history`, newest first.
    #[serde(rename_all = "PascalCase")]
    pub struct History {
        pub comment: String,
        /// Seconds since the Unix epoch.
        pub created: i64,
        pub created_by: String,
        /// `<missing>` for all but the newest and those built here.
        pub id: String,
        /// Bytes.
        pub size: i64,
        pub tags: Option<Vec<String>>,
    }

    /// One step of `DELETE /images/{name}`: exactly one of the two is set.
    #[serde(rename_all = "PascalCase")]
    pub struct Deleted {
        #[serde(skip_serializing_if = "omit")]
        pub deleted: String,
        #[serde(skip_serializing_if = "omit")]
        pub untagged: String,
    }

    /// `POST /images/prune`.
    #[serde(rename_all = "PascalCase")]
    pub struct Prune {
        pub images_deleted: Option<Vec<Deleted>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
