//! What each stage is based on, with the arguments before the first stage.

use std::collections::{BTreeSet, HashMap};

use ferry_image::{Platform, Reference};

use super::{Options, Rule, Warnings};
use crate::error::{Problem, Result};
use crate::file::{Dockerfile, Stage};
use crate::instruction::Expander;
use crate::range::Range;
use crate::suggest;
use crate::words::{Names, Variables};

/// The arguments `FROM` knows, and the base of each stage.
pub(super) struct Bases {
    /// With the values stages inherit by `ARG NAME`.
    pub globals: Variables,
    /// In the order of stages.
    pub of: Vec<Found>,
}

pub(super) struct Found {
    pub base: Parent,
    pub platform: Platform,
}

pub(super) enum Parent {
    /// An earlier one, by index.
    Stage(usize),
    /// `scratch`, or the name of an image.
    Image(String),
}

pub(super) fn find(file: &Dockerfile, options: &Options<'_>, warnings: &mut Warnings) -> Result<Bases> {
    defaults(file, options, warnings);
    let (globals, declared) = globals(file, options, &options.arguments)?;
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    let mut expander = Expander::new(file.escape, &globals);
    for (index, stage) in file.stages.iter().enumerate() {
        let (base, platform) = one(stage, &mut expander, &globals, &declared, warnings)?;
        found.push(Found {
            platform: platform.unwrap_or_else(|| options.target_platform.clone()),
            base: match by_name.get(base.as_str()) {
                Some(&earlier) => Parent::Stage(earlier),
                None => Parent::Image(base),
            },
        });
        if let Some(name) = stage.name.as_deref() {
            by_name.insert(name, index);
        }
    }
    Ok(Bases { globals, of: found })
}

/// The arguments every build has.
fn predefined(file: &Dockerfile, options: &Options<'_>) -> Variables {
    let mut variables = Variables::new();
    for (prefix, platform) in [("BUILD", &options.build_platform), ("TARGET", &options.target_platform)] {
        for (name, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", String::new()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone()),
        ] {
            variables.insert(format!("{prefix}{name}"), value);
        }
    }
    let last = file.stages.last().and_then(|stage| stage.name.as_deref());
    let target = options.target.or(last).filter(|name| !name.is_empty());
    variables.insert("TARGETSTAGE".to_owned(), target.unwrap_or("default").to_owned());
    variables
}

/// Values, and every name that is declared, with a value or without.
fn globals<'a>(
    file: &'a Dockerfile,
    options: &Options<'_>,
    given: &Variables,
) -> Result<(Variables, BTreeSet<&'a str>)> {
    let mut values = predefined(file, options);
    for (name, value) in &mut values {
        if let Some(given) = given.get(name) {
            value.clone_from(given);
        }
    }
    let mut declared = BTreeSet::new();
    let mut spent = 0;
    for global in &file.arguments {
        let argument = &global.argument;
        let value = match given.get(&argument.name) {
            Some(value) => Some(value.clone()),
            None => {
                let mut expander = Expander::new(file.escape, &values);
                expander.spent = spent;
                let value = argument
                    .value(&mut expander)
                    .map_err(|problem| problem.at(global.range))?;
                spent = expander.spent;
                value
            }
        };
        if let Some(value) = value {
            values.insert(argument.name.clone(), value);
        }
        declared.insert(argument.name.as_str());
    }
    Ok((values, declared))
}

/// A base should be one also if no argument is given.
fn defaults(file: &Dockerfile, options: &Options<'_>, warnings: &mut Warnings) {
    let Ok((globals, _)) = globals(file, options, &Variables::new()) else {
        return;
    };
    let mut expander = Expander::new(file.escape, &globals);
    for stage in &file.stages {
        let Ok(base) = expander.word(&stage.base) else {
            return;
        };
        if Reference::parse_named(&base).is_err() {
            warnings.add(Rule::InvalidDefaultArgInFrom, stage.range, || {
                format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                )
            });
        }
    }
}

fn one(
    stage: &Stage,
    expander: &mut Expander<'_>,
    globals: &Variables,
    declared: &BTreeSet<&str>,
    warnings: &mut Warnings,
) -> Result<(String, Option<Platform>)> {
    let mut names = Names::default();
    let base = expander.named(&stage.base, &mut names);
    undeclared(&names, globals, declared, stage.range, warnings);
    let base = base.map_err(|problem| problem.at(stage.range))?;
    if base.is_empty() {
        return Err(Problem::invalid(format!("base name ({}) should not be blank", stage.base)).at(stage.range));
    }
    let Some(written) = &stage.platform else {
        return Ok((base, None));
    };
    let mut names = Names::default();
    let expanded = expander.named(written, &mut names);
    undeclared(&names, globals, declared, stage.range, warnings);
    let text = expanded.map_err(|problem| {
        let text = format!("failed to process arguments for platform : {problem}");
        Problem::invalid(text).at(stage.range)
    })?;
    let only_target = names.unmatched.is_empty() && names.matched.iter().eq(["TARGETPLATFORM"]);
    if only_target && globals.get("TARGETPLATFORM") == Some(&text) {
        warnings.add(Rule::RedundantTargetPlatform, stage.range, || {
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior")
        });
    }
    let hint = || {
        let nearest = |name: &String| suggest::nearest(name, globals.keys().map(String::as_str));
        let nearest = names.unmatched.iter().find_map(nearest);
        nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
    };
    if text.is_empty() {
        let text = format!("empty platform value from expression {written}{}", hint());
        return Err(Problem::invalid(text).at(stage.range));
    }
    let platform: Platform = text.parse().map_err(|error: ferry_image::Error| {
        Problem::invalid(format!("failed to parse platform {written}: {error}{}", hint())).at(stage.range)
    })?;
    let name = stage.name.as_deref().unwrap_or_default();
    let is_constant = names.matched.is_empty() && names.unmatched.is_empty();
    if is_constant && !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        warnings.add(Rule::FromPlatformFlagConstDisallowed, stage.range, || {
            let text = ferry_kit::gofmt::quote(&text);
            format!("FROM --platform flag should not use constant value {text}")
        });
    }
    Ok((base, Some(platform)))
}

fn undeclared(names: &Names, globals: &Variables, declared: &BTreeSet<&str>, range: Range, warnings: &mut Warnings) {
    for name in &names.unmatched {
        if declared.contains(name.as_str()) || warnings.is_full() {
            continue;
        }
        warnings.add(Rule::UndefinedArgInFrom, range, || {
            let known = globals.keys().map(String::as_str).chain(declared.iter().copied());
            let nearest = suggest::nearest(name, known);
            let hint = nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            format!("FROM argument '{name}' is not declared{hint}")
        });
    }
}
