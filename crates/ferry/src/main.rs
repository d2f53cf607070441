//! The one binary: argv decides which program it is, before any thread exists.
//!
//! ```text
//! argv[0]  docker-init                    the first process of `--init` containers
//!          dockerd                        daemon
//!          runc                           the OCI runtime
//! argv[1]  runtime · --root · --log       the OCI runtime
//!          shim · init · hello · daemon   plain single-threaded Rust, as the runtime is, but for the daemon
//!          self-test · probe              attacks on a runtime, and what runs in their containers
//!          registry                       a registry of its own, without an engine
//! else                                    the command line, on a single-threaded runtime
//! ```

mod autostart;
mod build;
mod command_line;
mod daemon;
mod hello;
mod registry;
mod self_test;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
compile_error!(
    "ferry must be linked statically, because it starts itself inside containers: build in the repository, whose \
     .cargo/config.toml sets `target = \"host-tuple\"` and `-C target-feature=+crt-static`"
);

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let name = Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("ferry");
    match (name, args.first().and_then(|first| first.to_str())) {
        ("docker-init", _) => init(&args),
        ("dockerd", _) => daemon::main(&args),
        ("runc", _) => oci("runc", 1),
        ("docker", _) => command_line::main("docker", args),
        (_, Some("shim")) => match ferry_supervise::shim::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&format!("ferry shim: {error}")),
        },
        (_, Some("runtime")) => oci("ferry runtime", 2),
        // A link named runc that was resolved before it was run: no flag of the command line is called so.
        (_, Some("--root" | "--log" | "--log-format" | "--systemd-cgroup" | "--rootless")) => oci("runc", 1),
        (_, Some("init")) => init(&args[1..]),
        (_, Some("hello")) => hello::main(),
        (_, Some("self-test")) => self_test::main(&args[1..]),
        (_, Some("probe")) => ferry_selftest::probe(&args[1..]).into(),
        (_, Some("registry")) => registry::main(&args[1..]),
        (_, Some("daemon")) => daemon::main(&args[1..]),
        _ => command_line::main("ferry", args),
    }
}

/// The OCI runtime; the first `skip` arguments are not its own.
fn oci(program: &str, skip: usize) -> ExitCode {
    let invocation = ferry_oci::Invocation {
        program: program.to_owned(),
        argv: std::env::args_os().collect(),
        skip,
        env: std::env::vars_os().collect(),
        build: Some(build::id),
    };
    ferry_oci::run(&invocation).into()
}

/// PID 1 of a container with `--init`: `docker-init -- program arguments`.
fn init(args: &[OsString]) -> ExitCode {
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let rest = match args.first() {
        Some(dashes) if dashes == "--" => &args[1..],
        _ => args,
    };
    let args: Vec<String> = rest.iter().map(text).collect();
    let env: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", text(&name), text(&value)))
        .collect();
    ExitCode::from(u8::try_from(ferry_runtime::pid1::run(&args, &env)).unwrap_or(1))
}

fn refuse(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
