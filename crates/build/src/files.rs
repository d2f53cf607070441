//! Files that a step writes: which ones, what their contents are, and the writing.
//!
//! ```text
//! Files + Sources ── select ──▶ Selection ── digest ──▶ the step's key
//!                                   │
//!                                   └── write ──▶ the draft
//! ```
//!
//! What is copied where is what BuildKit copies where: the cases beside `tests/copies.rs` were recorded from it. Everything here
//! blocks.

mod archive;
mod content;
mod copying;
mod creation;
mod entry;
mod index;
mod manifest;
mod owner;
mod parallel;
mod pattern;
mod place;
mod select;
mod unpack;
mod walk;
mod whole;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ferry_dockerfile::Ignore;
use ferry_dockerfile::instruction::Chmod;
use ferry_image::Digest;
use ferry_sys::Root;

pub use self::archive::archive;
pub use self::index::Index;
pub use self::manifest::{Manifest, Previous, Record};
use self::place::Place;
use self::select::Part;
use crate::error::{Error, Result};
use crate::graph::{Action, Copy, Files};

/// Where files are copied from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub root: &'a Root,
    /// What of it is not there, for who copies.
    pub ignore: Option<&'a Ignore>,
    /// Everything is root's, whoever owns it, and has no capabilities: a context's files.
    pub plain_owner: bool,
}

/// What a step will write.
#[derive(Debug)]
pub struct Selection<'a> {
    files: &'a Files,
    /// One for each action that is a copy.
    copies: Vec<Selected<'a>>,
}

/// What was selected, without what it was selected from.
#[derive(Debug, Default)]
pub struct Parts(Vec<Vec<Part>>);

#[derive(Debug)]
struct Selected<'a> {
    source: Source<'a>,
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Nothing is younger: seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// An earlier layer of the same step, for files that are the same.
    pub previous: Option<Previous<'a>>,
}

#[derive(Debug, Default)]
pub struct Written {
    /// Files whose content was known when they were written, for the next [`Previous`].
    pub manifest: Manifest,
    /// Of these files, how many were linked from the previous layer.
    pub linked: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Finds what `files` copies from `sources`, which go by their places in the step's inputs. Fails with
/// [`Error::NotFound`] if a source is not there.
pub fn select<'a>(files: &'a Files, sources: &BTreeMap<usize, Source<'a>>) -> Result<Selection<'a>> {
    let each = files.copies().map(|copy| {
        let source = source_of(copy, sources)?;
        let parts = select::select(&source, copy)?;
        Ok(Selected { source, parts })
    });
    let copies = each.collect::<Result<_>>()?;
    Ok(Selection { files, copies })
}

fn source_of<'a>(copy: &Copy, sources: &BTreeMap<usize, Source<'a>>) -> Result<Source<'a>> {
    let source = sources.get(&copy.input).copied();
    source.ok_or_else(|| Error::Internal(format!("input {} was not given", copy.input)))
}

impl<'a> Selection<'a> {
    /// Of the same files and sources, for later.
    pub fn into_parts(self) -> Parts {
        Parts(self.copies.into_iter().map(|selected| selected.parts).collect())
    }

    pub fn from_parts(files: &'a Files, sources: &BTreeMap<usize, Source<'a>>, parts: Parts) -> Result<Self> {
        let each = files.copies().zip(parts.0).map(|(copy, parts)| {
            let source = source_of(copy, sources)?;
            Ok(Selected { source, parts })
        });
        let copies = each.collect::<Result<_>>()?;
        Ok(Selection { files, copies })
    }

    /// What the step's result depends on besides what is below it: the actions, and of every file what will be written,
    /// without times. Contents that `index` does not know are read, and remembered there.
    pub fn digest(&mut self, mut index: Option<&mut Index>) -> Result<Digest> {
        let mut hasher = content::Hasher::new();
        let actions =
            serde_json::to_vec(self.files).map_err(|error| Error::internal("cannot encode a step", &error))?;
        hasher.field(&actions);
        for (selected, copy) in self.copies.iter_mut().zip(self.files.copies()) {
            for part in &mut selected.parts {
                content::read(selected.source, part, index.as_deref_mut())?;
                hasher.part(part, selected.source, copy);
            }
        }
        Ok(hasher.finish())
    }

    /// Writes all of it. `below` is what the draft will lie on, as one directory: destinations, their links and the names of
    /// users are looked up in it.
    pub fn write(&self, below: Option<&Root>, draft: &Root, options: &Options<'_>) -> Result<Written> {
        let mut place = Place::new(below, draft, options);
        let mut copies = self.copies.iter();
        for action in &self.files.actions {
            match action {
                Action::Copy(copy) => {
                    let attributes = Attributes::of_copy(copy, &mut place)?;
                    let selected = copies.next();
                    let selected = selected.ok_or_else(|| Error::Internal("a copy was not selected".into()))?;
                    for part in &selected.parts {
                        if !(copy.unpack && unpack::unpack(&mut place, selected.source, part, copy, &attributes)?) {
                            copying::copy(&mut place, selected.source, part, copy, &attributes)?;
                        }
                    }
                }
                Action::MakeDirectory { path, mode, owner } => {
                    let owner = place.owner(owner.as_deref())?;
                    let made = place
                        .resolve(Path::new(path))
                        .and_then(|path| place.make_directories(&path, owner, *mode));
                    made.map_err(|error| match error {
                        Error::Invalid(why) if why.ends_with("not a directory") => {
                            Error::Invalid(format!("lstat {path}: not a directory"))
                        }
                        other => other,
                    })?;
                }
                Action::Documents {
                    files,
                    destination,
                    chmod,
                    owner,
                } => {
                    let attributes = Attributes::new(owner.as_deref(), chmod.as_deref(), &mut place)?;
                    for (name, content) in files {
                        copying::document(&mut place, name, content, destination, &attributes)?;
                    }
                }
            }
        }
        place.finish()
    }
}

/// The content of one path, with all below it: of a mount's source. The path is literal and its links are followed.
pub fn digest_of(source: Source<'_>, path: &str, index: Option<&mut Index>) -> Result<Digest> {
    let copy = Copy {
        sources: vec![path.to_owned()],
        destination: "/".into(),
        literal: true,
        keep_owner: true,
        ..Copy::default()
    };
    let files = Files {
        base: None,
        actions: vec![Action::Copy(copy)],
    };
    select(&files, &BTreeMap::from([(0, source)]))?.digest(index)
}

/// What is written other than the source has it.
#[derive(Debug, Clone, Default)]
struct Attributes {
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    keep_owner: bool,
}

impl Attributes {
    fn new(owner: Option<&str>, chmod: Option<&str>, place: &mut Place<'_>) -> Result<Self> {
        Ok(Self {
            owner: place.owner(owner)?,
            chmod: chmod.map(Chmod::parse).transpose()?,
            keep_owner: false,
        })
    }

    fn of_copy(copy: &Copy, place: &mut Place<'_>) -> Result<Self> {
        Ok(Self {
            keep_owner: copy.keep_owner,
            ..Self::new(copy.owner.as_deref(), copy.chmod.as_deref(), place)?
        })
    }

    fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        self.chmod
            .as_ref()
            .map_or(mode, |chmod| chmod.apply(mode, is_directory))
    }

    /// Of directories that are made on the way: a number is for them as well, with BuildKit's umask; symbols are not.
    fn mode_of_parents(&self) -> u32 {
        match &self.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777 & !0o022,
            _ => 0o755,
        }
    }
}

/// `path` is relative to the root it is in.
fn failed(action: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    Error::internal(format_args!("cannot {action} /{}", path.display()), &error)
}
