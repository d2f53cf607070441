//! `docker save`: images as one archive that is Docker's and an OCI image layout at once.
//!
//! Byte for byte what Docker Engine 28.5.2 writes of the same images, with its overlay2 store: uncompressed layers under their
//! diff ids, configurations, manifests, the configurations of Docker 1.9 that nobody reads any more, and
//! `manifest.json`. The files come in the order of their names; nothing is written to disk on the way.
//!
//! A layer comes from its compressed blob where that is kept, else from its unpacked files and the recipe beside them. Its
//! digest is checked while it is written: what was changed on disk is an error in the middle of the stream, never an archive.

mod documents;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use ferry_archive::{Entry, Kind, Time, Writer};
use ferry_image::{AnyReference, Platform, Reference};

use crate::images::{Image, Images};
use crate::layers::{Layer, Pin};
use crate::store::Shared;
use crate::{Error, Result, names};
use documents::Documents;

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

/// Images that are about to be saved. Their layers stay until this is dropped.
#[derive(Debug)]
pub struct Save {
    shared: Arc<Shared>,
    images: Vec<Saved>,
    /// Keep the layers.
    _pins: Vec<Pin>,
}

#[derive(Debug)]
struct Saved {
    image: Arc<Image>,
    /// With tags, in the order they were asked for.
    names: Vec<Reference>,
}

enum Content {
    Bytes(Vec<u8>),
    Layer(Layer),
}

struct Member {
    /// Seconds since 1970.
    mtime: i64,
    content: Content,
}

impl Images {
    /// Finds what is to be saved: a name without a tag stands for all its tags, as in Docker. Does no I/O.
    ///
    /// Fails with [`Error::NotFound`] for what is not there, or not for `platform`.
    pub fn save(&self, texts: &[String], platform: Option<&Platform>) -> Result<Save> {
        let index = self.shared.index();
        let mut images: Vec<Saved> = Vec::new();
        let mut add = |image: Arc<Image>, name: Option<Reference>| {
            let at = images.iter().position(|saved| saved.image.id == image.id);
            let at = at.unwrap_or_else(|| {
                images.push(Saved {
                    image,
                    names: Vec::new(),
                });
                images.len() - 1
            });
            let names = &mut images[at].names;
            let named = name.filter(|name| name.tag().is_some() && name.digest().is_none());
            names.extend(named.filter(|name| !names.contains(name)));
        };
        for text in texts {
            let reference = match text.parse::<AnyReference>() {
                Ok(AnyReference::Name(reference)) => Some(reference),
                _ => None,
            };
            let bare = reference
                .as_ref()
                .filter(|name| name.tag().is_none() && name.digest().is_none());
            if let Some(bare) = bare {
                let repository = names::repository(bare);
                let tags = index.references.values();
                let tags: Vec<_> = tags
                    .filter(|(name, _)| name.digest().is_none() && names::repository(name) == repository)
                    .collect();
                for (name, id) in &tags {
                    if let Some(image) = index.images.get(id) {
                        add(Arc::clone(image), Some(name.clone()));
                    }
                }
                if !tags.is_empty() {
                    continue;
                }
            }
            let image = index.resolve(text).map_err(|error| match error {
                // In the words of whoever asks: no tag was looked for.
                Error::NotFound { .. } => Error::NotFound {
                    reference: text.clone(),
                },
                other => other,
            })?;
            let named = reference.filter(|name| {
                let known = index.references.get(&names::key(name));
                known.is_some_and(|(_, id)| *id == image.id)
            });
            add(image, named);
        }
        let mut pins = Vec::new();
        for Saved { image, .. } in &images {
            check_platform(image, platform)?;
            for layer in &image.layers {
                let pin = self.shared.layers.get(&layer.chain_id);
                pins.push(pin.ok_or_else(|| Error::NotFound {
                    reference: image.id.to_string(),
                })?);
            }
        }
        Ok(Save {
            shared: Arc::clone(&self.shared),
            images,
            _pins: pins,
        })
    }
}

fn check_platform(image: &Image, platform: Option<&Platform>) -> Result<()> {
    let Some(wanted) = platform else { return Ok(()) };
    let variant = image.config.variant().clone().unwrap_or_default();
    let (os, architecture) = (image.config.os().to_string(), image.config.architecture().to_string());
    let own = Platform::new(&os, &architecture, &variant);
    if wanted.matches(&own) {
        return Ok(());
    }
    Err(Error::OtherPlatform {
        wanted: wanted.to_string(),
    })
}

impl Save {
    /// Of an image that is not recorded, and whose layers are.
    pub(crate) fn of(shared: &Arc<Shared>, image: Image, names: Vec<Reference>) -> Result<Self> {
        let pins = image.layers.iter().map(|layer| shared.layers.get(&layer.chain_id));
        let pins: Option<Vec<_>> = pins.collect();
        let missing = || Error::NotFound {
            reference: image.id.to_string(),
        };
        Ok(Self {
            shared: Arc::clone(shared),
            _pins: pins.ok_or_else(missing)?,
            images: vec![Saved {
                image: Arc::new(image),
                names,
            }],
        })
    }

    /// In the order they were asked for.
    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.iter().map(|saved| &saved.image)
    }

    /// Writes the archive. Blocks. Nothing is buffered but pieces of a few hundred kilobytes.
    ///
    /// Fails with [`Error::Archive`] where `out` does, or where a layer cannot be made again.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut writer = Writer::new(BufWriter::with_capacity(PIECE, out));
        let documents = self.documents()?;
        let directory = |mtime| (Kind::Directory, 0o755, mtime, 0);
        if !self.images.is_empty() {
            header(&mut writer, "blobs", directory(documents.last_image))?;
            header(&mut writer, "blobs/sha256", directory(documents.last_layer))?;
        }
        for (name, member) in &documents.members {
            match &member.content {
                Content::Bytes(bytes) => {
                    header(&mut writer, name, (Kind::File, 0o644, member.mtime, bytes.len() as u64))?;
                    writer.data(bytes).map_err(unwritable)?;
                    writer.pad(bytes.len() as u64).map_err(unwritable)?;
                }
                Content::Layer(layer) => {
                    let size = self.size(layer)?;
                    header(&mut writer, name, (Kind::File, 0o644, member.mtime, size))?;
                    self.layer(layer, size, &mut writer)?;
                    writer.pad(size).map_err(unwritable)?;
                }
            }
        }
        writer.finish().map_err(unwritable)?;
        Ok(())
    }

    fn documents(&self) -> Result<Documents> {
        let mut documents = Documents::default();
        for saved in &self.images {
            let sizes = saved.image.layers.iter().map(|layer| self.size(layer));
            let sizes: Vec<u64> = sizes.collect::<Result<_>>()?;
            let parent = saved.image.parent.as_ref();
            let parent = parent.filter(|&id| self.images.iter().any(|other| other.image.id == *id));
            documents.add(&saved.image, &saved.names, &sizes, parent)?;
        }
        documents.finish()?;
        Ok(documents)
    }

    /// Bytes of the uncompressed tar.
    fn size(&self, layer: &Layer) -> Result<u64> {
        match layer.tar_size {
            Some(size) => Ok(size),
            None => self.shared.tar_of(layer, io::sink()),
        }
    }

    fn layer(&self, layer: &Layer, size: u64, out: &mut Writer<impl Write>) -> Result<()> {
        match self.shared.tar_of(layer, Data(out))? {
            found if found == size => Ok(()),
            found => Err(Error::Invalid(format!(
                "the layer {} has a tar of {found} bytes, and {size} were written down",
                layer.diff_id
            ))),
        }
    }
}

fn unwritable(source: io::Error) -> Error {
    Error::Archive {
        what: "the archive that is being written".to_owned(),
        source: ferry_archive::Error::Read { source },
    }
}

fn header(writer: &mut Writer<impl Write>, name: &str, (kind, mode, secs, size): (Kind, u32, i64, u64)) -> Result<()> {
    let entry = Entry {
        mode,
        size,
        mtime: Time { secs, nanos: 0 },
        ..Entry::blank(name, kind)
    };
    writer.header(&entry).map_err(unwritable)
}

/// The content of the current entry.
struct Data<'a, W>(&'a mut Writer<W>);

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The members of an archive by name.
type Members = BTreeMap<String, Member>;
