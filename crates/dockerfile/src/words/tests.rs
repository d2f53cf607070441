use super::*;

fn variables() -> Variables {
    [
        ("a", "1"),
        ("b", "file.tar.gz"),
        ("empty", ""),
        ("spaced", "x  y"),
        ("PATH", "/bin:/usr/bin"),
        ("Ünï", "u"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn expand(word: &str) -> Result<Words, String> {
    Lexer::new('\\')
        .expand(word, &variables(), &mut Names::default())
        .map_err(|failure| failure.what)
}

#[test]
fn words_expand_as_buildkit_expands_them() {
    for (word, text) in [
        ("plain", "plain"),
        ("$a", "1"),
        ("${a}", "1"),
        ("$a$a", "11"),
        ("$nope|", "|"),
        ("${nope}", ""),
        ("'$a'", "$a"),
        ("\"$a\"", "1"),
        ("\"'$a'\"", "'1'"),
        ("\\$a", "$a"),
        ("\"\\$a\"", "$a"),
        ("\"\\x\"", "\\x"),
        ("\"\\\"\"", "\""),
        ("\\\\", "\\"),
        ("a\\", "a"),
        ("\"a\\\\\"", "a\\"),
        ("$", "$"),
        ("$ a", "$ a"),
        ("x$", "x$"),
        ("$1x", "x"),
        ("${0}", ""),
        ("$$a", "a"),
        ("${Ünï}", "u"),
        ("${nope:-w}", "w"),
        ("${nope-w}", "w"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${a:-w}", "1"),
        ("${a:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${nope+w}", ""),
        ("${a:?no}", "1"),
        ("${empty?no}", ""),
        ("${nope:-$a}", "1"),
        ("${nope:-${nope:-${b}}}", "file.tar.gz"),
        ("${nope:-'}'}", "}"),
        ("${nope:-\"}\"}", "}"),
        ("${nope:-\\}}", "}"),
        ("\"${nope:-\"x\"}\"", "x"),
        ("${b%.*}", "file.tar"),
        ("${b%%.*}", "file"),
        ("${b#*.}", "tar.gz"),
        ("${b##*.}", "gz"),
        ("${b%'.gz'}", "file.tar"),
        ("${nope%x}", ""),
        ("${b/tar/zip}", "file.zip.gz"),
        ("${b//./-}", "file-tar-gz"),
        ("${b/nope/x}", "file.tar.gz"),
        ("${PATH//\\//_}", "_bin:_usr_bin"),
        ("${b/file/${a}}", "1.tar.gz"),
        ("${b%${nope:-gz}}", "file.tar."),
        ("${b/?/X}", "Xile.tar.gz"),
    ] {
        assert_eq!(expand(word).unwrap().text, text, "{word}");
    }
}

#[test]
fn values_are_split_and_quoted_ones_are_not() {
    for (word, words) in [
        ("a b", &["a", "b"][..]),
        ("$spaced", &["x", "y"]),
        ("\"$spaced\"", &["x  y"]),
        ("1${spaced}2", &["1x", "y2"]),
        ("a\\ b c", &["a b", "c"]),
        ("'a b' c", &["a b", "c"]),
        ("${nope:-a b}", &["a", "b"]),
        ("\"${nope:-a b}\" c", &["a b", "c"]),
        ("${empty}", &[]),
        ("  ", &[]),
    ] {
        assert_eq!(expand(word).unwrap().words, words, "{word}");
    }
}

#[test]
fn errors_are_worded_as_buildkit_words_them() {
    for (word, what) in [
        ("${", "syntax error: missing '}'"),
        ("${a:-b", "syntax error: missing '}'"),
        ("${a:-'b", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{a}}", "syntax error: bad substitution"),
        ("${:a}", "syntax error: bad substitution"),
        ("${a", "unsupported modifier (\u{fffd}) in substitution"),
        ("${a~b}", "unsupported modifier (~) in substitution"),
        ("${a:xb}", "unsupported modifier (:x) in substitution"),
        ("${nope:?}", "nope: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${nope?give one}", "nope: give one"),
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"a",
            "unexpected end of statement while looking for matching double-quote",
        ),
        ("${a/b}", "syntax error: missing '/' in ${}"),
        ("${a/b/c", "syntax error: missing '}'"),
        (
            "${a#\\x}",
            "invalid pattern (\\x) in substitution: invalid escape '\\x'",
        ),
    ] {
        assert_eq!(expand(word).unwrap_err(), what, "{word}");
    }
}

#[test]
fn the_other_escape_character_escapes() {
    let lexer = Lexer::new('`');
    let expanded = |word| lexer.expand(word, &variables(), &mut Names::default()).unwrap().text;
    assert_eq!(expanded("`$a"), "$a");
    assert_eq!(expanded("C:\\$a"), "C:\\1");
    assert_eq!(expanded("\"`\"\\\""), "\"\\");
}

#[test]
fn what_is_kept_is_kept() {
    let mut lexer = Lexer::new('\\');
    lexer.keep_unset = true;
    lexer.keep_quotes = true;
    lexer.keep_escapes = true;
    let expanded = |word| lexer.expand(word, &Variables::new(), &mut Names::default()).unwrap();
    for word in ["$a", "${a}", "${a:-b}", "${a/b/c}", "'a' \"b\" \\$c", "${a%${b#x}}"] {
        assert_eq!(expanded(word).text, word);
    }
    assert_eq!(expanded("RUN <<'A B' cat").words, ["RUN", "<<'A B'", "cat"]);
}

#[test]
fn names_are_reported_even_of_words_that_fail() {
    let mut names = Names::default();
    let result = Lexer::new('\\').expand("$a${x:-$y}${z:?}", &variables(), &mut names);
    assert!(result.is_err());
    assert_eq!(names.matched, ["a".to_owned()].into());
    assert_eq!(names.unmatched, ["x", "y", "z"].map(str::to_owned).into());
}

#[test]
fn a_hundred_thousand_braces_in_each_other_need_no_stack() {
    let depth = 100_000;
    let word = "${nope:-x".repeat(depth) + &"}".repeat(depth);
    assert_eq!(expand(&word).unwrap().text.len(), depth);
    assert!(expand(&"${nope:-".repeat(depth)).is_err());
    assert!(expand(&"${a/".repeat(depth)).is_err());
    assert!(expand(&"\"${nope:-".repeat(depth)).is_err());
}

#[test]
fn a_word_that_grows_without_end_is_refused() {
    let variables = [("a".to_owned(), "x".repeat(1 << 20))].into();
    let failure = Lexer::new('\\')
        .expand(&"$a".repeat(1000), &variables, &mut Names::default())
        .unwrap_err();
    assert!(failure.what.contains("expands to more"), "{failure}");
}
