//! What refers to a manifest, from upstream.

use ferry_image::Digest;

use crate::backend::{Backend, Referrers};
use crate::failure::Answer;
use crate::http::Registry;
use crate::manifest::Descriptor;
use crate::name::Name;

use super::Remote;

/// Bytes of descriptors on a page, unless the last one exceeds them.
const PAGE: usize = 2 << 20;

impl<B: Backend> Registry<B> {
    /// As [`Backend::referrers`]; and whether these are only those that are here, for want of an answer.
    pub(crate) async fn referrers_through(
        &self,
        name: &Name,
        remote: &Remote,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Answer<(Referrers, bool)> {
        match remote.upstream.referrers(&remote.name, subject).await {
            Ok(found) => Ok((page(found.unwrap_or_default(), after, limit), false)),
            Err(trouble) if trouble.passes() => {
                tracing::warn!(repository = %name, cause = %trouble, "only the referrers that are here are listed");
                self.0.metrics.stale.inc();
                Ok((self.0.backend.referrers(name, subject, after, limit).await?, true))
            }
            Err(trouble) => Err(trouble.into()),
        }
    }
}

fn page(mut all: Vec<Descriptor>, after: Option<&Digest>, limit: usize) -> Referrers {
    all.retain(|found| after.is_none_or(|after| found.digest > *after));
    all.sort_unstable_by(|one, other| one.digest.cmp(&other.digest));
    all.dedup_by(|one, other| one.digest == other.digest);
    let (mut size, mut count) = (0, 0);
    for found in all.iter().take(limit) {
        if size > PAGE {
            break;
        }
        let notes = found.annotations.iter().flatten();
        size += 200 + notes.map(|(key, value)| key.len() + value.len()).sum::<usize>();
        count += 1;
    }
    let more = all.len() > count;
    all.truncate(count);
    Referrers {
        next: all.last().filter(|_| more).map(|last| last.digest.clone()),
        manifests: all,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn descriptor(content: &str, note: usize) -> Descriptor {
        Descriptor {
            media_type: "x/y".to_owned(),
            digest: Digest::of(content),
            size: 1,
            artifact_type: None,
            annotations: Some(BTreeMap::from([("k".to_owned(), "v".repeat(note))])),
        }
    }

    #[test]
    fn pages_follow_each_other_and_have_a_size() {
        let all: Vec<_> = (0..9).map(|number| descriptor(&number.to_string(), 10)).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = page([all.clone(), all.clone()].concat(), after.as_ref(), 4);
            seen.extend(page.manifests.into_iter().map(|found| found.digest));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut wanted: Vec<_> = all.iter().map(|found| found.digest.clone()).collect();
        wanted.sort();
        assert_eq!(seen, wanted);
        let large: Vec<_> = (0..9).map(|number| descriptor(&number.to_string(), 1 << 20)).collect();
        let first = page(large, None, 100);
        assert!(
            first.manifests.len() == 2 && first.next.is_some(),
            "{}",
            first.manifests.len()
        );
    }
}
