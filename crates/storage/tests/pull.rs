//! `pull`: layers that arrive several at once, in pieces, twice, or wrong.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ferry_archive::{Entry, Kind, Writer};
use ferry_image::Digest;
use support::registry::Registry;
use support::{Bench, Fixture, entry, gzip, names, tar};

fn parts(bench: &Bench) -> Vec<String> {
    names(&bench.root().join("ingest"))
}

/// Gives `bytes`, then breaks.
struct Breaking(Cursor<Vec<u8>>, u64);

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let limit = usize::try_from(self.1).unwrap().min(buffer.len());
        let count = self.0.read(&mut buffer[..limit])?;
        self.1 -= count as u64;
        Ok(count)
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn layers_that_arrive_at_once_become_an_image() {
    let bench = Bench::new();
    let mut linking = Writer::new(Vec::new());
    let link = Entry {
        link: "a/f".into(),
        ..entry("b/link", Kind::HardLink)
    };
    linking.header(&link).unwrap();
    let fixture = Fixture::new(
        "pulled:1",
        &[
            tar(&[("a/", b""), ("a/f", b"content"), ("a/gone", b"x")]),
            tar(&[("a/.wh.gone", b"")]),
            // Refers to what only the lowest layer has.
            linking.finish().unwrap(),
            tar(&[("c", b"")]),
        ],
    );
    let registry = Registry::of(&fixture);
    let pull = bench.store.images.pull(registry.new.clone()).unwrap();
    assert_eq!(pull.missing(), [0, 1, 2, 3]);
    // The lowest is the last to come.
    let arrived = AtomicUsize::new(0);
    registry
        .fetch(&pull, |at, offset| {
            while at == 0 && arrived.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            arrived.fetch_add(1, Ordering::SeqCst);
            Ok(registry.from(at, offset))
        })
        .unwrap();
    assert!(bench.store.images.list().is_empty(), "nothing shows before the end");
    let loaded = pull.finish().unwrap();
    assert_eq!(loaded.image.id.to_string(), fixture.id());
    let fs = |at: usize| {
        let chain = loaded.image.layers[at].chain_id.encoded().to_owned();
        bench.root().join("layers").join(chain).join("fs")
    };
    assert_eq!(std::fs::read(fs(2).join("b/link")).unwrap(), b"content");
    for (layer, blob) in loaded.image.layers.iter().zip(&registry.blobs) {
        let kept = layer.blob.as_ref().unwrap();
        assert_eq!(std::fs::read(bench.store.blob_path(&kept.digest)).unwrap(), *blob);
    }
    assert!(parts(&bench).is_empty());
    let bench = bench.reopen();
    let image = bench.store.images.resolve("pulled:1").unwrap();
    assert_eq!(image.id.to_string(), fixture.id());
    assert_eq!(image.manifest, Some(Digest::of(&registry.new.manifest)));
    // All of it is there: nothing is fetched.
    let again = bench.store.images.pull(registry.new.clone()).unwrap();
    assert!(again.missing().is_empty());
    again.finish().unwrap();
}

#[test]
fn a_transfer_goes_on_where_it_was_cut() {
    let mut bench = Bench::new();
    let fixture = Fixture::new("cut:1", &[tar(&[("noise", &noise(3 << 20))])]);
    let registry = Registry::of(&fixture);
    let size = registry.blobs[0].len() as u64;
    let fetched = AtomicU64::new(0);
    for round in 0..4 {
        let pull = bench.store.images.pull(registry.new.clone()).unwrap();
        let outcome = registry.fetch(&pull, |at, offset| {
            assert_eq!(offset, round * 700_000);
            fetched.fetch_add(700_000, Ordering::SeqCst);
            Ok(Breaking(registry.from(at, offset), 700_000))
        });
        outcome.unwrap_err();
        pull.finish().unwrap_err();
        assert_eq!(parts(&bench).len(), 1);
        assert!(names(&bench.root().join("layers")).is_empty());
        if round == 2 {
            bench = bench.reopen();
        }
    }
    let pull = bench.store.images.pull(registry.new.clone()).unwrap();
    registry
        .fetch(&pull, |at, offset| {
            fetched.fetch_add(size - offset, Ordering::SeqCst);
            Ok(registry.from(at, offset))
        })
        .unwrap();
    assert_eq!(fetched.load(Ordering::SeqCst), size, "not a byte twice");
    // A blob that has come whole is not asked for again, even if its pull did not end.
    drop(pull);
    assert_eq!(parts(&bench).len(), 1);
    let pull = bench.store.images.pull(registry.new.clone()).unwrap();
    registry
        .fetch(&pull, |_, offset| -> io::Result<io::Empty> {
            panic!("asked for {offset}")
        })
        .unwrap();
    pull.finish().unwrap();
    assert!(parts(&bench).is_empty());
}

#[test]
fn a_damaged_part_is_fetched_anew() {
    let bench = Bench::new();
    let fixture = Fixture::new("damaged:1", &[tar(&[("noise", &noise(1 << 20))])]);
    let registry = Registry::of(&fixture);
    for damage in [vec![0; 500_000], registry.blobs[0][..10].to_vec(), vec![7; 3 << 20]] {
        let part = bench
            .root()
            .join("ingest")
            .join(registry.new.layers[0].digest.encoded());
        std::fs::write(part, &damage).unwrap();
        let pull = bench.store.images.pull(registry.new.clone()).unwrap();
        registry
            .fetch(&pull, |at, offset| Ok(registry.from(at, offset)))
            .unwrap();
        drop(pull);
        bench.store.images.collect_parts().unwrap();
    }
    registry.pull(&bench.store).unwrap();
}

#[test]
fn bytes_that_are_wrong_become_nothing() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("wrong:1");
    let good = Registry::of(&fixture);
    let fails = |registry: &Registry, expected: &str| {
        let error = registry.pull(&bench.store).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        assert!(text.contains(expected), "{text}");
        assert!(bench.store.images.list().is_empty());
        assert!(names(&bench.root().join("layers")).is_empty());
        // What was unpacked goes in the background.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !names(&bench.root().join("tmp")).is_empty() {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        bench.store.images.collect_parts().unwrap();
        assert!(names(&bench.root().join("blobs/sha256")).is_empty());
    };
    let other = || Registry::with(&fixture, good.blobs.clone());
    // Another blob than the digest says, of the same size.
    let mut swapped = other();
    let last = swapped.blobs[0].len() - 1;
    swapped.blobs[0][last] ^= 1;
    fails(&swapped, "");
    let mut plain = Registry::with(&fixture, fixture.layers.clone());
    let content = plain.blobs[0].windows(6).position(|bytes| bytes == b"binary").unwrap();
    // In the padding, where only the digest tells.
    plain.blobs[0][content + 6] = 1;
    fails(&plain, "is not what its digest says");
    assert!(parts(&bench).is_empty(), "wrong bytes are not kept");
    let mut short = other();
    short.blobs[1].truncate(5);
    fails(&short, "the connection ended after 5 of");
    // A digest of other content: the configuration tells.
    let mut foreign = Registry::with(&fixture, vec![gzip(&tar(&[("x", b"")])), good.blobs[1].clone()]);
    fails(&foreign, "invalid diffID for layer 0");
    foreign.new.layers.pop();
    fails(&foreign, "layers from manifest don't match image configuration");
    foreign.new.config = b"<html>".to_vec();
    fails(&foreign, "invalid image configuration");
    // More than was said is not read.
    let mut long = other();
    long.blobs[0].extend_from_slice(&[0; 100]);
    long.pull(&bench.store).unwrap();
}

#[test]
fn two_pulls_share_the_work() {
    let bench = Bench::new();
    let registry = Registry::of(&Fixture::busybox("shared:1"));
    let opened = AtomicUsize::new(0);
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let pull = bench.store.images.pull(registry.new.clone()).unwrap();
                barrier.wait();
                registry
                    .fetch(&pull, |at, offset| {
                        opened.fetch_add(1, Ordering::SeqCst);
                        Ok(registry.from(at, offset))
                    })
                    .unwrap();
                pull.finish().unwrap();
            });
        }
    });
    assert_eq!(opened.load(Ordering::SeqCst), 2);
    assert_eq!(bench.store.images.list().len(), 1);
    assert!(parts(&bench).is_empty());
}

#[test]
fn a_blob_that_another_image_has_is_not_fetched() {
    let bench = Bench::new();
    let shared = tar(&[("shared", b"x")]);
    let first = Registry::of(&Fixture::new("first:1", std::slice::from_ref(&shared)));
    first.pull(&bench.store).unwrap();
    // The same blob on another layer is another layer.
    let fixture = Fixture::new("second:1", &[tar(&[("below", b"")]), shared]);
    let second = Registry::with(&fixture, vec![gzip(&fixture.layers[0]), first.blobs[0].clone()]);
    let pull = bench.store.images.pull(second.new.clone()).unwrap();
    second
        .fetch(&pull, |at, offset| {
            assert_eq!(at, 0);
            Ok(second.from(at, offset))
        })
        .unwrap();
    pull.finish().unwrap();
    assert!(parts(&bench).is_empty());
    assert_eq!(names(&bench.root().join("blobs/sha256")).len(), 2 + 2 + 2);
}
