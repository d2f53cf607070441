//! Logical lines: continuations joined, comments gone, here-documents taken along.

use super::directive::{self, Directive};
use super::heredoc;
use super::node::{self, Node};
use crate::error::{Error, Problem, Result};
use crate::range::{Position, Range};

pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// A whole file, instruction by instruction.
#[derive(Debug)]
pub(crate) struct Source {
    pub directives: Vec<Directive>,
    pub escape: char,
    pub nodes: Vec<Node>,
    /// Last lines of the instructions that have an empty line among their continuations.
    pub empty_continuations: Vec<Range>,
}

struct Physical<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Iterator for Physical<'a> {
    /// With its end.
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self
            .rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        Some(line)
    }
}

/// Where directives may still come.
struct Directives {
    found: Vec<Directive>,
    done: bool,
    escape: char,
}

impl Directives {
    /// Whether a line is one.
    fn look(&mut self, line: &str, number: u32) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        let Some(directive) = directive::parse(line, "#", number) else {
            self.done = true;
            return Ok(false);
        };
        if self.found.iter().any(|known| known.name == directive.name) {
            return Err(Problem::DirectiveTwice(directive.name).at(directive.range));
        }
        if directive.name == "escape" {
            self.escape = match directive.value.as_str() {
                "\\" => '\\',
                "`" => '`',
                other => return Err(Problem::Escape(other.to_owned()).at(directive.range)),
            };
        }
        self.found.push(directive);
        Ok(true)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Source> {
    if bytes.is_empty() {
        return Err(Problem::Empty.into());
    }
    let mut physical = Physical {
        rest: bytes.strip_prefix(BOM).unwrap_or(bytes),
        number: 0,
    };
    let mut directives = Directives {
        found: Vec::new(),
        done: false,
        escape: '\\',
    };
    let mut nodes: Vec<Node> = Vec::new();
    let mut empty_continuations = Vec::new();
    let mut comments = Vec::new();
    while let Some(bytes) = physical.next() {
        let text = text(bytes);
        let first = text.trim_start();
        let is_directive = directives.look(first, physical.number)?;
        if first.starts_with('#') && !is_directive {
            // An indented comment keeps its `#`, as the words behind it are no description then.
            let comment: String = text.chars().skip(1).collect();
            match comment.trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
        }
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let start = Position {
            line: physical.number,
            column: count(&text) - count(first) + 1,
        };
        let mut joined = Joined::new(first, directives.escape);
        while joined.goes_on {
            let Some(bytes) = physical.next() else { break };
            joined.add(&self::text(bytes));
        }
        let mut range = Range {
            start,
            end: Position {
                line: physical.number,
                column: joined.last_column.max(1),
            },
        };
        if joined.has_empty {
            empty_continuations.push(Range::line(physical.number, joined.last_column.saturating_sub(1)));
        }
        let mut node = node::parse(joined.text, directives.escape).map_err(|problem| problem.at(range))?;
        node.comments = std::mem::take(&mut comments);
        if node.may_have_documents() {
            for mut document in heredoc::announced(&node.text) {
                let ended = fill(&mut document, &mut physical);
                range.end = Position {
                    line: physical.number,
                    column: count(&document.name) + 1,
                };
                if !ended {
                    return Err(Problem::Heredoc.at(range));
                }
                node.heredocs.push(document);
            }
        }
        node.range = range;
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err(nothing(physical.number));
    }
    Ok(Source {
        directives: directives.found,
        escape: directives.escape,
        nodes,
        empty_continuations,
    })
}

fn nothing(line: u32) -> Error {
    Problem::NoInstructions.at(Range::line(line, 0))
}

/// Reads up to the line that ends the document; `false` if there is none.
fn fill(document: &mut heredoc::Heredoc, physical: &mut Physical<'_>) -> bool {
    for line in physical.by_ref() {
        if document.ends_at(without_end(line)) {
            return true;
        }
        document.content.extend_from_slice(line);
    }
    false
}

fn without_end(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|b| !matches!(b, b'\r' | b'\n'))
        .map_or(0, |at| at + 1);
    &line[..end]
}

fn text(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(without_end(line))
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX - 1)
}

/// A line and those that continue it.
struct Joined {
    escape: char,
    text: String,
    goes_on: bool,
    has_empty: bool,
    /// One behind the last character of the line that was added last.
    last_column: u32,
}

impl Joined {
    fn new(line: &str, escape: char) -> Self {
        let mut joined = Self {
            escape,
            text: String::new(),
            goes_on: true,
            has_empty: false,
            last_column: 0,
        };
        joined.push(line);
        joined
    }

    fn add(&mut self, line: &str) {
        let begun = line.trim_start();
        if begun.starts_with('#') {
            return;
        }
        if begun.is_empty() {
            self.has_empty = true;
            return;
        }
        self.push(line);
    }

    /// The escape character goes on to the next line, unless another one stands before it.
    fn push(&mut self, line: &str) {
        self.last_column = count(line) + 1;
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => self.text.push_str(before),
            _ => {
                self.text.push_str(line);
                self.goes_on = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, u32, u32)> {
        let source = read(text.as_bytes()).unwrap();
        let node = |node: Node| (node.text, node.range.start.line, node.range.end.line);
        source.nodes.into_iter().map(node).collect()
    }

    #[test]
    fn continuations_are_joined() {
        assert_eq!(
            lines("FROM a\nRUN b \\\n# c\n\n  # d\n c \\ \n d\nRUN e \\"),
            [
                ("FROM a".to_owned(), 1, 1),
                ("RUN b  c  d".to_owned(), 2, 7),
                ("RUN e ".to_owned(), 8, 8)
            ]
        );
        assert_eq!(
            lines("RUN a \\\\\nRUN b"),
            [("RUN a \\\\".to_owned(), 1, 1), ("RUN b".to_owned(), 2, 2)]
        );
        assert_eq!(lines("# escape=`\nRUN a`\nb\\\n")[0].0, "RUN ab\\");
    }

    #[test]
    fn ranges_have_columns() {
        let source = read("\n  RUN <<E \\\n  x\nq\nE\n".as_bytes()).unwrap();
        let range = source.nodes[0].range;
        assert_eq!((range.start.line, range.start.column), (2, 3));
        assert_eq!((range.end.line, range.end.column), (5, 2));
        assert_eq!(source.nodes[0].heredocs[0].content, b"q\n");
    }

    #[test]
    fn errors_have_the_line_they_are_about() {
        let at = |text: &str| read(text.as_bytes()).unwrap_err().ranges.first().map(Range::lines);
        assert_eq!(at("# escape=\\\n# ESCAPE=`\nFROM x"), Some(2..=2));
        assert_eq!(at("# escape=x\nFROM x"), Some(1..=1));
        assert_eq!(at("FROM x\nRUN <<E\n\n"), Some(2..=3));
        assert_eq!(at(""), None);
    }
}
