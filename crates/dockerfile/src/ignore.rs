//! `.dockerignore`, with the rules of github.com/moby/patternmatcher.
//!
//! * One pattern a line; empty lines and lines that begin with `#` are nothing.
//! * A pattern is anchored at the root of the context; `/` at its ends, `.` and `..` are cleaned away.
//! * `*` and `?` stay inside a name, `[a-z]` is a class, `\` escapes, `**` is any number of directories.
//! * `!` makes an exception. The last pattern that matches a path decides.
//! * What matches a directory matches everything below it, until a later pattern says otherwise.
//!
//! The Dockerfile and the file itself are sent always; that is for the caller.

mod pattern;

use pattern::Pattern;

/// The most bytes of one file.
pub const MAX_FILE: usize = 1 << 20;

/// Patterns in order.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    pattern: Pattern,
    exception: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("illegal exclusion pattern: \"!\"")]
    Exclamation,
    /// Go's `path/filepath` says the first four words of it.
    #[error("syntax error in pattern {0}: a class is not closed, or nothing follows a backslash")]
    Syntax(String),
    #[error("the file of ignored paths is longer than {MAX_FILE} bytes")]
    Length,
}

/// Which patterns matched a directory: what is below it starts from there.
#[derive(Clone, Debug, Default)]
pub struct Matched(Vec<bool>);

/// Whether a name, without `/`, matches a pattern as Go's `path.Match` has them: two stars are one. `None` for what is no pattern.
pub fn matches_name(pattern: &str, name: &str) -> Option<bool> {
    let mut simple = String::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        if c == '*' && simple.ends_with('*') && !simple.ends_with("\\*") {
            continue;
        }
        simple.push(c);
        if c == '\\' {
            simple.extend(characters.next());
        }
    }
    Some(Pattern::parse(&simple)?.matches(name))
}

impl Ignore {
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::new(Self::lines(bytes)?)
    }

    /// The patterns of a file, as [`Ignore::new`] takes them.
    pub fn lines(bytes: &[u8]) -> Result<Vec<String>, Error> {
        if bytes.len() > MAX_FILE {
            return Err(Error::Length);
        }
        let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        Ok(lines.filter(|line| !line.is_empty()).map(clean_line).collect())
    }

    /// Of patterns that are not lines of a file: `--exclude`.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        let mut ignore = Self::default();
        for text in patterns {
            let text = text.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let text = crate::path::clean(text);
            let (exception, text) = match text.strip_prefix('!') {
                Some("") => return Err(Error::Exclamation),
                Some(rest) => (true, rest),
                None => (false, text.as_str()),
            };
            let pattern = Pattern::parse(text).ok_or_else(|| Error::Syntax(text.to_owned()))?;
            ignore.patterns.push(Line { pattern, exception });
        }
        Ok(ignore)
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path of the context, without `/` at its beginning, is ignored.
    pub fn ignores(&self, path: &str) -> bool {
        let mut matched = Matched::default();
        let mut ignored = false;
        // From the top, as a walk would.
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            (ignored, matched) = self.look(&path[..end], &matched);
        }
        ignored
    }

    /// The same for one who walks: `above` is what the directory of `path` gave, or the default at the root.
    pub fn look(&self, path: &str, above: &Matched) -> (bool, Matched) {
        let mut ignored = false;
        let mut matched = Matched(vec![false; self.patterns.len()]);
        for (index, line) in self.patterns.iter().enumerate() {
            let mut matches = above.0.get(index).copied().unwrap_or_default();
            // A pattern that could not change anything is not asked.
            if !matches && line.exception == ignored {
                matches = line.pattern.matches(path);
            }
            matched.0[index] = matches;
            if matches {
                ignored = !line.exception;
            }
        }
        (ignored, matched)
    }

    /// Whether nothing below an ignored directory can be an exception, so that nobody has to look into it.
    pub fn can_skip(&self, directory: &str) -> bool {
        let mut exceptions = self.patterns.iter().filter(|line| line.exception);
        !exceptions.any(|line| line.pattern.may_match_below(directory))
    }
}

/// A line as moby reads it: `/` at the beginning goes, also behind `!`.
fn clean_line(line: &str) -> String {
    let (mark, rest) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    let cleaned = match rest {
        "" => String::new(),
        rest => crate::path::clean(rest),
    };
    let cleaned = match cleaned.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => &cleaned,
    };
    format!("{mark}{cleaned}")
}

#[cfg(test)]
mod tests;
