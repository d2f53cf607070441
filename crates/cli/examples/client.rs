//! The command line alone, without a daemon of its own: for comparing with docker's.
//!
//! `PROGRAM=docker client -H unix:///run/docker.sock ps`

use ferry_cli::{Build, Ending, Environment, Ui};

fn main() -> std::process::ExitCode {
    let variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let environment = Environment {
        program: variables.get("PROGRAM").cloned().unwrap_or_else(|| "ferry".into()),
        build: Build {
            version: env!("CARGO_PKG_VERSION").into(),
            ..Build::default()
        },
        variables,
        directory: std::env::current_dir().unwrap_or_default(),
        default_host: "unix:///run/ferry/ferry.sock".into(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return 125.into(),
    };
    let ending = runtime.block_on(ferry_cli::run(
        std::env::args_os().skip(1).collect(),
        environment,
        &mut Ui::standard(),
    ));
    runtime.shutdown_background();
    match ending {
        Ending::Code(code) => code.into(),
        Ending::Become(mut plugin) => plugin.status().map_or(125.into(), |status| {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.unwrap_or(1).into()
        }),
    }
}
