//! `# check=skip=A,B;error=true;experimental=C`, and the same in the argument `BUILDKIT_DOCKERFILE_CHECK`.

use super::Rule;
use crate::error::Problem;

/// Which rules speak, and whether a warning is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub skip: Choice,
    /// Warnings fail the build.
    pub error: bool,
    /// Rules that speak only if they are asked for.
    pub experimental: Choice,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    All,
    /// By name; names of no rule are nothing.
    Some(Vec<String>),
}

impl Default for Choice {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Choice {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self::All,
            names => Self::Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.iter().any(|name| name == rule.name()),
        }
    }
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut settings = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(settings);
        }
        let wrong = |what: String| Problem::invalid(format!("failed to parse check options: {what}"));
        let quoted = |text: &str| ferry_kit::gofmt::quote(text);
        for option in text.split(';') {
            let Some((key, value)) = option.split_once('=') else {
                return Err(wrong(format!("invalid check option {}", quoted(option))));
            };
            match key.trim() {
                "skip" => settings.skip = Choice::parse(value),
                "experimental" => settings.experimental = Choice::parse(value),
                "error" => {
                    let value = value.trim();
                    settings.error = crate::instruction::boolean(value).ok_or_else(|| {
                        wrong(format!(
                            "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
                            quoted(option),
                            quoted(value)
                        ))
                    })?;
                }
                key => return Err(wrong(format!("invalid check option {}", quoted(key)))),
            }
        }
        Ok(settings)
    }

    /// An experimental rule that is asked for speaks even if all are skipped.
    pub(super) fn allows(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            return self.experimental.has(rule);
        }
        !self.skip.has(rule)
    }
}
