//! The runtime alone, for measuring it: what `ferry runtime` runs.

fn main() -> std::process::ExitCode {
    let invocation = ferry_oci::Invocation {
        program: "runc".into(),
        argv: std::env::args_os().collect(),
        skip: 1,
        env: std::env::vars_os().collect(),
    };
    ferry_oci::run(&invocation).into()
}
