//! Lists: repositories, tags, referrers.

use std::collections::{BTreeSet, BinaryHeap};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::Path;

use ferry_image::Digest;

use crate::backend::{Error, Referrers, Result};
use crate::name::{NAME_MAX, Name, Tag};

use super::paths::{BLOBS, COPIES, MANIFESTS, TAGS, digest_of, file_name};
use super::{Inner, found};

/// `None` when there is no such repository.
type Tags = Option<Vec<String>>;

/// Bytes of descriptors on a page of referrers, unless the last one exceeds them.
const REFERRERS_SIZE: usize = 2 << 20;

/// The names of a directory's files; none where there is no directory.
pub fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(dir))? else {
        return Ok(Vec::new());
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

/// Every repository below a directory: what has blobs or manifests, or was about to.
pub fn names(root: &Path) -> io::Result<BTreeSet<Name>> {
    let mut names = BTreeSet::new();
    let mut waiting = vec![String::new()];
    while let Some(prefix) = waiting.pop() {
        for entry in entries(&root.join(&prefix))? {
            if [BLOBS, MANIFESTS, COPIES].contains(&entry.as_str()) {
                names.extend(prefix.parse::<Name>());
            } else if !entry.starts_with('_') && prefix.len() + entry.len() < NAME_MAX {
                let slash = if prefix.is_empty() { "" } else { "/" };
                waiting.push(format!("{prefix}{slash}{entry}"));
            }
        }
    }
    Ok(names)
}

/// The `limit` smallest that are larger than `after`, in order.
fn page<T: Ord>(items: impl IntoIterator<Item = T>, limit: usize) -> Vec<T> {
    let mut smallest = BinaryHeap::new();
    for item in items {
        if smallest.len() < limit {
            smallest.push(item);
        } else if smallest.peek().is_some_and(|largest| item < *largest) {
            smallest.pop();
            smallest.push(item);
        }
    }
    smallest.into_sorted_vec()
}

impl Inner {
    pub(super) fn list_repositories(&self, after: Option<&str>, limit: usize) -> Vec<Name> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names();
        names
            .range::<str, _>((from, Bound::Unbounded))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn list_tags(&self, repository: &Name, after: Option<&str>, limit: usize) -> Result<Tags> {
        if !self.names().contains(repository.as_str()) {
            return Ok(None);
        }
        let tags = entries(&self.paths.part(repository, TAGS)).map_err(Error::io("list tags"))?;
        let tags = tags.into_iter().filter(|tag| tag.parse::<Tag>().is_ok());
        let tags = tags.filter(|tag| after.is_none_or(|after| tag.as_str() > after));
        Ok(Some(page(tags, limit)))
    }

    pub(super) fn list_referrers(
        &self,
        of: (&Name, &Digest),
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Referrers> {
        let (repository, subject) = of;
        let directory = self.paths.referrers(repository, subject);
        let names = entries(&directory).map_err(Error::io("list referrers"))?;
        let digests = names.iter().filter_map(|name| digest_of(name));
        let digests = digests.filter(|digest| after.is_none_or(|after| digest > after));
        let mut digests = page(digests, limit.saturating_add(1));
        let mut referrers = Referrers::default();
        if digests.len() > limit {
            digests.pop();
            referrers.next = digests.last().cloned();
        }
        let mut size = 0;
        for digest in digests {
            // The entry is made before the manifest's link and goes after it.
            if !self.paths.manifest(repository, &digest).exists() {
                continue;
            }
            let read = found(fs::read(directory.join(file_name(&digest)))).map_err(Error::io("read a referrer"))?;
            size += read.as_ref().map_or(0, Vec::len);
            if let Some(descriptor) = read.and_then(|text| serde_json::from_slice(&text).ok()) {
                referrers.manifests.push(descriptor);
            }
            if size > REFERRERS_SIZE {
                referrers.next = Some(digest);
                break;
            }
        }
        Ok(referrers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_order_whatever_the_order_on_disk() {
        assert_eq!(page(["d", "a", "c", "b"], 2), ["a", "b"]);
        assert_eq!(page(["d", "a"], 9), ["a", "d"]);
        assert_eq!(page(["d", "a"], 0), [""; 0]);
    }

    #[test]
    fn repositories_nest() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "a/_blobs",
            "a/b/_manifests",
            "a/b/c/d/_blobs",
            "Bad/_blobs",
            "empty/x",
            "e/_copies",
        ] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let names: Vec<_> = names(dir.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c/d", "e"]);
    }
}
