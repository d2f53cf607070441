//! The command line: one thread, no logger, and an engine when there is none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use ferry_cli::{Build, Ending, Environment, Ui};

use crate::{autostart, build, refuse};

pub fn main(program: &str, args: Vec<OsString>) -> ExitCode {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let variables: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
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
    if autostart::is_wanted(&args, &environment.variables)
        && !environment.has_context()
        && let Err(error) = autostart::ensure()
    {
        return refuse(&format!("{program}: {error:#}"));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("{program}: {error}")),
    };
    let ending = runtime.block_on(ferry_cli::run(args, environment, &mut Ui::standard()));
    // What still reads or writes a file has nobody to read or write for.
    runtime.shutdown_background();
    match ending {
        Ending::Code(code) => ExitCode::from(code),
        Ending::Become(mut plugin) => {
            let error = std::os::unix::process::CommandExt::exec(&mut plugin);
            refuse(&format!("{program}: {}: {error}", plugin.get_program().display()))
        }
    }
}
