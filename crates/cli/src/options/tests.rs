//! Against what docker CLI 28.5.2 sent for the same command lines.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::*;
use crate::{
    environment::Build,
    flags::{Arity, Spec},
};

const SPEC: Spec = Spec {
    name: "create",
    arity: Arity::AtLeast(1),
    flags: concat!(container_flags!(), "--name string | Name\n--platform string | Platform"),
    own: OWN,
    hidden: HIDDEN,
    stops_at_argument: true,
    check,
    ..Spec::EMPTY
};

fn environment(directory: &std::path::Path) -> Environment {
    Environment {
        program: "docker".into(),
        build: Build::default(),
        variables: BTreeMap::from([("HOME".into(), "/root".into())]),
        directory: directory.into(),
        default_host: "unix:///x".into(),
    }
}

/// The request's body, or the complaint.
fn body(words: &[&str], directory: &std::path::Path) -> Result<Value> {
    let words: Vec<_> = words.iter().map(Into::into).collect();
    let matches = Matches::parse(&SPEC, &words).map_err(|problem| format!("{problem:?}"))?;
    let (image, command) = matches.arguments.split_first().ok_or("no image")?;
    let create = create(&matches, &environment(directory), image, command)?;
    serde_json::to_value(create).map_err(|error| error.to_string())
}

fn text_of(words: &[&str]) -> String {
    let directory = std::path::Path::new("/base/dir");
    body(&[words, &["busybox"]].concat(), directory).unwrap().to_string()
}

fn complaint(words: &[&str]) -> String {
    body(&[words, &["busybox"]].concat(), std::path::Path::new("/base/dir")).unwrap_err()
}

#[test]
fn every_flag_ends_up_where_docker_puts_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("sec.json"),
        r#"{ "defaultAction" : "SCMP_ACT_ALLOW" }"#,
    )
    .unwrap();
    fs::write(directory.path().join("envf"), "# c\nA=1\nHOME\n  B=2 x\nUNSET\n").unwrap();
    let line = "-it|-e|A=1|-e|NOPE|-e|HOME|--env-file|envf|-l|a=b|-l|c|-m|64m|--cpus|1.5|--pids-limit|5|--ulimit|nofile=5:6|--ulimit|nproc=3|--cap-add|net_admin|--cap-drop|ALL|--security-opt|no-new-privileges|--security-opt|seccomp=sec.json|--security-opt|systempaths=unconfined|--tmpfs|/t:size=3m|--tmpfs|/u|-v|/a:/b:ro|-v|named:/c|-v|/anon|--mount|type=bind,source=/x,target=/y,readonly,bind-propagation=rslave|--mount|type=tmpfs,dst=/z,tmpfs-size=1m,tmpfs-mode=1770|--mount|type=volume,src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=x|--mount|dst=/q|--device|/dev/null|--device|/dev/zero:/dev/z:r|--device|/dev/one:rw|--device-read-bps|/dev/sda:1mb|--device-write-iops|/dev/sda:5|--network|mynet|--network-alias|al|--ip|1.2.3.4|--restart|on-failure:3|--health-cmd|true x|--health-interval|5s|--health-retries|2|--expose|99|--expose|5000-5002/udp|-p|8080:80|-p|127.0.0.1:9000-9001:90-91|-p|7000-7005:70|-p|[::1]:5:6/udp|-P|--dns|1.1.1.1|--dns-option|a|--dns-search|b|--add-host|h:1.2.3.4|--add-host|g=::1|--link|q:w|--volumes-from|v|--log-driver|json-file|--log-opt|max-size=1m|--sysctl|net.ipv4.ip_forward=1|--shm-size|1m|--stop-signal|SIGINT|--stop-timeout|3|--init|--read-only|--entrypoint|/e|--annotation|k=v|--group-add|5|--storage-opt|size=1g|--blkio-weight|100|--blkio-weight-device|/dev/sda:100|--oom-kill-disable|--oom-score-adj|5|--cpu-rt-period|1|--memory-swap|-1|--memory-swappiness|5|--device-cgroup-rule|c 1:3 mr|--runtime|r|--uts|host|--pid|host|--ipc|shareable|--userns|host|--cgroupns|private|--cgroup-parent|cp|--mac-address|92:d0:c6:0a:29:33|-w|/w|-u|5:6|-h|hn|--domainname|dn|--platform|linux/amd64|--name|x|busybox|a|b";
    let words: Vec<&str> = line.split('|').collect();
    let ours = body(&words, directory.path()).unwrap();
    let docker = include_str!("../../tests/golden/create-all.json");
    assert_eq!(ours.to_string(), docker.trim());
}

#[test]
fn a_plain_create_is_dockers_to_the_byte() {
    let ours = body(&["busybox", "a"], std::path::Path::new("/")).unwrap();
    assert_eq!(
        ours.to_string(),
        include_str!("../../tests/golden/create-plain.json").trim()
    );
}

#[test]
fn volumes_from_the_working_directory_become_absolute() {
    assert!(text_of(&["-v", "./x:/y", "-v", ".:/z"]).contains(r#""Binds":["/base/dir/x:/y","/base/dir:/z"]"#));
    // What docker takes for a Windows drive.
    assert!(text_of(&["-v", "x:rel"]).contains(r#""Volumes":{"x:rel":{}}"#));
}

#[test]
fn built_in_networks_get_an_endpoint_only_when_there_is_something_to_say() {
    let endpoints = |words: &[&str]| {
        body(&[words, &["i"]].concat(), std::path::Path::new("/")).unwrap()["NetworkingConfig"]["EndpointsConfig"]
            .clone()
    };
    assert!(endpoints(&[])["default"].is_object());
    for network in ["none", "bridge", "host", "container:x"] {
        assert_eq!(endpoints(&["--net", network]), serde_json::json!({}), "{network}");
    }
    assert_eq!(
        endpoints(&["--network", "none", "--ip", "1.2.3.4"])["none"]["IPAMConfig"]["IPv4Address"],
        "1.2.3.4"
    );
    let two = endpoints(&["--network", "name=n1,alias=a1,driver-opt=x=y", "--network", "n2"]);
    assert_eq!(
        (&two["n1"]["Aliases"][0], &two["n1"]["DriverOpts"]["x"]),
        (&"a1".into(), &"y".into())
    );
    assert!(two["n2"].is_object());
}

#[test]
fn the_last_variable_of_a_name_counts() {
    assert!(text_of(&["-e", "A=1", "-e", "B=1", "-e", "A=2"]).contains(r#""Env":["B=1","A=2"]"#));
}

#[test]
fn complaints_are_worded_as_docker_words_them() {
    for (words, text) in [
        (
            &["--rm", "--restart", "always"][..],
            "conflicting options: cannot specify both --restart and --rm",
        ),
        (
            &["--network", "n1", "--network", "bridge"],
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            &["--network-alias", "x"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (&["--mac-address", "zz"], "zz is not a valid mac address"),
        (&["-p", "abc"], "Invalid containerPort: abc"),
        (&["-p", "x:80"], "Invalid hostPort: x"),
        (
            &["-p", "1-3:1-2"],
            "Invalid ranges specified for container and host Ports: 1-2 and 1-3",
        ),
        (&["--expose", "1:2"], "invalid port format for --expose: 1:2"),
        (&["--pid", "foo"], "--pid: invalid PID mode"),
        (&["--uts", "foo"], "--uts: invalid UTS mode"),
        (&["--security-opt", "foo"], "Invalid --security-opt: \"foo\""),
        (
            &["--security-opt", "seccomp=/nope"],
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        (&["--env-file", "/nope"], "open /nope: no such file or directory"),
        (
            &["--no-healthcheck", "--health-cmd", "x"],
            "--no-healthcheck conflicts with --health-* options",
        ),
        (
            &["--health-http", ":80", "--health-cmd", "x"],
            "conflicting options: --health-cmd and --health-http: a container has one health check",
        ),
        (
            &["--health-on-failure", "explode"],
            "invalid --health-on-failure \"explode\": use none, restart, kill or stop",
        ),
        (
            &["--restart", "on-failure:x"],
            "invalid restart policy format: maximum retry count must be an integer",
        ),
        (&["--storage-opt", "foo"], "invalid storage option"),
        (
            &["--memory-swappiness", "101"],
            "invalid value: 101. Valid memory swappiness range is 0-100",
        ),
        (&["--device", "/a:/b:xyz"], "bad mode specified: xyz"),
    ] {
        assert_eq!(complaint(words), text, "{words:?}");
    }
    for (words, part) in [
        (&["--cpus", "x"][..], "failed to parse x as a rational number"),
        (&["--cpus", "0.0000000001"], "value is too precise"),
        (&["--ulimit", "foo"], "invalid ulimit argument: foo"),
        (&["--ulimit", "foo=6"], "invalid ulimit type: foo"),
        (&["--mount", "foo"], "invalid field 'foo' must be a key=value pair"),
        (&["--mount", "type=bind,src=/a"], "target is required"),
        (
            &["--mount", "type=tmpfs,dst=/x,bind-propagation=shared"],
            "cannot mix 'bind-*' options with mount type 'tmpfs'",
        ),
        (&["--sysctl", "foo"], "sysctl 'foo' is not allowed"),
        (&["--add-host", "foo"], "bad format for add-host: "),
        (&["-e", "=x"], "invalid environment variable: =x"),
        (&["-a", "foo"], "valid streams are STDIN, STDOUT and STDERR"),
    ] {
        let complaint = complaint(words);
        assert!(complaint.contains(part), "{complaint}");
    }
}

#[test]
fn hostile_values_are_refused_without_a_panic() {
    for flag in [
        "-p",
        "--expose",
        "-v",
        "--mount",
        "--network",
        "--ulimit",
        "--cpus",
        "--device",
        "--device-read-bps",
        "--add-host",
        "--gpus",
        "--restart",
        "--env",
        "--label",
        "--link",
    ] {
        for value in [
            "",
            ":",
            "::",
            "é",
            "-",
            "=",
            ",",
            "\"",
            "a=\"",
            "0-65535:0-65535",
            "99999999999999999999",
            "1/0",
            "[",
            "]:1",
            "/dev/é:é",
            "....",
            "1.1.1",
        ] {
            let _ = body(&[flag, value, "busybox"], std::path::Path::new("/"));
        }
    }
}
