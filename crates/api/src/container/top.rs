use crate::wire::wire;

wire! {
    /// `GET /containers/{id}/top`: the output of `ps`, in columns.
    #[serde(rename_all = "PascalCase")]
    pub struct Top {
        pub processes: Option<Vec<Vec<String>>>,
        pub titles: Option<Vec<String>>,
    }
}
