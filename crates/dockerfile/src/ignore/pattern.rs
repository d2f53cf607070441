//! One pattern of a `.dockerignore`.
//!
//! moby turns a pattern into a regular expression; here it is a list of parts, walked with the set of parts that may come
//! next. So the time is that of the path times that of the pattern, whatever is in either.

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`: any character of a name.
    Any,
    /// `[…]`; never `/`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`: any characters of a name.
    Star,
    /// `**/`, or `**` before something: any directories, or none.
    Directories,
    /// `**` at the end: anything.
    Everything,
}

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    /// The characters before the first part that is none: no path without them matches.
    literal: String,
    /// Nothing but characters.
    is_literal: bool,
    /// `**` and then only characters: moby takes any path that ends so, not only at a `/`.
    suffix: Option<String>,
}

impl Pattern {
    /// `None` if a class is not closed, or nothing follows a backslash.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            parts.push(match c {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    rest.next_if_eq(&'/');
                    match rest.peek() {
                        None => Part::Everything,
                        Some(_) => Part::Directories,
                    }
                }
                '*' => Part::Star,
                '?' => Part::Any,
                '[' => class(&mut rest)?,
                '\\' => Part::Char(rest.next()?),
                c => Part::Char(c),
            });
        }
        let literal: String = parts.iter().map_while(Part::character).collect();
        let suffix: Option<String> = match parts.split_first() {
            Some((Part::Directories, after)) if text.starts_with("**") && !text.contains('\\') => {
                after.iter().map(Part::character).collect::<Option<String>>()
            }
            _ => None,
        };
        // `**/x` has to stand behind a `/` or be all; `**x` only has to be at the end.
        let suffix = suffix.map(|after| match text.starts_with("**/") {
            true => format!("/{after}"),
            false => after,
        });
        Some(Self {
            is_literal: literal.chars().count() == parts.len(),
            parts,
            literal,
            suffix,
        })
    }

    pub fn matches(&self, path: &str) -> bool {
        if self.is_literal {
            return path == self.literal;
        }
        if let Some(suffix) = &self.suffix {
            return path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path);
        }
        path.starts_with(self.literal.as_str()) && self.reach(path)[self.parts.len()]
    }

    /// Whether there can be a path below `directory` that matches.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let prefix = format!("{directory}/");
        if self.suffix.is_some() {
            return true;
        }
        if self.is_literal {
            return self.literal.starts_with(&prefix);
        }
        // Only as much of the directory as is fixed has to agree.
        let shorter = self.literal.len().min(prefix.len());
        if self.literal.as_bytes()[..shorter] != prefix.as_bytes()[..shorter] {
            return false;
        }
        self.reach(&prefix).iter().any(|state| *state)
    }

    /// Which parts may come next after all of `path`; the one behind the last says that the whole matched.
    fn reach(&self, path: &str) -> Vec<bool> {
        let mut states = vec![false; self.parts.len() + 1];
        // `Directories` is met only at its beginning or behind a `/`; until then its characters are these.
        let mut inside = vec![false; self.parts.len() + 1];
        states[0] = true;
        self.close(&mut states);
        for c in path.chars() {
            let mut next = vec![false; states.len()];
            let mut next_inside = vec![false; states.len()];
            for (index, part) in self.parts.iter().enumerate() {
                if !states[index] && !inside[index] {
                    continue;
                }
                match part {
                    Part::Directories => {
                        next_inside[index] = true;
                        next[index + 1] |= c == '/';
                    }
                    Part::Star => next[index] |= c != '/',
                    Part::Everything => next[index] = true,
                    single => next[index + 1] |= single.takes(c),
                }
            }
            (states, inside) = (next, next_inside);
            self.close(&mut states);
            if !states.iter().any(|state| *state) && !inside.iter().any(|state| *state) {
                break;
            }
        }
        // Inside directories there may still be something to come.
        let last = states.len() - 1;
        for index in 0..last {
            states[index] |= inside[index];
        }
        states
    }

    /// Parts that may match nothing.
    fn close(&self, states: &mut [bool]) {
        for (index, part) in self.parts.iter().enumerate() {
            if states[index] && matches!(part, Part::Star | Part::Directories | Part::Everything) {
                states[index + 1] = true;
            }
        }
    }
}

impl Part {
    fn character(&self) -> Option<char> {
        match self {
            Self::Char(c) => Some(*c),
            _ => None,
        }
    }

    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == c,
            Self::Any => c != '/',
            Self::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Self::Star | Self::Directories | Self::Everything => false,
        }
    }
}

/// Behind the `[`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Part::Class { negated, ranges });
        }
        let low = member(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => member(rest)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn member(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}
