//! Paths as Go's `path` package cleans and joins them, as text.

/// `/` and `workdir` and `path`, unless `path` is absolute; cleaned, and below the root.
pub fn join(workdir: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("/{workdir}/{path}"))
    }
}

/// Go's `path.Clean`: no empty element, no `.`, no `..` but at the beginning of a relative path; `.` for nothing.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("../../a/..", "../.."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(join("/srv", "a/../b"), "/srv/b");
        assert_eq!(join("", ""), "/");
        assert_eq!(join("/srv", "/x/"), "/x");
    }
}
