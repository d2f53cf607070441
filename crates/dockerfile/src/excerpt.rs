//! The lines an error is about, shown as BuildKit shows them.

use std::fmt::Write;

use crate::error::Error;
use crate::range::Range;

/// More lines of one range than this are not shown, nor more characters of one line.
const MAX_LINES: usize = 50;
const MAX_COLUMNS: usize = 500;

impl Error {
    /// One block for each range, with the lines around it; nothing for an error without one.
    ///
    /// ```text
    /// Dockerfile:2
    /// --------------------
    ///    1 |     FROM scratch
    ///    2 | >>> RUNN x
    ///    3 |     
    /// --------------------
    /// ```
    pub fn excerpt(&self, file: &str, bytes: &[u8]) -> String {
        let mut out = String::new();
        for range in &self.ranges {
            block(&mut out, file, bytes, *range);
        }
        out
    }
}

fn block(out: &mut String, file: &str, bytes: &[u8], range: Range) {
    const RULE: &str = "--------------------";
    let (first, last) = (index(range.start.line), index(range.end.line));
    // Two lines around one, one around several.
    let around = if first == last { 2 } else { 1 };
    // What is behind the last newline is a line too.
    let lines = bytes.split(|b| *b == b'\n').enumerate();
    let from = first.saturating_sub(around).max(1);
    let shown = lines.skip(from - 1).take(last + around + 1 - from);
    let _ = writeln!(out, "{file}:{first}\n{RULE}");
    for (count, (number, line)) in shown.enumerate() {
        if count > MAX_LINES {
            let _ = writeln!(out, "     |     …");
            break;
        }
        let number = number + 1;
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = String::from_utf8_lossy(line);
        let line: String = line.trim_end_matches('\r').chars().take(MAX_COLUMNS).collect();
        let _ = writeln!(out, "{number:4} | {mark} {line}");
    }
    let _ = writeln!(out, "{RULE}");
}

fn index(line: u32) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use crate::Dockerfile;

    fn excerpt(text: &str) -> String {
        Dockerfile::parse(text.as_bytes())
            .unwrap_err()
            .excerpt("Dockerfile", text.as_bytes())
    }

    #[test]
    fn lines_are_shown_as_buildkit_shows_them() {
        for (text, expected) in [
            (
                "FROM scratch\nRUNN x\n",
                "Dockerfile:2\n--\n   1 |     FROM scratch\n   2 | >>> RUNN x\n   3 |     \n--\n",
            ),
            (
                "FROM a\nRUN a\nRUN b\nRUN c\nCOPY --bad \\\n a \\\n b\n\nRUN d\n",
                "Dockerfile:5\n--\n   4 |     RUN c\n   5 | >>> COPY --bad \\\n   6 | >>>  a \\\n   7 | >>>  b\n   8 |     \n--\n",
            ),
            (
                "FROM a\nRUN a\nRUN b\nBAD",
                "Dockerfile:4\n--\n   2 |     RUN a\n   3 |     RUN b\n   4 | >>> BAD\n--\n",
            ),
            (
                "BAD\nRUN a\nRUN b\nRUN c",
                "Dockerfile:1\n--\n   1 | >>> BAD\n   2 |     RUN a\n   3 |     RUN b\n--\n",
            ),
        ] {
            assert_eq!(excerpt(text), expected.replace("--\n", "--------------------\n"));
        }
        assert_eq!(excerpt(""), "");
    }

    #[test]
    fn an_excerpt_is_short() {
        let text = format!("FROM a\nRUN <<E\n{}", format!("{}\n", "x".repeat(2000)).repeat(2000));
        assert!(excerpt(&text).len() < 60 * 600);
    }
}
