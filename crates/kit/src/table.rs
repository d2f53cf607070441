//! Go's `text/tabwriter` with left-aligned cells and spaces for padding.
//!
//! A cell is text that ends in a tab; the text after the last tab of a line belongs to no column. A column is a run of
//! consecutive lines that have a cell there; its width is that of its widest cell plus the padding, at least the minimum.

#[derive(Debug, Clone)]
pub struct TabWriter {
    minimum: usize,
    padding: usize,
    text: String,
}

impl Default for TabWriter {
    /// The parameters of docker/cli's formatter: `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)`.
    fn default() -> Self {
        Self::new(10, 3)
    }
}

impl TabWriter {
    /// `minimum` width of a column, padding included; `padding` after each cell. Both in characters.
    #[must_use]
    pub fn new(minimum: usize, padding: usize) -> Self {
        Self {
            minimum,
            padding,
            text: String::new(),
        }
    }

    /// Adds text; tabs end cells, newlines end lines.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds one line of cells, tabs between them.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.text.push('\t');
            }
            self.text.push_str(cell.as_ref());
        }
        self.text.push('\n');
    }

    /// The aligned text.
    #[must_use]
    pub fn finish(self) -> String {
        let lines: Vec<Vec<Cell<'_>>> = self
            .text
            .split('\n')
            .map(|line| line.split('\t').map(Cell::new).collect())
            .collect();
        let mut layout = Layout {
            lines: &lines,
            minimum: self.minimum,
            padding: self.padding,
            widths: Vec::new(),
            out: String::new(),
        };
        layout.block(0, lines.len());
        layout.out
    }
}

struct Cell<'a> {
    text: &'a str,
    width: usize,
}

impl<'a> Cell<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            width: text.chars().count(),
        }
    }
}

struct Layout<'a> {
    lines: &'a [Vec<Cell<'a>>],
    minimum: usize,
    padding: usize,
    /// Of the columns left of the block at hand.
    widths: Vec<usize>,
    out: String,
}

impl Layout<'_> {
    /// Prints lines `start..end`, which share the columns in `widths`.
    fn block(&mut self, mut start: usize, end: usize) {
        let column = self.widths.len();
        let has_column = |line: &Vec<Cell<'_>>| column + 1 < line.len();
        let mut line = start;
        while line < end {
            if !has_column(&self.lines[line]) {
                line += 1;
                continue;
            }
            self.print(start, line);
            start = line;
            let mut width = self.minimum;
            while line < end && has_column(&self.lines[line]) {
                width = width.max(self.lines[line][column].width + self.padding);
                line += 1;
            }
            self.widths.push(width);
            self.block(start, line);
            self.widths.pop();
            start = line;
        }
        self.print(start, end);
    }

    fn print(&mut self, start: usize, end: usize) {
        for (index, line) in self.lines.iter().enumerate().take(end).skip(start) {
            for (column, cell) in line.iter().enumerate() {
                self.out.push_str(cell.text);
                if let Some(width) = self.widths.get(column) {
                    self.out
                        .extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width)));
                }
            }
            if index + 1 < self.lines.len() {
                self.out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(text: &str) -> String {
        let mut table = TabWriter::default();
        table.push(text);
        table.finish()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_at_least_ten() {
        assert_eq!(
            aligned("CONTAINER ID\tIMAGE\tNAMES\n0123456789ab\tbusybox\tx\n"),
            "CONTAINER ID   IMAGE     NAMES\n0123456789ab   busybox   x\n"
        );
        assert_eq!(aligned("a\tb\n"), "a         b\n");
    }

    #[test]
    fn a_last_cell_that_is_empty_leaves_the_padding_of_the_one_before() {
        assert_eq!(
            aligned("PORTS\tX\n\t\n80/tcp, 443/tcp\t\n"),
            "PORTS             X\n                  \n80/tcp, 443/tcp   \n"
        );
    }

    #[test]
    fn a_line_without_cells_splits_the_columns() {
        assert_eq!(
            aligned("aaaaaaaaaaaa\tb\n\nc\td\n"),
            "aaaaaaaaaaaa   b\n\nc         d\n"
        );
    }

    #[test]
    fn characters_count_not_bytes() {
        assert_eq!(aligned("ééééééééé\tx\nabc\ty\n"), "ééééééééé   x\nabc         y\n");
    }

    #[test]
    fn lines_of_different_length_share_the_columns_they_have() {
        assert_eq!(
            aligned("a\tbbbbbbbbbbbb\tc\nx\ty\n"),
            "a         bbbbbbbbbbbb   c\nx         y\n"
        );
    }

    #[test]
    fn text_without_a_last_newline_gets_none() {
        assert_eq!(aligned("a\tb"), "a         b");
        assert_eq!(aligned(""), "");
    }
}
