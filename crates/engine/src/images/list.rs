//! `docker images`: filters, and who uses what (moby daemon/images/images.go, 28.5).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::image::Summary;
use ferry_image::Digest;
use ferry_storage::Image;
use jiff::Timestamp;

use super::{Images, created, created_at, labels, repo_digests, size, tags};
use crate::error::{Error, Result};
use crate::world::World;

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

/// What is listed, and what is counted for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListImages {
    /// Images without a name that others are made from, too.
    pub all: bool,
    /// Bytes that are shared with other images; -1 otherwise.
    pub shared: bool,
    /// Containers of each image; -1 otherwise.
    pub containers: bool,
}

impl Images {
    /// Newest first.
    pub fn list(&self, options: ListImages, filters: &Filters) -> Result<Vec<Summary>> {
        let invalid = |error: ferry_api::Error| Error::invalid(error.to_string());
        filters.validate(&FILTERS).map_err(invalid)?;
        let dangling = match filters.contains("dangling") {
            true => Some(filters.flag("dangling", false).map_err(invalid)?),
            false => None,
        };
        let time_of = |key: &str| -> Result<Option<Timestamp>> {
            let name = filters.values(key).last();
            name.map(|name| Ok(created(&*self.world.store.images.resolve(name)?).unwrap_or_default()))
                .transpose()
        };
        let (mut before, since) = (time_of("before")?, time_of("since")?);
        for text in filters.values("until") {
            let until = moment(text)?;
            before = Some(before.map_or(until, |before| before.min(until)));
        }
        let all = self.world.store.images.list();
        let usage = Usage::of(&self.world, &all);
        let parents: HashSet<&Digest> = all.iter().filter_map(|image| image.parent.as_ref()).collect();
        let mut summaries = Vec::new();
        for image in &all {
            let at = created(image).unwrap_or_default();
            let (mut tags, mut digests) = (tags(image), repo_digests(image));
            if tags.is_empty() && digests.is_empty() && !options.all && parents.contains(&image.id) {
                continue;
            }
            if filters.contains("reference") {
                let wanted = |name: &String| {
                    filters
                        .values("reference")
                        .any(|pattern| matches_reference(pattern, name))
                };
                tags.retain(wanted);
                digests.retain(wanted);
                if tags.is_empty() && digests.is_empty() {
                    continue;
                }
            }
            if dangling.is_some_and(|dangling| dangling != tags.is_empty())
                || !filters.labels("label", &labels(image))
                || before.is_some_and(|before| at >= before)
                || since.is_some_and(|since| at <= since)
            {
                continue;
            }
            summaries.push(Summary {
                containers: if options.containers {
                    usage.containers(image)
                } else {
                    -1
                },
                created: created_at(image),
                id: image.id.to_string(),
                labels: own_labels(image),
                parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
                repo_digests: Some(digests),
                repo_tags: Some(tags),
                shared_size: if options.shared { usage.shared(image) } else { -1 },
                size: size(image),
                ..Summary::default()
            });
        }
        summaries.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(summaries)
    }
}

/// A time as filters give it: an age, a time, or seconds since 1970.
fn moment(text: &str) -> Result<Timestamp> {
    let found = ferry_kit::moment::parse(text).and_then(|text| {
        let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let nanoseconds = format!("{fraction:0<9.9}").parse().ok()?;
        Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
    });
    found.ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {text:?}")))
}

/// The filter `until` where there may be only one.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let mut values = filters.values("until");
    let Some(text) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid("more than one until filter specified"));
    }
    moment(text).map(Some)
}

/// `null` where the configuration has none, as Docker says it.
fn own_labels(image: &Image) -> Option<BTreeMap<String, String>> {
    let config = image.config.config().as_ref()?;
    config.labels().as_ref()?;
    Some(labels(image))
}

/// Who uses what, counted once for all images.
struct Usage {
    layers: HashMap<Digest, usize>,
    containers: HashMap<String, i64>,
}

impl Usage {
    fn of(world: &World, images: &[Arc<Image>]) -> Self {
        let (mut layers, mut containers) = (HashMap::new(), HashMap::new());
        for layer in images.iter().flat_map(|image| &image.layers) {
            *layers.entry(layer.chain_id.clone()).or_insert(0) += 1;
        }
        for handle in world.containers.all() {
            *containers.entry(handle.snapshot().record.image.clone()).or_insert(0) += 1;
        }
        Self { layers, containers }
    }

    fn containers(&self, image: &Image) -> i64 {
        self.containers.get(&image.id.to_string()).copied().unwrap_or(0)
    }

    /// Bytes of the layers that other images have, too.
    fn shared(&self, image: &Image) -> i64 {
        let shared = image
            .layers
            .iter()
            .filter(|layer| self.layers.get(&layer.chain_id).is_some_and(|&count| count > 1));
        i64::try_from(shared.map(|layer| layer.size).sum::<u64>()).unwrap_or(i64::MAX)
    }
}

/// A pattern matches a name with its tag or digest, or without, `*` and `?` staying within a path component.
fn matches_reference(pattern: &str, tag: &str) -> bool {
    let bare = match tag.split_once('@') {
        Some((bare, _)) => bare,
        None => tag.rsplit_once(':').map_or(tag, |(bare, _)| bare),
    };
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let end = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=end).any(|taken| glob(rest, &text[taken..]))
        }
        (Some((b'?', rest)), Some((byte, text))) if *byte != b'/' => glob(rest, text),
        (Some((wanted, rest)), Some((byte, text))) if wanted == byte => glob(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_as_docker_matches_them() {
        for (pattern, name, matches) in [
            ("sm*", "small:1", true),
            ("small:?", "small:1", true),
            ("small", "small:1", true),
            ("*", "team/small:1", false),
            ("*/*", "team/small:1", true),
            ("small@*", "small@sha256:00", true),
            ("mall", "small:1", false),
        ] {
            assert_eq!(matches_reference(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn moments_are_exact_to_the_nanosecond() {
        let at = moment("2013-01-02T13:23:37.5Z").unwrap();
        assert_eq!((at.as_second(), at.subsec_nanosecond()), (1_357_133_017, 500_000_000));
        assert_eq!(moment("12").unwrap().as_second(), 12);
        let error = moment("bad").unwrap_err();
        assert_eq!(error.message, "failed to parse value as time or duration: \"bad\"");
    }
}
