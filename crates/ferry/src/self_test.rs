//! `ferry self-test security`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::refuse;

pub fn main(args: &[OsString]) -> ExitCode {
    let options = match ferry_selftest::parse(args) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = write!(std::io::stdout(), "{}", ferry_selftest::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(text) => return refuse(&format!("ferry self-test: {text}\n\n{}", ferry_selftest::USAGE)),
    };
    let exe = Path::new("/proc/self/exe");
    let done = if options.closed {
        ferry_selftest::run(&options, exe)
    } else {
        Err(ferry_selftest::start_again(exe, args))
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(&format!("ferry self-test: {}", error.text())),
    }
}
