use super::*;

fn ignores(patterns: &[&str], path: &str) -> bool {
    Ignore::new(patterns).unwrap().ignores(path)
}

#[test]
fn patterns_match_as_mobys_do() {
    for (pattern, path, expected) in [
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("a", "ab", false),
        ("a", "b/a", false),
        ("a/b", "a/b", true),
        ("a/b", "a", false),
        ("*", "a", true),
        ("*", "a/b", true),
        ("*.go", "a.go", true),
        ("*.go", "d/a.go", false),
        ("*/a", "b/a", true),
        ("*/a", "b/c/a", false),
        ("a*", "abc/d", true),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("**", "a", true),
        ("**", "a/b", true),
        ("**/", "a/b", true),
        ("**/**", "a/b", true),
        ("**/a", "a", true),
        ("**/a", "b/c/a", true),
        ("**/a", "b/c/a/d", true),
        ("**/a", "ba", false),
        ("**a", "ba", true),
        ("**a", "b/xa", true),
        ("**/a/**", "a", false),
        ("**/a/**", "a/b", true),
        ("**/a/**", "b/a/c", true),
        ("a/**", "a", false),
        ("a/**", "a/b/c", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a**b", "ab", true),
        ("a**b", "a/x/b", true),
        ("**/*.txt", "a.txt", true),
        ("**/*.txt", "a/b/c.txt", true),
        ("**/*.txt", "a/b.txtx", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[^a-c]x", "zx", true),
        ("[]a]", "]", false),
        ("a\\*", "a*", true),
        ("a\\*", "ab", false),
        ("a.c", "abc", false),
        ("a+(b)|$", "a+(b)|$", true),
        ("./a", "a", true),
        ("a/../b", "b", true),
        ("a/", "a/b", true),
        ("dir/*/x", "dir/sub/x/y", true),
        ("日?", "日本", true),
        ("**/node_modules", "a/node_modules/b", true),
        (".git", ".gitignore", false),
    ] {
        let found = Ignore::new([pattern])
            .map(|ignore| ignore.ignores(path))
            .unwrap_or(false);
        assert_eq!(found, expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    assert!(!ignores(&["*", "!a"], "a"));
    assert!(ignores(&["*", "!a", "a"], "a"));
    assert!(!ignores(&["docs", "!docs/README.md"], "docs/README.md"));
    assert!(ignores(&["docs", "!docs/README.md"], "docs/other"));
    assert!(ignores(&["!docs/README.md", "docs"], "docs/README.md"));
    assert!(!ignores(&["**", "!**/*.go"], "a/b.go"));
    assert!(ignores(&["a", "!a/b", "a/b/c"], "a/b/c"));
    assert!(!ignores(&["a", "!a/b", "a/b/c"], "a/b/d"));
    assert!(!ignores(&["*", "!a"], "a/b"));
}

#[test]
fn lines_are_cleaned() {
    let ignore = Ignore::parse(b"\xef\xbb\xbf# comment\n\n  /a/  \n! /a/b\r\n#x\n /\n").unwrap();
    assert!(ignore.ignores("a/c"));
    assert!(!ignore.ignores("a/b"));
    assert!(!ignore.ignores("# comment"));
    assert_eq!(Ignore::parse(b"!").unwrap_err(), Error::Exclamation);
    assert!(matches!(Ignore::parse(b"a\n[\n"), Err(Error::Syntax(_))));
    assert!(matches!(Ignore::parse(b"a\\"), Err(Error::Syntax(_))));
    assert!(Ignore::parse(b"").unwrap().is_empty());
}

#[test]
fn directories_without_exceptions_are_skipped() {
    for (patterns, directory, expected) in [
        (&["a"][..], "a", true),
        (&["*", "!b"], "a", true),
        (&["*", "!b"], "b", true),
        (&["*", "!b/c"], "b", false),
        (&["*", "!b/c"], "b/d", true),
        (&["*", "!b/*/c"], "b/d", false),
        (&["*", "!b/*/c"], "b/d/e", true),
        (&["*", "!**/x"], "a", false),
        (&["*", "!src/**/*.rs"], "target", true),
        (&["*", "!src/**/*.rs"], "src", false),
        (&["*", "!src/**/*.rs"], "src/a/b", false),
        (&["*", "!a*/x"], "abc", false),
        (&["*", "!a*/x"], "b", true),
        (&["*", "!a/**"], "a", false),
        (&["*", "!a?/b"], "ab", false),
    ] {
        let ignore = Ignore::new(patterns).unwrap();
        assert_eq!(ignore.can_skip(directory), expected, "{patterns:?} {directory}");
    }
}

#[test]
fn what_a_walk_finds_is_what_a_path_gives() {
    let ignore = Ignore::new(["*", "!src", "src/gen", "!src/gen/keep", "**/*.tmp"]).unwrap();
    for path in [
        "src/a",
        "src/gen/x",
        "src/gen/keep/y",
        "src/x.tmp",
        "other/x",
        "src/gen/keep/z.tmp",
    ] {
        let mut above = Matched::default();
        let mut ignored = false;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            (ignored, above) = ignore.look(&path[..end], &above);
        }
        assert_eq!(ignored, ignore.ignores(path), "{path}");
    }
    assert!(!ignore.ignores("src/gen/keep/y"));
    assert!(ignore.ignores("src/gen/keep/z.tmp"));
}

#[test]
fn hostile_patterns_take_no_longer_than_they_are() {
    let started = std::time::Instant::now();
    let path = "a".repeat(2000);
    assert!(ignores(
        &[&"a*".repeat(200), &"**/a".repeat(200)],
        &(path.clone() + "b/c")
    ));
    assert!(!ignores(&[&("*a".repeat(300) + "x")], &path));
    assert!(started.elapsed().as_secs() < 10);
}
