//! Rules about all stages together: names, and the case of instructions.

use std::collections::HashSet;

use super::{Rule, Warnings};
use crate::file::{Dockerfile, Stage};
use crate::range::Range;

const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn look(file: &Dockerfile, warnings: &mut Warnings) {
    names(file, warnings);
    casing(file, warnings);
}

fn names(file: &Dockerfile, warnings: &mut Warnings) {
    let mut seen = HashSet::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let quoted = || ferry_kit::gofmt::quote(name);
        if RESERVED.contains(&name) {
            warnings.add(Rule::ReservedStageName, stage.range, || {
                format!("Stage name should not use the same name as reserved stage {}", quoted())
            });
        }
        if !seen.insert(name) {
            warnings.add(Rule::DuplicateStageName, stage.range, || {
                format!("Duplicate stage name {}, stage names should be unique", quoted())
            });
        }
    }
}

fn written(stage: &Stage) -> impl Iterator<Item = (&str, Range)> {
    let instructions = stage.instructions.iter();
    std::iter::once((stage.keyword.as_str(), stage.range))
        .chain(instructions.map(|instruction| (instruction.name.as_str(), instruction.range)))
}

/// Upper case if as many are written so as in lower case.
fn casing(file: &Dockerfile, warnings: &mut Warnings) {
    let all = || file.stages.iter().flat_map(written);
    let lower = all().filter(|(name, _)| *name == name.to_lowercase()).count();
    let upper = all().filter(|(name, _)| *name == name.to_uppercase()).count();
    for (name, range) in all() {
        let (wanted, right) = if lower > upper {
            ("lowercase", name == name.to_lowercase())
        } else {
            ("uppercase", name == name.to_uppercase())
        };
        if !right {
            warnings.add(Rule::ConsistentInstructionCasing, range, || {
                format!("Command '{name}' should match the case of the command majority ({wanted})")
            });
        }
    }
}
