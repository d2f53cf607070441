use super::*;

const SPEC: Spec = Spec {
    name: "x",
    flags: "\
-a, --all | Show all
-f, --filter filter | Filter output
--format string | Format output using a template that is long enough to be broken into two lines at eighty columns:
 'json':   Print in JSON format
-m, --memory bytes | Memory limit
--memory-swap bytes | Swap limit
-n, --last int | Show n last
--network network | Network
--sig-proxy | Proxy signals (default true)
-t, --timeout duration | Wait so long",
    hidden: &[("net", "network"), ("time", "timeout")],
    deprecated: &["time"],
    ..Spec::EMPTY
};

fn parse(words: &[&str]) -> Result<Matches, Problem> {
    Matches::parse(&SPEC, &words.iter().map(Into::into).collect::<Vec<_>>())
}

fn complaint(words: &[&str]) -> String {
    match parse(words) {
        Err(Problem::Flag(text)) => text,
        other => format!("{other:?}"),
    }
}

#[test]
fn flags_come_in_all_of_pflags_spellings() {
    let matches = parse(&[
        "-an3",
        "--filter=a=b",
        "-f",
        "c=d",
        "-f=e=f",
        "x",
        "--memory",
        "1g",
        "--sig-proxy=false",
        "y",
        "--",
        "-a",
    ])
    .unwrap();
    assert!(matches.switch("all") && !matches.switch_or("sig-proxy", true));
    assert_eq!(matches.int("last"), Some(3));
    assert_eq!(matches.list("filter"), ["a=b", "c=d", "e=f"]);
    assert_eq!(matches.bytes("memory"), 1 << 30);
    assert_eq!(matches.arguments, ["x", "y", "-a"]);
}

#[test]
fn the_last_value_wins_and_a_value_may_look_like_a_flag() {
    let matches = parse(&[
        "--memory-swap",
        "-1",
        "-n",
        "-5",
        "-n",
        "0x10",
        "--format",
        "--all",
        "--net",
        "h",
    ])
    .unwrap();
    assert_eq!(
        (
            matches.bytes("memory-swap"),
            matches.int("last"),
            matches.text("format")
        ),
        (-1, Some(16), "--all")
    );
    assert_eq!(matches.text("network"), "h");
    assert!(!matches.switch("all"));
}

#[test]
fn arguments_end_the_flags_where_they_are_a_command() {
    let spec = Spec {
        stops_at_argument: true,
        ..SPEC
    };
    let words = ["-a", "image", "-n", "--all"].map(Into::into);
    assert_eq!(
        Matches::parse(&spec, &words).unwrap().arguments,
        ["image", "-n", "--all"]
    );
}

#[test]
fn a_deprecated_name_still_works_and_says_so() {
    let matches = parse(&["--time", "3s"]).unwrap();
    assert_eq!(matches.nanoseconds("timeout"), 3_000_000_000);
    assert_eq!(
        matches.notes,
        ["Flag --time has been deprecated, use --timeout instead"]
    );
}

#[test]
fn complaints_are_worded_as_docker_words_them() {
    for (words, text) in [
        (&["--foo"][..], "unknown flag: --foo"),
        (&["-aZ"], "unknown shorthand flag: 'Z' in -Z"),
        (&["-m"], "flag needs an argument: 'm' in -m"),
        (&["--format"], "flag needs an argument: --format"),
        (
            &["--all=x"],
            "invalid argument \"x\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            &["-m", "abc"],
            "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'",
        ),
        (
            &["-n", "x"],
            "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &["-f", "x"],
            "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
        ),
        (
            &["-t", "5"],
            "invalid argument \"5\" for \"-t, --timeout\" flag: time: missing unit in duration \"5\"",
        ),
        (&["--=x"], "bad flag syntax: --=x"),
    ] {
        assert_eq!(complaint(words), text);
    }
    assert_eq!(parse(&["--help"]).unwrap_err(), Problem::Help { deprecated: false });
    assert_eq!(parse(&["-h"]).unwrap_err(), Problem::Help { deprecated: true });
}

#[test]
fn help_is_laid_out_as_pflag_lays_it_out() {
    assert_eq!(
        flag_texts(&SPEC.definitions(), 80),
        "  -a, --all                 Show all
  -f, --filter filter       Filter output
      --format string       Format output using a template that is long
                            enough to be broken into two lines at eighty
                            columns:
                            'json':   Print in JSON format
  -n, --last int            Show n last
  -m, --memory bytes        Memory limit
      --memory-swap bytes   Swap limit
      --network network     Network
      --sig-proxy           Proxy signals (default true)
  -t, --timeout duration    Wait so long
"
    );
}
