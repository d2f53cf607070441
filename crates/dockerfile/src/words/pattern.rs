//! Patterns of `#`, `%` and `/`: `*` and `?`, neither of which matches the end of a line.

/// The most steps all matches of one word may take. A step is one character seen by one part of a pattern.
pub(super) const MAX_STEPS: usize = 20_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Star,
    Any,
    Char(char),
}

/// Reads one pattern. A backslash escapes `*`, `?` and itself; before `}` and `/` it was for the lexer.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// The error is the clause BuildKit has for it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            parts.push(match c {
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' if matches!(characters.peek(), Some('}' | '/')) => continue,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Part::Char(escaped),
                    other => {
                        let other = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                        return Err(format!("invalid escape '\\{other}'"));
                    }
                },
                _ => Part::Char(c),
            });
        }
        // Two stars match what one does.
        parts.dedup_by(|a, b| *a == Part::Star && *b == Part::Star);
        Ok(Self(parts))
    }

    /// `value` without the prefix that matches. `None` if it takes too many steps.
    pub(super) fn without_prefix(&self, value: &str, longest: bool, steps: &mut usize) -> Option<String> {
        let characters: Vec<char> = value.chars().collect();
        let end = self.prefix(&characters, longest, steps)?.unwrap_or(0);
        Some(characters[end..].iter().collect())
    }

    /// The same for the suffix.
    pub(super) fn without_suffix(&self, value: &str, longest: bool, steps: &mut usize) -> Option<String> {
        let reversed = Self(self.0.iter().rev().copied().collect());
        let mut characters: Vec<char> = value.chars().rev().collect();
        let end = reversed.prefix(&characters, longest, steps)?.unwrap_or(0);
        characters.drain(..end);
        Some(characters.iter().rev().collect())
    }

    /// `value` with the first match, or every one, replaced. Matches are the leftmost and then the longest.
    pub(super) fn replace(&self, value: &str, by: &str, all: bool, steps: &mut usize) -> Option<String> {
        let characters: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        // An empty match right behind another one does not count.
        let mut last = None;
        while let Some((start, end)) = self.find(&characters, at, steps)? {
            out.extend(&characters[at..start]);
            if end > start || last != Some(start) {
                out.push_str(by);
            }
            (at, last) = (end, Some(end));
            if end == start {
                out.extend(characters.get(start));
                at += 1;
            }
            if !all || at > characters.len() || out.len() > super::MAX_WORD {
                break;
            }
        }
        out.extend(characters.get(at..).unwrap_or_default());
        Some(out)
    }

    /// Where the shortest or longest match from the beginning ends.
    fn prefix(&self, value: &[char], longest: bool, steps: &mut usize) -> Option<Option<usize>> {
        let mut states = States::new(&self.0);
        states.begin(0);
        let mut end = states.accepted().map(|_| 0);
        for (at, c) in value.iter().enumerate() {
            if (end.is_some() && !longest) || states.is_dead() {
                break;
            }
            *steps = steps.checked_sub(self.0.len() + 1)?;
            states.step(*c);
            if states.accepted().is_some() {
                end = Some(at + 1);
            }
        }
        Some(end)
    }

    fn find(&self, value: &[char], from: usize, steps: &mut usize) -> Option<Option<(usize, usize)>> {
        let mut states = States::new(&self.0);
        let mut best: Option<(usize, usize)> = None;
        for at in from..=value.len() {
            if best.is_none() {
                states.begin(at);
            }
            if let Some(start) = states.accepted()
                && best.is_none_or(|(known, _)| start <= known)
            {
                best = Some((start, at));
                states.forget_after(start);
            }
            let Some(c) = value.get(at) else { break };
            *steps = steps.checked_sub(self.0.len() + 1)?;
            states.step(*c);
            if best.is_some() && states.is_dead() {
                break;
            }
        }
        Some(best)
    }
}

/// Every part of the pattern that may come next, with the earliest place where such a match began.
struct States<'a> {
    parts: &'a [Part],
    starts: Vec<Option<usize>>,
}

impl<'a> States<'a> {
    fn new(parts: &'a [Part]) -> Self {
        Self {
            parts,
            starts: vec![None; parts.len() + 1],
        }
    }

    fn begin(&mut self, at: usize) {
        self.starts[0] = earlier(self.starts[0], Some(at));
        self.close();
    }

    /// A star may match nothing.
    fn close(&mut self) {
        for (index, part) in self.parts.iter().enumerate() {
            if *part == Part::Star {
                self.starts[index + 1] = earlier(self.starts[index + 1], self.starts[index]);
            }
        }
    }

    fn step(&mut self, c: char) {
        // From the end, so that each part sees the state of before.
        for index in (0..self.parts.len()).rev() {
            let start = self.starts[index];
            let stays = self.parts[index] == Part::Star && c != '\n';
            let moves = match self.parts[index] {
                Part::Star => false,
                Part::Any => c != '\n',
                Part::Char(wanted) => c == wanted,
            };
            self.starts[index + 1] = if matches!(self.parts.get(index + 1), Some(Part::Star)) && c != '\n' {
                self.starts[index + 1]
            } else {
                None
            };
            if moves {
                self.starts[index + 1] = earlier(self.starts[index + 1], start);
            }
            if index == 0 && !stays {
                self.starts[0] = None;
            }
        }
        if self.parts.is_empty() {
            self.starts[0] = None;
        }
        self.close();
    }

    fn accepted(&self) -> Option<usize> {
        self.starts[self.parts.len()]
    }

    fn is_dead(&self) -> bool {
        self.starts.iter().all(Option::is_none)
    }

    fn forget_after(&mut self, start: usize) {
        for known in &mut self.starts {
            *known = known.filter(|known| *known <= start);
        }
    }
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> usize {
        MAX_STEPS
    }

    #[test]
    fn prefixes_and_suffixes() {
        for (pattern, value, shortest, longest) in [
            ("*.", "file.tar.gz", "tar.gz", "gz"),
            ("a", "aab", "ab", "ab"),
            ("", "abc", "abc", "abc"),
            ("*", "abc", "abc", ""),
            ("?*", "abc", "bc", ""),
            ("x", "abc", "abc", "abc"),
            ("*b*", "abcb", "cb", ""),
            ("\\*", "*a", "a", "a"),
            ("*", "a\nb", "a\nb", "\nb"),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.without_prefix(value, false, &mut steps()).unwrap(),
                shortest,
                "{pattern}"
            );
            assert_eq!(
                parsed.without_prefix(value, true, &mut steps()).unwrap(),
                longest,
                "{pattern}"
            );
        }
        let parsed = Pattern::parse(".*").unwrap();
        assert_eq!(
            parsed.without_suffix("file.tar.gz", false, &mut steps()).unwrap(),
            "file.tar"
        );
        assert_eq!(
            parsed.without_suffix("file.tar.gz", true, &mut steps()).unwrap(),
            "file"
        );
    }

    #[test]
    fn matches_are_replaced_from_the_left() {
        for (pattern, value, by, first, all) in [
            ("a", "banana", "o", "bonana", "bonono"),
            ("a*n", "banana", "_", "b_a", "b_a"),
            ("?", "abc", "-", "-bc", "---"),
            ("x", "abc", "-", "abc", "abc"),
            ("", "abc", "-", "-abc", "-a-b-c-"),
            ("b*", "abc", "-", "a-", "a-"),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.replace(value, by, false, &mut steps()).unwrap(),
                first,
                "{pattern}"
            );
            assert_eq!(parsed.replace(value, by, true, &mut steps()).unwrap(), all, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_costs_too_much_is_given_up() {
        let parsed = Pattern::parse(&"a*b".repeat(2000)).unwrap();
        assert_eq!(parsed.without_prefix(&"a".repeat(1_000_000), true, &mut steps()), None);
        assert!(Pattern::parse("a\\x").is_err());
    }
}
