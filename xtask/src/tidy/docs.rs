//! Links in the documents lead somewhere, and the changelog takes what is not released.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Findings, sources};

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let mut pages = sources::files(&root.join("docs"), "md")?;
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        if root.join(name).is_file() {
            pages.push(root.join(name));
        } else {
            findings.error(format!("{name} is missing"));
        }
    }
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
        let folder = page.parent().unwrap_or(root);
        for link in links(&text) {
            if !folder.join(&link).exists() {
                let shown = page.strip_prefix(root).unwrap_or(&page).display();
                findings.error(format!("{shown}: the link to {link} leads nowhere"));
            }
        }
    }
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    if !changelog
        .lines()
        .any(|line| line.starts_with("## ") && line.contains("Unreleased"))
    {
        findings.error("CHANGELOG.md has no `## Unreleased` section".to_owned());
    }
    Ok(())
}

/// Targets of `[text](target)` that are files: no URLs, no anchors, nothing inside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for part in prose.split("](").skip(1) {
            let Some(target) = part.split(')').next() else { continue };
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_links_to_files_are_followed() {
        let page = "[a](a.md) [b](https://b) [c](#c) `[d](d.md)` [e](../e.rs#L3)\n```\n[f](f.md)\n```\n";
        assert_eq!(super::links(page), ["a.md", "../e.rs"]);
    }
}
