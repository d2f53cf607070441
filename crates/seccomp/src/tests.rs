//! Programs against the naive reading of their profiles.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use proptest::prelude::*;

use crate::interpreter::{Data, longest_path, run};
use crate::profile::{default_profile, parse_docker_profile};
use crate::table::{CALLS, NO};
use crate::{Arch, Error, Program, SockFilter, compile, reference};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

/// What Docker gives every container.
const DOCKER_CAPS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn caps(extra: &[&str]) -> BTreeSet<String> {
    DOCKER_CAPS.iter().chain(extra).map(|cap| (*cap).to_owned()).collect()
}

/// Every value the conditions of a profile speak of, and its neighbours, in every width.
fn interesting(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32, u64::from(u32::MAX), 0x7000_0000, 1 << 63]);
    for argument in profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|call| call.args().iter().flatten())
    {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            values.extend([
                value,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                !value,
                value | 1 << 32,
                value << 32,
            ]);
        }
    }
    values.into_iter().collect()
}

fn check(profile: &LinuxSeccomp, archs: &[Arch], program: &Program, data: &Data) -> usize {
    let (verdict, executed) = run(program, data);
    let expected = reference::verdict(profile, archs, data);
    assert_eq!(verdict, expected, "{verdict:#x} instead of {expected:#x} for {data:x?}");
    executed
}

/// Numbers whose verdict may depend on arguments, on any architecture.
fn conditional(profile: &LinuxSeccomp) -> BTreeSet<u32> {
    let calls = profile.syscalls().iter().flatten().filter(|call| call.args().is_some());
    let archs = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
    let named = calls
        .flat_map(LinuxSyscall::names)
        .flat_map(|name| archs.map(|arch| arch.number(name)));
    named.flatten().chain([102, 117]).collect()
}

fn check_all(profile: &LinuxSeccomp, archs: &[Arch]) -> (Program, usize) {
    let program = compile(profile, archs).unwrap();
    let values = interesting(profile);
    let conditional = conditional(profile);
    let far = [
        u32::MAX,
        u32::MAX - 1,
        1 << 31,
        (1 << 31) - 1,
        3 << 30,
        0x0f_0005,
        0x0f_0007,
    ];
    let mut worst = 0;
    for token in [X86_64, X86, AARCH64, ARM, 0, 0x8000_0016] {
        let x32 = if token == X86_64 { 600 } else { 1 };
        let near = (0..600).chain((1 << 30)..(1 << 30) + x32);
        for number in near.chain(far) {
            let some = if conditional.contains(&number) { values.len() } else { 1 };
            for &value in values.iter().rev().take(some) {
                for position in 0..3 {
                    let mut arguments = [0; 6];
                    arguments[position] = value;
                    worst = worst.max(check(
                        profile,
                        archs,
                        &program,
                        &Data {
                            number,
                            token,
                            arguments,
                        },
                    ));
                }
            }
        }
    }
    (program, worst)
}

#[test]
fn dockers_profile_means_what_its_json_says() {
    for (name, caps) in [
        ("default", caps(&[])),
        ("none", BTreeSet::new()),
        ("sys_admin", caps(&["CAP_SYS_ADMIN"])),
        (
            "all kinds",
            caps(&[
                "CAP_SYS_PTRACE",
                "CAP_SYS_TIME",
                "CAP_BPF",
                "CAP_SYS_NICE",
                "CAP_SYSLOG",
            ]),
        ),
    ] {
        let profile = default_profile(&caps, (6, 18), Arch::X86_64).unwrap();
        let (program, worst) = check_all(&profile, &[Arch::X86_64]);
        println!(
            "{name}: {} instructions, at most {worst} executed",
            program.filter.len()
        );
        assert!(
            worst < 60 && longest_path(&program) < 60,
            "{worst}, {}",
            longest_path(&program)
        );
        assert!(program.filter.len() < 500, "{}", program.filter.len());
        assert_eq!(program.bytes().len(), 8 * program.filter.len());
    }
}

#[test]
fn on_aarch64_too() {
    let profile = default_profile(&caps(&[]), (5, 15), Arch::Aarch64).unwrap();
    let (program, worst) = check_all(&profile, &[Arch::Aarch64]);
    println!(
        "aarch64: {} instructions, at most {worst} executed",
        program.filter.len()
    );
    assert!(longest_path(&program) < 60);
}

/// The filter of a container of the real Docker Engine 28.5.2 (runc 1.3.6, libseccomp 2.6.1, Linux 6.18), read from its
/// process by PTRACE_SECCOMP_GET_FILTER: 1281 instructions.
const DOCKERS: &[u8] = include_bytes!("../fixtures/docker-28.5.2-default.bpf");

#[test]
fn the_default_filter_decides_as_the_one_docker_loads_but_for_af_alg() {
    let instruction = |bytes: &[u8]| SockFilter {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    let dockers = Program {
        filter: DOCKERS.chunks_exact(8).map(instruction).collect(),
        flags: 0,
    };
    let profile = default_profile(&caps(&[]), (6, 18), Arch::X86_64).unwrap();
    let ours = compile(&profile, &[Arch::X86_64]).unwrap();
    let values = interesting(&profile);
    let numbers = (0..600)
        .chain((1 << 30)..(1 << 30) + 600)
        .chain([u32::MAX, 1 << 31, 3 << 30]);
    for (number, token) in numbers.flat_map(|number| [X86_64, X86, AARCH64].map(|token| (number, token))) {
        for &value in &values {
            for arguments in [[value, 0, 0, 0, 0, 0], [0, value, 0, 0, 0, 0]] {
                let data = Data {
                    number,
                    token,
                    arguments,
                };
                // What ours refuses besides: sockets of AF_ALG.
                let family = arguments[0];
                let alg = match (token, number) {
                    (X86_64, 41) => family == 38,
                    // Of 32-bit calls only the lower half of an argument counts.
                    (X86_64, 0x4000_0029) | (X86, 359) => family & 0xffff_ffff == 38,
                    _ => false,
                };
                let expected = if alg { EPERM } else { run(&dockers, &data).0 };
                assert_eq!(run(&ours, &data).0, expected, "{data:x?}");
            }
        }
    }
}

fn call(program: &Program, name: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(
        program,
        &Data {
            number: Arch::X86_64.number(name).unwrap(),
            token: X86_64,
            arguments: all,
        },
    )
    .0
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x5_0001;
const ENOSYS: u32 = 0x5_0026;

#[test]
fn dockers_well_known_decisions() {
    let default = compile(
        &default_profile(&caps(&[]), (6, 18), Arch::X86_64).unwrap(),
        &[Arch::X86_64],
    )
    .unwrap();
    assert_eq!(call(&default, "read", &[]), ALLOW);
    assert_eq!(call(&default, "mount", &[]), EPERM);
    assert_eq!(call(&default, "ptrace", &[]), ALLOW);
    assert_eq!(call(&default, "clone", &[0x1200_0000]), EPERM);
    assert_eq!(call(&default, "clone", &[0x0001_0f00]), ALLOW);
    assert_eq!(call(&default, "clone3", &[]), ENOSYS);
    assert_eq!(call(&default, "socket", &[40]), EPERM);
    // CVE-2026-31431: AF_ALG. Its neighbours stay.
    assert_eq!(call(&default, "socket", &[38]), EPERM);
    for family in [1, 2, 10, 16, 17, 37, 39, 41, 45] {
        assert_eq!(call(&default, "socket", &[family]), ALLOW, "{family}");
    }
    assert_eq!(call(&default, "personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(call(&default, "personality", &[0x0040_0000]), EPERM);
    let data = Data {
        number: 600,
        token: X86_64,
        arguments: [0; 6],
    };
    assert_eq!(run(&default, &data).0, ENOSYS);

    let admin = default_profile(&caps(&["CAP_SYS_ADMIN"]), (6, 18), Arch::X86_64).unwrap();
    let admin = compile(&admin, &[Arch::X86_64]).unwrap();
    assert_eq!(call(&admin, "mount", &[]), ALLOW);
    assert_eq!(call(&admin, "clone3", &[]), ALLOW);
    let old = compile(
        &default_profile(&caps(&[]), (4, 4), Arch::X86_64).unwrap(),
        &[Arch::X86_64],
    )
    .unwrap();
    assert_eq!(call(&old, "ptrace", &[]), EPERM);
}

fn oci(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

#[test]
fn every_action_has_its_return_value() {
    let profile = oci(r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_KILL"}, {"names": ["open"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["close"], "action": "SCMP_ACT_TRAP"}, {"names": ["stat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        {"names": ["fstat"], "action": "SCMP_ACT_TRACE", "errnoRet": 9}, {"names": ["poll"], "action": "SCMP_ACT_NOTIFY"},
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW"}, {"names": ["mmap"], "action": "SCMP_ACT_ERRNO"}],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]}"#);
    let program = compile(&profile, &[Arch::X86_64]).unwrap();
    let expected = [
        ("read", 0),
        ("open", 0x8000_0000),
        ("close", 0x3_0000),
        ("stat", 0x5_0005),
        ("fstat", 0x7ff0_0009),
        ("poll", 0x7fc0_0000),
        ("lseek", ALLOW),
        ("mmap", EPERM),
        ("brk", 0x7ffc_0000),
    ];
    for (name, value) in expected {
        assert_eq!(call(&program, name, &[]), value, "{name}");
    }
    assert_eq!(program.flags, 2 | 4 | 8);
    // A default that lets calls through gives no ENOSYS.
    let data = Data {
        number: 5000,
        token: X86_64,
        arguments: [0; 6],
    };
    assert_eq!(run(&program, &data).0, 0x7ffc_0000);
}

#[test]
fn notify_cannot_be_the_default_nor_on_write() {
    let json = r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#;
    assert!(matches!(compile(&oci(json), &[Arch::NATIVE]), Err(Error::Notify(_))));
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_NOTIFY"}, {"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    assert!(matches!(compile(&oci(json), &[Arch::NATIVE]), Err(Error::Notify(_))));
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let profile = oci(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let program = compile(&profile, &[Arch::X86_64]).unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(|v| call(&program, "read", &[v])),
        [EPERM, ALLOW, EPERM, ALLOW]
    );
}

#[test]
fn arguments_beyond_the_sixth_are_refused() {
    let profile = oci(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    assert!(matches!(
        compile(&profile, &[Arch::X86_64]),
        Err(Error::Argument { index: 6, .. })
    ));
}

#[test]
fn docker_profiles_are_refused_where_docker_refuses_them() {
    let resolve = |json: &str| parse_docker_profile(json.as_bytes())?.resolve(&caps(&[]), (6, 18), Arch::X86_64);
    assert!(matches!(resolve("{"), Err(Error::Json(_))));
    assert!(matches!(
        resolve(r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#),
        Err(Error::Json(_))
    ));
    assert!(matches!(resolve("{}"), Ok(None)));
    let both = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null}]}"#;
    let message = resolve(both).unwrap_err().to_string();
    assert_eq!(
        message,
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    );
    let names = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"name": "read", "names": ["write"], "action": "SCMP_ACT_KILL"}]}"#;
    assert!(matches!(resolve(names), Err(Error::Both("name", "names"))));
    let kernel = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["write"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "4.8.1"}}]}"#;
    assert!(matches!(resolve(kernel), Err(Error::KernelVersion(_))));
    let no_action = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["write"]}]}"#;
    assert!(resolve(no_action).is_err());
    let name = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "read", "action": "SCMP_ACT_KILL"}]}"#;
    assert_eq!(
        resolve(name).unwrap().unwrap().syscalls().as_ref().unwrap()[0].names(),
        &["read"]
    );
}

#[test]
fn a_profile_beyond_the_kernels_size_is_an_error() {
    let argument = |n: usize| format!(r#"{{"index": 0, "value": {n}, "op": "SCMP_CMP_EQ"}}"#);
    let arguments: Vec<String> = (0..2000).map(argument).collect();
    let json = format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{}]}}]}}"#,
        arguments.join(",")
    );
    assert!(matches!(compile(&oci(&json), &[Arch::X86_64]), Err(Error::TooLong(_))));
}

fn action() -> impl Strategy<Value = LinuxSeccompAction> {
    use LinuxSeccompAction as A;
    let actions = [
        A::ScmpActAllow,
        A::ScmpActErrno,
        A::ScmpActKill,
        A::ScmpActKillProcess,
        A::ScmpActTrap,
        A::ScmpActLog,
    ];
    proptest::sample::select(actions.to_vec())
}

/// Values that differ in one half only, at its edges.
fn value() -> impl Strategy<Value = u64> {
    let halves = proptest::sample::select(vec![0u64, 1, 2, 0x7000_0000, 0xffff_fffe, 0xffff_ffff]);
    (halves.clone(), halves).prop_map(|(high, low)| high << 32 | low)
}

prop_compose! {
    fn rule()(
        names in proptest::collection::vec(proptest::sample::select(CALLS.map(|(name, _)| name).to_vec()), 1..40),
        action in action(),
        errno in proptest::option::of(0u32..70_000),
        args in proptest::collection::vec((0usize..3, value(), value(), 0usize..7), 0..4),
    ) -> String {
        let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let args: Vec<_> = args.into_iter().map(|(index, value, two, op)| serde_json::json!({
            "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{}", operators[op])
        })).collect();
        serde_json::json!({"names": names, "action": action, "errnoRet": errno, "args": args}).to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_profile_compiles_to_what_it_says(
        default in action(),
        rules in proptest::collection::vec(rule(), 0..12),
        extra in 0usize..4,
        arguments in proptest::collection::vec([value(), value(), value()], 12),
    ) {
        let archs = [r#""SCMP_ARCH_X86_64""#, r#""SCMP_ARCH_X86""#, r#""SCMP_ARCH_X32""#][..extra].join(",");
        let default = serde_json::to_string(&default).unwrap();
        let profile = oci(&format!(
            r#"{{"defaultAction": {default}, "architectures": [{archs}], "syscalls": [{}]}}"#, rules.join(",")));
        match compile(&profile, &[Arch::X86_64]) {
            Ok(program) => {
                for (row, (_, numbers)) in CALLS.iter().enumerate() {
                    let [a, b, c] = arguments[row % arguments.len()];
                    let arguments = [a, b, c, 0, 0, 0];
                    let calls = [(X86_64, numbers[0]), (X86, numbers[1]), (X86_64, numbers[2] | 1 << 30)];
                    for (token, number) in calls.into_iter().filter(|(_, number)| *number != NO) {
                        check(&profile, &[Arch::X86_64], &program, &Data { number, token, arguments });
                    }
                }
                for multiplexer in [102, 117] {
                    for sub in 0..30 {
                        let arguments = [sub, arguments[0][1], arguments[0][2], 0, 0, 0];
                        let data = Data { number: multiplexer, token: X86, arguments };
                        check(&profile, &[Arch::X86_64], &program, &data);
                    }
                }
            }
            Err(error) => prop_assert!(matches!(error, Error::TooLong(_)), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_profile_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse_docker_profile(&bytes);
    }
}
