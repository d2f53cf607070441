//! Ranges of user and group ids for containers with a user namespace of their own (`--userns=auto`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ferry_supervise::IdMap;

use crate::error::{Error, Kind, Result};

/// The ids a container has: 0 to 65,535 inside.
const COUNT: u32 = 65_536;
/// Below this are the host's own users; /etc/subuid ranges usually begin at 100,000 and end below 2^24.
const FIRST: u32 = 1 << 24;
/// The last range ends below 2^31.
const RANGES: u32 = ((1 << 31) - FIRST) / COUNT;

/// Which container has which range. A range lasts as long as its container: its files belong to it.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    taken: Mutex<BTreeMap<u32, String>>,
}

impl Ids {
    /// The lowest free range.
    pub fn take(&self, container: &str) -> Result<IdMap> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (0..RANGES)
            .map(|index| FIRST + index * COUNT)
            .find(|start| !taken.contains_key(start));
        let start = start.ok_or_else(|| Error::new(Kind::Internal, "all ranges of user ids are taken"))?;
        taken.insert(start, container.to_owned());
        Ok(IdMap { start, count: COUNT })
    }

    /// Notes the range of a container that was read from disk.
    pub fn adopt(&self, container: &str, range: IdMap) {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(range.start, container.to_owned());
    }

    pub fn release(&self, container: &str) {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, holder| holder != container);
    }
}
