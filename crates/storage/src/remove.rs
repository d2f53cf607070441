//! `docker rmi`: Docker's rules, in Docker's words (moby daemon/images/image_delete.go, 28.5).
//!
//! A hard conflict (a child image, a running container) stands whatever is said; a soft one (more than one repository, a
//! stopped container) yields to `force`. A container that is left keeps its layers: it holds them itself.

use std::collections::HashSet;
use std::sync::Arc;

use ferry_image::{Digest, Reference};

use crate::db::{Batch, Durability};
use crate::images::{Image, Images, Index, Name, Record, blocking};
use crate::layers;
use crate::outgoing::Packed;
use crate::store::Shared;
use crate::{Error, Result, names};

#[derive(Clone, Copy, Debug)]
pub struct RemoveOptions {
    pub force: bool,
    /// Remove parents that nothing needs any more, too.
    pub prune: bool,
}

/// A container that uses an image.
#[derive(Clone, Debug)]
pub struct User {
    pub image: Digest,
    pub container: String,
    pub running: bool,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name as Docker shows it.
    Untagged(String),
    /// The id of an image or the chain id of a layer.
    Deleted(String),
}

impl Images {
    /// Removes a name, or an image with its last names and the layers nobody else needs.
    ///
    /// `users` are all containers there are. Fails with [`Error::Conflict`] in Docker's words.
    pub async fn remove(&self, text: &str, options: RemoveOptions, users: Vec<User>) -> Result<Vec<Removed>> {
        let (shared, text) = (Arc::clone(&self.shared), text.to_owned());
        blocking(move || shared.remove(&text, options, &users)).await
    }
}

/// What is to be done, worked out on a copy of the index before anything is.
struct Plan<'a> {
    index: Index,
    users: &'a [User],
    removed: Vec<Removed>,
    names: Vec<String>,
    images: Vec<Arc<Image>>,
}

#[derive(Clone, Copy)]
struct Checks {
    /// Names and stopped containers count as well.
    soft: bool,
    names: bool,
}

impl Shared {
    fn remove(&self, text: &str, options: RemoveOptions, users: &[User]) -> Result<Vec<Removed>> {
        let _changing = self.changing();
        let index = Index::clone(&self.index());
        let image = index.resolve(text)?;
        let (names, images, removed) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Plan {
            index,
            users,
            removed,
            names,
            images,
        };
        plan.remove(text, &image, options)?;
        self.carry_out(plan)
    }

    /// Removes an image with all its names, whoever uses it.
    pub(crate) fn remove_whole(&self, image: &Arc<Image>) -> Result<Vec<Removed>> {
        let _changing = self.changing();
        let mut index = Index::clone(&self.index());
        let names: Vec<String> = image.references.iter().map(names::key).collect();
        index.images.remove(&image.id);
        index.references.retain(|key, _| !names.contains(key));
        index.came.retain(|key, _| !names.contains(key));
        self.carry_out(Plan {
            index,
            users: &[],
            removed: Vec::new(),
            names,
            images: vec![Arc::clone(image)],
        })
    }

    fn carry_out(&self, plan: Plan<'_>) -> Result<Vec<Removed>> {
        let Plan {
            mut index,
            images,
            names,
            mut removed,
            ..
        } = plan;
        index.relabel();
        // Top layer first, as Docker lists them.
        let chains = |image: &Arc<Image>| {
            image
                .layers
                .iter()
                .rev()
                .map(|layer| layer.chain_id.clone())
                .collect::<Vec<_>>()
        };
        let candidates: Vec<Digest> = images.iter().flat_map(chains).collect();
        let layers = self.layers.take(&candidates, &self.needed(&index));
        let mut batch = Batch::default();
        names.iter().for_each(|name| batch.delete::<Name>(name));
        images
            .iter()
            .for_each(|image| batch.delete::<Record>(&image.id.to_string()));
        let shed = self.shed(&mut index, &mut batch)?;
        layers.iter().for_each(|layer| {
            batch.delete::<layers::Record>(&layer.chain_id.to_string());
            batch.delete::<Packed>(&layer.diff_id.to_string());
        });
        if let Err(error) = self.db.commit_blocking(batch, Durability::Power) {
            self.layers.keep(layers);
            return Err(error);
        }
        for image in images.iter().rev() {
            let id = Removed::Deleted(image.id.to_string());
            let at = removed
                .iter()
                .position(|line| *line == id)
                .map_or(removed.len(), |at| at + 1);
            let own = layers
                .iter()
                .filter(|layer| image.layers.iter().any(|other| other.chain_id == layer.chain_id));
            let lines: Vec<_> = own
                .map(|layer| Removed::Deleted(layer.chain_id.to_string()))
                .filter(|line| !removed.contains(line))
                .collect();
            removed.splice(at..at, lines);
        }
        self.layers.gone(&layers);
        let layer_blobs = layers
            .iter()
            .filter_map(|layer| layer.blob.as_ref())
            .map(|blob| blob.digest.clone());
        let own_blobs = images.iter().flat_map(|image| image.documents().cloned());
        self.forget(&index, layer_blobs.chain(own_blobs).chain(shed));
        self.publish(index);
        Ok(removed)
    }

    /// Removes the blobs that nothing in the index needs any more; their records are gone.
    pub(crate) fn forget(&self, index: &Index, blobs: impl IntoIterator<Item = Digest>) {
        let blobs: HashSet<Digest> = blobs.into_iter().collect();
        if blobs.is_empty() {
            return;
        }
        let needed = self.needed_blobs(index);
        for blob in blobs.difference(&needed) {
            // What cannot be removed now is swept at the next start.
            let _ = self.reaper.remove(&self.layout.blob(blob));
        }
    }
}

impl Plan<'_> {
    fn remove(&mut self, text: &str, image: &Arc<Image>, options: RemoveOptions) -> Result<()> {
        let id = &image.id;
        let references = self.index.references_of(id);
        let mut by_name = false;
        if is_id_prefix(id, text) {
            if is_single(&references) {
                self.check(
                    id,
                    Checks {
                        soft: !options.force,
                        names: false,
                    },
                )?;
                for reference in &references {
                    self.untag(reference);
                }
            }
        } else {
            if !options.force
                && is_single(&references)
                && let Some(user) = self.users.iter().find(|user| user.image == *id)
            {
                return Err(Error::Conflict(format!(
                    "unable to remove repository reference {} (must force) - container {} is using its referenced image {}",
                    quoted(text),
                    short(&user.container),
                    short(id.encoded()),
                )));
            }
            let reference = names::parse(text)?;
            self.untag(&reference);
            if !names::is_canonical(&reference) {
                self.untag_digests(id, &reference);
            }
            if !self.index.references_of(id).is_empty() {
                return Ok(());
            }
            by_name = true;
        }
        self.delete(image, options.force, options.prune, by_name)
    }

    /// When the last tag of a repository goes, its digests go with it.
    fn untag_digests(&mut self, id: &Digest, tag: &Reference) {
        let repository = names::repository(tag);
        let same: Vec<_> = self
            .index
            .references_of(id)
            .into_iter()
            .filter(|other| names::repository(other) == repository)
            .collect();
        if same.iter().all(names::is_canonical) {
            same.iter().for_each(|reference| self.untag(reference));
        }
    }

    fn untag(&mut self, reference: &Reference) {
        let key = names::key(reference);
        if self.index.references.remove(&key).is_some() {
            self.index.came.remove(&key);
            self.names.push(key);
            self.removed.push(Removed::Untagged(names::familiar(reference)));
        }
    }

    fn delete(&mut self, image: &Arc<Image>, force: bool, prune: bool, quiet: bool) -> Result<()> {
        let id = &image.id;
        if let Err(conflict) = self.check(
            id,
            Checks {
                soft: !force,
                names: !force,
            },
        ) {
            let used = self.users.iter().any(|user| user.image == *id);
            let dangling = self.index.references_of(id).is_empty() && !self.has_children(id);
            return if quiet && (!dangling || used) {
                Ok(())
            } else {
                Err(conflict)
            };
        }
        for reference in self.index.references_of(id) {
            self.untag(&reference);
        }
        self.index.images.remove(id);
        self.images.push(Arc::clone(image));
        self.removed.push(Removed::Deleted(id.to_string()));
        match image
            .parent
            .as_ref()
            .and_then(|parent| self.index.images.get(parent).cloned())
        {
            Some(parent) if prune => self.delete(&parent, false, true, true),
            _ => Ok(()),
        }
    }

    fn has_children(&self, id: &Digest) -> bool {
        self.index
            .images
            .values()
            .any(|image| image.parent.as_ref() == Some(id))
    }

    fn check(&self, id: &Digest, checks: Checks) -> Result<()> {
        let conflict = |force: &str, why: String| {
            Err(Error::Conflict(format!(
                "unable to delete {} ({force}) - {why}",
                short(id.encoded())
            )))
        };
        if self.has_children(id) {
            return conflict("cannot be forced", "image has dependent child images".to_owned());
        }
        let used = |running: bool| {
            self.users
                .iter()
                .find(|user| user.image == *id && user.running == running)
        };
        if let Some(user) = used(true) {
            let why = format!("image is being used by running container {}", short(&user.container));
            return conflict("cannot be forced", why);
        }
        if checks.names && !self.index.references_of(id).is_empty() {
            return conflict(
                "must be forced",
                "image is referenced in multiple repositories".to_owned(),
            );
        }
        if checks.soft
            && let Some(user) = used(false)
        {
            let why = format!("image is being used by stopped container {}", short(&user.container));
            return conflict("must be forced", why);
        }
        Ok(())
    }
}

/// At most one tag, and all names in one repository.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let mut tags = references.iter().filter(|reference| !names::is_canonical(reference));
    let first = tags.next().or(references.first()).map(names::repository);
    let digests = references
        .iter()
        .filter(|reference| names::is_canonical(reference))
        .map(names::repository);
    tags.next().is_none() && digests.map(Some).all(|repository| repository == first)
}

fn is_id_prefix(id: &Digest, text: &str) -> bool {
    id.to_string().starts_with(text) || id.encoded().starts_with(text)
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Go's `%q` for the text of a reference, which holds nothing that needs an escape but a quote and a backslash.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
