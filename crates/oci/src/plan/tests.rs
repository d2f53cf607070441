use super::*;

const BASE: &str = r#"{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["sh"],"cwd":"/"},
    "linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#;

/// `BASE` with the JSON values in `changes` put at their dotted paths.
fn plan(changes: &[(&str, &str)]) -> Result<Plan, String> {
    let mut value: serde_json::Value = serde_json::from_str(BASE).unwrap();
    for (path, json) in changes {
        let mut place = &mut value;
        for key in path.split('.') {
            place = &mut place[key];
        }
        *place = serde_json::from_str(json).unwrap();
    }
    let config: Config = crate::config::parse(value.to_string().as_bytes()).map_err(|error| error.text())?;
    of(&config, Path::new("/bundle"), Host::default(), &mut Vec::new()).map_err(|error| error.text())
}

#[test]
fn what_a_configuration_lacks_or_misspells_is_named() {
    let table = [
        ("root", "null", "root must be specified"),
        ("process", "null", "process property must not be empty"),
        ("process.args", "[]", "args must not be empty"),
        ("process.cwd", "\"rel\"", "Cwd must be an absolute path"),
        (
            "ociVersion",
            "\"2.0.0\"",
            "ociVersion: version 2.0.0 is not supported, 1.x is",
        ),
        ("ociVersion", "null", "ociVersion: \"\" is not a semantic version"),
        (
            "hostname",
            "\"h\"",
            "unable to set hostname without a private UTS namespace",
        ),
        (
            "process.env",
            "[\"A\"]",
            "process.env: invalid environment variable \"A\": it has no name or no '='",
        ),
        (
            "process.rlimits",
            r#"[{"type":"RLIMIT_X"}]"#,
            "wrong rlimit value: RLIMIT_X",
        ),
        (
            "process.rlimits",
            r#"[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}]"#,
            "process.rlimits: RLIMIT_CPU is given twice",
        ),
        (
            "process.oomScoreAdj",
            "2000",
            "process.oomScoreAdj: 2000 is not in the range -1000 to 1000",
        ),
        ("process.scheduler", r#"{"policy":"X"}"#, "invalid scheduler policy: X"),
        (
            "process.ioPriority",
            r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#,
            "invalid ioPriority.Priority: 8",
        ),
        (
            "process.apparmorProfile",
            "\"x\"",
            "apparmor profile is specified in config, but apparmor is disabled or not supported",
        ),
        (
            "process.selinuxLabel",
            "\"x\"",
            "selinux label is specified in config, but selinux is disabled or not supported",
        ),
        (
            "linux.mountLabel",
            "\"x\"",
            "linux.mountLabel: selinux is disabled or not supported",
        ),
        (
            "linux.namespaces",
            r#"[{"type":"x"}]"#,
            "namespace \"x\" does not exist",
        ),
        (
            "linux.namespaces",
            r#"[{"type":"pid"},{"type":"pid"}]"#,
            "malformed spec file: duplicated ns \"pid\"",
        ),
        (
            "linux.namespaces",
            r#"[{"type":"user"},{"type":"mount"}]"#,
            "user namespaces enabled, but no uid mappings found",
        ),
        (
            "linux.timeOffsets",
            r#"{"monotonic":{"secs":1}}"#,
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        ),
        (
            "linux.sysctl",
            r#"{"vm.x":"1"}"#,
            "sysctl \"vm.x\" is not in a separate kernel namespace",
        ),
        (
            "linux.sysctl",
            r#"{"net.x":"1"}"#,
            "sysctl \"net.x\" not allowed in host network namespace",
        ),
        (
            "linux.rootfsPropagation",
            "\"x\"",
            "rootfsPropagation=x is not supported",
        ),
        (
            "linux.devices",
            r#"[{"path":"/dev/x","type":"z"}]"#,
            "invalid device type \"z\"",
        ),
        (
            "linux.intelRdt",
            r#"{"closID":"../x"}"#,
            "linux.intelRdt.closID: \"../x\" is not a name of a class of service",
        ),
        (
            "linux.memoryPolicy",
            r#"{"mode":"x"}"#,
            "linux.memoryPolicy.mode: \"x\" is not a memory policy",
        ),
        (
            "mounts",
            r#"[{"destination":""}]"#,
            "mounts[0]: the destination is empty",
        ),
        (
            "mounts",
            r#"[{"destination":"/y","type":"tmpfs","options":["idmap"],"uidMappings":[{"size":1}],"gidMappings":[{"size":1}]}]"#,
            "mounts[0]: id-mapped mounts are only supported for bind-mounts",
        ),
    ];
    for (path, json, message) in table {
        assert_eq!(plan(&[(path, json)]).unwrap_err(), message, "{path} = {json}");
    }
}

#[test]
fn maps_that_overflow_are_refused_before_the_kernel_sees_them() {
    let spaces = ("linux.namespaces", r#"[{"type":"user"},{"type":"mount"}]"#);
    let map = r#"[{"containerID":5,"hostID":1000,"size":4294967295}]"#;
    let error = plan(&[spaces, ("linux.uidMappings", map), ("linux.gidMappings", map)]).unwrap_err();
    assert_eq!(
        error,
        "linux.uidMappings[0]: a range of 4294967295 ids from 5 and 1000 overflows"
    );
    let many = format!("[{}]", vec![r#"{"size":1}"#; 400].join(","));
    let error = plan(&[spaces, ("linux.uidMappings", &many), ("linux.gidMappings", &many)]).unwrap_err();
    assert_eq!(error, "linux.uidMappings: 400 ranges, the kernel takes 340");
}

#[test]
fn mounts_keep_their_order_and_relative_sources_start_at_the_bundle() {
    let mounts = r#"[{"destination":"/a","source":"data","options":["rbind","ro","rnosuid","rslave"]},
        {"destination":"/b","type":"tmpfs","source":"tmpfs","options":["size=1k","tmpcopyup","shared"]}]"#;
    let plan = plan(&[("mounts", mounts)]).unwrap();
    assert_eq!(
        plan.mounts[0].source,
        Source::Bind {
            path: "/bundle/data".into(),
            recursive: true
        }
    );
    assert!(plan.mounts[0].below.recursive && plan.mounts[1].copy_up);
    assert!(plan.lifecycle.own_dev, "no mount covers /dev");
}

#[test]
fn unknown_capabilities_are_left_out_with_a_warning() {
    let text = BASE.replace(
        r#""cwd":"/""#,
        r#""cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_BOGUS","KILL"]}"#,
    );
    let config: Config = crate::config::parse(text.as_bytes()).unwrap();
    let mut warnings = Vec::new();
    let plan = of(&config, Path::new("/b"), Host::default(), &mut warnings).unwrap();
    assert_eq!(plan.process.capabilities.bounding, 1 << 5);
    assert_eq!(warnings.len(), 2);
}

#[test]
fn selinux_without_a_policy_is_none() {
    for (label, expected) in [
        ("system_u:system_r:kernel_t:s0\0", true),
        ("unconfined_u:unconfined_r:unconfined_t", true),
        ("kernel", false),
        ("kernel\0", false),
        ("kernel\n", false),
        ("", false),
        ("\0", false),
    ] {
        assert_eq!(is_of_a_policy(label.as_bytes()), expected, "{label:?}");
    }
}

/// What another runtime is told of a container of the engine's, read by this one, is the engine's plan again: nothing that
/// confines is lost on the way.
#[test]
fn a_plan_that_is_written_is_read_as_it_was() {
    use ferry_runtime::plan::{Process, Rlimit, User, devices};
    use ferry_sys::mount::{PRIVATE, STRICTATIME};
    let step = |target: &str, source: Source, set: u64, propagation: u64| Mount {
        target: target.into(),
        source,
        attributes: Attributes {
            set,
            ..Attributes::default()
        },
        explicit: 0,
        propagation,
        propagation_top: false,
        copy_up: false,
        below: Attributes::default(),
        idmap: None,
        subpath: PathBuf::new(),
    };
    let new = |kind: &str, options: &[(&str, &str)]| Source::New {
        kind: kind.to_owned(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let bind = |path: &str, recursive| Source::Bind {
        path: path.into(),
        recursive,
    };
    let nothing = NOSUID | NODEV | NOEXEC;
    let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let capabilities = ferry_runtime::plan::Capabilities {
        bounding: 0xa804_25fb,
        effective: 0xa804_25fb,
        permitted: 0xa804_25fb,
        ..ferry_runtime::plan::Capabilities::default()
    };
    let own = Device {
        path: "/dev/fuse".into(),
        kind: 'c',
        major: 10,
        minor: 229,
        mode: 0o600,
        uid: 1,
        gid: 2,
    };
    let written = Plan {
        namespaces: Namespaces {
            create: CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS,
            cgroup: true,
            join: vec![(CLONE_NEWIPC, "/proc/7/ns/ipc".into())],
            ..Namespaces::default()
        },
        hostname: Some("web".to_owned()),
        mounts: vec![
            step("/proc", new("proc", &[("source", "proc")]), nothing, 0),
            step(
                "/dev",
                new("tmpfs", &[("source", "tmpfs"), ("mode", "755"), ("size", "65536k")]),
                NOSUID | STRICTATIME,
                0,
            ),
            step("/sys/fs/cgroup", Source::Cgroup, nothing | RDONLY, 0),
            step("/data", bind("/srv/data", true), RDONLY, PRIVATE),
            step("/follows", bind("/srv", false), 0, SLAVE),
        ],
        devices: devices::defaults().chain([own]).collect(),
        masked: vec!["/proc/kcore".into(), "/sys/firmware".into()],
        readonly: vec!["/proc/sys".into()],
        readonly_root: true,
        sysctls: vec![("kernel.shmmax".to_owned(), "1".to_owned())],
        process: Process {
            args: strings(&["sh", "-c", "true"]),
            env: strings(&["PATH=/bin", "HOME=/root"]),
            cwd: "/work".into(),
            user: User::Ids {
                uid: 5,
                gid: 6,
                groups: vec![6, 7],
            },
            capabilities,
            no_new_privileges: true,
            rlimits: vec![Rlimit {
                name: "nofile".to_owned(),
                soft: 5,
                hard: u64::MAX,
            }],
            oom_score_adj: Some(7),
            umask: Some(0o27),
            terminal: true,
            size: Some((24, 80)),
            ..Process::default()
        },
        ..Plan::default()
    };
    let root = tempfile::tempdir().unwrap();
    let files = ferry_sys::Root::open(root.path()).unwrap();
    let text = ferry_runtime::spec::config(&ferry_runtime::spec::Beside {
        plan: &written,
        process: ferry_runtime::spec::process(&written.process, &files).unwrap(),
        root: Path::new("/bundle/rootfs"),
        cgroup: "ferry/c",
        resources: &oci_spec::runtime::LinuxResources::default(),
        seccomp: None,
        annotations: &std::collections::BTreeMap::new(),
        network: Some(Path::new("/bundle/network")),
        sources: &std::collections::BTreeMap::new(),
        init: None,
    })
    .to_string();
    let config: Config = crate::config::parse(text.as_bytes()).unwrap();
    assert_eq!(config.linux.as_ref().unwrap().cgroups_path.as_deref(), Some("/ferry/c"));
    let mut read = of(&config, Path::new("/bundle"), Host::default(), &mut Vec::new()).unwrap();
    let position = read
        .namespaces
        .join
        .iter()
        .position(|(flag, _)| *flag == CLONE_NEWNET)
        .unwrap();
    assert_eq!(read.namespaces.join.remove(position).1, Path::new("/bundle/network"));
    assert_eq!(read.namespaces, written.namespaces);
    assert_eq!(read.process, written.process);
    assert_eq!(
        (read.masked, read.readonly, read.readonly_root),
        (written.masked, written.readonly, true)
    );
    assert_eq!((read.hostname, read.sysctls), (written.hostname, written.sysctls));
    let sorted = |mut devices: Vec<Device>| {
        devices.sort_by(|one, other| one.path.cmp(&other.path));
        devices
    };
    assert_eq!(sorted(read.devices), sorted(written.devices));
    for (read, written) in read.mounts.iter().zip(&written.mounts) {
        assert_eq!((&read.target, &read.source), (&written.target, &written.source));
        let propagation = match (&written.source, written.propagation) {
            (Source::Bind { .. }, 0) => PRIVATE,
            (_, propagation) => propagation,
        };
        assert_eq!(
            (read.attributes.set, read.propagation),
            (written.attributes.set, propagation)
        );
    }
    let host = read.lifecycle.host_propagation.unwrap();
    assert_eq!(host.mode, SLAVE, "a mount follows the host's");
}
