//! Directories to copy from, held as long as a thread reads them.

use std::collections::BTreeMap;
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

fn by_place(sources: &[Option<Owned>]) -> BTreeMap<usize, Source<'_>> {
    let sources = sources.iter().enumerate();
    sources
        .filter_map(|(place, source)| Some((place, source.as_ref()?.source())))
        .collect()
}

/// What a step copies, as one digest. Blocks.
pub fn digest(files: &Files, sources: &[Option<Owned>]) -> Result<String> {
    let kept = sources.iter().flatten().find_map(|source| match source {
        Owned::Context { index, .. } => index.as_deref(),
        Owned::Tree(_) => None,
    });
    let mut index = kept.map(Index::open);
    let digest = files::select(files, &by_place(sources))?.digest(index.as_mut())?;
    if let Some(Err(error)) = index.map(|mut index| index.save()) {
        tracing::warn!(%error, "cannot keep what is known of a context's files");
    }
    Ok(digest.encoded().to_owned())
}

/// Writes what a step writes. Blocks.
pub fn write(
    files: &Files,
    sources: &[Option<Owned>],
    below: Option<&Root>,
    draft: &Root,
    epoch: Option<Timestamp>,
) -> Result<()> {
    let options = Options {
        epoch: epoch.map(Timestamp::as_second),
        previous: None,
    };
    let written = files::select(files, &by_place(sources))?.write(below, draft, &options)?;
    for warning in &written.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Copies a tree's files into a draft. Blocks.
pub fn copy_tree(files: &Files, tree: Root, draft: &Root) -> Result<()> {
    write(files, &[Some(Owned::Tree(tree))], None, draft, None)
}
