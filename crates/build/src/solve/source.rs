//! Directories to copy from, held as long as a thread reads them.

use std::path::PathBuf;

use ferry_sys::Root;
use jiff::Timestamp;

use crate::error::Result;
use crate::files::Source;
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

/// What a step copies, as one digest. Blocks.
pub fn digest(files: &Files, sources: &[Option<Owned>]) -> Result<String> {
    let _ = (files, sources.iter().flatten().map(Owned::source).count());
    Err(crate::Error::Internal("not there yet".to_owned()))
}

/// Writes what a step writes. Blocks.
pub fn write(
    files: &Files,
    sources: &[Option<Owned>],
    below: Option<&Root>,
    draft: &Root,
    epoch: Option<Timestamp>,
) -> Result<()> {
    let _ = (files, sources, below, draft, epoch);
    Err(crate::Error::Internal("not there yet".to_owned()))
}

/// Copies a tree's files into a draft. Blocks.
pub fn copy_tree(files: &Files, tree: Root, draft: &Root) -> Result<()> {
    write(files, &[Some(Owned::Tree(tree))], None, draft, None)
}
