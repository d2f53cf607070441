//! A volume as it is persisted.

use std::collections::BTreeMap;

use ferry_api::Timestamp;
use ferry_api::volume::Volume as Shown;
use ferry_storage::Document;
use serde::{Deserialize, Serialize};

use super::local;

/// The only driver there is.
pub(crate) const DRIVER: &str = "local";
/// By which Docker tells volumes without a name of the user's.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Everything about a volume but what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub name: String,
    pub created: jiff::Timestamp,
    pub driver: String,
    /// `None`, as in an answer, where none were given.
    pub labels: Option<BTreeMap<String, String>>,
    pub options: Option<BTreeMap<String, String>>,
    /// Nobody gave it its name.
    pub anonymous: bool,
    pub scope: String,
    /// Made for a container, and not kept when that was removed: if no container has it when an engine starts, the one before
    /// died between the two.
    #[serde(default)]
    pub for_container: bool,
}

impl Document for Stored {
    const KIND: &'static str = "volume";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.name
    }
}

impl Stored {
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.labels.as_ref().unwrap_or(&NONE)
    }

    /// What is mounted on its directory while containers use it.
    pub fn device(&self) -> Option<local::Device<'_>> {
        self.options.as_ref().and_then(local::Device::of)
    }

    /// What is to be written of one that outlives its container.
    pub fn kept(&self) -> Option<Self> {
        self.for_container.then(|| Self {
            for_container: false,
            ..self.clone()
        })
    }

    pub fn shown(&self, mountpoint: &std::path::Path) -> Shown {
        // To the second, as Docker has it.
        let created = jiff::Timestamp::from_second(self.created.as_second()).unwrap_or(self.created);
        Shown {
            created_at: Some(Timestamp(created)),
            driver: self.driver.clone(),
            labels: self.labels.clone(),
            mountpoint: mountpoint.to_string_lossy().into_owned(),
            name: self.name.clone(),
            options: self.options.clone(),
            scope: self.scope.clone(),
            ..Shown::default()
        }
    }
}
