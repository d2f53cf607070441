//! What steps are called: `[build 2/5] RUN make`.

use ferry_dockerfile::words::{Lexer, Names, Variables};

/// How the steps of a stage are numbered.
#[derive(Debug, Clone, Default)]
pub struct Numbering {
    /// Empty if there is only one stage.
    pub stage: String,
    pub total: usize,
    pub done: usize,
}

impl Numbering {
    /// The next step's name.
    pub fn next(&mut self, what: &str) -> String {
        if self.total == 0 {
            return what.to_owned();
        }
        self.done += 1;
        let stage = match self.stage.as_str() {
            "" => String::new(),
            stage => format!("{stage} "),
        };
        let width = self.total.to_string().len();
        format!("[{stage}{:>width$}/{}] {what}", self.done, self.total)
    }
}

/// An instruction with the values of variables, its keyword in upper case.
pub fn shown(text: &str, variables: &Variables) -> String {
    let lexer = Lexer {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        ..Lexer::new('\\')
    };
    let expanded = lexer.expand(text, variables, &mut Names::default());
    let text = expanded.map_or_else(|_| text.to_owned(), |words| words.text);
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// A here-document in a step's name: its first line, and that there is more.
pub fn summary(content: &[u8]) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(content);
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    let cut: String = first.chars().take(MOST).collect();
    match lines.next().is_some() || cut.len() < first.len() {
        true => format!("({cut}...)"),
        false => format!("({cut})"),
    }
}
