//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.

use crate::words::{Lexer, Names, Variables};

/// One here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Of the file, and of the line that ends it.
    pub name: String,
    /// As it stands between the lines, with the ends of lines. Bytes: it need not be text.
    pub content: Vec<u8>,
    /// The name has no quotes, so variables in the content are expanded (in `COPY` and `ADD`).
    pub expands: bool,
    /// `<<-`: tabs at the beginning of lines go.
    pub strips_tabs: bool,
    pub descriptor: u32,
}

impl Heredoc {
    /// The content without the tabs that `<<-` takes away.
    pub fn stripped(&self) -> Vec<u8> {
        if !self.strips_tabs {
            return self.content.clone();
        }
        let lines = self.content.split_inclusive(|b| *b == b'\n');
        let tabs = |line: &[u8]| line.iter().take_while(|b| **b == b'\t').count();
        lines.flat_map(|line| line[tabs(line)..].iter().copied()).collect()
    }

    /// Whether a line, without its end, is the last one.
    pub(crate) fn ends_at(&self, line: &[u8]) -> bool {
        let tabs = if self.strips_tabs {
            line.iter().take_while(|b| **b == b'\t').count()
        } else {
            0
        };
        &line[tabs..] == self.name.as_bytes()
    }
}

/// What a word announces, still without content.
pub(crate) fn parse(word: &str) -> Option<Heredoc> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let rest = word[digits..].strip_prefix("<<")?;
    let (strips_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let mut lexer = Lexer::new('\\');
    lexer.keep_unset = true;
    let name = single(&lexer, rest)?;
    lexer.keep_quotes = true;
    let quoted = single(&lexer, rest)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Heredoc {
        expands: quotes(&name) == quotes(&quoted),
        name,
        content: Vec::new(),
        strips_tabs,
        descriptor: word[..digits].parse().unwrap_or_default(),
    })
}

fn single(lexer: &Lexer, word: &str) -> Option<String> {
    let mut words = lexer.expand(word, &Variables::new(), &mut Names::default()).ok()?.words;
    let word = words.pop()?;
    words.is_empty().then_some(word)
}

/// All that a logical line announces, in order. A line whose quotes do not match announces none.
pub(crate) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let mut lexer = Lexer::new('\\');
    lexer.keep_unset = true;
    lexer.keep_quotes = true;
    lexer.keep_escapes = true;
    match lexer.expand(&joined(line), &Variables::new(), &mut Names::default()) {
        Ok(expanded) => expanded.words.iter().filter_map(|word| parse(word)).collect(),
        Err(_) => Vec::new(),
    }
}

/// `<< EOF` is `<<EOF`; but `<<- EOF` is nothing.
fn joined(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("<<") {
        out.push_str(before);
        out.push_str("<<");
        let name = after.trim_start();
        rest = if name.is_empty() { after } else { name };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_documents() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false, 0))),
            ("<<-EOF", Some(("EOF", true, true, 0))),
            ("<<\"EOF\"", Some(("EOF", false, false, 0))),
            ("<<'E F'", Some(("E F", false, false, 0))),
            ("<<E\"O\"F", Some(("EOF", false, false, 0))),
            ("3<<EOF", Some(("EOF", true, false, 3))),
            ("<<$EOF", Some(("$EOF", true, false, 0))),
            ("<<<EOF", None),
            ("<<", None),
            ("<<-", None),
            ("a<<EOF", None),
            ("<EOF", None),
            ("<<\"EOF", None),
        ] {
            let found = parse(word);
            let found = found
                .as_ref()
                .map(|h| (&*h.name, h.expands, h.strips_tabs, h.descriptor));
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn lines_announce_several() {
        let names = |line: &str| -> Vec<String> { announced(line).into_iter().map(|h| h.name).collect() };
        assert_eq!(names("RUN <<A cat; cat <<B"), ["A", "B"]);
        assert_eq!(names("RUN echo \"<<A\" '<<B'"), [""; 0]);
        assert_eq!(names("RUN echo $((1<<2))"), [""; 0]);
        assert_eq!(names("COPY <<a <<'b c' /x/"), ["a", "b c"]);
        assert_eq!(names("RUN cat << A <<- B << 'C D'"), ["A", "C D"]);
        assert_eq!(names("RUN cat <<"), [""; 0]);
    }

    #[test]
    fn tabs_go_from_the_beginning_of_lines() {
        let mut heredoc = parse("<<-E").unwrap();
        heredoc.content = b"\t\ta\n b\tc\n\n\td".to_vec();
        assert_eq!(heredoc.stripped(), b"a\n b\tc\n\nd");
        assert!(heredoc.ends_at(b"\tE") && heredoc.ends_at(b"E") && !heredoc.ends_at(b" E"));
    }
}
