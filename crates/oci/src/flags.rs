//! Flags as runc's callers write them: `-f`, `--force`, `--root=DIR`, `--root DIR`; Go's `flag` package, small.

use crate::error::{Error, Result};

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub name: &'static str,
    /// `""` for none.
    pub short: &'static str,
    pub takes_value: bool,
    pub help: &'static str,
}

pub(crate) const fn value(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes_value: true,
        help,
    }
}

pub(crate) const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes_value: false,
        help,
    }
}

/// What was given.
#[derive(Debug, Default, Clone)]
pub(crate) struct Parsed {
    values: Vec<(&'static str, String)>,
    pub positional: Vec<String>,
    pub help: bool,
}

impl Parsed {
    /// The last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Every value of a flag, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }
}

/// Where flags may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before the first argument only: what follows belongs to somebody else.
    First,
    /// Anywhere.
    Mixed,
}

pub(crate) fn parse(flags: &[Flag], args: &[String], order: Order) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            parsed.positional.extend(rest.cloned());
            break;
        }
        let Some(text) = arg.strip_prefix('-').filter(|text| !text.is_empty()) else {
            parsed.positional.push(arg.clone());
            if order == Order::First {
                parsed.positional.extend(rest.cloned());
                break;
            }
            continue;
        };
        let text = text.strip_prefix('-').unwrap_or(text);
        let (name, given) = match text.split_once('=') {
            Some((name, given)) => (name, Some(given)),
            None => (text, None),
        };
        if matches!(name, "h" | "help") {
            parsed.help = true;
            return Ok(parsed);
        }
        let Some(flag) = flags.iter().find(|flag| flag.name == name || flag.short == name) else {
            // A negative number, or a signal such as `-9`, is an argument once the first one was seen.
            if !parsed.positional.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
                parsed.positional.push(arg.clone());
                continue;
            }
            return Err(Error::Invalid(format!("flag provided but not defined: -{name}")));
        };
        let value = match (flag.takes_value, given) {
            (true, Some(given)) => given.to_owned(),
            (true, None) => rest
                .next()
                .cloned()
                .ok_or_else(|| Error::Invalid(format!("flag needs an argument: -{name}")))?,
            (false, None) => "true".to_owned(),
            (false, Some(given)) => match given {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                other => {
                    let text = format!("invalid boolean value {other:?} for -{name}: parse error");
                    return Err(Error::Invalid(text));
                }
            },
        };
        parsed.values.push((flag.name, value));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] = [
        value("bundle", "b", ""),
        switch("force", "f", ""),
        value("env", "e", ""),
    ];

    fn read(args: &[&str], order: Order) -> Result<Parsed> {
        parse(
            &FLAGS,
            &args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>(),
            order,
        )
    }

    #[test]
    fn go_s_ways_to_write_a_flag_mean_the_same() {
        for args in [["-b", "x"], ["--bundle", "x"], ["-bundle", "x"]] {
            assert_eq!(read(&args, Order::First).unwrap().get("bundle"), Some("x"));
        }
        let parsed = read(&["--bundle=x=y", "--force=false", "-e", "A=1", "-e", "B"], Order::First).unwrap();
        assert_eq!((parsed.get("bundle"), parsed.is_set("force")), (Some("x=y"), false));
        assert_eq!(parsed.all("env").collect::<Vec<_>>(), ["A=1", "B"]);
    }

    #[test]
    fn what_follows_the_first_argument_is_the_program_s_or_not() {
        let parsed = read(&["id", "ls", "--force"], Order::First).unwrap();
        assert!(!parsed.is_set("force") && parsed.positional == ["id", "ls", "--force"]);
        let parsed = read(&["id", "--force", "-9"], Order::Mixed).unwrap();
        assert!(parsed.is_set("force") && parsed.positional == ["id", "-9"]);
    }

    #[test]
    fn unknown_and_incomplete_flags_are_refused() {
        let text = |args: &[&str]| read(args, Order::Mixed).unwrap_err().to_string();
        assert_eq!(text(&["--bogus"]), "flag provided but not defined: -bogus");
        assert_eq!(text(&["--bundle"]), "flag needs an argument: -bundle");
        assert!(text(&["--force=maybe"]).starts_with("invalid boolean value"));
    }
}
