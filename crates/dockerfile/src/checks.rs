//! What is bad style in a Dockerfile, or will not do what it seems to: BuildKit's 22 rules.
//!
//! ```text
//! nodes ── written ──▶ stages ── bases ──▶ stages with a base ── walk ──▶ every instruction, with its variables
//!                       any of them may end in an error; the warnings before it count all the same
//! ```
//!
//! The walk expands what the solver will expand, with the same code, so an error it finds is one that the build would end
//! with. It leaves to the solver what needs more than the file: whether a signal exists, or a base image.

mod bases;
mod instructions;
mod rule;
mod scope;
mod settings;
mod stages;
mod walk;
mod written;

use ferry_image::{Platform, Reference};

pub use rule::Rule;
pub use scope::{Based, From, On, Scope};
pub use settings::{Choice, Settings};

use crate::error::{Error, Problem, Result};
use crate::file::Reading;
use crate::range::Range;
use crate::words::Variables;
use crate::{Ignore, source};

/// More warnings than this are not collected: nobody reads them.
pub const MAX_WARNINGS: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub rule: Rule,
    pub detail: String,
    pub range: Range,
}

/// Warnings in the order of lines, and the error that ended the look at the file.
#[derive(Debug, Default)]
pub struct Report {
    pub warnings: Vec<Warning>,
    pub error: Option<Error>,
}

/// A base image, as far as the checks want to know it.
#[derive(Clone, Debug, Default)]
pub struct Base {
    pub variables: Variables,
    pub workdir: String,
    pub shell: Vec<String>,
    /// `ONBUILD`.
    pub triggers: Vec<String>,
    pub platform: Platform,
}

/// What a file is checked with.
pub struct Options<'a> {
    /// `--build-arg`.
    pub arguments: Variables,
    /// A stage by name or number: only what it needs is looked at. Without one, all stages are.
    pub target: Option<&'a str>,
    pub build_platform: Platform,
    pub target_platform: Platform,
    /// Instead of what the file says itself.
    pub settings: Option<Settings>,
    pub ignore: Option<&'a Ignore>,
    /// An image, if it is known.
    pub base: &'a dyn Fn(&Reference, &Platform) -> Option<Base>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Collects what is allowed to be said.
struct Warnings {
    settings: Settings,
    found: Vec<Warning>,
}

impl Warnings {
    fn add(&mut self, rule: Rule, range: Range, detail: impl FnOnce() -> String) {
        if self.found.len() < MAX_WARNINGS && self.settings.allows(rule) {
            self.found.push(Warning {
                rule,
                detail: detail(),
                range,
            });
        }
    }

    /// Whether another one would be kept: what is costly to find need not be looked for then.
    fn is_full(&self) -> bool {
        self.found.len() >= MAX_WARNINGS
    }
}

/// Looks at a whole file.
pub fn run(bytes: &[u8], options: &Options<'_>) -> Report {
    let mut warnings = Warnings {
        settings: Settings::default(),
        found: Vec::new(),
    };
    let error = look(bytes, options, &mut warnings).err();
    let mut found = warnings.found;
    found.sort_by(|a, b| (a.range.start.line, a.rule, &a.detail).cmp(&(b.range.start.line, b.rule, &b.detail)));
    Report { warnings: found, error }
}

fn look(bytes: &[u8], options: &Options<'_>, warnings: &mut Warnings) -> Result<()> {
    if bytes.is_empty() {
        return Err(Problem::Empty.into());
    }
    warnings.settings = match &options.settings {
        Some(settings) => settings.clone(),
        None => match source::directive::find(bytes, "check") {
            // Up to the first space: as BuildKit reads directives.
            Some(directive) => Settings::parse(directive.value.split(' ').next().unwrap_or_default())
                .map_err(|problem| problem.at(directive.range))?,
            None => Settings::default(),
        },
    };
    let source = source::read(bytes)?;
    for range in &source.empty_continuations {
        warnings.add(Rule::NoEmptyContinuation, *range, || {
            "Empty continuation line".to_owned()
        });
    }
    let mut reading = Reading::default();
    for node in &source.nodes {
        written::look(node, warnings);
        let added = reading.add(node)?;
        written::look_at_description(node, &added, warnings);
    }
    let file = reading.finish(source.directives, source.escape)?;
    stages::look(&file, warnings);
    let bases = bases::find(&file, options, warnings)?;
    walk::walk(&file, &bases, options, warnings)?;
    if warnings.settings.error && !warnings.found.is_empty() {
        let mut names: Vec<&str> = warnings.found.iter().map(|warning| warning.rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        return Err(Problem::Checks(names.join(", ")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
