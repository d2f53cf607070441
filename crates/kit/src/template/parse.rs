//! Tokens into nodes, as Go's text/template/parse/parse.go does it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Number, Value};

use super::{
    DEPTH, functions,
    lex::{self, Kind, Token},
};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
    /// Another template in its place.
    Template {
        at: usize,
        name: String,
        pipe: Option<Pipe>,
    },
}

/// By name; that of the whole is empty.
pub(super) type Templates = BTreeMap<String, Vec<Node>>;

/// `$a, $b := first | second`.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub at: usize,
    pub variables: Vec<String>,
    pub assigns: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub at: usize,
    pub arguments: Vec<Expr>,
}

#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub at: usize,
    pub kind: ExprKind,
}

#[derive(Debug, Clone)]
pub(super) enum ExprKind {
    Dot,
    Nil,
    /// A literal and how it was written.
    Literal(Value, String),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    Chain(Box<Expr>, Vec<String>),
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields =
            |f: &mut fmt::Formatter<'_>, names: &[String]| names.iter().try_for_each(|name| write!(f, ".{name}"));
        match &self.kind {
            ExprKind::Dot => f.write_str("."),
            ExprKind::Nil => f.write_str("nil"),
            ExprKind::Literal(_, text) => f.write_str(text),
            ExprKind::Field(names) => fields(f, names),
            ExprKind::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            ExprKind::Function(name) => f.write_str(name),
            ExprKind::Pipe(pipe) => write!(f, "({pipe})"),
            ExprKind::Chain(expr, names) => {
                write!(f, "{expr}")?;
                fields(f, names)
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, argument) in self.arguments.iter().enumerate() {
            write!(f, "{}{argument}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(
                f,
                "{} {} ",
                self.variables.join(", "),
                if self.assigns { "=" } else { ":=" }
            )?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if index > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

type Result<T> = std::result::Result<T, String>;

pub(super) fn parse(source: &str) -> Result<Templates> {
    let tokens = lex::tokens(source);
    let mut parser = Parser {
        source,
        tokens,
        next: 0,
        variables: vec!["$".into()],
        ranges: 0,
        depth: 0,
        action: 0,
        lists: 0,
        templates: Templates::new(),
    };
    let (nodes, end) = parser.list()?;
    match end {
        End::Source => parser.add(String::new(), nodes).map(|()| parser.templates),
        End::Else => Err(parser.error("unexpected {{else}}")),
        End::Block => Err(parser.error("unexpected {{end}}")),
    }
}

/// What ended a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    /// After the word `else`; the rest of that action is still to be read.
    Else,
    Block,
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    ranges: usize,
    depth: usize,
    /// Line of the action at hand; 0 outside.
    action: usize,
    /// Lists of nodes that are open.
    lists: usize,
    templates: Templates,
}

impl Parser<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.source.as_bytes()[..at.min(self.source.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }

    fn error(&self, message: impl fmt::Display) -> String {
        let at = self.tokens.get(self.next.saturating_sub(1)).map_or(0, |token| token.at);
        format!("template: :{}: {message}", self.line(at))
    }

    fn unexpected(&self, token: &Token, context: &str) -> String {
        if token.kind != Kind::Error {
            return self.error(format_args!("unexpected {token} in {context}"));
        }
        let extra = match self.action {
            0 => String::new(),
            line if line == self.line(token.at) => String::new(),
            line if token.text.ends_with(" action") => format!(" started at :{line}"),
            line => format!(" in action started at :{line}"),
        };
        self.error(format_args!("{token}{extra}"))
    }

    fn peek(&self) -> Token {
        // The last token is Eof or Error and stays.
        self.tokens[self.next.min(self.tokens.len() - 1)].clone()
    }

    fn take(&mut self) -> Token {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn peek_word(&mut self) -> Token {
        self.skip_space();
        self.peek()
    }

    fn take_word(&mut self) -> Token {
        self.skip_space();
        self.take()
    }

    fn nest<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("max expression depth exceeded"));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self) -> Result<(Vec<Node>, End)> {
        self.lists += 1;
        let list = self.nodes();
        self.lists -= 1;
        list
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, End)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Eof => return Ok((nodes, End::Source)),
                Kind::Text => nodes.push(Node::Text(token.text)),
                Kind::LeftDelim => {
                    self.action = self.line(token.at);
                    let word = self.peek_word();
                    if word.kind == Kind::Keyword {
                        self.take();
                        match word.text.as_str() {
                            "end" => {
                                let close = self.take_word();
                                if close.kind != Kind::RightDelim {
                                    return Err(self.unexpected(&close, "end"));
                                }
                                self.action = 0;
                                return Ok((nodes, End::Block));
                            }
                            "else" => return Ok((nodes, End::Else)),
                            "define" if self.lists == 1 => self.nest(Self::definition)?,
                            _ => nodes.push(self.nest(|parser| parser.keyword(&word))?),
                        }
                    } else {
                        nodes.push(Node::Action(self.pipeline("command", Kind::RightDelim)?));
                    }
                    self.action = 0;
                }
                _ => return Err(self.unexpected(&token, "input")),
            }
        }
    }

    fn keyword(&mut self, word: &Token) -> Result<Node> {
        match word.text.as_str() {
            "if" | "with" | "range" => self.control(&word.text),
            name @ ("break" | "continue") => {
                let close = self.take_word();
                if close.kind != Kind::RightDelim {
                    return Err(self.unexpected(&close, &format!("{{{{{name}}}}}")));
                }
                if self.ranges == 0 {
                    return Err(self.error(format_args!("{{{{{name}}}}} outside {{{{range}}}}")));
                }
                Ok(if name == "break" { Node::Break } else { Node::Continue })
            }
            "template" => self.call(),
            "block" => self.block(),
            _ => Err(self.unexpected(word, "command")),
        }
    }

    /// `{{define "name"}}`, after the word.
    fn definition(&mut self) -> Result<()> {
        let context = "define clause";
        let (_, name) = self.name(context)?;
        let close = self.take_word();
        if close.kind != Kind::RightDelim {
            return Err(self.unexpected(&close, context));
        }
        self.body(name, context)
    }

    /// `{{template "name" pipeline}}`, after the word.
    fn call(&mut self) -> Result<Node> {
        let context = "template clause";
        let (at, name) = self.name(context)?;
        let pipe = match self.peek_word().kind {
            Kind::RightDelim => {
                self.take();
                None
            }
            _ => Some(self.pipeline(context, Kind::RightDelim)?),
        };
        Ok(Node::Template { at, name, pipe })
    }

    /// `{{block "name" pipeline}}`, after the word: a definition and its call.
    fn block(&mut self) -> Result<Node> {
        let context = "block clause";
        let (at, name) = self.name(context)?;
        let pipe = Some(self.pipeline(context, Kind::RightDelim)?);
        self.body(name.clone(), context)?;
        Ok(Node::Template { at, name, pipe })
    }

    fn name(&mut self, context: &str) -> Result<(usize, String)> {
        let token = self.take_word();
        match token.kind {
            Kind::String | Kind::RawString => match unquote(&token.text) {
                Some(name) => Ok((token.at, name)),
                None => Err(self.error("invalid syntax")),
            },
            _ => Err(self.unexpected(&token, context)),
        }
    }

    /// Of a template with a name. It sees no variables but its own.
    fn body(&mut self, name: String, context: &str) -> Result<()> {
        self.action = 0;
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, end) = self.list()?;
        (self.variables, self.ranges) = (variables, ranges);
        match end {
            End::Block => self.add(name, nodes),
            End::Else => Err(self.error(format_args!("unexpected {{{{else}}}} in {context}"))),
            End::Source => Err(self.error("unexpected EOF")),
        }
    }

    /// One that is empty gives way to another of its name.
    fn add(&mut self, name: String, nodes: Vec<Node>) -> Result<()> {
        match self.templates.get(&name) {
            Some(known) if !is_empty(known) => match is_empty(&nodes) {
                true => Ok(()),
                false => Err(self.error(format_args!(
                    "template: multiple definition of template {}",
                    crate::gofmt::quote(&name)
                ))),
            },
            _ => {
                self.templates.insert(name, nodes);
                Ok(())
            }
        }
    }

    fn control(&mut self, context: &str) -> Result<Node> {
        let variables = self.variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        self.action = 0;
        self.ranges += usize::from(context == "range");
        let (then, end) = self.list()?;
        self.ranges -= usize::from(context == "range");
        let otherwise = match end {
            End::Source => return Err(self.error("unexpected EOF")),
            End::Block => Vec::new(),
            End::Else => self.otherwise(context)?,
        };
        self.variables.truncate(variables);
        Ok(match context {
            "if" => Node::If { pipe, then, otherwise },
            "with" => Node::With { pipe, then, otherwise },
            _ => Node::Range {
                pipe,
                body: then,
                otherwise,
            },
        })
    }

    /// After the word `else`.
    fn otherwise(&mut self, context: &str) -> Result<Vec<Node>> {
        let token = self.take_word();
        // `else if` and `else with` nest without an `end` of their own.
        if token.kind == Kind::Keyword && token.text == context && context != "range" {
            return Ok(vec![self.nest(|parser| parser.control(context))?]);
        }
        if token.kind != Kind::RightDelim {
            return Err(self.unexpected(&token, "else"));
        }
        self.action = 0;
        let (nodes, end) = self.list()?;
        match end {
            End::Block => Ok(nodes),
            End::Else => Err(self.error("expected end; found {{else}}")),
            End::Source => Err(self.error("unexpected EOF")),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe> {
        let mut pipe = Pipe {
            at: self.peek_word().at,
            variables: Vec::new(),
            assigns: false,
            commands: Vec::new(),
        };
        while self.peek_word().kind == Kind::Variable {
            let start = self.next;
            let variable = self.take();
            let operator = self.peek_word();
            match operator.kind {
                Kind::Assign | Kind::Declare => {
                    self.take();
                    pipe.assigns = operator.kind == Kind::Assign;
                    self.declare(&mut pipe, variable.text);
                    break;
                }
                Kind::Char if operator.text == "," => {
                    self.take();
                    self.declare(&mut pipe, variable.text);
                    if context != "range" || pipe.variables.len() > 1 {
                        return Err(self.error(format_args!("too many declarations in {context}")));
                    }
                    if !matches!(
                        self.peek_word().kind,
                        Kind::Variable | Kind::RightDelim | Kind::RightParen
                    ) {
                        return Err(self.error("range can only initialize variables"));
                    }
                }
                _ => {
                    self.next = start;
                    break;
                }
            }
        }
        loop {
            let token = self.peek_word();
            match token.kind {
                kind if kind == end => {
                    self.take();
                    break;
                }
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => {
                    self.take();
                    return Err(self.unexpected(&token, context));
                }
            }
        }
        if pipe.commands.is_empty() {
            return Err(self.error(format_args!("missing value for {context}")));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if matches!(
                command.arguments[0].kind,
                ExprKind::Dot | ExprKind::Nil | ExprKind::Literal(..)
            ) {
                return Err(self.error(format_args!("non executable command in pipeline stage {}", index + 1)));
            }
        }
        Ok(pipe)
    }

    fn declare(&mut self, pipe: &mut Pipe, name: String) {
        self.variables.push(name.clone());
        pipe.variables.push(name);
    }

    fn command(&mut self) -> Result<Command> {
        let mut command = Command {
            at: self.peek_word().at,
            arguments: Vec::new(),
        };
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                command.arguments.push(operand);
            }
            let token = self.peek();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => {}
                Kind::Pipe => {
                    self.take();
                }
                _ => {
                    self.take();
                    return Err(self.unexpected(&token, "operand"));
                }
            }
            break;
        }
        if command.arguments.is_empty() {
            return Err(self.error("empty command"));
        }
        Ok(command)
    }

    fn operand(&mut self) -> Result<Option<Expr>> {
        let Some(term) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(term));
        }
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.take().text[1..].to_owned());
        }
        let kind = match term.kind {
            ExprKind::Field(mut first) => {
                first.append(&mut names);
                ExprKind::Field(first)
            }
            ExprKind::Variable(name, mut first) => {
                first.append(&mut names);
                ExprKind::Variable(name, first)
            }
            ExprKind::Dot | ExprKind::Nil | ExprKind::Literal(..) => {
                let text = crate::gofmt::quote(&term.to_string());
                return Err(self.error(format_args!("unexpected . after term {text}")));
            }
            _ => ExprKind::Chain(Box::new(term), names),
        };
        Ok(Some(Expr { at, kind }))
    }

    fn term(&mut self) -> Result<Option<Expr>> {
        let token = self.peek_word();
        let kind = match token.kind {
            Kind::Identifier if functions::exists(&token.text) => ExprKind::Function(token.text),
            Kind::Identifier => {
                self.take();
                return Err(self.error(format_args!(
                    "function {} not defined",
                    crate::gofmt::quote(&token.text)
                )));
            }
            Kind::Dot => ExprKind::Dot,
            Kind::Nil => ExprKind::Nil,
            Kind::Variable if self.variables.contains(&token.text) => ExprKind::Variable(token.text, Vec::new()),
            Kind::Variable => {
                self.take();
                return Err(self.error(format_args!("undefined variable {}", crate::gofmt::quote(&token.text))));
            }
            Kind::Field => ExprKind::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => ExprKind::Literal(Value::Bool(token.text == "true"), token.text),
            Kind::Number => match number(&token.text) {
                Some(value) => ExprKind::Literal(Value::Number(value), token.text),
                None => {
                    return Err(self.error(format_args!(
                        "illegal number syntax: {}",
                        crate::gofmt::quote(&token.text)
                    )));
                }
            },
            Kind::CharConstant => match unquote(&token.text).map(|text| text.chars().collect::<Vec<_>>()) {
                Some(characters) if characters.len() == 1 => {
                    ExprKind::Literal(Value::from(u32::from(characters[0])), token.text)
                }
                _ => return Err(self.error(format_args!("malformed character constant: {}", token.text))),
            },
            Kind::String | Kind::RawString => match unquote(&token.text) {
                Some(text) => ExprKind::Literal(Value::String(text), token.text),
                None => return Err(self.error("invalid syntax")),
            },
            Kind::LeftParen => {
                self.take();
                let pipe = self.nest(|parser| parser.pipeline("parenthesized pipeline", Kind::RightParen))?;
                return Ok(Some(Expr {
                    at: token.at,
                    kind: ExprKind::Pipe(Box::new(pipe)),
                }));
            }
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(Expr { at: token.at, kind }))
    }
}

fn is_empty(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

/// A Go number: decimal, 0x, 0o, 0b, underscores, or a float.
pub(super) fn number(text: &str) -> Option<Number> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let radix = match lower.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let integer = match radix {
        Some(radix) => i128::from_str_radix(&lower[2..], radix).ok(),
        None if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|c| c.is_ascii_digit()) => {
            i128::from_str_radix(&lower, 8).ok()
        }
        None => lower
            .parse()
            .ok()
            .filter(|_| lower.starts_with(|c: char| c.is_ascii_digit())),
    };
    if let Some(integer) = integer {
        return i64::try_from(if negative { -integer } else { integer })
            .ok()
            .map(Number::from);
    }
    if radix.is_some() || !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    plain.parse().ok().and_then(Number::from_f64)
}

/// `strconv.Unquote` of a literal in any of the three quotes.
fn unquote(text: &str) -> Option<String> {
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    if text.starts_with('`') {
        return Some(inner.replace('\r', ""));
    }
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = rest.next()?;
        let mut code = |radix: u32, digits: usize, first: &str| {
            let mut text = first.to_owned();
            text.extend(rest.by_ref().take(digits));
            if text.len() != digits + first.len() {
                return None;
            }
            u32::from_str_radix(&text, radix).ok().and_then(char::from_u32)
        };
        out.push(match escape {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' => '\\',
            '"' | '\'' if text.starts_with(escape) => escape,
            'x' => code(16, 2, "")?,
            'u' => code(16, 4, "")?,
            'U' => code(16, 8, "")?,
            '0'..='7' => code(8, 2, escape.encode_utf8(&mut [0; 4]))?,
            _ => return None,
        });
    }
    Some(out)
}
