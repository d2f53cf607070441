//! A registry in memory.

use std::io::{self, Cursor, Read};

use ferry_image::Digest;
use ferry_storage::{Loaded, NewPull, Pull, Remote, Result, Store};

use super::{Fixture, gzip};

/// An image as a registry has it.
pub struct Registry {
    pub new: NewPull,
    pub blobs: Vec<Vec<u8>>,
}

impl Registry {
    /// Every second layer is zstd, the others gzip.
    pub fn of(fixture: &Fixture) -> Self {
        let compress = |(at, layer): (usize, &Vec<u8>)| match at % 2 {
            0 => gzip(layer),
            _ => zstd::encode_all(&layer[..], 0).unwrap(),
        };
        Self::with(fixture, fixture.layers.iter().enumerate().map(compress).collect())
    }

    pub fn with(fixture: &Fixture, blobs: Vec<Vec<u8>>) -> Self {
        let remote = |blob: &Vec<u8>| Remote {
            digest: Digest::of(blob),
            size: blob.len() as u64,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        };
        let new = NewPull {
            manifest: format!("{{\"manifest of\":{:?}}}", fixture.id()).into_bytes(),
            config: fixture.raw_config(),
            layers: blobs.iter().map(remote).collect(),
            references: vec![fixture.tags[0].parse().unwrap()],
            options: ferry_storage::LoadOptions::default(),
        };
        Self { new, blobs }
    }

    pub fn from(&self, at: usize, offset: u64) -> Cursor<Vec<u8>> {
        Cursor::new(self.blobs[at][usize::try_from(offset).unwrap()..].to_vec())
    }

    pub fn pull(&self, store: &Store) -> Result<Loaded> {
        let pull = store.images.pull(self.new.clone())?;
        self.fetch(&pull, |at, offset| Ok(self.from(at, offset)))?;
        pull.finish()
    }

    /// All missing layers, each on a thread of its own, and the first failure that is not another layer's.
    pub fn fetch<R: Read + Send>(&self, pull: &Pull, open: impl Fn(usize, u64) -> io::Result<R> + Sync) -> Result<()> {
        let open = &open;
        std::thread::scope(|scope| {
            let threads: Vec<_> = pull
                .missing()
                .into_iter()
                .map(|at| scope.spawn(move || pull.layer(at, |offset| open(at, offset), |_| {})))
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })
    }
}
