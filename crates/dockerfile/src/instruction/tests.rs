use std::time::Duration;

use super::*;
use crate::words::Variables;
use crate::{Dockerfile, Stage};

fn stage(text: &str) -> Stage {
    Dockerfile::parse(format!("FROM a\n{text}\n").as_bytes())
        .unwrap()
        .stages
        .remove(0)
}

fn command(text: &str) -> Command {
    stage(text).instructions.remove(0).command
}

fn error(text: &str) -> String {
    Dockerfile::parse(format!("FROM a\n{text}\n").as_bytes())
        .unwrap_err()
        .to_string()
}

fn run(text: &str) -> Run {
    match command(text) {
        Command::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn flags_of_add_and_copy_are_kept() {
    let Command::Copy(copy) =
        command("COPY --from=b --chown=1:$g --chmod=u=rwX --link --parents --exclude=*.md --exclude=x a \"b c\" /d/")
    else {
        panic!("no COPY")
    };
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!(copy.chown.as_deref(), Some("1:$g"));
    assert_eq!(copy.chmod.as_deref(), Some("u=rwX"));
    assert!(copy.link && copy.parents);
    assert_eq!(copy.exclude, ["*.md", "x"]);
    assert_eq!(copy.sources, ["a", "\"b", "c\""]);
    assert_eq!(copy.destination, "/d/");
    let Command::Add(add) = command("ADD --checksum=x --keep-git-dir=false --unpack --link=false u /d") else {
        panic!("no ADD")
    };
    assert_eq!(
        (add.keep_git_dir, add.unpack, add.link),
        (Some(false), Some(true), false)
    );
    assert_eq!(add.checksum.as_deref(), Some("x"));
}

#[test]
fn documents_of_copy_are_files() {
    let Command::Copy(copy) = command("COPY <<-one a <<'t o' /d/\n\tx $v\n\tone\n\ty $v\nt o") else {
        panic!("no COPY")
    };
    assert_eq!(copy.sources, ["a", "<<'t", "o'"]);
    assert_eq!(copy.documents[0].name, "one");
    assert_eq!(copy.documents[0].content, b"x $v\n");
    let Command::Copy(copy) = command("COPY <<A <<\"B\" /d/\n$v\nA\n$v\nB") else {
        panic!("no COPY")
    };
    let values = variables(&[("v", "1")]);
    let mut expander = Expander::new('\\', &values);
    let Command::Copy(copy) = Command::Copy(copy).expand(&mut expander).unwrap() else {
        panic!("no COPY")
    };
    assert_eq!(copy.documents[0].content, b"1\n");
    assert_eq!(copy.documents[1].content, b"$v\n");
}

#[test]
fn scripts_are_what_the_shell_gets() {
    assert_eq!(run("RUN x").script(), None);
    assert_eq!(
        run("RUN <<E\na\nb\nE").script(),
        Some(Script::Shell(b"a\nb\n".to_vec()))
    );
    assert_eq!(run("RUN <<-E\n\ta\n\tE").script(), Some(Script::Shell(b"a\n".to_vec())));
    assert_eq!(
        run("RUN <<E\n#!/bin/x\na\nE").script(),
        Some(Script::Program {
            name: "E".to_owned(),
            content: b"#!/bin/x\na\n".to_vec()
        })
    );
    assert_eq!(
        run("RUN cat <<A - <<B\na\nA\nb\nB").script(),
        Some(Script::Shell(b"cat <<A - <<B\na\nA\nb\nB".to_vec()))
    );
}

#[test]
fn commands_have_two_forms() {
    assert_eq!(
        command("CMD [\"a\", \"b\"]"),
        Command::Cmd(CommandLine::Exec(vec!["a".into(), "b".into()]))
    );
    assert_eq!(
        command("CMD a  \"b\""),
        Command::Cmd(CommandLine::Shell("a  \"b\"".into()))
    );
    assert_eq!(command("CMD [a]"), Command::Cmd(CommandLine::Shell("[a]".into())));
    assert_eq!(
        command("ENTRYPOINT"),
        Command::Entrypoint(CommandLine::Shell(String::new()))
    );
    assert_eq!(command("run true"), Command::Run(run("RUN true")));
}

#[test]
fn mounts_of_all_kinds() {
    let values = variables(&[("dir", "/x"), ("id", "i")]);
    let mounts = |flags: &str| {
        run(&format!("RUN {flags} x"))
            .mounts(&mut Expander::new('\\', &values))
            .unwrap()
    };
    let mount = |flag: &str| mounts(&format!("--mount={flag}")).remove(0);
    assert_eq!(
        mount("target=$dir,source=s,from=b,rw"),
        Mount {
            from: "b".into(),
            source: "s".into(),
            target: "/x".into(),
            ..Mount::default()
        }
    );
    assert!(mount("target=/a").read_only);
    assert_eq!(
        mount("type=cache,id=$id,dst=/c,sharing=locked,mode=0750,uid=1,gid=2"),
        Mount {
            kind: MountKind::Cache,
            id: "i".into(),
            target: "/c".into(),
            sharing: Some(Sharing::Locked),
            mode: Some(0o750),
            uid: Some(1),
            gid: Some(2),
            ..Mount::default()
        }
    );
    assert_eq!(mount("type=tmpfs,target=/t,size=2m").size, 2 << 20);
    let secret = mount("type=secret,id=s,env=TOKEN,required");
    assert_eq!((secret.env.as_deref(), secret.required), (Some("TOKEN"), true));
    assert_eq!(mount("type=ssh").kind, MountKind::Ssh);
    assert_eq!(mounts("--mount=type=cache,target=a --mount=target=b").len(), 2);
    assert_eq!(mount("type=cache,target=a").place("/w").unwrap(), "/w/a");
    assert!(mount("type=cache,target=..").place("/w").is_err());
}

#[test]
fn devices_have_names() {
    let values = Variables::new();
    let devices = |flag: &str| run(&format!("RUN --device={flag} x")).devices(&mut Expander::new('\\', &values));
    let device = |name: &str, required| Device {
        name: name.to_owned(),
        required,
    };
    assert_eq!(devices("v.com/gpu=all").unwrap(), [device("v.com/gpu=all", false)]);
    assert_eq!(devices("name=v.com/gpu,required").unwrap(), [device("v.com/gpu", true)]);
    assert!(devices("required").is_err());
    assert!(devices("a,b").is_err());
}

#[test]
fn networks_and_security_are_known_or_refused() {
    let found = run("RUN --network=none --security=insecure x");
    assert_eq!((found.network, found.security), (Network::None, Security::Insecure));
    assert!(error("RUN --security=x y").ends_with("security \"x\" is not valid"));
}

#[test]
fn health_checks_have_times() {
    let Command::Healthcheck(Healthcheck::Command {
        interval,
        retries,
        command,
        ..
    }) = command("HEALTHCHECK --interval=1m30s --retries=3 CMD [\"x\"]")
    else {
        panic!("no command")
    };
    assert_eq!((interval, retries), (Duration::from_secs(90), 3));
    assert_eq!(command, CommandLine::Exec(vec!["x".into()]));
    assert_eq!(
        super::tests::command("HEALTHCHECK none"),
        Command::Healthcheck(Healthcheck::None)
    );
}

#[test]
fn ports_are_ranges() {
    for (text, first, last, protocol) in [
        ("80", 80, 80, "tcp"),
        ("80-90/UDP", 80, 90, "udp"),
        ("127.0.0.1:1-2:3-4/sctp", 3, 4, "sctp"),
        ("[::1]:80:80", 80, 80, "tcp"),
    ] {
        let port = Port::parse(text).unwrap();
        assert_eq!(
            (port.first, port.last, port.protocol.as_str()),
            (first, last, protocol),
            "{text}"
        );
    }
}

#[test]
fn arguments_pairs_and_triggers() {
    let Command::Arg(arguments) = command("ARG a b=c d=\"e f\"") else {
        panic!("no ARG")
    };
    let defaults: Vec<_> = arguments.iter().map(|argument| argument.default.as_deref()).collect();
    assert_eq!(defaults, [None, Some("c"), Some("\"e f\"")]);
    assert_eq!(
        command("onbuild  copy <<E /x\nhi\nE"),
        Command::Onbuild("copy <<E /x\nhi\nE".into())
    );
    let trigger = crate::trigger("copy <<E /x\nhi\nE", crate::Range::default()).unwrap();
    let Command::Copy(copy) = trigger.command else {
        panic!("no COPY")
    };
    assert_eq!(copy.documents[0].content, b"hi\n");
}

#[test]
fn stages_have_names_and_descriptions() {
    let file = Dockerfile::parse(
        b"# v the version\nARG v=1\n# Base nothing\n# base where it begins\nFROM --platform=$P x:$v AS Base\nRUN a\nfrom base\n",
    )
    .unwrap();
    assert_eq!(file.arguments[0].argument.description, "the version");
    let base = &file.stages[0];
    assert_eq!(base.name.as_deref(), Some("base"));
    assert_eq!((base.base.as_str(), base.platform.as_deref()), ("x:$v", Some("$P")));
    assert_eq!(base.description, "where it begins");
    assert_eq!(base.range.lines(), 5..=5);
    assert_eq!(base.instructions[0].range.lines(), 6..=6);
    assert_eq!(file.stages[1].title(1), "stage-1");
    assert_eq!(
        (file.stage("BASE"), file.stage("1"), file.stage("2")),
        (Some(0), Some(1), None)
    );
}

#[test]
fn what_an_instruction_does_not_know_is_refused_by_name() {
    for (text, message) in [
        ("COPY --chownn=a b c", "unknown flag: --chownn (did you mean chown?)"),
        ("CMD --x a", "unknown flag: --x"),
        ("WORKDIR --x /a", "unknown flag: --x"),
        (
            "RUN --mount=type=bind,from=$x y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("FRMO x", "unknown instruction: FRMO (did you mean FROM?)"),
    ] {
        assert_eq!(error(text), format!("dockerfile parse error on line 2: {message}"));
    }
}
