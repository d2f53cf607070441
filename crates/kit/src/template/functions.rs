//! The functions a template can call: Go's built-in ones and docker/cli's.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::{Map, Value};

use super::{Options, escape, exec, exec::Val, print};

const NAMES: [&str; 26] = [
    "and", "or", "not", "index", "slice", "len", "print", "printf", "println", "eq", "ne", "lt", "le", "gt", "ge",
    "html", "js", "urlquery", "json", "join", "lower", "upper", "split", "title", "pad", "truncate",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

#[derive(Debug)]
pub(super) enum Failure {
    /// The wrong number of arguments.
    Count(String),
    /// The argument at this index has the wrong type.
    Type(usize, &'static str),
    /// The function itself says no.
    Call(String),
}

type Result<T> = std::result::Result<T, Failure>;

fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(Failure::Call(message.into()))
}

fn count(name: &str, values: &[Val<'_>], want: usize) -> Result<()> {
    if values.len() == want {
        return Ok(());
    }
    Err(Failure::Count(format!(
        "wrong number of args for {name}: want {want} got {}",
        values.len()
    )))
}

fn at_least(name: &str, values: &[Val<'_>], want: usize) -> Result<()> {
    if values.len() >= want {
        return Ok(());
    }
    Err(Failure::Count(format!(
        "wrong number of args for {name}: want at least {want} got {}",
        values.len()
    )))
}

fn text<'v>(values: &'v [Val<'_>], index: usize) -> Result<&'v str> {
    values[index].value.as_str().ok_or(Failure::Type(index, "string"))
}

fn integer(values: &[Val<'_>], index: usize) -> Result<i64> {
    values[index].value.as_i64().ok_or(Failure::Type(index, "int"))
}

pub(super) fn call<'a>(name: &str, mut values: Vec<Val<'a>>, options: &Options<'_>) -> Result<Val<'a>> {
    if options.header
        && matches!(
            name,
            "json" | "join" | "lower" | "upper" | "title" | "truncate" | "pad" | "split"
        )
    {
        at_least(name, &values, 1)?;
        return Ok(values.swap_remove(0));
    }
    Ok(match name {
        "not" => {
            count(name, &values, 1)?;
            Val::owned(!exec::truth(&values[0].value))
        }
        "len" => {
            count(name, &values, 1)?;
            Val::owned(match &*values[0].value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.len(),
                Value::Object(entries) => entries.len(),
                Value::Null => 0,
                other => return failed(format!("len of type {}", print::type_name(other))),
            })
        }
        "index" => {
            at_least(name, &values, 1)?;
            let mut values = values.into_iter();
            let first = values.next().unwrap_or_else(Val::null);
            values.try_fold(first, |container, key| index(container, &key))?
        }
        "slice" => slice(&values)?,
        "print" => Val::owned(print::sprint_all(values.iter().map(|value| &*value.value))),
        "println" => Val::owned(print::sprintln(values.iter().map(|value| &*value.value))),
        "html" | "js" | "urlquery" => {
            let text = print::sprint_all(values.iter().map(|value| &*value.value));
            Val::owned(match name {
                "html" => escape::html(&text),
                "js" => escape::js(&text),
                _ => escape::urlquery(&text),
            })
        }
        "printf" => {
            at_least(name, &values, 1)?;
            let arguments: Vec<&Value> = values[1..].iter().map(|value| &*value.value).collect();
            Val::owned(print::sprintf(text(&values, 0)?, &arguments))
        }
        "eq" => {
            at_least(name, &values, 1)?;
            if values.len() == 1 {
                return failed("missing argument for comparison");
            }
            let mut equal = false;
            for other in &values[1..] {
                equal = equal || equals(&values[0].value, &other.value)?;
            }
            Val::owned(equal)
        }
        "ne" => {
            count(name, &values, 2)?;
            Val::owned(!equals(&values[0].value, &values[1].value)?)
        }
        "lt" | "le" | "gt" | "ge" => {
            count(name, &values, 2)?;
            let order = compare(&values[0].value, &values[1].value)?;
            Val::owned(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
        "json" => {
            count(name, &values, 1)?;
            Val::owned(print::json(&values[0].value, options.escape_html && values[0].root))
        }
        "join" => {
            count(name, &values, 2)?;
            Val::owned(join(&values[0].value, text(&values, 1)?)?)
        }
        "lower" => {
            count(name, &values, 1)?;
            Val::owned(text(&values, 0)?.to_lowercase())
        }
        "upper" => {
            count(name, &values, 1)?;
            Val::owned(text(&values, 0)?.to_uppercase())
        }
        "title" => {
            count(name, &values, 1)?;
            Val::owned(title(text(&values, 0)?))
        }
        "split" => {
            count(name, &values, 2)?;
            let (whole, separator) = (text(&values, 0)?, text(&values, 1)?);
            let parts: Vec<Value> = if separator.is_empty() {
                whole.chars().map(|c| Value::from(c.to_string())).collect()
            } else {
                whole.split(separator).map(Value::from).collect()
            };
            Val::owned(parts)
        }
        "pad" => {
            count(name, &values, 3)?;
            let source = text(&values, 0)?;
            let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0).min(1 << 16));
            let (before, after) = (spaces(integer(&values, 1)?), spaces(integer(&values, 2)?));
            Val::owned(if source.is_empty() {
                String::new()
            } else {
                before + source + &after
            })
        }
        "truncate" => {
            count(name, &values, 2)?;
            let source = text(&values, 0)?;
            let length = usize::try_from(integer(&values, 1)?).unwrap_or(0).min(source.len());
            let end = (0..=length)
                .rev()
                .find(|end| source.is_char_boundary(*end))
                .unwrap_or(0);
            Val::owned(&source[..end])
        }
        _ => return failed("no such function"),
    })
}

fn index<'a>(container: Val<'a>, key: &Val<'a>) -> Result<Val<'a>> {
    let is_string = container.value.is_string();
    let position = |length: usize| match (key.value.as_i64(), &*key.value) {
        (Some(position), _) => match usize::try_from(position).ok().filter(|position| *position < length) {
            Some(position) => Ok(position),
            // Go's own check lets this one through to the next.
            None if usize::try_from(position) == Ok(length) => {
                let kind = if is_string { "string" } else { "slice" };
                failed(format!("reflect: {kind} index out of range"))
            }
            None => failed(format!("index out of range: {position}")),
        },
        (None, Value::Null) => failed("cannot index slice/array with nil"),
        (None, other) => failed(format!(
            "cannot index slice/array with type {}",
            print::type_name(other)
        )),
    };
    match container.value {
        Cow::Borrowed(Value::Array(items)) => position(items.len()).map(|position| Val::borrowed(&items[position])),
        Cow::Owned(Value::Array(mut items)) => {
            position(items.len()).map(|position| Val::owned(items.swap_remove(position)))
        }
        Cow::Borrowed(Value::Object(entries)) => match &*key.value {
            Value::String(name) => {
                let entry = entries.get_key_value(name);
                Ok(entry.map_or_else(
                    || missing(entries),
                    |(key, item)| Val {
                        key: Some(key),
                        ..Val::borrowed(item)
                    },
                ))
            }
            other => Err(wrong_key(other)),
        },
        Cow::Owned(Value::Object(mut entries)) => match &*key.value {
            Value::String(name) => match entries.shift_remove(name) {
                Some(item) => Ok(Val::owned(item)),
                None => Ok(missing(&entries)),
            },
            other => Err(wrong_key(other)),
        },
        Cow::Borrowed(Value::String(text)) => {
            position(text.len()).map(|position| Val::owned(text.as_bytes()[position]))
        }
        Cow::Owned(Value::String(text)) => position(text.len()).map(|position| Val::owned(text.as_bytes()[position])),
        Cow::Borrowed(Value::Null) | Cow::Owned(Value::Null) => match &*key.value {
            Value::String(_) => Ok(Val::owned("")),
            _ => failed("index of untyped nil"),
        },
        other => failed(format!("can't index item of type {}", print::type_name(&other))),
    }
}

/// A missing entry of a `map[string]string` is its zero value, the empty string.
fn missing<'a>(entries: &Map<String, Value>) -> Val<'a> {
    if entries.values().all(Value::is_string) {
        Val::owned("")
    } else {
        Val::null()
    }
}

fn wrong_key(key: &Value) -> Failure {
    Failure::Call(format!("value has type {}; should be string", print::type_name(key)))
}

fn slice<'a>(values: &[Val<'a>]) -> Result<Val<'a>> {
    at_least("slice", values, 1)?;
    if values.len() > 4 {
        return failed(format!("too many slice indexes: {}", values.len() - 1));
    }
    let length = match &*values[0].value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return failed(format!("can't slice item of type {}", print::type_name(other))),
    };
    let mut bounds = [0, length];
    for (index, bound) in bounds.iter_mut().enumerate().take(values.len() - 1) {
        let given = integer(values, index + 1)?;
        match usize::try_from(given) {
            Ok(given) if given <= length => *bound = given,
            _ => return failed(format!("index out of range: {given}")),
        }
    }
    let [start, end] = bounds;
    if start > end {
        return failed(format!("invalid slice index: {start} > {end}"));
    }
    match &*values[0].value {
        Value::String(text) => Ok(Val::owned(
            String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned(),
        )),
        Value::Array(items) => Ok(Val::owned(items[start..end].to_vec())),
        _ => Ok(Val::null()),
    }
}

fn join(value: &Value, separator: &str) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Array(items) => Ok(items.iter().map(print::sprint).collect::<Vec<_>>().join(separator)),
        _ => Err(Failure::Type(0, "[]string")),
    }
}

/// `strings.Title`: the first letter of every word.
fn title(text: &str) -> String {
    let mut previous = ' ';
    text.chars()
        .map(|c| {
            let begins = !(previous.is_alphanumeric() || previous == '_' || previous == '\'');
            previous = c;
            if begins {
                c.to_uppercase().next().unwrap_or(c)
            } else {
                c
            }
        })
        .collect()
}

fn equals(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            failed("non-comparable type")
        }
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::String(left), Value::String(right)) => Ok(left == right),
        (Value::Number(_), Value::Number(_)) => Ok(compare(left, right)? == Ordering::Equal),
        _ => incompatible(left, right),
    }
}

fn incompatible<T>(left: &Value, right: &Value) -> Result<T> {
    let (left, right) = (print::type_name(left), print::type_name(right));
    failed(format!("incompatible types for comparison: {left} and {right}"))
}

fn compare(left: &Value, right: &Value) -> Result<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Ok(left.cmp(&right)),
            _ => Ok(left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal)),
        },
        (Value::Bool(_), Value::Bool(_)) | (Value::Null, _) | (_, Value::Null) => failed("invalid type for comparison"),
        _ => incompatible(left, right),
    }
}
