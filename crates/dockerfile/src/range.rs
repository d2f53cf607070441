//! Places in a file.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Lines, one-based, both ends included.
pub type Lines = RangeInclusive<u32>;

/// Line and column, both one-based; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// From the first character to the one after the last, of a whole instruction with its here-documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    pub start: Position,
    pub end: Position,
}

impl Range {
    pub(crate) fn line(line: u32, columns: u32) -> Self {
        Self {
            start: Position { line, column: 1 },
            end: Position {
                line,
                column: columns + 1,
            },
        }
    }

    pub fn lines(&self) -> Lines {
        self.start.line..=self.end.line
    }
}
