//! Directories to copy from, held as long as a thread reads them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferry_sys::Root;
use jiff::Timestamp;

use crate::error::Result;
use crate::files::{self, Index, Manifest, Options, Parts, Previous, Selection, Source};
use crate::frontend::Opened;
use crate::graph::Files;

/// A directory of files.
#[derive(Debug)]
pub enum Owned {
    Context {
        opened: Opened,
        /// Where its contents are remembered.
        index: Option<PathBuf>,
    },
    Tree(Root),
}

/// What an earlier step like this one wrote.
#[derive(Debug)]
pub struct Earlier {
    pub root: Root,
    pub manifest: Manifest,
}

impl Owned {
    fn source(&self) -> Source<'_> {
        match self {
            Self::Context { opened, .. } => Source {
                root: &opened.directory.root,
                ignore: Some(&*opened.ignore).filter(|ignore| !ignore.is_empty()),
                plain_owner: true,
            },
            Self::Tree(root) => Source {
                root,
                ignore: None,
                plain_owner: false,
            },
        }
    }
}

/// What a step copies, from where.
#[derive(Debug, Default)]
pub struct Chosen {
    sources: Vec<Option<Owned>>,
    parts: Parts,
}

impl Chosen {
    /// Finds it. Blocks.
    pub fn select(files: &Files, sources: Vec<Option<Owned>>) -> Result<Self> {
        let parts = files::select(files, &by_place(&sources))?.into_parts();
        Ok(Self { sources, parts })
    }

    /// All of it as one digest. Blocks.
    pub fn digest(self, files: &Files) -> Result<(String, Self)> {
        let kept = self.sources.iter().flatten().find_map(|source| match source {
            Owned::Context { index, .. } => index.as_deref(),
            Owned::Tree(_) => None,
        });
        let mut index = kept.map(Index::open);
        let mut selection = Selection::from_parts(files, &by_place(&self.sources), self.parts)?;
        let digest = selection.digest(index.as_mut())?;
        if let Some(Err(error)) = index.map(|mut index| index.save()) {
            tracing::warn!(%error, "cannot keep what is known of a context's files");
        }
        let parts = selection.into_parts();
        Ok((digest.encoded().to_owned(), Self { parts, ..self }))
    }

    /// Names the places the files come from, if files of the same places may be copied again.
    pub fn places(&self) -> Vec<&str> {
        let places = self.sources.iter().flatten().filter_map(|source| match source {
            Owned::Context { opened, .. } => opened.directory.key.as_deref(),
            Owned::Tree(_) => None,
        });
        places.collect()
    }

    /// Writes what a step writes, and tells what that is. Files that `earlier` has are links to them. Blocks.
    pub fn write(
        self,
        files: &Files,
        below: Option<&Root>,
        draft: &Root,
        epoch: Option<Timestamp>,
        earlier: Option<&Earlier>,
    ) -> Result<Manifest> {
        let options = Options {
            epoch: epoch.map(Timestamp::as_second),
            previous: earlier.map(|Earlier { root, manifest }| Previous { root, manifest }),
        };
        let selection = Selection::from_parts(files, &by_place(&self.sources), self.parts)?;
        let written = selection.write(below, draft, &options)?;
        for warning in &written.warnings {
            tracing::warn!("{warning}");
        }
        Ok(written.manifest)
    }
}

fn by_place(sources: &[Option<Owned>]) -> BTreeMap<usize, Source<'_>> {
    let sources = sources.iter().enumerate();
    sources
        .filter_map(|(place, source)| Some((place, source.as_ref()?.source())))
        .collect()
}

/// Copies a tree's files into a draft. Blocks.
pub fn copy_tree(files: &Files, tree: Root, draft: &Root) -> Result<()> {
    let chosen = Chosen::select(files, vec![Some(Owned::Tree(tree))])?;
    chosen.write(files, None, draft, None, None).map(drop)
}
