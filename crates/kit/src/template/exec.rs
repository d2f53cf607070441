//! Running the nodes, as Go's text/template/exec.go does it.

use std::borrow::Cow;
use std::rc::Rc;
use std::{fmt, slice, vec};

use serde_json::Value;

use super::{
    CALLS, Missing, OUTPUT, Options, functions,
    parse::{Command, Expr, ExprKind, Node, Pipe, Templates},
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

pub(super) fn execute(source: &str, templates: &Templates, value: &Value, options: &Options<'_>) -> Result<String> {
    let root = Val {
        root: true,
        ..Val::borrowed(value)
    };
    let run = Run {
        source,
        options,
        templates,
        template: "",
        variables: vec![("$".to_owned(), root.clone())],
        frames: Vec::new(),
        calls: 0,
        out: String::new(),
    };
    run.all(root)
}

struct Run<'a> {
    source: &'a str,
    options: &'a Options<'a>,
    templates: &'a Templates,
    /// The name of the one that runs.
    template: &'a str,
    variables: Vec<(String, Val<'a>)>,
    /// What is open, innermost last: not on the stack, which calls would fill.
    frames: Vec<Frame<'a>>,
    calls: usize,
    out: String,
}

/// A list of nodes that is under way.
struct Frame<'a> {
    nodes: slice::Iter<'a, Node>,
    dot: Rc<Val<'a>>,
    end: End<'a>,
}

/// What comes after a list.
enum End<'a> {
    /// So many variables are left.
    Block(usize),
    /// Perhaps the same again.
    Range {
        left: usize,
        pipe: &'a Pipe,
        body: &'a [Node],
        entries: vec::IntoIter<(Value, Val<'a>)>,
    },
    /// The caller goes on.
    Call {
        template: &'a str,
        variables: Vec<(String, Val<'a>)>,
    },
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
        let template = crate::gofmt::quote(self.template);
        Err(format!(
            "template: :{line}:{column}: executing {template} at <{node}>: {message}"
        ))
    }

    fn all(mut self, root: Val<'a>) -> Result<String> {
        if let Some(nodes) = self.templates.get("") {
            self.open(nodes, Rc::new(root), End::Block(1));
        }
        while let Some(frame) = self.frames.last_mut() {
            match frame.nodes.next() {
                Some(node) => {
                    let dot = frame.dot.clone();
                    self.step(&dot, node)?;
                }
                None => self.leave(),
            }
            if self.out.len() > OUTPUT {
                return Err("template: output too large".into());
            }
        }
        Ok(self.out)
    }

    fn open(&mut self, nodes: &'a [Node], dot: Rc<Val<'a>>, end: End<'a>) {
        let nodes = nodes.iter();
        self.frames.push(Frame { nodes, dot, end });
    }

    fn step(&mut self, dot: &Rc<Val<'a>>, node: &'a Node) -> Result<()> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.print(&value);
                }
            }
            Node::If { pipe, then, otherwise } => self.branch(dot, pipe, then, otherwise, false)?,
            Node::With { pipe, then, otherwise } => self.branch(dot, pipe, then, otherwise, true)?,
            Node::Range { pipe, body, otherwise } => self.range(dot, pipe, body, otherwise)?,
            Node::Continue => self.leave_to_range(),
            Node::Break => {
                self.leave_to_range();
                if let Some(Frame {
                    end: End::Range { entries, .. },
                    ..
                }) = self.frames.last_mut()
                {
                    *entries = Vec::new().into_iter();
                }
            }
            Node::Template { at, name, pipe } => self.call(dot, *at, name, pipe.as_ref())?,
        }
        Ok(())
    }

    /// The list is at its end.
    fn leave(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        match &mut frame.end {
            End::Range {
                left,
                pipe,
                body,
                entries,
            } => {
                let (left, pipe) = (*left, *pipe);
                let Some((index, item)) = entries.next() else {
                    self.variables.truncate(left);
                    self.frames.pop();
                    return;
                };
                frame.nodes = body.iter();
                frame.dot = Rc::new(item.clone());
                self.variables.truncate(left);
                self.iterate(pipe, index, item);
            }
            End::Block(left) => {
                self.variables.truncate(*left);
                self.frames.pop();
            }
            End::Call { template, variables } => {
                self.template = template;
                self.variables = std::mem::take(variables);
                self.calls -= 1;
                self.frames.pop();
            }
        }
    }

    /// Drops what is open within the innermost range, and the rest of its body.
    fn leave_to_range(&mut self) {
        while let Some(frame) = self.frames.last_mut() {
            if matches!(frame.end, End::Range { .. }) {
                frame.nodes = [].iter();
                return;
            }
            self.frames.pop();
        }
    }

    fn call(&mut self, dot: &Val<'a>, at: usize, name: &'a str, pipe: Option<&'a Pipe>) -> Result<()> {
        let node = fmt::from_fn(|f| {
            write!(f, "{{{{template {}", crate::gofmt::quote(name))?;
            pipe.map_or(Ok(()), |pipe| write!(f, " {pipe}"))?;
            f.write_str("}}")
        });
        let Some(nodes) = self.templates.get(name) else {
            return self.error(
                at,
                &node,
                &format!("template {} not defined", crate::gofmt::quote(name)),
            );
        };
        if self.calls == CALLS {
            return self.error(at, &node, &format!("exceeded maximum template depth ({CALLS})"));
        }
        // Variables that the pipeline declares are the caller's.
        let dot = pipe.map_or_else(|| Ok(Val::null()), |pipe| self.pipe(dot, pipe))?;
        self.calls += 1;
        let end = End::Call {
            template: std::mem::replace(&mut self.template, name),
            variables: std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]),
        };
        self.open(nodes, Rc::new(dot), end);
        Ok(())
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

    fn branch(
        &mut self,
        dot: &Rc<Val<'a>>,
        pipe: &'a Pipe,
        then: &'a [Node],
        otherwise: &'a [Node],
        with: bool,
    ) -> Result<()> {
        let end = End::Block(self.variables.len());
        let value = self.pipe(dot, pipe)?;
        match truth(&value.value) {
            true if with => self.open(then, Rc::new(value), end),
            true => self.open(then, dot.clone(), end),
            false => self.open(otherwise, dot.clone(), end),
        }
        Ok(())
    }

    fn range(&mut self, dot: &Rc<Val<'a>>, pipe: &'a Pipe, body: &'a [Node], otherwise: &'a [Node]) -> Result<()> {
        let left = self.variables.len();
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
        self.variables.truncate(left);
        if entries.is_empty() {
            self.open(otherwise, dot.clone(), End::Block(left));
            return Ok(());
        }
        let entries = entries.into_iter();
        let end = End::Range {
            left,
            pipe,
            body,
            entries,
        };
        // The first entry comes as each next one does.
        self.open(&[], dot.clone(), end);
        Ok(())
    }

    /// The variables of a range for one entry.
    fn iterate(&mut self, pipe: &Pipe, index: Value, item: Val<'a>) {
        let values = match pipe.variables.len() {
            0 => return,
            1 => vec![item],
            _ => vec![Val::owned(index), item],
        };
        for (name, value) in pipe.variables.iter().zip(values) {
            if pipe.assigns {
                self.assign(name, value);
            } else {
                self.variables.push((name.clone(), value));
            }
        }
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
