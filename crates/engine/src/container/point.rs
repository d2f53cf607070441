//! One mount of a container's, as it is persisted: what `inspect` shows of it, and what only a start needs.

use std::ops::{Deref, DerefMut};

use ferry_api::volume::MountPoint;
use ferry_image::Digest;
use serde::{Deserialize, Serialize};

/// A record of before there were volumes has only what is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    #[serde(flatten)]
    pub shown: MountPoint,
    /// An anonymous volume of this container's: it goes with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// What the image has there goes into the volume while that is empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
    /// Of a volume or an image, the part that is mounted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// The id of the image that is mounted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Its layers that can be seen, topmost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    #[serde(default)]
    pub depth: Depth,
    /// Files show the owners that the container's ids have in a user namespace of its own: `idmap`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idmap: bool,
    /// Of `--tmpfs`, which `inspect` shows elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlisted: bool,
}

/// What of a bind mount is mounted below it, and whether that is read-only with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// All of it, and as read-only as the mount itself.
    #[default]
    Whole,
    /// All of it, writable where it is.
    Writable,
    /// Nothing.
    Top,
}

impl Deref for Point {
    type Target = MountPoint;
    fn deref(&self) -> &MountPoint {
        &self.shown
    }
}

impl DerefMut for Point {
    fn deref_mut(&mut self) -> &mut MountPoint {
        &mut self.shown
    }
}

impl From<MountPoint> for Point {
    fn from(shown: MountPoint) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }
}

/// What `inspect` and `ps` show.
pub(crate) fn shown(points: &[Point]) -> Vec<MountPoint> {
    let listed = points.iter().filter(|point| !point.unlisted);
    listed.map(|point| point.shown.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_of_before_there_were_volumes_is_read() {
        let old = r#"{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true,"Propagation":"rprivate"}"#;
        let point: Point = serde_json::from_str(old).unwrap();
        assert_eq!((point.source.as_str(), point.rw, point.copy), ("/a", true, false));
        let again: Point = serde_json::from_str(&serde_json::to_string(&point).unwrap()).unwrap();
        assert_eq!(again, point);
    }
}
