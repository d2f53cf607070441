//! Go's `text/template` over JSON values, with the functions docker/cli adds: what `--format` needs.
//!
//! Supported: text with trim markers and comments, field chains, variables, pipelines, parentheses, literals, `if`,
//! `with`, `range` with `else`, `break`, `continue`, `define`, `template`, `block`, the built-in functions (not `call`) and
//! docker's. Errors are worded as Go words them.
//!
//! JSON knows neither structs from maps nor nil slices from nil pointers; [`Options`] says what a caller knows.

use serde_json::Value;

use crate::{Error, Result};

mod escape;
mod exec;
mod functions;
mod lex;
mod parse;
mod print;

use parse::Templates;

/// The deepest nesting of parentheses and blocks.
const DEPTH: usize = 100;
/// Calls of templates in each other, as in Go.
const CALLS: usize = 100_000;
/// No template makes more output than this, in bytes.
const OUTPUT: usize = 256 << 20;

#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    templates: Templates,
}

/// What a field that is not there means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing<'a> {
    /// A Go map: `<no value>`.
    #[default]
    NoValue,
    /// A Go map under `missingkey=error`: `map has no entry for key "X"`.
    Error,
    /// Of the top level value, which is a Go struct of this type: `can't evaluate field X in type T`; else as `Error`.
    Type(&'a str),
}

/// Finds a method of the top level value and calls it: `None` when there is none of that name.
pub type Methods<'a> = &'a dyn Fn(&str, &[Value]) -> Option<Result<Value, String>>;

#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    pub missing: Missing<'a>,
    /// Keys whose objects are Go maps: a missing entry prints `<no value>` whatever `missing` says, null prints `map[]`.
    pub maps: &'a [&'a str],
    /// Keys that are Go slices: null prints `[]`.
    pub lists: &'a [&'a str],
    /// Keys whose objects, or lists of them, are Go structs: they print as `{a b}` and not as maps.
    pub structs: &'a [&'a str],
    /// Keys that are Go pointers: null prints `<nil>`, and so does one that is not there.
    pub pointers: &'a [&'a str],
    pub methods: Option<Methods<'a>>,
    /// The value holds column headings: `json`, `lower`, `upper`, `title`, `join`, `truncate` and `pad` give back their text.
    pub header: bool,
    /// `json` of the whole value writes `<`, `>` and `&` as `\u003c` and so on, as encoding/json does for values that marshal
    /// themselves.
    pub escape_html: bool,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("missing", &self.missing)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl Template {
    pub fn parse(source: &str) -> Result<Self> {
        let templates = parse::parse(source).map_err(Error::TemplateSyntax)?;
        Ok(Self {
            source: source.to_owned(),
            templates,
        })
    }

    pub fn execute(&self, value: &Value) -> Result<String> {
        self.execute_with(value, &Options::default())
    }

    pub fn execute_with(&self, value: &Value, options: &Options<'_>) -> Result<String> {
        exec::execute(&self.source, &self.templates, value, options).map_err(Error::TemplateExecution)
    }
}

#[cfg(test)]
mod tests;
