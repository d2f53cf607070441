//! Text and actions into tokens, as Go's text/template/parse/lex.go does it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Bool,
    /// A comma, or any other printable ASCII character of no meaning.
    Char,
    CharConstant,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Keyword,
    Dot,
    Nil,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub kind: Kind,
    /// Byte offset in the source.
    pub at: usize,
    /// As written; for `Error` the message.
    pub text: String,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            Kind::Keyword | Kind::Dot | Kind::Nil => write!(f, "<{}>", self.text),
            _ if self.text.len() > 10 => {
                write!(f, "{}...", crate::gofmt::quote(crate::gofmt::prefix(&self.text, 10)))
            }
            _ => f.write_str(&crate::gofmt::quote(&self.text)),
        }
    }
}

const KEYWORDS: [&str; 10] = [
    "block", "break", "continue", "define", "else", "end", "if", "range", "template", "with",
];

/// The whole source; the last token is `Eof` or `Error`.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        source,
        at: 0,
        parens: 0,
        tokens: Vec::new(),
    };
    if let Err(message) = lexer.run() {
        lexer.tokens.push(Token {
            kind: Kind::Error,
            at: lexer.at,
            text: message,
        });
    }
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    parens: usize,
    tokens: Vec<Token>,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.source[self.at..self.at + length].to_owned();
        self.tokens.push(Token {
            kind,
            at: self.at,
            text,
        });
        self.at += length;
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            let Some(length) = self.rest().find("{{") else {
                if !self.rest().is_empty() {
                    self.push(Kind::Text, self.rest().len());
                }
                self.push(Kind::Eof, 0);
                return Ok(());
            };
            let trim = self.trims_left(&self.rest()[length + 2..]);
            let text = &self.rest()[..length];
            let kept = if trim {
                text.trim_end_matches(is_space).len()
            } else {
                length
            };
            if kept > 0 {
                self.tokens.push(Token {
                    kind: Kind::Text,
                    at: self.at,
                    text: text[..kept].to_owned(),
                });
            }
            self.at += length;
            self.delimited(trim)?;
        }
    }

    fn trims_left(&self, after: &str) -> bool {
        after.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
    }

    /// One action or comment, both delimiters included.
    fn delimited(&mut self, trim: bool) -> Result<(), String> {
        let marker = if trim { 2 } else { 0 };
        if self.rest()[2 + marker..].starts_with("/*") {
            self.at += 2 + marker;
            let end = self.rest().find("*/").ok_or("unclosed comment")?;
            self.at += end + 2;
            let trims = self.trims_right();
            if !trims && !self.rest().starts_with("}}") {
                return Err("comment ends before closing delimiter".into());
            }
            self.at += if trims { 4 } else { 2 };
            self.skip_space_if(trims);
            return Ok(());
        }
        self.push(Kind::LeftDelim, 2);
        self.at += marker;
        self.parens = 0;
        while !self.inside()? {}
        Ok(())
    }

    fn trims_right(&self) -> bool {
        let rest = self.rest();
        rest.starts_with(is_space) && rest[1..].starts_with("-}}")
    }

    fn skip_space_if(&mut self, trims: bool) {
        if trims {
            self.at = self.source.len() - self.rest().trim_start_matches(is_space).len();
        }
    }

    /// One token; true after the right delimiter.
    fn inside(&mut self) -> Result<bool, String> {
        let trims = self.trims_right();
        if trims || self.rest().starts_with("}}") {
            if self.parens > 0 {
                return Err("unclosed left paren".into());
            }
            self.at += if trims { 2 } else { 0 };
            self.push(Kind::RightDelim, 2);
            self.skip_space_if(trims);
            return Ok(true);
        }
        let rest = self.rest();
        let Some(c) = rest.chars().next() else {
            return Err("unclosed action".into());
        };
        match c {
            c if is_space(c) => {
                let mut length = rest.len() - rest.trim_start_matches(is_space).len();
                // A trim marker at the end keeps its space.
                if rest[length..].starts_with("-}}") && length > 1 {
                    length -= 1;
                } else if rest[length..].starts_with("-}}") {
                    length = 0;
                }
                if length > 0 {
                    self.push(Kind::Space, length);
                }
            }
            '=' => self.push(Kind::Assign, 1),
            ':' if rest.starts_with(":=") => self.push(Kind::Declare, 2),
            ':' => return Err("expected :=".into()),
            '|' => self.push(Kind::Pipe, 1),
            ',' => self.push(Kind::Char, 1),
            '"' => self.quoted(Kind::String, '"', "unterminated quoted string")?,
            '\'' => self.quoted(Kind::CharConstant, '\'', "unterminated character constant")?,
            '`' => {
                let length = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                self.push(Kind::RawString, length + 2);
            }
            '$' => self.word(Kind::Variable)?,
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.word(Kind::Field)?,
            '+' | '-' | '.' | '0'..='9' => self.number()?,
            '(' => {
                self.parens += 1;
                self.push(Kind::LeftParen, 1);
            }
            ')' => {
                self.parens = self.parens.checked_sub(1).ok_or("unexpected right paren")?;
                self.push(Kind::RightParen, 1);
            }
            c if is_alphanumeric(c) => self.word(Kind::Identifier)?,
            ' '..='~' => self.push(Kind::Char, 1),
            c => return Err(format!("unrecognized character in action: {}", code_point(c))),
        }
        Ok(false)
    }

    fn quoted(&mut self, kind: Kind, quote: char, unterminated: &str) -> Result<(), String> {
        let mut escaped = false;
        for (index, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.push(kind, index + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(unterminated.into())
    }

    /// An identifier, with the `.` or `$` before it.
    fn word(&mut self, kind: Kind) -> Result<(), String> {
        let rest = self.rest();
        let start = usize::from(kind != Kind::Identifier);
        let length = rest[start..]
            .find(|c| !is_alphanumeric(c))
            .map_or(rest.len(), |end| start + end);
        let word = &rest[..length];
        if let Some(next) = rest[length..].chars().next() {
            let terminates =
                is_space(next) || matches!(next, '.' | ',' | '|' | ':' | '(' | ')') || rest[length..].starts_with("}}");
            let lone_dot = kind == Kind::Field && length == 1;
            if !(terminates || lone_dot || kind == Kind::Variable && next == '=') {
                self.at += length;
                return Err(format!("bad character {}", code_point(next)));
            }
        }
        let kind = match word {
            "." => Kind::Dot,
            _ if kind != Kind::Identifier => kind,
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => kind,
        };
        self.push(kind, length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let start = usize::from(rest.starts_with(['+', '-']));
        let prefixed = rest[start..].starts_with("0x") || rest[start..].starts_with("0X");
        let mut previous = ' ';
        let length = rest[start..]
            .find(|c: char| {
                let sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !prefixed;
                previous = c;
                !(sign || c == '.' || c.is_ascii_digit() || c == '_' || c.is_ascii_alphabetic())
            })
            .map_or(rest.len(), |end| start + end);
        let text = &rest[..length];
        if super::parse::number(text).is_none() {
            return Err(format!("bad number syntax: {}", crate::gofmt::quote(text)));
        }
        self.push(Kind::Number, length);
        Ok(())
    }
}

/// Go's `%#U`.
fn code_point(c: char) -> String {
    format!("U+{:04X} '{c}'", c as u32)
}
