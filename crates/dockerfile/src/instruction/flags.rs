//! Flags of one instruction: `--name`, `--name=value`.

use crate::error::Problem;
use crate::suggest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--link`, `--link=true`, `--link=false`.
    Boolean,
    /// Once.
    Text,
    /// Any number of times.
    Many,
}

/// The flags of one instruction, by name.
#[derive(Debug)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Reads all flags; one that is not among `known` is an error.
    pub fn parse(written: &[String], known: &[(&'static str, Kind)]) -> Result<Self, Problem> {
        let mut flags: Vec<(&'static str, String)> = Vec::new();
        for flag in written {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let nearest = suggest::nearest(name, known.iter().map(|(name, _)| *name));
                return Err(Problem::UnknownFlag {
                    name: name.to_owned(),
                    nearest: nearest.map(str::to_owned),
                });
            };
            if kind != Kind::Many && flags.iter().any(|(seen, _)| *seen == name) {
                return Err(Problem::FlagTwice(name.to_owned()));
            }
            let value = match (kind, value) {
                (Kind::Boolean, None) => "true".to_owned(),
                (Kind::Boolean, Some(value)) if !value.is_empty() => match value.to_lowercase() {
                    lower if lower == "true" || lower == "false" => lower,
                    _ => {
                        return Err(Problem::FlagBoolean {
                            name: name.to_owned(),
                            value: value.to_owned(),
                        });
                    }
                },
                (Kind::Text | Kind::Many, Some(value)) => value.to_owned(),
                _ => return Err(Problem::FlagValue(name.to_owned())),
            };
            flags.push((name, value));
        }
        Ok(Self(flags))
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.all(name).next()
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.boolean(name) == Some(true)
    }

    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.all(name).next().map(|value| value == "true")
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = String> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }
}
