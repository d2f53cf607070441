//! Paths of the other side's, which are looked at before anything is done with them.

use std::cmp::Ordering;

use super::{Error, Result};

/// Linux's `PATH_MAX` and `NAME_MAX`.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// Refuses all but names with one `/` between them.
pub fn check(path: &str) -> Result<()> {
    let wrong = |name: &str| matches!(name, "" | "." | "..") || name.len() > NAME_MAX;
    if path.len() >= PATH_MAX || path.contains('\0') || path.split('/').any(wrong) {
        let shown: String = path.chars().take(NAME_MAX).collect();
        return Err(Error::Protocol(format!("invalid path: {shown:?}")));
    }
    Ok(())
}

/// The order of a walk: by names, a directory before what is in it.
pub fn order(one: &str, other: &str) -> Ordering {
    one.split('/').cmp(other.split('/'))
}

/// The directory, empty for the top, and the name in it.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_and_nothing_else() {
        for path in ["a", "a/b", "a b/ü", "...", "..a"] {
            assert!(check(path).is_ok(), "{path}");
        }
        let long = ["x".repeat(256), vec!["x"; 3000].join("/")];
        let odd = ["", ".", "..", "/a", "a/", "a//b", "a/../b", "a/..", "./a", "a\0b"];
        for path in odd.into_iter().chain(long.iter().map(String::as_str)) {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_order_is_a_walks() {
        let walk = ["a", "a/b", "a/b/c", "a.b", "b"];
        assert!(walk.windows(2).all(|pair| order(pair[0], pair[1]) == Ordering::Less));
    }
}
