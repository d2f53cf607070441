use std::ffi::OsString;

use ferry_kit::{duration, gofmt, units};

use super::{Flag, Spec};

/// Why a command line is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// `--help` was asked for; `deprecated` when by `-h`.
    Help { deprecated: bool },
    /// A complaint about a flag.
    Flag(String),
}

/// What was typed.
#[derive(Debug, Clone)]
pub struct Matches {
    flags: Vec<Flag>,
    values: Vec<(usize, String)>,
    pub arguments: Vec<String>,
    /// What to tell about flags that have another name by now.
    pub notes: Vec<String>,
}

impl Matches {
    pub fn parse(spec: &Spec, words: &[OsString]) -> Result<Self, Problem> {
        let mut matches = Self {
            flags: spec.definitions(),
            values: Vec::new(),
            arguments: Vec::new(),
            notes: Vec::new(),
        };
        let mut words = words.iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            if word == "--" {
                matches.arguments.extend(words);
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                matches.long(spec, long, &mut words)?;
            } else if word.len() > 1 && word.starts_with('-') {
                matches.shorts(spec, &word[1..], &mut words)?;
            } else {
                matches.arguments.push(word);
                if spec.stops_at_argument {
                    matches.arguments.extend(words);
                    break;
                }
            }
        }
        Ok(matches)
    }

    fn long(&mut self, spec: &Spec, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Problem> {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.starts_with('-') {
            return Err(Problem::Flag(format!("bad flag syntax: --{word}")));
        }
        let canonical = spec
            .hidden
            .iter()
            .find(|(hidden, _)| *hidden == name)
            .map_or(name, |(_, name)| name);
        let Some(index) = self.flags.iter().position(|flag| flag.name == canonical) else {
            return Err(match name {
                "help" => Problem::Help { deprecated: false },
                name => Problem::Flag(format!("unknown flag: --{name}")),
            });
        };
        if canonical == "help" {
            return Err(Problem::Help { deprecated: false });
        }
        if spec.deprecated.contains(&name) {
            self.notes
                .push(format!("Flag --{name} has been deprecated, use --{canonical} instead"));
        }
        let value = match (value, self.flags[index].kind) {
            (Some(value), _) => value.to_owned(),
            (None, "") => "true".to_owned(),
            (None, _) => rest
                .next()
                .ok_or_else(|| Problem::Flag(format!("flag needs an argument: --{name}")))?,
        };
        self.set(spec, index, value)
    }

    fn shorts(&mut self, spec: &Spec, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Problem> {
        let mut left = word;
        while let Some(short) = left.chars().next() {
            let after = &left[short.len_utf8()..];
            let Some(index) = self.flags.iter().position(|flag| flag.short == Some(short)) else {
                return Err(match short {
                    'h' => Problem::Help { deprecated: true },
                    short => Problem::Flag(format!("unknown shorthand flag: '{short}' in -{left}")),
                });
            };
            let value = if let Some(value) = after.strip_prefix('=') {
                left = "";
                value.to_owned()
            } else if self.flags[index].kind.is_empty() {
                left = after;
                "true".to_owned()
            } else if after.is_empty() {
                let missing = format!("flag needs an argument: '{short}' in -{left}");
                left = "";
                rest.next().ok_or(Problem::Flag(missing))?
            } else {
                left = "";
                after.to_owned()
            };
            self.set(spec, index, value)?;
        }
        Ok(())
    }

    fn set(&mut self, spec: &Spec, index: usize, value: String) -> Result<(), Problem> {
        let flag = &self.flags[index];
        check(flag, &value)
            .and_then(|()| (spec.check)(flag.name, &value))
            .map_err(|message| {
                Problem::Flag(format!(
                    "invalid argument {} for \"{}\" flag: {message}",
                    gofmt::quote(&value),
                    flag.title()
                ))
            })?;
        self.values.push((index, value));
        Ok(())
    }

    /// The values given, first to last.
    fn given<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        debug_assert!(self.flags.iter().any(|flag| flag.name == name), "no flag --{name}");
        self.values
            .iter()
            .filter(move |(index, _)| self.flags[*index].name == name)
            .map(|(_, value)| value.as_str())
    }

    /// The last value given.
    #[must_use]
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.given(name).next_back()
    }

    /// The last value given, else nothing.
    #[must_use]
    pub fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.get(name).unwrap_or_default()
    }

    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        self.given(name).map(str::to_owned).collect()
    }

    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.switch_or(name, false)
    }

    #[must_use]
    pub fn switch_or(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(boolean).unwrap_or(default)
    }

    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(|value| integer(value).ok())
    }

    /// Bytes of a size; 0 when it is not given.
    #[must_use]
    pub fn bytes(&self, name: &str) -> i64 {
        match self.get(name) {
            Some("-1") => -1,
            Some(value) => units::ram_in_bytes(value).unwrap_or(0),
            None => 0,
        }
    }

    /// Nanoseconds; 0 when it is not given.
    #[must_use]
    pub fn nanoseconds(&self, name: &str) -> i64 {
        let duration = self.get(name).and_then(|value| duration::parse_go(value).ok());
        duration
            .and_then(|duration| i64::try_from(duration.as_nanos()).ok())
            .unwrap_or(0)
    }
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        // Unlimited swap, the one size below zero.
        "bytes" if flag.name == "memory-swap" && value == "-1" => Ok(()),
        "" => boolean(value)
            .map(|_| ())
            .ok_or_else(|| invalid("ParseBool", value, "invalid syntax")),
        "int" => integer(value).map(|_| ()),
        "uint16" => uint16(value).map(|_| ()),
        "duration" => duration::parse_go(value).map(|_| ()).map_err(|error| error.to_string()),
        "bytes" => units::ram_in_bytes(value)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        "filter" if !value.contains('=') => Err("bad format of filter (expected name=value)".into()),
        _ => Ok(()),
    }
}

fn invalid(function: &str, value: &str, reason: &str) -> String {
    format!("strconv.{function}: parsing {}: {reason}", gofmt::quote(value))
}

/// `strconv.ParseUint(value, 10, 16)`.
pub fn uint16(value: &str) -> Result<u16, String> {
    let number = value.parse::<u64>().map_err(|_| "invalid syntax");
    let number = number.and_then(|number| u16::try_from(number).map_err(|_| "value out of range"));
    number.map_err(|reason| invalid("ParseUint", value, reason))
}

/// `strconv.ParseBool`.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `strconv.ParseInt(value, 0, 64)`.
fn integer(value: &str) -> Result<i64, String> {
    let (negative, digits) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some(_) if lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(invalid("ParseInt", value, "invalid syntax"));
    }
    let magnitude = i128::from_str_radix(digits, radix).unwrap_or(i128::MAX);
    i64::try_from(if negative { -magnitude } else { magnitude })
        .map_err(|_| invalid("ParseInt", value, "value out of range"))
}
