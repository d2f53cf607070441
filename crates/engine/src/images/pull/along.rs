//! What comes along with an image: the index that named it is kept, and its attestations are fetched beside the layers.
//!
//! Nothing of this is needed to run the image, so nothing of it fails a pull or makes it wait long.

use ferry_distribution::{Content, Descriptor, Manifest, Repository};
use ferry_image::media::{ATTESTATION, ATTESTATION_SUBJECT, ATTESTATION_TYPE};
use ferry_image::{Algorithm, Digest};
use ferry_storage::{Gathered, Pull};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Fetched, Source, given_up, remote};
use crate::error::{Error, Result};
use crate::world::blocking;

/// How long attestations may take when the layers are there.
const GRACE: Duration = Duration::from_secs(5);
/// The most attestations of an image that are fetched.
const MOST: usize = 16;

/// Attestations on their way.
pub struct Along(Option<(JoinHandle<Result<Gathered>>, DropGuard)>);

/// Keeps the indexes for the image, and begins to fetch what they say is about it.
pub async fn begin(
    images: &ferry_storage::Images,
    source: &Source<'_>,
    pull: &Pull,
    indexes: Vec<Manifest>,
    manifest: &Manifest,
) -> Result<Along> {
    let sha256 = |index: &Manifest| index.descriptor.digest.algorithm() == Algorithm::Sha256;
    let Some(Content::Index { manifests }) = indexes.last().map(|index| &index.content) else {
        return Ok(Along(None));
    };
    if !indexes.iter().all(sha256) {
        return Ok(Along(None));
    }
    let about = attestations(manifests, &manifest.descriptor.digest);
    let store = images.clone();
    let kept = blocking("keep the index", move || keep(&store, &indexes)).await??;
    pull.along(kept);
    if about.is_empty() {
        return Ok(Along(None));
    }
    let (store, repository) = (images.clone(), source.repository.clone());
    let stopped = CancellationToken::new();
    let stop = stopped.clone().drop_guard();
    let work = move || fetch(&store, &repository, &about, &stopped);
    Ok(Along(Some((tokio::task::spawn_blocking(work), stop))))
}

impl Along {
    /// Hands over what has come, or gives it up.
    pub async fn end(self, pull: &Pull) {
        // What fetches sees that nobody waits for it any more.
        let Some((fetching, _stop)) = self.0 else { return };
        match timeout(GRACE, fetching).await {
            Ok(Ok(Ok(gathered))) => pull.along(gathered),
            Ok(Ok(Err(error))) => tracing::info!(%error, "attestations were not fetched"),
            Ok(Err(error)) => tracing::debug!(%error, "attestations were not fetched"),
            Err(_) => tracing::info!("the registry is slow to give attestations: the image goes without them"),
        }
    }
}

fn keep(store: &ferry_storage::Images, indexes: &[Manifest]) -> Result<Gathered> {
    let mut gathered = store.gather()?;
    for (at, index) in indexes.iter().enumerate() {
        match at {
            0 => gathered.index(&index.bytes)?,
            _ => drop(gathered.document(&index.bytes)?),
        }
    }
    Ok(gathered)
}

/// What an index lists as attestations of a manifest.
fn attestations(manifests: &[Descriptor], manifest: &Digest) -> Vec<Descriptor> {
    let says =
        |entry: &Descriptor, key: &str, value: &str| entry.annotations.get(key).is_some_and(|said| said == value);
    let about = manifests.iter().filter(|entry| {
        says(entry, ATTESTATION_TYPE, ATTESTATION) && says(entry, ATTESTATION_SUBJECT, &manifest.to_string())
    });
    about.take(MOST).cloned().collect()
}

/// Blocks.
fn fetch(
    store: &ferry_storage::Images,
    repository: &Repository,
    about: &[Descriptor],
    stopped: &CancellationToken,
) -> Result<Gathered> {
    let mut gathered = store.gather()?;
    let runtime = Handle::current();
    for attestation in about {
        let fetched = fetch_one(&mut gathered, repository, attestation, stopped, &runtime);
        if let Err(error) = fetched {
            let (digest, error) = (&attestation.digest, crate::error::chain(&error));
            tracing::info!(%digest, error, "an attestation was not fetched: the image goes without it");
        }
    }
    Ok(gathered)
}

fn fetch_one(
    gathered: &mut Gathered,
    repository: &Repository,
    attestation: &Descriptor,
    stopped: &CancellationToken,
    runtime: &Handle,
) -> Result<()> {
    let (bytes, content) = match gathered.known(&attestation.digest) {
        Some(bytes) => {
            let content = Content::of(&bytes).ok_or_else(|| Error::invalid("the attestation is no manifest"))?;
            (bytes, content)
        }
        None => {
            let manifest = runtime.block_on(async {
                tokio::select! {
                    manifest = repository.manifest(attestation) => Ok(manifest?),
                    () = stopped.cancelled() => Err(Error::from(ferry_storage::Error::Closed)),
                }
            })?;
            (manifest.bytes.to_vec(), manifest.content)
        }
    };
    gathered.document(&bytes)?;
    let Content::Image { config, layers } = content else {
        return Err(Error::invalid("the attestation is an index"));
    };
    for part in std::iter::once(&*config).chain(&layers) {
        gathered.blob(&remote(part), || {
            if stopped.is_cancelled() {
                return Err(given_up());
            }
            Ok(Fetched {
                reader: Box::new(repository.reader(part, 0, runtime)),
                stopped,
            })
        })?;
    }
    Ok(())
}
