use serde_json::json;

use super::*;

fn value() -> Value {
    json!({
        "Id": "23d0558e",
        "Created": "2026-11-22T04:49:24.088903288Z",
        "Config": {
            "Env": ["A=1", "B=2"],
            "Cmd": null,
            "Labels": {"b": "2", "a.b/c": "1"},
            "Volumes": null,
            "Tty": false,
        },
        "State": {"Status": "created", "Pid": 0, "ExitCode": 3},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null},
    })
}

fn run(source: &str) -> String {
    let options = Options {
        missing: Missing::Error,
        maps: &["Labels", "Volumes", "Ports"],
        lists: &["Cmd"],
        ..Options::default()
    };
    match Template::parse(source).and_then(|template| template.execute_with(&value(), &options)) {
        Ok(text) => text,
        Err(error) => format!("ERROR {error}"),
    }
}

#[test]
fn templates_print_what_go_prints() {
    for (source, text) in [
        ("plain", "plain"),
        ("{{.Id}}", "23d0558e"),
        ("a {{ .State.Status }} b", "a created b"),
        ("{{json .State}}", r#"{"Status":"created","Pid":0,"ExitCode":3}"#),
        ("{{json .Config.Cmd}}", "null"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a.b/c:1 b:2]"),
        ("{{.Config.Labels.nope}}", "<no value>"),
        ("{{.Config.Cmd}} {{.Config.Volumes}}", "[] map[]"),
        (
            "{{index .Config.Labels \"a.b/c\"}}|{{index .Config.Labels \"x\"}}|",
            "1||",
        ),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        (
            "{{range $p, $c := .Ports}}{{$p}} -> {{range $c}}{{.HostPort}}{{else}}none{{end}};{{end}}",
            "443/tcp -> none;80/tcp -> 8080;",
        ),
        (
            "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}",
            "A=1,B=2",
        ),
        (
            "{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}",
            "B=2",
        ),
        (
            "{{with .State}}{{.Pid}}{{end}}{{with .Config.Cmd}}x{{else}}y{{end}}",
            "0y",
        ),
        (
            "{{if .Config.Tty}}t{{else if eq .State.ExitCode 3 4}}three{{else}}f{{end}}",
            "three",
        ),
        (
            "{{if and .Id (not .Config.Tty)}}yes{{end}} {{or \"\" 0 \"z\"}}",
            "yes z",
        ),
        (
            "{{$x := .Id}}{{$x}} {{$.Id}}{{range .Config.Env}}{{$x = .}}{{end}} {{$x}}",
            "23d0558e 23d0558e B=2",
        ),
        ("{{- /* c */ -}} x {{- 3 -}}  y", "x3y"),
        (
            "{{1.5}} {{0x10}} {{'a'}} {{1e3}} {{-2}} {{`r\\aw`}} {{\"q\\\"\\u00e9\"}}",
            "1.5 16 97 1000 -2 r\\aw q\"é",
        ),
        (
            "{{len .Config.Env}} {{len .Id}} {{lt 1 2}} {{ge \"a\" \"b\"}} {{ne 1 2}}",
            "2 8 true false true",
        ),
        (
            "{{join .Config.Env \",\"}} {{upper .Id}} {{lower \"AB\"}}",
            "A=1,B=2 23D0558E ab",
        ),
        ("{{title \"hello world-foo bar_baz\"}}", "Hello World-Foo Bar_baz"),
        (
            "{{split \"a,b\" \",\"}} {{truncate \"hello\" 3}} [{{pad \"x\" 1 2}}]",
            "[a b] hel [ x  ]",
        ),
        (
            "{{.Id | printf \"%-10s|%5.2s|%q\" \"ab\" \"xyz\"}}",
            "ab        |   xy|\"23d0558e\"",
        ),
        (
            "{{printf \"%05d %x %t %v %c %%\" 42 255 true .Config.Env 'x'}}",
            "00042 ff true [A=1 B=2] x %",
        ),
        (
            "{{printf \"%d\" .Id}} {{printf \"%s %d\"}} {{printf \"a\" 1}}",
            "%!d(string=23d0558e) %!s(MISSING) %!d(MISSING) a%!(EXTRA int=1)",
        ),
        ("{{print 1 2 \"a\" 3}} {{println .Id 1}}", "1 2a3 23d0558e 1\n"),
        ("{{slice .Id 0 4}} {{slice .Config.Env 1}}", "23d0 [B=2]"),
        ("{{(.State).Status}}", "created"),
    ] {
        assert_eq!(run(source), text, "{source}");
    }
}

/// Against docker inspect of Docker 28.5.2.
#[test]
fn errors_are_worded_as_docker_words_them() {
    for (source, message) in [
        ("{{.Foo", "template: :1: unclosed action"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{foo}}", "template: :1: function \"foo\" not defined"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{\"abc}}", "template: :1: unterminated quoted string"),
        ("{{.Foo!}}", "template: :1: bad character U+0021 '!'"),
        ("{{!}}", "template: :1: unexpected \"!\" in command"),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("x\n{{if .Id}}\n", "template: :3: unexpected EOF"),
        ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        (
            "{{with $y := .Id}}{{$y}}{{end}}{{$y}}",
            "template: :1: undefined variable \"$y\"",
        ),
        (
            "{{.State.Foo}}",
            "template: :1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"",
        ),
        (
            "{{.Id | .Foo}}",
            "template: :1:8: executing \"\" at <.Foo>: Foo is not a method but has arguments",
        ),
        (
            "{{.Id.Foo}}",
            "template: :1:5: executing \"\" at <.Id.Foo>: can't evaluate field Foo in type interface {}",
        ),
        (
            "{{len 3}}",
            "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int",
        ),
        (
            "{{eq 1 \"a\"}}",
            "template: :1:2: executing \"\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison: int and string",
        ),
        (
            "{{join .Id \",\"}}",
            "template: :1:7: executing \"\" at <.Id>: wrong type for value; expected []string; got string",
        ),
        (
            "{{lower 3}}",
            "template: :1:8: executing \"\" at <3>: expected string; found 3",
        ),
        (
            "{{lower}}",
            "template: :1:2: executing \"\" at <lower>: wrong number of args for lower: want 1 got 0",
        ),
        (
            "{{range .Id}}x{{end}}",
            "template: :1:8: executing \"\" at <.Id>: range can't iterate over 23d0558e",
        ),
        (
            "{{index .Config.Env 7}}",
            "template: :1:2: executing \"\" at <index .Config.Env 7>: error calling index: index out of range: 7",
        ),
        (
            "{{slice .Id 4 2}}",
            "template: :1:2: executing \"\" at <slice .Id 4 2>: error calling slice: invalid slice index: 4 > 2",
        ),
    ] {
        assert_eq!(run(source), format!("ERROR {message}"), "{source}");
    }
}

#[test]
fn a_missing_key_prints_no_value_by_default_and_a_struct_refuses_it() {
    let template = Template::parse("{{.Nope}}").unwrap();
    assert_eq!(template.execute(&json!({})).unwrap(), "<no value>");
    let options = Options {
        missing: Missing::Type("*formatter.ContainerContext"),
        ..Options::default()
    };
    assert_eq!(
        template.execute_with(&json!({}), &options).unwrap_err().to_string(),
        "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext"
    );
}

#[test]
fn structs_print_their_values_and_maps_inside_their_keys() {
    let value = json!({
        "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "a", "Gateway": "", "Aux": {"y": 1, "x": 2}}]},
        "Containers": {"b": {"Name": "n"}, "a": {"Name": ""}},
        "Config": null,
    });
    let options = Options {
        maps: &["Options", "Aux", "Containers"],
        structs: &["IPAM", "Config", "Containers"],
        ..Options::default()
    };
    let print = |text: &str| Template::parse(text).unwrap().execute_with(&value, &options).unwrap();
    assert_eq!(print("{{.IPAM}}"), "{default map[] [{a  map[x:2 y:1]}]}");
    assert_eq!(print("{{.IPAM.Config}}{{.Config}}"), "[{a  map[x:2 y:1]}][]");
    assert_eq!(print("{{.Containers}}"), "map[a:{} b:{n}]");
}

#[test]
fn methods_of_the_top_level_take_arguments() {
    let label = |name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(key)]) => Some(Ok(Value::from(format!("<{key}>")))),
        _ => None,
    };
    let options = Options {
        methods: Some(&label),
        ..Options::default()
    };
    let template = Template::parse("{{.Label \"x\"}} {{range .L}}{{$.Label .}}{{end}}").unwrap();
    assert_eq!(
        template.execute_with(&json!({"L": ["y"]}), &options).unwrap(),
        "<x> <y>"
    );
}

#[test]
fn headings_pass_through_dockers_functions() {
    let options = Options {
        header: true,
        ..Options::default()
    };
    let template = Template::parse("{{json .ID}}\t{{upper .Names}}").unwrap();
    assert_eq!(
        template
            .execute_with(&json!({"ID": "Id", "Names": "Names"}), &options)
            .unwrap(),
        "Id\tNames"
    );
}

#[test]
fn hostile_templates_end_in_an_error() {
    for source in [
        "{{".to_owned(),
        "{{(".repeat(100_000),
        format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000)),
        "{{if 1}}".repeat(5000),
        "{{/*".into(),
        "{{- ".into(),
        "{{ -}}".into(),
        "{{'".into(),
        "{{\"\\".into(),
        "{{99999999999999999999}}".into(),
        "{{é".into(),
        "{{.é}}{{$}}{{$é}}".into(),
    ] {
        let _ = Template::parse(&source).map(|template| template.execute(&value()));
    }
    assert_eq!(run("{{printf \"%99999999999d\" 1}}").len(), 1_000_000);
}

#[test]
fn templates_call_each_other_as_in_go() {
    for (source, text) in [
        (
            r#"{{define "T"}}<{{.}}>{{end}}{{template "T" .Id}}{{template "T"}}"#,
            "<23d0558e><<no value>>",
        ),
        // A definition may come later, and an empty one gives way.
        (
            r#"{{template "T" .Id}} {{define "T"}} {{end}}{{define "T"}}{{$}}{{end}}"#,
            "23d0558e ",
        ),
        (
            r#"{{range .Config.Env}}{{block "line" .}}[{{.}}]{{end}}{{end}}"#,
            "[A=1][B=2]",
        ),
        (
            r#"{{with $x := .Id}}{{template "T" $y := $x}}{{$y}}{{end}}{{define "T"}}{{$x := 1}}{{$x}}{{end}}"#,
            "123d0558e",
        ),
        (
            r#"{{define "down"}}{{range $i, $e := .}}{{if $i}}{{template "down" (slice $ $i)}}{{break}}{{else}}{{$e}};{{end}}{{end}}{{end}}{{template "down" .Config.Env}}"#,
            "A=1;B=2;",
        ),
        (r#"{{define ""}}all{{end}}"#, "all"),
        (
            "{{range .Config.Env}}{{with .}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}};{{end}}",
            "B=2;",
        ),
    ] {
        assert_eq!(run(source), text, "{source}");
    }
}

#[test]
fn calls_that_cannot_be_made_are_said_as_in_go() {
    for (source, text) in [
        (
            r#"{{template "no" .Id}}"#,
            r#"template: :1:11: executing "" at <{{template "no" .Id}}>: template "no" not defined"#,
        ),
        (
            r#"{{define "T"}}{{.nope.x}}{{end}}{{template "T" .State}}"#,
            r#"template: :1:21: executing "T" at <.nope.x>: map has no entry for key "nope""#,
        ),
        (
            r#"{{define "T"}}{{template "T" .}}{{end}}{{template "T" .}}"#,
            r#"template: :1:25: executing "T" at <{{template "T" .}}>: exceeded maximum template depth (100000)"#,
        ),
        (
            r#"{{define "T"}}a{{end}}{{define "T"}}b{{end}}"#,
            r#"template: :1: template: multiple definition of template "T""#,
        ),
        (
            r#"{{define T}}{{end}}"#,
            "template: :1: unexpected \"T\" in define clause",
        ),
        (
            r#"{{define "T" .}}{{end}}"#,
            "template: :1: unexpected <.> in define clause",
        ),
        (
            r#"{{define "T"}}{{else}}{{end}}"#,
            "template: :1: unexpected {{else}} in define clause",
        ),
        (r#"{{define "T"}}"#, "template: :1: unexpected EOF"),
        (
            r#"{{if 1}}{{define "T"}}{{end}}{{end}}"#,
            "template: :1: unexpected <define> in command",
        ),
        (
            r#"{{block "T"}}{{end}}"#,
            "template: :1: missing value for block clause",
        ),
        (r#"{{template 5}}"#, "template: :1: unexpected \"5\" in template clause"),
        (
            r#"{{$x := 1}}{{block "T" .}}{{$x}}{{end}}"#,
            "template: :1: undefined variable \"$x\"",
        ),
        (
            r#"{{range .}}{{block "T" .}}{{break}}{{end}}{{end}}"#,
            "template: :1: {{break}} outside {{range}}",
        ),
    ] {
        assert!(run(source).ends_with(text), "{source}: {}", run(source));
    }
}
