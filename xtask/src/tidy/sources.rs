//! Rules about single source files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Findings;

const WARN_LINES: usize = 800;
const MOST_LINES: usize = 1000;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    for dir in ["crates", "tests", "xtask", "fuzz", "benches"] {
        for path in files(&root.join(dir), "rs")? {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            check_file(path.strip_prefix(root).unwrap_or(&path), &text, findings);
        }
    }
    Ok(())
}

fn check_file(path: &Path, text: &str, findings: &mut Findings) {
    let shown = path.display();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // Support code of integration tests has to be a mod.rs: cargo makes a program of every file in `tests/`.
    let support = path.components().any(|part| part.as_os_str() == "tests");
    if stem == "mod" && !support {
        findings.error(format!("{shown}: `foo.rs` beside `foo/`, no mod.rs"));
    }
    if EMPTY_NAMES.contains(&&*stem) {
        findings.error(format!("{shown}: name the module for what it holds"));
    }
    if stem == "lib" && !text.starts_with("//!") {
        findings.error(format!(
            "{shown}: a lib.rs opens with `//!`: purpose, invariants, failure modes"
        ));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        findings.error(format!("{shown}: {lines} lines, more than {MOST_LINES}: split it"));
    } else if lines > WARN_LINES {
        findings.warn(format!("{shown}: {lines} lines"));
    }
    if !path.starts_with("crates/sys") {
        for (index, line) in text.lines().enumerate() {
            if has_unsafe(line) {
                findings.error(format!("{shown}:{}: unsafe code belongs to crates/sys", index + 1));
            }
        }
    }
}

/// The keyword `unsafe` in code: not in a comment, a string, or a longer word.
fn has_unsafe(line: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut in_string = false;
    let mut previous = ' ';
    for (at, c) in line.char_indices() {
        let rest = &line[at..];
        if !in_string && rest.starts_with("//") {
            return false;
        }
        if c == '"' && (!in_string || previous != '\\') {
            in_string = !in_string;
        }
        let bare = !in_string && !word(previous) && rest.starts_with("unsafe");
        if bare && rest["unsafe".len()..].starts_with([' ', '{', '(']) {
            return true;
        }
        previous = c;
    }
    false
}

/// All files below `dir` with that extension, sorted; nothing where `dir` is not there.
pub fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        if !dir.is_dir() || dir.ends_with("target") {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Findings, check_file, has_unsafe};

    #[test]
    fn unsafe_is_seen_in_code_only() {
        assert!(has_unsafe(concat!("    un", "safe { x() }")));
        assert!(has_unsafe(concat!("pub un", "safe fn x() {}")));
        assert!(!has_unsafe("// unsafe { }"));
        assert!(!has_unsafe("let text = \"unsafe {\";"));
        assert!(!has_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn bad_names_and_long_files_are_found() {
        let mut findings = Findings::default();
        check_file(Path::new("crates/kit/src/utils.rs"), "", &mut findings);
        check_file(Path::new("crates/kit/src/a/mod.rs"), "", &mut findings);
        check_file(Path::new("crates/kit/src/lib.rs"), "mod a;", &mut findings);
        check_file(Path::new("crates/kit/src/b.rs"), &"\n".repeat(1001), &mut findings);
        check_file(Path::new("crates/kit/src/c.rs"), &"\n".repeat(801), &mut findings);
        assert_eq!((findings.errors.len(), findings.warnings.len()), (4, 1));
    }
}
