//! Directories to copy from, held as long as a thread reads them.

use std::path::PathBuf;

use ferry_sys::Root;
use jiff::Timestamp;

use crate::error::Result;
use crate::files::{self, Index, Options, Source};
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

impl Owned {
    fn index(&self) -> Option<Index> {
        match self {
            Self::Context { index, .. } => index.as_deref().map(Index::open),
            Self::Tree(_) => None,
        }
    }

    fn source<'a>(&'a self, index: Option<&'a Index>) -> Source<'a> {
        match self {
            Self::Context { opened, .. } => Source {
                root: &opened.directory.root,
                ignore: Some(&*opened.ignore).filter(|ignore| !ignore.is_empty()),
                plain_owner: true,
                index,
            },
            Self::Tree(root) => Source {
                root,
                ignore: None,
                plain_owner: false,
                index: None,
            },
        }
    }
}

/// What a step copies, as one digest. Blocks.
pub fn digest(files: &Files, sources: &[Option<Owned>]) -> Result<String> {
    let indexes: Vec<Option<Index>> = sources
        .iter()
        .map(|source| source.as_ref().and_then(Owned::index))
        .collect();
    let found = sources.iter().zip(&indexes);
    let borrowed: Vec<_> = found
        .map(|(source, index)| source.as_ref().map(|source| source.source(index.as_ref())))
        .collect();
    let digest = files::digest(files, &borrowed)?;
    indexes.iter().flatten().for_each(Index::save);
    Ok(digest)
}

/// Writes what a step writes. Blocks.
pub fn write(
    files: &Files,
    sources: &[Option<Owned>],
    below: Option<&Root>,
    draft: &Root,
    epoch: Option<Timestamp>,
) -> Result<()> {
    let borrowed: Vec<_> = sources
        .iter()
        .map(|source| source.as_ref().map(|source| source.source(None)))
        .collect();
    files::write(files, &borrowed, below, draft, Options { epoch })
}

/// Copies a tree's files into a draft. Blocks.
pub fn copy_tree(files: &Files, tree: Root, draft: &Root) -> Result<()> {
    write(files, &[Some(Owned::Tree(tree))], None, draft, None)
}
