//! The command line: one thread, no logger, and an engine when there is none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use ferry_cli::{Build, Environment, Ui};

use crate::{autostart, build, refuse};

pub fn main(program: &str, args: Vec<OsString>) -> ExitCode {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let variables: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
    if autostart::is_wanted(&args, &variables)
        && let Err(error) = autostart::ensure()
    {
        return refuse(&format!("{program}: {error:#}"));
    }
    let environment = Environment {
        program: program.to_owned(),
        build: Build {
            version: build::VERSION.to_owned(),
            ..Build::default()
        },
        variables,
        directory: std::env::current_dir().unwrap_or_default(),
        default_host: format!("unix://{}", autostart::SOCKET),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("{program}: {error}")),
    };
    let code = runtime.block_on(ferry_cli::run(args, environment, &mut Ui::standard()));
    // What still reads or writes a file has nobody to read or write for.
    runtime.shutdown_background();
    ExitCode::from(code)
}
