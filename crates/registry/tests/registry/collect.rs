//! The collector beside writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferry_image::Digest;
use ferry_registry::{
    Append, Backend, Collection, Content, Error, FileSystem, FileSystemOptions, Intent, Manifest, Name, Reference, Tag,
};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::site::scratch;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn push_blob(storage: &FileSystem, repository: &Name, content: &str) -> Digest {
    let digest = Digest::of(content);
    let id = storage.begin(repository).await.unwrap();
    let body = futures_util::stream::iter([Ok(Bytes::from(content.to_owned()))]).boxed();
    let append = Append {
        at: None,
        most: None,
        algorithm: None,
        body,
    };
    storage.append(repository, id, append).await.unwrap();
    storage.finish(repository, id, &digest).await.unwrap();
    digest
}

fn manifest(blobs: &[(Digest, usize)]) -> Manifest {
    let descriptor = |(digest, size): &(Digest, usize)| json!({ "mediaType": "x/y", "digest": digest, "size": size });
    let content = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(&blobs[0]),
        "layers": blobs[1..].iter().map(descriptor).collect::<Vec<_>>(),
    });
    Manifest::parse(content.to_string().into(), None, None).unwrap()
}

fn all(grace: Duration) -> Collection {
    Collection {
        grace,
        keep_untagged: false,
        ..Collection::default()
    }
}

#[tokio::test]
async fn what_nothing_names_goes_after_its_grace_and_what_is_named_stays() {
    let dir = scratch();
    let options = FileSystemOptions {
        grace: Duration::ZERO,
        ..FileSystemOptions::default()
    };
    let storage = FileSystem::open(dir.path(), options).unwrap();
    let (a, tag): (Name, Tag) = (name("a"), "1".parse().unwrap());
    let (kept, loose) = (
        push_blob(&storage, &a, "kept").await,
        push_blob(&storage, &a, "loose").await,
    );
    let first = manifest(&[(kept.clone(), 4)]);
    storage.put_manifest(&a, Some(&tag), first.clone()).await.unwrap();
    let young = storage.collect(all(Duration::from_secs(60))).await.unwrap();
    assert_eq!((young.blobs, young.links), (0, 0));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let dry = storage
        .collect(Collection {
            dry_run: true,
            ..all(Duration::ZERO)
        })
        .await
        .unwrap();
    assert_eq!((dry.blobs, dry.bytes), (1, 5));
    assert_eq!(storage.blob(&a, &loose, Intent::Pull).await.unwrap(), Some(5));
    let old = storage.collect(all(Duration::ZERO)).await.unwrap();
    assert_eq!((old.blobs, old.links, old.bytes), (1, 1, 5));
    assert_eq!(storage.blob(&a, &loose, Intent::Pull).await.unwrap(), None);
    assert_eq!(storage.blob(&a, &kept, Intent::Pull).await.unwrap(), Some(4));
    storage.delete_tag(&a, &tag).await.unwrap();
    assert_eq!(
        storage.collect(all(Duration::from_secs(60))).await.unwrap().manifests,
        0
    );
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let last = storage.collect(all(Duration::ZERO)).await.unwrap();
    assert_eq!((last.manifests, last.repositories), (1, 1));
    assert!(storage.repositories(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn blobs_that_an_index_names_stay_as_long_as_it_does() {
    let dir = scratch();
    let storage = FileSystem::open(dir.path(), FileSystemOptions::default()).unwrap();
    let (a, tag): (Name, Tag) = (name("a"), "cache".parse().unwrap());
    let layer = push_blob(&storage, &a, "layer").await;
    let part = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 5 });
    let index = json!({ "schemaVersion": 2, "manifests": [part] });
    let index = Manifest::parse(index.to_string().into(), None, None).unwrap();
    storage.put_manifest(&a, Some(&tag), index).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(storage.collect(all(Duration::ZERO)).await.unwrap().blobs, 0);
    let refused = storage.delete_blob(&a, &layer).await;
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    storage.delete_tag(&a, &tag).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // The index and its layer.
    assert_eq!(storage.collect(all(Duration::ZERO)).await.unwrap().blobs, 2);
}

/// Writers that share blobs push and untag: what is taken is whole, until somebody takes it back, and a push that takes no
/// longer than the grace time is taken.
async fn storm(duration: Duration, writers: usize, grace: Duration) {
    let dir = scratch();
    let options = FileSystemOptions {
        grace,
        ..FileSystemOptions::default()
    };
    let storage = FileSystem::open(dir.path(), options).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (storage, ended) = (storage.clone(), ended.clone());
        tasks.spawn(async move {
            let (mut taken, mut refused, mut round) = (0_u64, 0_u64, 0_usize);
            let repository = name(&format!("r{}", writer % 3));
            let tag: Tag = format!("t{writer}").parse().unwrap();
            while !ended.load(Ordering::Relaxed) {
                round += 1;
                let shared = format!("shared {}", round % 5);
                let blobs = [shared.clone(), format!("own {writer} {round}")];
                let mut parts = Vec::new();
                let begin = std::time::Instant::now();
                for content in &blobs {
                    let digest = Digest::of(content);
                    if storage
                        .blob(&repository, &digest, Intent::Push)
                        .await
                        .unwrap()
                        .is_none()
                    {
                        push_blob(&storage, &repository, content).await;
                    }
                    parts.push((digest, content.len()));
                }
                let image = manifest(&parts);
                match storage.put_manifest(&repository, Some(&tag), image.clone()).await {
                    Ok(()) => taken += 1,
                    Err(Error::BlobUnknown(_)) if begin.elapsed() >= grace => {
                        refused += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
                }
                // Only this writer moves its tag: everything has to be there.
                let stored = storage
                    .manifest(&repository, &Reference::Tag(tag.clone()), Intent::Pull)
                    .await
                    .unwrap();
                assert_eq!(stored.expect("the manifest that was taken").digest, image.digest);
                for (digest, size) in &parts {
                    let size = u64::try_from(*size).unwrap();
                    let content = storage.read(&repository, digest, 0, size).await.unwrap();
                    assert!(
                        matches!(content, Some(Content::Whole(_))),
                        "{digest} of {} is lost",
                        image.digest
                    );
                }
            }
            (taken, refused)
        });
    }
    let begin = std::time::Instant::now();
    let (mut removed, mut rounds, mut peak) = (0, 0, 0);
    while begin.elapsed() < duration {
        removed += storage.collect(all(grace)).await.unwrap().blobs;
        rounds += 1;
        peak = peak.max(walk(&dir.path().join("blobs")));
    }
    ended.store(true, Ordering::Relaxed);
    let (mut taken, mut refused) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (more, fewer) = done.unwrap();
        (taken, refused) = (taken + more, refused + fewer);
    }
    eprintln!(
        "{writers} writers, {duration:?}, grace {grace:?}: {taken} manifests taken, {refused} refused, {rounds} collections removed \
         {removed} files, at most {peak} at once"
    );
    tokio::time::sleep(Duration::from_millis(1200)).await;
    removed += storage.collect(all(Duration::ZERO)).await.unwrap().blobs;
    assert!(taken > 0 && removed > 0, "taken {taken}, removed {removed}");
    // Each tag's manifest with its own blob, and the shared ones: dead space came back.
    let left = walk(&dir.path().join("blobs"));
    assert!(left <= 2 * writers + 5, "{left} files for {writers} tags");
}

fn walk(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_manifest_that_was_taken_loses_a_blob() {
    storm(Duration::from_secs(3), 16, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_fails_while_the_collector_works() {
    storm(Duration::from_secs(3), 16, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes three minutes"]
async fn no_push_fails_while_the_collector_works_for_minutes() {
    storm(Duration::from_secs(180), 16, Duration::from_secs(2)).await;
}
