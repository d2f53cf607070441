//! The repository's rules as a test (ARCHITECTURE.md). Every finding is printed; any finding fails.

mod binary;
mod docs;
mod layers;
mod sources;

use anyhow::Result;

use crate::workspace::Workspace;

/// What a rule found: printed, and an error unless it is only a warning.
#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn print(&self) -> bool {
        for warning in &self.warnings {
            println!("warning: {warning}");
        }
        for error in &self.errors {
            println!("error: {error}");
        }
        self.errors.is_empty()
    }
}

pub fn run(workspace: &Workspace) -> Result<bool> {
    let mut findings = Findings::default();
    layers::check(&workspace.metadata, &mut findings);
    sources::check(&workspace.root, &mut findings)?;
    docs::check(&workspace.root, &mut findings)?;
    binary::check_built(workspace, &mut findings)?;
    Ok(findings.print())
}

/// Only the shape of the binary that was just built.
pub fn binary(workspace: &Workspace) -> Result<bool> {
    let mut findings = Findings::default();
    binary::check_built(workspace, &mut findings)?;
    Ok(findings.print())
}
