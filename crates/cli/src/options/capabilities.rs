//! `--cap-add` and `--cap-drop`, brought into the one form daemons compare.

use std::collections::BTreeSet;

fn normal(names: &[String]) -> BTreeSet<String> {
    let normal = |name: &String| match name.trim().to_uppercase() {
        name if name == "ALL" || name == "RESET" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    names.iter().map(normal).collect()
}

/// Sorted, without repetition. What both lists say is the daemon's to judge.
pub fn effective(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    (normal(add).into_iter().collect(), normal(drop).into_iter().collect())
}
