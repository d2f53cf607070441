//! The lexer: one pass over a word, with a stack of what is open instead of recursion.
//!
//! Whatever is expanded goes to the end of one buffer; an open `${v:-…}` knows where its part of the buffer begins, so
//! that closing it costs what is replaced, not what surrounds it.

use super::pattern::{MAX_STEPS, Pattern};
use super::{Failure, MAX_WORD, Names, Variables, Words};

/// How words are read.
#[derive(Clone, Debug)]
pub struct Lexer {
    /// `\`, or what the `escape` directive says.
    pub escape: char,
    /// Leave quotes where they are.
    pub keep_quotes: bool,
    /// Leave escapes where they are.
    pub keep_escapes: bool,
    /// Quotes mean nothing: here-documents.
    pub ignore_quotes: bool,
    /// Leave `$unset` as it is written.
    pub keep_unset: bool,
}

/// What is open, outermost first.
enum Open {
    /// `"…"`
    Quote,
    /// `${name:-…}`; `sign` is what stands after the name.
    Word { name: String, sign: String, start: usize },
    /// `${name/…`, up to the second slash.
    Pattern { name: String, all: bool, start: usize },
    /// `${name/pattern/…}`
    Replacement {
        name: String,
        all: bool,
        pattern: usize,
        start: usize,
    },
}

impl Open {
    /// Inside these, escapes are the pattern's.
    fn keeps_escapes(&self) -> Option<bool> {
        match self {
            Self::Quote => None,
            Self::Word { sign, .. } => Some(sign.ends_with(['#', '%'])),
            Self::Pattern { .. } | Self::Replacement { .. } => Some(true),
        }
    }

    fn unterminated(&self) -> &'static str {
        match self {
            Self::Quote => "unexpected end of statement while looking for matching double-quote",
            Self::Pattern { .. } => "syntax error: missing '/' in ${}",
            Self::Word { .. } | Self::Replacement { .. } => "syntax error: missing '}'",
        }
    }
}

struct Run<'a> {
    lexer: &'a Lexer,
    variables: &'a Variables,
    names: &'a mut Names,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    open: Vec<Open>,
    out: String,
    words: Splitter,
    limit: usize,
    steps: usize,
}

impl Lexer {
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    pub fn expand(&self, word: &str, variables: &Variables, names: &mut Names) -> Result<Words, Failure> {
        let mut run = Run {
            lexer: self,
            variables,
            names,
            rest: word.chars().peekable(),
            open: Vec::new(),
            out: String::new(),
            words: Splitter::default(),
            limit: word.len() + MAX_WORD,
            steps: MAX_STEPS,
        };
        match run.run() {
            Ok(()) => Ok(Words {
                text: run.out,
                words: run.words.finish(),
                steps: MAX_STEPS - run.steps,
            }),
            Err(what) => {
                // At the end of the word, whatever brace is open outermost is what is missing.
                let at_end = run.rest.peek().is_none();
                let brace = run.open.iter().find(|open| !matches!(open, Open::Quote));
                Err(Failure {
                    word: word.to_owned(),
                    what: brace
                        .filter(|_| at_end)
                        .map_or(what, |open| open.unterminated().to_owned()),
                })
            }
        }
    }
}

impl Run<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            let before = self.out.len();
            let top = self.open.is_empty();
            let raw = self.character(c)?;
            if self.out.len() > self.limit {
                return Err(format!("it expands to more than {MAX_WORD} bytes"));
            }
            // What was written at the top level, or was closed into it, is part of a word now.
            if self.open.is_empty() {
                let from = if top { before } else { self.words.pending };
                self.words.push(&self.out[from..], raw);
            } else if top {
                self.words.pending = before;
            }
        }
        match self.open.last() {
            None => Ok(()),
            Some(open) => Err(open.unterminated().to_owned()),
        }
    }

    /// Returns whether what it wrote is text that spaces do not split.
    fn character(&mut self, c: char) -> Result<bool, String> {
        let quoted = matches!(self.open.last(), Some(Open::Quote));
        match c {
            '"' if quoted => {
                self.open.pop();
                self.quote(c);
                return Ok(true);
            }
            '}' if matches!(self.open.last(), Some(Open::Word { .. } | Open::Replacement { .. })) => {
                return self.close().map(|()| self.is_quoted());
            }
            '/' if matches!(self.open.last(), Some(Open::Pattern { .. })) => {
                if let Some(Open::Pattern { name, all, start }) = self.open.pop() {
                    if self.is_kept(&name) {
                        self.out.push('/');
                    }
                    self.open.push(Open::Replacement {
                        name,
                        all,
                        pattern: start,
                        start: self.out.len(),
                    });
                }
            }
            '$' => return self.dollar().map(|()| self.is_quoted()),
            '\'' if !quoted && !self.lexer.ignore_quotes => {
                self.single_quote()?;
                return Ok(true);
            }
            '"' if !quoted && !self.lexer.ignore_quotes => {
                self.quote(c);
                self.open.push(Open::Quote);
            }
            _ if c == self.lexer.escape => {
                self.escape(quoted);
                return Ok(true);
            }
            _ => self.out.push(c),
        }
        Ok(false)
    }

    /// Whether the outermost thing that is or was just closed is a quote: its spaces do not split.
    fn is_quoted(&self) -> bool {
        matches!(self.open.first(), Some(Open::Quote))
    }

    fn quote(&mut self, c: char) {
        if self.lexer.keep_quotes {
            self.out.push(c);
        }
    }

    fn keeps_escapes(&self) -> bool {
        let inner = self.open.iter().rev().find_map(Open::keeps_escapes);
        inner.unwrap_or(self.lexer.keep_escapes)
    }

    fn escape(&mut self, quoted: bool) {
        let escape = self.lexer.escape;
        if self.keeps_escapes() {
            self.out.push(escape);
        }
        if quoted {
            match self.rest.peek() {
                None => {}
                Some(&c) if c == '"' || c == '$' || c == escape => {
                    self.out.push(c);
                    self.rest.next();
                }
                Some(_) => self.out.push(escape),
            }
        } else if let Some(c) = self.rest.next() {
            self.out.push(c);
        }
    }

    fn single_quote(&mut self) -> Result<(), String> {
        self.quote('\'');
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".to_owned()),
                Some('\'') => break,
                Some(c) => self.out.push(c),
            }
        }
        self.quote('\'');
        Ok(())
    }

    fn dollar(&mut self) -> Result<(), String> {
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                self.out.push('$');
            } else if let Some(value) = self.value(&name) {
                self.out.push_str(value);
            } else if self.lexer.keep_unset {
                self.out.push('$');
                self.out.push_str(&name);
            }
            return Ok(());
        }
        self.rest.next();
        match self.rest.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let mut sign = String::new();
        match self.rest.next() {
            Some('}') => {
                match self.value(&name) {
                    Some(value) => self.out.push_str(value),
                    None if self.lexer.keep_unset => self.out.push_str(&format!("${{{name}}}")),
                    None => {}
                }
                return Ok(());
            }
            Some('/') => {
                let all = self.rest.next_if_eq(&'/').is_some();
                self.keep(&name, "/");
                let start = self.out.len();
                self.open.push(Open::Pattern { name, all, start });
                return Ok(());
            }
            Some(':') => {
                sign.push(':');
                sign.push(self.rest.next().unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => sign.push(c),
            other => {
                let sign = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                return Err(format!("unsupported modifier ({sign}) in substitution"));
            }
        }
        self.keep(&name, &sign);
        let start = self.out.len();
        self.open.push(Open::Word { name, sign, start });
        Ok(())
    }

    fn is_kept(&self, name: &str) -> bool {
        self.lexer.keep_unset && !self.variables.contains_key(name)
    }

    /// What stays as it is written is written when it is opened.
    fn keep(&mut self, name: &str, sign: &str) {
        if self.is_kept(name) {
            self.out.push_str("${");
            self.out.push_str(name);
            self.out.push_str(sign);
        }
    }

    /// The brace that is open innermost ends here.
    fn close(&mut self) -> Result<(), String> {
        match self.open.pop() {
            Some(Open::Word { name, sign, start }) => self.close_word(&name, &sign, start),
            Some(Open::Replacement {
                name,
                all,
                pattern,
                start,
            }) => self.close_replacement(&name, all, pattern, start),
            _ => Ok(()),
        }
    }

    fn close_word(&mut self, name: &str, sign: &str, start: usize) -> Result<(), String> {
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            self.out.push('}');
            return Ok(());
        }
        let is_set = value.is_some_and(|value| !sign.starts_with(':') || !value.is_empty());
        match sign.chars().last() {
            Some('-') if is_set => self.replace_from(start, value.unwrap_or_default()),
            Some('+') if !is_set => self.out.truncate(start),
            Some('-' | '+') => {}
            Some('?') if is_set => self.replace_from(start, value.unwrap_or_default()),
            Some('?') => {
                let message = match (&self.out[start..], value) {
                    ("", None) => "is not allowed to be unset",
                    ("", Some(_)) => "is not allowed to be empty",
                    (text, _) => text,
                };
                return Err(format!("{name}: {message}"));
            }
            Some(end @ ('#' | '%')) => {
                let text = self.out.split_off(start);
                let (longest, text) = match text.strip_prefix(end) {
                    Some(text) => (true, text),
                    None => (false, &*text),
                };
                let pattern = Pattern::parse(text).map_err(|why| invalid_pattern(text, &why))?;
                let value = value.unwrap_or_default();
                let rest = if end == '#' {
                    pattern.without_prefix(value, longest, &mut self.steps)
                } else {
                    pattern.without_suffix(value, longest, &mut self.steps)
                };
                self.out.push_str(&rest.ok_or_else(|| too_costly(text))?);
            }
            _ => return Err(format!("unsupported modifier ({sign}) in substitution")),
        }
        Ok(())
    }

    fn close_replacement(&mut self, name: &str, all: bool, pattern: usize, start: usize) -> Result<(), String> {
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            self.out.push('}');
            return Ok(());
        }
        let by = self.out.split_off(start);
        let text = self.out.split_off(pattern);
        let parsed = Pattern::parse(&text).map_err(|why| invalid_pattern(&text, &why))?;
        let replaced = parsed.replace(value.unwrap_or_default(), &by, all, &mut self.steps);
        self.out.push_str(&replaced.ok_or_else(|| too_costly(&text))?);
        Ok(())
    }

    fn replace_from(&mut self, start: usize, value: &str) {
        self.out.truncate(start);
        self.out.push_str(value);
    }
}

impl<'a> Run<'a> {
    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let names = match value {
            Some(_) => &mut self.names.matched,
            None => &mut self.names.unmatched,
        };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value.map(String::as_str)
    }

    /// Letters, digits and `_`; digits alone if it begins with one; or one special parameter of the shell.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
            }
            Some(&c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.rest.next();
                name.push(c);
            }
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}

fn invalid_pattern(pattern: &str, why: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {why}")
}

fn too_costly(pattern: &str) -> String {
    let pattern = ferry_kit::gofmt::prefix(pattern, 40);
    format!("the pattern ({pattern}) takes too long on this value: use a simpler one")
}

/// Words of what is expanded, split at spaces.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    word: String,
    /// Where in the buffer the piece begins that is open at the top level.
    pending: usize,
}

impl Splitter {
    fn push(&mut self, text: &str, raw: bool) {
        if raw {
            self.word.push_str(text);
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}
