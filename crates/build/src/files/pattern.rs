//! One component of a source, as Go's `path/filepath.Match` matches it.

/// Whether a `*`, `?` or `[` stands in it that no backslash escapes: else it is a name, backslashes and all.
pub(super) fn is_pattern(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

enum Part {
    Star,
    Any,
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Char(wanted) => *wanted == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// A component that was read.
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// `None`: a class is not closed, or nothing follows a backslash.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            parts.push(match c {
                '*' if matches!(parts.last(), Some(Part::Star)) => continue,
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => Part::Char(rest.next()?),
                '[' => {
                    let negated = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                            break Part::Class { negated, ranges };
                        }
                        let mut member = || match rest.next()? {
                            '-' | ']' => None,
                            '\\' => rest.next(),
                            c => Some(c),
                        };
                        let low = member()?;
                        let high = match rest.next_if_eq(&'-') {
                            Some(_) => match rest.next()? {
                                '-' | ']' => return None,
                                '\\' => rest.next()?,
                                c => c,
                            },
                            None => low,
                        };
                        ranges.push((low, high));
                    }
                }
                c => Part::Char(c),
            });
        }
        Some(Self(parts))
    }

    /// In time of the name times the pattern: only the last star is ever tried again.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut part) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(part) {
                Some(Part::Star) => {
                    star = Some((part, at));
                    part += 1;
                }
                Some(single) if single.takes(name[at]) => {
                    part += 1;
                    at += 1;
                }
                _ => match &mut star {
                    Some((from, taken)) => {
                        *taken += 1;
                        (part, at) = (*from + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        self.0[part..].iter().all(|part| matches!(part, Part::Star))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "acb1", false),
            ("?", "ü", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("a", "ab", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        for wrong in ["[", "[]", "[a", "a\\", "[a-]", "[-a]"] {
            assert!(Pattern::parse(wrong).is_none(), "{wrong}");
        }
        assert!(is_pattern("a[*]") && !is_pattern("a\\*"));
        let slow = format!("{}b", "*a".repeat(500));
        assert!(!Pattern::parse(&slow).unwrap().matches(&"a".repeat(5000)));
    }
}
