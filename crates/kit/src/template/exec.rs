//! Running the nodes, as Go's text/template/exec.go does it.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    Missing, OUTPUT, Options, functions,
    parse::{Command, Expr, ExprKind, Node, Pipe},
    print,
};

/// A value, and the key it was found under, which tells Go's maps and slices from the rest ([`Options`]).
#[derive(Debug, Clone)]
pub(super) struct Val<'a> {
    pub value: Cow<'a, Value>,
    pub key: Option<&'a str>,
    /// The value handed to `execute`, which may have methods.
    pub root: bool,
}

impl<'a> Val<'a> {
    pub fn owned(value: impl Into<Value>) -> Self {
        Self {
            value: Cow::Owned(value.into()),
            key: None,
            root: false,
        }
    }

    pub fn borrowed(value: &'a Value) -> Self {
        Self {
            value: Cow::Borrowed(value),
            key: None,
            root: false,
        }
    }

    pub fn null() -> Self {
        Self::owned(Value::Null)
    }
}

type Result<T> = std::result::Result<T, String>;

/// What makes the walk leave a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(super) fn execute(source: &str, nodes: &[Node], value: &Value, options: &Options<'_>) -> Result<String> {
    let root = Val {
        root: true,
        ..Val::borrowed(value)
    };
    let mut run = Run {
        source,
        options,
        variables: vec![("$".to_owned(), root.clone())],
        out: String::new(),
    };
    run.walk(&root, nodes)?;
    Ok(run.out)
}

struct Run<'a> {
    source: &'a str,
    options: &'a Options<'a>,
    variables: Vec<(String, Val<'a>)>,
    out: String,
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

impl<'a> Run<'a> {
    fn error<T>(&self, at: usize, node: &dyn std::fmt::Display, message: &str) -> Result<T> {
        let before = &self.source.as_bytes()[..at.min(self.source.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(at, |newline| at - newline - 1);
        Err(format!(
            "template: :{line}:{column}: executing \"\" at <{node}>: {message}"
        ))
    }

    fn walk(&mut self, dot: &Val<'a>, nodes: &[Node]) -> Result<Flow> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.print(&value);
                    }
                    Flow::On
                }
                Node::If { pipe, then, otherwise } => self.branch(dot, pipe, then, otherwise, false)?,
                Node::With { pipe, then, otherwise } => self.branch(dot, pipe, then, otherwise, true)?,
                Node::Range { pipe, body, otherwise } => self.range(dot, pipe, body, otherwise)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if self.out.len() > OUTPUT {
                return Err("template: output too large".into());
            }
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Val<'a>) {
        let known = |names: &[&str]| value.key.is_some_and(|key| names.contains(&key));
        match &*value.value {
            Value::Null if known(self.options.pointers) => self.out.push_str("<nil>"),
            Value::Null if known(self.options.maps) => self.out.push_str("map[]"),
            Value::Null if known(self.options.lists) || known(self.options.structs) => self.out.push_str("[]"),
            Value::Null => self.out.push_str("<no value>"),
            value if known(self.options.structs) => {
                print::structure(&mut self.out, value, known(self.options.maps), self.options);
            }
            value => print::plain(&mut self.out, value),
        }
    }

    fn branch(&mut self, dot: &Val<'a>, pipe: &Pipe, then: &[Node], otherwise: &[Node], with: bool) -> Result<Flow> {
        let mark = self.variables.len();
        let value = self.pipe(dot, pipe)?;
        let flow = match truth(&value.value) {
            true if with => self.walk(&value, then),
            true => self.walk(dot, then),
            false => self.walk(dot, otherwise),
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, dot: &Val<'a>, pipe: &Pipe, body: &[Node], otherwise: &[Node]) -> Result<Flow> {
        let mark = self.variables.len();
        let over = self.pipe(dot, pipe)?;
        let entries: Vec<(Value, Val<'a>)> = match over.value {
            Cow::Borrowed(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index), Val::borrowed(item)))
                .collect(),
            Cow::Owned(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index), Val::owned(item)))
                .collect(),
            Cow::Borrowed(Value::Object(entries)) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                sorted
                    .into_iter()
                    .map(|(key, item)| (Value::from(key.as_str()), Val::borrowed(item)))
                    .collect()
            }
            Cow::Owned(Value::Object(entries)) => {
                let mut sorted: Vec<_> = entries.into_iter().collect();
                sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
                sorted
                    .into_iter()
                    .map(|(key, item)| (Value::from(key), Val::owned(item)))
                    .collect()
            }
            Cow::Borrowed(Value::Null) | Cow::Owned(Value::Null) => Vec::new(),
            value => {
                let message = format!("range can't iterate over {}", print::sprint(&value));
                return self.error(pipe.at, pipe, &message);
            }
        };
        self.variables.truncate(mark);
        if entries.is_empty() {
            return self.walk(dot, otherwise);
        }
        for (index, item) in entries {
            let values = match pipe.variables.len() {
                0 => Vec::new(),
                1 => vec![item.clone()],
                _ => vec![Val::owned(index), item.clone()],
            };
            for (name, value) in pipe.variables.iter().zip(values) {
                if pipe.assigns {
                    self.assign(name, value);
                } else {
                    self.variables.push((name.clone(), value));
                }
            }
            let flow = self.walk(&item, body)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn assign(&mut self, name: &str, value: Val<'a>) {
        if let Some((_, slot)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *slot = value;
        }
    }

    fn pipe(&mut self, dot: &Val<'a>, pipe: &Pipe) -> Result<Val<'a>> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or_else(Val::null);
        for name in &pipe.variables {
            if pipe.assigns {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Val<'a>, command: &Command, piped: Option<Val<'a>>) -> Result<Val<'a>> {
        let first = &command.arguments[0];
        let rest = &command.arguments[1..];
        match &first.kind {
            ExprKind::Function(name) => self.function(dot, command, name, rest, piped),
            ExprKind::Field(names) => self.fields(dot.clone(), first, names, dot, rest, piped.as_ref()),
            ExprKind::Chain(inner, names) => {
                let value = self.expr(dot, inner)?;
                self.fields(value, first, names, dot, rest, piped.as_ref())
            }
            ExprKind::Variable(name, names) => {
                let value = self.variable(name);
                if names.is_empty() && (!rest.is_empty() || piped.is_some()) {
                    return self.error(first.at, first, &format!("can't give argument to non-function {first}"));
                }
                self.fields(value, first, names, dot, rest, piped.as_ref())
            }
            _ if !rest.is_empty() || piped.is_some() => {
                self.error(first.at, first, &format!("can't give argument to non-function {first}"))
            }
            ExprKind::Nil => self.error(first.at, first, "nil is not a command"),
            _ => self.expr(dot, first),
        }
    }

    /// An operand that stands as an argument.
    fn expr(&mut self, dot: &Val<'a>, expr: &Expr) -> Result<Val<'a>> {
        match &expr.kind {
            ExprKind::Dot => Ok(dot.clone()),
            ExprKind::Nil => Ok(Val::null()),
            ExprKind::Literal(value, _) => Ok(Val::owned(value.clone())),
            ExprKind::Field(names) => self.fields(dot.clone(), expr, names, dot, &[], None),
            ExprKind::Variable(name, names) => {
                let value = self.variable(name);
                self.fields(value, expr, names, dot, &[], None)
            }
            ExprKind::Chain(inner, names) => {
                let value = self.expr(dot, inner)?;
                self.fields(value, expr, names, dot, &[], None)
            }
            ExprKind::Pipe(pipe) => {
                let mark = self.variables.len();
                let value = self.pipe(dot, pipe);
                self.variables.truncate(mark);
                value
            }
            ExprKind::Function(name) => {
                let command = Command {
                    at: expr.at,
                    arguments: vec![expr.clone()],
                };
                self.function(dot, &command, name, &[], None)
            }
        }
    }

    fn variable(&self, name: &str) -> Val<'a> {
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map_or_else(Val::null, |(_, value)| value.clone())
    }

    /// Follows `.A.B`; the last name may be a method and take arguments.
    fn fields(
        &mut self,
        receiver: Val<'a>,
        node: &Expr,
        names: &[String],
        dot: &Val<'a>,
        arguments: &[Expr],
        piped: Option<&Val<'a>>,
    ) -> Result<Val<'a>> {
        let mut value = receiver;
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let given = last && (!arguments.is_empty() || piped.is_some());
            if value.root
                && let Some(methods) = self.options.methods
            {
                let mut given = Vec::new();
                if last {
                    for argument in arguments {
                        given.push(self.expr(dot, argument)?.value.into_owned());
                    }
                    given.extend(piped.iter().map(|value| value.value.clone().into_owned()));
                }
                if let Some(result) = methods(name, &given) {
                    value = match result {
                        Ok(result) => Val::owned(result),
                        Err(message) => return self.error(node.at, node, &message),
                    };
                    continue;
                }
            }
            if given {
                let message = if matches!(&*value.value, Value::Object(entries) if entries.contains_key(name)) {
                    format!("{name} has arguments but cannot be invoked as function")
                } else {
                    format!("{name} is not a method but has arguments")
                };
                return self.error(node.at, node, &message);
            }
            value = self.field(value, node, name)?;
        }
        Ok(value)
    }

    fn field(&self, value: Val<'a>, node: &Expr, name: &str) -> Result<Val<'a>> {
        let is_map = value.key.is_some_and(|key| self.options.maps.contains(&key));
        let (found, shown) = match value.value {
            Cow::Borrowed(Value::Object(entries)) => {
                let entry = entries.get_key_value(name);
                (
                    entry.map(|(key, item)| Val {
                        key: Some(key),
                        ..Val::borrowed(item)
                    }),
                    None,
                )
            }
            Cow::Owned(Value::Object(mut entries)) => (entries.shift_remove(name).map(Val::owned), None),
            other => (None, Some(other)),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let pointer = self.options.pointers.iter().find(|pointer| **pointer == name);
        match (shown.as_deref(), self.options.missing) {
            (None, _) if pointer.is_some() => Ok(Val {
                key: pointer.copied(),
                ..Val::null()
            }),
            (Some(Value::Null), Missing::NoValue) => Ok(Val::null()),
            (Some(Value::Null), _) => {
                self.error(node.at, node, &format!("nil pointer evaluating interface {{}}.{name}"))
            }
            (Some(other), missing) => {
                // What a struct holds has its own type; what a map holds is anything.
                let kind = match missing {
                    Missing::Type(_) => print::type_name(other),
                    _ => "interface {}",
                };
                self.error(node.at, node, &format!("can't evaluate field {name} in type {kind}"))
            }
            (None, Missing::Type(kind)) if value.root => {
                self.error(node.at, node, &format!("can't evaluate field {name} in type {kind}"))
            }
            (None, Missing::Error | Missing::Type(_)) if !is_map => {
                self.error(node.at, node, &format!("map has no entry for key \"{name}\""))
            }
            (None, _) => Ok(Val::null()),
        }
    }

    fn function(
        &mut self,
        dot: &Val<'a>,
        command: &Command,
        name: &str,
        arguments: &[Expr],
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>> {
        if matches!(name, "and" | "or") {
            return self.shortcut(dot, command, name, arguments, piped);
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.expr(dot, argument)?);
        }
        values.extend(piped);
        match functions::call(name, values, self.options) {
            Ok(value) => Ok(value),
            Err(functions::Failure::Count(message)) => self.error(command.at, &command.arguments[0], &message),
            Err(functions::Failure::Type(index, want)) => {
                let Some(argument) = arguments.get(index) else {
                    // The one that came through the pipe.
                    let message = format!("wrong type for value; expected {want}");
                    return self.error(command.at, &command.arguments[0], &message);
                };
                let message = match &argument.kind {
                    ExprKind::Literal(_, text) if want == "int" => format!("expected integer; found {text}"),
                    ExprKind::Literal(_, text) => format!("expected {want}; found {text}"),
                    _ => match self.expr(dot, argument) {
                        Ok(found) if found.value.is_null() => "invalid value; expected string".to_owned(),
                        Ok(found) => format!(
                            "wrong type for value; expected {want}; got {}",
                            print::type_name(&found.value)
                        ),
                        Err(message) => message,
                    },
                };
                self.error(argument.at, argument, &message)
            }
            Err(functions::Failure::Call(message)) => {
                self.error(command.at, command, &format!("error calling {name}: {message}"))
            }
        }
    }

    /// `and` and `or` evaluate no further than they need.
    fn shortcut(
        &mut self,
        dot: &Val<'a>,
        command: &Command,
        name: &str,
        arguments: &[Expr],
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>> {
        if arguments.is_empty() && piped.is_none() {
            let message = format!("wrong number of args for {name}: want at least 1 got 0");
            return self.error(command.at, &command.arguments[0], &message);
        }
        let mut value = Val::null();
        for argument in arguments {
            value = self.expr(dot, argument)?;
            if truth(&value.value) == (name == "or") {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }
}
