//! What the corpus cannot show: options, and what is newer than the BuildKit that was asked.

use super::*;

fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

fn unknown(_: &Reference, _: &Platform) -> Option<Base> {
    None
}

fn options<'a>() -> Options<'a> {
    Options {
        arguments: Variables::new(),
        target: None,
        build_platform: amd64(),
        target_platform: amd64(),
        settings: None,
        ignore: None,
        base: &unknown,
    }
}

fn details(text: &str, options: &Options<'_>) -> Vec<String> {
    let report = run(text.as_bytes(), options);
    assert!(report.error.is_none(), "{:?}", report.error);
    report.warnings.into_iter().map(|warning| warning.detail).collect()
}

#[test]
fn a_base_of_another_platform_is_said() {
    let arm = |_: &Reference, _: &Platform| {
        Some(Base {
            platform: Platform::new("linux", "arm64", ""),
            ..Base::default()
        })
    };
    let options = Options {
        base: &arm,
        ..options()
    };
    assert_eq!(
        details("FROM a\n", &options),
        ["Base image a was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build"]
    );
}

#[test]
fn only_what_a_target_needs_is_looked_at() {
    let text = "FROM a AS one\nENV k v\nFROM a AS two\nENV l w\n";
    assert_eq!(details(text, &options()).len(), 2);
    let one = Options {
        target: Some("one"),
        ..options()
    };
    assert_eq!(run(text.as_bytes(), &one).warnings[0].range.lines(), 2..=2);
    let missing = Options {
        target: Some("onee"),
        ..options()
    };
    let error = run(text.as_bytes(), &missing).error.unwrap();
    assert_eq!(
        error.to_string(),
        "target stage \"onee\" could not be found (did you mean one?)"
    );
}

#[test]
fn settings_of_the_build_go_before_those_of_the_file() {
    let text = "# check=skip=all\nFROM a AS X\n";
    let settings = Settings::parse("error=true").unwrap();
    let options = Options {
        settings: Some(settings),
        ..options()
    };
    let report = run(text.as_bytes(), &options);
    assert_eq!(report.warnings.len(), 1);
    assert_eq!(
        report.error.unwrap().to_string(),
        "lint violation found for rules: StageNameCasing"
    );
}

#[test]
fn paths_that_are_not_sent() {
    let ignore = Ignore::parse(b"secret\ndocs\n!docs/README.md\n").unwrap();
    let options = Options {
        ignore: Some(&ignore),
        ..options()
    };
    let text = "# check=experimental=CopyIgnoredFile\nFROM a\nCOPY ./secret /\nCOPY docs /\nCOPY . /\nADD https://x/secret /\n";
    assert_eq!(
        details(text, &options),
        ["Attempting to Copy file \"secret\" that is excluded by .dockerignore"]
    );
}

#[test]
fn names_of_files_and_versions_are_no_secrets() {
    let text = "FROM a\nENV TOKEN_FILE=a TOKEN_VERSION=b PUBLIC_KEY=c MONKEY=d\n";
    assert_eq!(details(text, &options()), [""; 0]);
    assert_eq!(details("FROM a\nENV api_key=a\n", &options()).len(), 1);
}

#[test]
fn there_is_an_end_to_warnings() {
    let text = "FROM a\n".to_owned() + &"MAINTAINER x\n".repeat(2 * MAX_WARNINGS);
    assert_eq!(details(&text, &options()).len(), MAX_WARNINGS);
}

#[test]
fn every_rule_has_its_own_name() {
    let mut names = Rule::ALL.map(Rule::name);
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(
        Rule::StageNameCasing.url(),
        "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    );
}
