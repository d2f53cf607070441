//! Global options, and which command it is.

use std::ffi::OsString;
use std::io::Write as _;

use crate::commands::{self, Command};
use crate::error::{Error, Result};
use crate::flags::{self, Flag, Order, Parsed, switch, value};
use crate::log::Log;
use crate::state::{Root, VERSION};

/// How the runtime was called.
#[derive(Debug, Default)]
pub struct Invocation {
    /// The name to print: `runc`, or `ferry runtime`.
    pub program: String,
    /// All arguments, to start the same again from a protected copy; the first `skip` are not the runtime's.
    pub argv: Vec<OsString>,
    pub skip: usize,
    pub env: Vec<(OsString, OsString)>,
    /// Tells which build this is, for `--version`.
    pub build: Option<fn() -> String>,
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub invocation: &'a Invocation,
    pub root: Root,
    pub log: Log,
    /// Permission errors of cgroups are no reason to stop.
    pub rootless: bool,
}

impl Context<'_> {
    pub fn var(&self, name: &str) -> Option<&str> {
        let (_, value) = self.invocation.env.iter().find(|(key, _)| key == name)?;
        value.to_str()
    }

    /// The caller's environment, for hooks that have none of their own.
    pub fn environment(&self) -> Vec<String> {
        let entry = |(name, value): &(std::ffi::OsString, std::ffi::OsString)| {
            format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
        };
        self.invocation.env.iter().map(entry).collect()
    }

    pub fn c_environment(&self) -> Result<Vec<std::ffi::CString>> {
        let entries = self.environment().into_iter().map(std::ffi::CString::new);
        let strings: std::result::Result<_, _> = entries.collect();
        strings.map_err(|_| Error::Invalid("a null byte in the environment".to_owned()))
    }
}

const GLOBAL: [Flag; 9] = [
    switch("debug", "", "enable debug logging"),
    value(
        "log",
        "",
        "set the log file to write logs to (default is '/dev/stderr')",
    ),
    value(
        "log-format",
        "",
        "set the log format ('text' (default), or 'json') (default: \"text\")",
    ),
    value(
        "root",
        "",
        "root directory for storage of container state (default: \"/run/ferry-oci\")",
    ),
    value("criu", "", "not used"),
    switch(
        "systemd-cgroup",
        "",
        "not supported: cgroups are made by this runtime itself",
    ),
    value(
        "rootless",
        "",
        "ignore cgroup permission errors ('true', 'false', or 'auto') (default: \"auto\")",
    ),
    switch("version", "v", "print the version"),
    switch("help", "h", "show help"),
];

/// Runs the command to its end; gives the exit status.
pub fn run(invocation: &Invocation) -> u8 {
    let args: Vec<String> = invocation
        .argv
        .iter()
        .skip(invocation.skip)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut log = Log::default();
    match dispatch(invocation, &args, &mut log) {
        Ok(status) => status,
        Err((error, status)) => {
            log.error(&error.text());
            status
        }
    }
}

fn dispatch(invocation: &Invocation, args: &[String], log: &mut Log) -> Result<u8, (Error, u8)> {
    let fatal = |error: Error| (error, 1);
    let globals = flags::parse(&GLOBAL, args, Order::First).map_err(fatal)?;
    *log = Log::open(globals.get("log"), globals.get("log-format"), globals.is_set("debug")).map_err(fatal)?;
    if globals.is_set("version") {
        print(&format!(
            "{} version {}\ncommit: {}\nspec: {VERSION}\n",
            invocation.program,
            env!("CARGO_PKG_VERSION"),
            invocation.build.map_or_else(String::new, |build| build())
        ));
        return Ok(0);
    }
    let Some((name, rest)) = globals.positional.split_first().filter(|_| !globals.help) else {
        print(&usage(&invocation.program));
        return Ok(0);
    };
    let (command, parsed) = match find(name, rest, &globals) {
        Ok(found) => found,
        Err(Found::Help(text)) => {
            print(&format!("NAME:\n   {} {text}", invocation.program));
            return Ok(0);
        }
        Err(Found::Nothing) => {
            if name == "help" || name == "h" {
                print(&usage(&invocation.program));
                return Ok(0);
            }
            return Err((Error::Invalid(format!("No help topic for '{name}'\n")), 3));
        }
        Err(Found::Wrong(command, error)) => {
            let text = command.help();
            print(&format!(
                "Incorrect Usage.\n\nNAME:\n   {} {text}\n",
                invocation.program
            ));
            return Err((error, command.failure));
        }
    };
    let failed = |error: Error| {
        let error = match command.prefix {
            "" => error,
            prefix => Error::Command {
                prefix,
                source: Box::new(error),
            },
        };
        (error, command.failure)
    };
    if globals.is_set("systemd-cgroup") {
        let text = "--systemd-cgroup is not supported: this runtime has no systemd driver yet, use the cgroupfs driver";
        return Err(failed(Error::Invalid(text.to_owned())));
    }
    let rootless = match globals.get("rootless").unwrap_or("auto") {
        "auto" => !rustix::process::geteuid().is_root() || in_user_namespace(),
        "true" => true,
        "false" => false,
        other => {
            let text = format!("invalid boolean value {other:?} for -rootless: expected true, false or auto");
            return Err(failed(Error::Invalid(text)));
        }
    };
    let mut context = Context {
        invocation,
        root: root_directory(invocation, &globals),
        log: std::mem::take(log),
        rootless,
    };
    // The binary holds far more than the runtime, and its code is mapped in wide strips: what the way here took is given
    // back, here and between the stages of the larger commands.
    ferry_sys::exe::release_code();
    let done = (command.run)(&mut context, &parsed);
    *log = context.log;
    done.map_err(failed)
}

enum Found {
    Help(String),
    Nothing,
    Wrong(&'static Command, Error),
}

fn find(name: &str, rest: &[String], _globals: &Parsed) -> Result<(&'static Command, Parsed), Found> {
    let command = commands::ALL
        .iter()
        .find(|command| command.name == name)
        .ok_or(Found::Nothing)?;
    let parsed = flags::parse(command.flags, rest, command.order).map_err(|error| Found::Wrong(command, error))?;
    if parsed.help {
        return Err(Found::Help(command.help()));
    }
    match command.check_arguments(&parsed) {
        Ok(()) => Ok((command, parsed)),
        Err(error) => Err(Found::Wrong(command, error)),
    }
}

fn root_directory(invocation: &Invocation, globals: &Parsed) -> Root {
    if let Some(root) = globals.get("root") {
        // Commands change directory.
        return Root(std::path::absolute(root).unwrap_or_else(|_| root.into()));
    }
    let variable = |name: &str| {
        invocation
            .env
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    match variable("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root()) {
        Some(directory) => Root(std::path::Path::new(&directory).join("ferry-oci")),
        None => Root("/run/ferry-oci".into()),
    }
}

/// The first user namespace maps every id to itself.
fn in_user_namespace() -> bool {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = text.split_whitespace();
    !matches!(
        (fields.next(), fields.next(), fields.next()),
        (Some("0"), Some("0"), Some("4294967295"))
    )
}

/// Standard output; a reader that is gone is no failure of the command.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn usage(program: &str) -> String {
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\nUSAGE:\n   {program} [global options] command [command \
         options] [arguments...]\n\nCOMMANDS:\n"
    );
    for command in commands::ALL {
        text.push_str(&format!("   {:<12}{}\n", command.name, command.about));
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(&commands::describe(&GLOBAL));
    text
}
