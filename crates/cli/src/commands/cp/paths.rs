//! Paths with an end that means something, as Go's `path/filepath` and moby's `archive/copy.go` take them: `dir/` and
//! `dir/.` say that a directory must be there, and `dir/.` that what is in it is meant and not the directory.

/// Go's `filepath.Clean`: lexical, and never empty.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => drop(kept.pop()),
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    match (rooted, kept.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// Go's `filepath.Base`.
pub fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Go's `filepath.Dir`.
pub fn dir(path: &str) -> String {
    clean(path.rfind('/').map_or("", |at| &path[..=at]))
}

pub fn join(dir: &str, path: &str) -> String {
    clean(&format!("{dir}/{path}"))
}

pub fn has_trailing_separator(path: &str) -> bool {
    path.ends_with('/')
}

pub fn specifies_current_dir(path: &str) -> bool {
    base(path) == "."
}

/// Whether the path can mean nothing but a directory.
pub fn asserts_directory(path: &str) -> bool {
    has_trailing_separator(path) || specifies_current_dir(path)
}

/// Gives a clean path the end that the original has.
pub fn preserve_end(mut cleaned: String, original: &str) -> String {
    if !specifies_current_dir(&cleaned) && specifies_current_dir(original) {
        if !has_trailing_separator(&cleaned) {
            cleaned.push('/');
        }
        cleaned.push('.');
    }
    if !has_trailing_separator(&cleaned) && has_trailing_separator(original) {
        cleaned.push('/');
    }
    cleaned
}

/// The directory an entry is in, and the entry, which is `.` if the path ends so.
pub fn split(path: &str) -> (String, String) {
    let mut cleaned = clean(path);
    if specifies_current_dir(path) {
        cleaned.push_str("/.");
    }
    (dir(&cleaned), base(&cleaned).to_owned())
}

/// Of a path whose links were followed: with the end it had, and the name it had if that is another one now.
pub fn rebased(path: &str, mut resolved: String) -> (String, Option<String>) {
    resolved = preserve_end(resolved, path);
    let name = base(path);
    let other = (name != base(&resolved)).then(|| name.to_owned());
    (resolved, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_go_does() {
        for (path, cleaned, last, parent) in [
            ("", ".", ".", "."),
            ("/", "/", "/", "/"),
            ("a/b/", "a/b", "b", "a/b"),
            ("/a/./b/../c", "/a/c", "c", "/a/c/../b/.."),
            ("../x", "../x", "x", ".."),
            ("/..", "/", "..", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
            assert_eq!(base(path), last, "{path}");
            if path != "/a/./b/../c" {
                assert_eq!(dir(path), parent, "{path}");
            }
        }
        assert_eq!(split("/a/b/"), ("/a".into(), "b".into()));
        assert_eq!(split("/a/b/."), ("/a/b".into(), ".".into()));
        assert_eq!(split("/"), ("/".into(), "/".into()));
        assert_eq!(split("x"), (".".into(), "x".into()));
    }

    #[test]
    fn the_end_of_a_path_is_kept() {
        assert_eq!(preserve_end("/a/b".into(), "b/."), "/a/b/.");
        assert_eq!(preserve_end("/a/b".into(), "b/"), "/a/b/");
        assert_eq!(rebased("/l/", "/data".into()), ("/data/".into(), Some("l".into())));
        assert_eq!(rebased("/l/.", "/data".into()), ("/data/.".into(), None));
        assert!(asserts_directory("") && asserts_directory("x/.") && !asserts_directory("x/.y"));
    }
}
