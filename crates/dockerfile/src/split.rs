//! How one logical line is cut: instruction, flags, the rest; and words whose quotes are looked at later.

/// What BuildKit splits arguments at.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The name of the instruction as it is written, its flags without quotes, and what is left.
pub(crate) fn instruction(line: &str) -> (&str, Vec<String>, &str) {
    let line = line.trim();
    match line.split_once(is_blank) {
        None => (line, Vec::new(), ""),
        Some((name, rest)) => {
            let (flags, rest) = flags(rest);
            (name, flags, rest.trim())
        }
    }
}

/// Words that begin with `--`, up to the first that does not, or up to one that is `--`.
fn flags(line: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, after) = flag(rest);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

fn flag(line: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = line.char_indices();
    while let Some((at, c)) = characters.next() {
        match quote {
            None if c.is_whitespace() => return (word, &line[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == '\\' => match characters.next() {
                Some((_, c)) => word.push(c),
                None => quote = None,
            },
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Words with their quotes and escapes, split at spaces outside quotes.
pub(crate) fn words(line: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    // A word of quotes alone is one too.
    let mut began = false;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match quote {
            None if c.is_whitespace() => {
                if began {
                    words.push(std::mem::take(&mut word));
                }
                began = false;
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // One at the end is dropped.
            let Some(next) = characters.next() else { break };
            word.extend([c, next]);
        } else {
            word.push(c);
        }
        began = true;
    }
    if began {
        words.push(word);
    }
    words
}

/// Arguments split at blanks, with the empty ones there would be at the ends of a line left out.
pub(crate) fn blanks(line: &str) -> Vec<String> {
    line.split(is_blank)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The key and the rest of `KEY some value`.
pub(crate) fn legacy_pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(is_blank)?;
    Some((key, value.trim_start_matches(is_blank)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_the_arguments_begin() {
        for (line, name, expected, rest) in [
            ("RUN", "RUN", &[][..], ""),
            (" copy  a b ", "copy", &[], "a b"),
            ("COPY --from=x  --link a", "COPY", &["--from=x", "--link"], "a"),
            ("COPY --chown=\"a b\" x", "COPY", &["--chown=a b"], "x"),
            ("COPY '--chown=a b' x", "COPY", &[], "'--chown=a b' x"),
            ("COPY -- --a b", "COPY", &[], "--a b"),
            ("COPY --a\\ b c", "COPY", &["--a b"], "c"),
            ("COPY --a=ü x", "COPY", &["--a=ü"], "x"),
            ("RUN --x", "RUN", &["--x"], ""),
        ] {
            let (found, flags, after) = instruction(line);
            assert_eq!((found, after), (name, rest), "{line}");
            assert_eq!(flags, expected, "{line}");
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (line, expected) in [
            ("a b", &["a", "b"][..]),
            ("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]),
            ("a\\ b", &["a\\ b"]),
            ("''", &["''"]),
            ("\"a\\\"b\" c", &["\"a\\\"b\"", "c"]),
            ("'a\\' b", &["'a\\'", "b"]),
            ("a\\", &["a"]),
            ("\"a b", &["\"a b"]),
        ] {
            assert_eq!(words(line, '\\'), expected, "{line}");
        }
    }
}
