//! Lists of tags from upstream.

use crate::backend::Backend;
use crate::failure::Answer;
use crate::http::Registry;
use crate::name::Name;

use super::Remote;

impl<B: Backend> Registry<B> {
    /// As [`Backend::tags`]; and whether these are only those that are here, for want of an answer.
    pub(crate) async fn tags_through(
        &self,
        name: &Name,
        remote: &Remote,
        after: Option<&str>,
        limit: usize,
    ) -> Answer<(Option<Vec<String>>, bool)> {
        match remote.upstream.tags(&remote.name).await {
            Ok(Some(mut tags)) => {
                tags.sort_unstable();
                tags.dedup();
                tags.retain(|tag| after.is_none_or(|after| tag.as_str() > after));
                tags.truncate(limit);
                Ok((Some(tags), false))
            }
            Ok(None) => Ok((None, false)),
            Err(trouble) if trouble.passes() => match self.0.backend.tags(name, after, limit).await? {
                Some(tags) => {
                    tracing::warn!(repository = %name, cause = %trouble, "only the tags that are here are listed");
                    self.0.metrics.stale.inc();
                    Ok((Some(tags), true))
                }
                None => Err(trouble.into()),
            },
            Err(trouble) => Err(trouble.into()),
        }
    }
}
