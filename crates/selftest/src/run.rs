//! The command: its arguments, the lab around the attacks, and what is printed.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_sys::clone::exit_now;
use ferry_sys::exec::Signals;
use ferry_sys::{Child, SingleThreaded};
use rustix::process::Signal;
use serde_json::json;

use crate::attacks;
use crate::bundle::Bundle;
use crate::error::{During as _, Error, Result};
use crate::lab::{Lab, Plan};
use crate::outcome::{Outcome, Row};

pub const USAGE: &str = "\
Usage:  ferry self-test security [OPTIONS]

Try known attacks on an OCI runtime, on this machine and without harm to it

Options:
      --format string    Output as \"table\" or \"json\" (default \"table\")
      --runtime string   Attack another runtime with runc's command line, instead of Ferry's own
      --thorough         Let races last ten seconds instead of one
      --wrong            Set every container up wrongly: each row has to be BROKEN, which shows that it can be
";

/// How long a race lasts.
const RACE: Duration = Duration::from_millis(800);
const THOROUGH: u32 = 10;
/// Where the lab's directory is: nobody but root can make one there.
const PLACE: &str = "/run";
/// What a second start is told by.
const CLOSED: &str = "--closed";
const MARK: &str = "ferry-self-test-";
/// How long what was killed may take to be gone.
const LEAVING: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The runtime to attack; `None` is this binary's.
    pub runtime: Option<PathBuf>,
    pub format: Format,
    pub thorough: bool,
    /// Set every container up wrongly, so that every row has to fail.
    pub wrong: bool,
    /// Nothing but the standard streams is open: this is the second start.
    pub closed: bool,
}

/// Reads what stands after `self-test`. `None`: help is wanted.
pub fn parse(args: &[OsString]) -> std::result::Result<Option<Options>, String> {
    let mut options = Options::default();
    let mut topic = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        let (name, given) = match text.split_once('=') {
            Some((name, given)) => (name.to_owned(), Some(OsString::from(given))),
            None => (text.clone().into_owned(), None),
        };
        let mut value = || {
            given
                .clone()
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| format!("flag needs an argument: {name}"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(None),
            "--runtime" => options.runtime = Some(value()?.into()),
            "--format" => {
                options.format = match value()?.to_str() {
                    Some("table") => Format::Table,
                    Some("json") => Format::Json,
                    _ => return Err("--format is table or json".to_owned()),
                }
            }
            "--thorough" => options.thorough = true,
            "--wrong" => options.wrong = true,
            CLOSED => options.closed = true,
            flag if flag.starts_with('-') => return Err(format!("unknown flag: {flag}")),
            _ if topic.is_none() => topic = Some(text.into_owned()),
            _ => return Err(format!("unexpected argument: {text}")),
        }
    }
    match topic.as_deref() {
        Some("security") => Ok(Some(options)),
        Some(other) => Err(format!("there is no self-test {other:?}; there is: security")),
        None => Ok(None),
    }
}

/// Starts this command again without what its caller has left open, whose numbers the lab needs. Returns only on failure.
pub fn start_again(exe: &Path, args: &[OsString]) -> Error {
    let words = ["ferry", "self-test"].iter().map(|word| word.as_bytes().to_vec());
    let args = args.iter().map(|arg| arg.as_bytes().to_vec());
    let argv = words.chain(args).chain([CLOSED.as_bytes().to_vec()]);
    let argv: std::result::Result<Vec<CString>, _> = argv.map(CString::new).collect();
    let source = match (CString::new(exe.as_os_str().as_bytes()), argv) {
        (Ok(exe), Ok(argv)) => match ferry_sys::exec::close_on_exec_from(3) {
            Ok(()) => ferry_sys::exec::execve(&exe, &argv, &[]),
            Err(error) => error,
        },
        _ => std::io::ErrorKind::InvalidInput.into(),
    };
    Error::Io {
        what: "start again".to_owned(),
        source,
    }
}

/// Does it and prints it. Whether no attack got through.
///
/// `exe` is this binary. The caller has one thread, and the process is this command's alone: all signals get blocked.
pub fn run(options: &Options, exe: &Path) -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let pid = std::process::id();
    let mark = format!("{MARK}{pid}");
    let plan = Plan {
        dir: Path::new(PLACE).join(&mark),
        exe: exe.to_owned(),
        runtime: options.runtime.as_ref().map(|path| located(path)).transpose()?,
        wrong: options.wrong,
        race: if options.thorough { RACE * THOROUGH } else { RACE },
        mark,
    };
    sweep();
    fs::create_dir(&plan.dir).during(|| format!("make {}", plan.dir.display()))?;
    let outside = Outside { plan: &plan };
    let proof = SingleThreaded::check().during(|| "check the number of threads")?;
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
    ];
    let clone = ferry_sys::clone::Options {
        namespaces: namespaces.iter().map(|&flag| u64::from(flag.unsigned_abs())).sum(),
        ..ferry_sys::clone::Options::default()
    };
    // From here on a signal ends the lab and not this process, which has to tidy up.
    let signals = Signals::block_all().during(|| "block signals")?;
    match ferry_sys::clone::clone(&proof, &clone).during(|| "make namespaces for the lab")? {
        // No destructor of the outside may run in here.
        None => exit_now(inside(&plan, options.format)),
        Some(child) => outside.wait(&child, &signals),
    }
}

/// A runtime by path, or by name in the usual places.
fn located(runtime: &Path) -> Result<PathBuf> {
    let usual = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    let named = runtime.components().count() == 1 && !runtime.starts_with(".");
    let found = named
        .then(|| {
            usual
                .iter()
                .map(|dir| Path::new(dir).join(runtime))
                .find(|path| path.is_file())
        })
        .flatten();
    let path = found.unwrap_or_else(|| runtime.to_owned());
    std::path::absolute(&path).during(|| format!("find {}", path.display()))
}

/// The process that stays outside of the lab and tidies up after it.
struct Outside<'a> {
    plan: &'a Plan,
}

impl Outside<'_> {
    /// Whether the lab's process ended well.
    fn wait(&self, child: &Child, signals: &Signals) -> Result<bool> {
        let what = || "wait for the lab";
        loop {
            if let Some(exit) = child.wait(false).during(what)? {
                return Ok(exit.code() == 0);
            }
            let signal = signals.wait();
            if [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&signal) {
                // With its first process everything in the PID namespace goes.
                child.signal(libc::SIGKILL).during(what)?;
                child.wait(true).during(what)?;
                return Ok(false);
            }
        }
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let end = Instant::now() + LEAVING;
        while !remove_cgroups(&self.plan.mark) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_dir(&self.plan.dir);
    }
}

/// Removes what is left of labs whose outside was killed.
fn sweep() {
    for entry in fs::read_dir(PLACE).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(MARK)?.parse::<u32>().ok());
        if let (Some(pid), Some(mark)) = (pid, name.to_str())
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            remove_cgroups(mark);
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Removes the lab's control groups in every hierarchy; whether there is none left.
fn remove_cgroups(mark: &str) -> bool {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut gone = true;
    for hierarchy in hierarchies.chain([top.to_owned()]) {
        let group = hierarchy.join(mark);
        if group.is_dir() {
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            gone &= fs::remove_dir(&group).is_ok();
        }
    }
    gone
}

/// In the lab, as its first process; the exit status.
fn inside(plan: &Plan, format: Format) -> i32 {
    // It must not go on without the one who tidies up.
    let _ = ferry_sys::exec::reset_signals();
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    match attack(plan, format) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ferry self-test: {}", error.text());
            1
        }
    }
}

fn attack(plan: &Plan, format: Format) -> Result<bool> {
    let lab = Lab::enter(plan)?;
    let name = match &plan.runtime {
        Some(path) => path.display().to_string(),
        None => "ferry runtime".to_owned(),
    };
    let plain = Bundle::new(&lab)?.run(&["ids"])?;
    if !plain.ran() {
        return Err(Error::Useless {
            runtime: name,
            said: plain.said(),
        });
    }
    if format == Format::Table {
        print(&format!("Attacks on {name}\n\n"));
    }
    let begun = Instant::now();
    let mut rows = Vec::new();
    for attack in attacks::all() {
        let begun = Instant::now();
        let outcome = (attack.run)(&lab).unwrap_or_else(|error| Outcome::Skipped(error.text()));
        let row = Row {
            attack,
            outcome,
            time: begun.elapsed(),
        };
        reap();
        if format == Format::Table {
            print(&row.line());
        }
        rows.push(row);
    }
    let count = |word: &str| rows.iter().filter(|row| row.outcome.word() == word).count();
    let (held, broken, skipped) = (count("held"), count("BROKEN"), count("skipped"));
    match format {
        Format::Table => print(&format!(
            "\n{held} held, {broken} broken, {skipped} skipped, in {:.1} s\n",
            begun.elapsed().as_secs_f64()
        )),
        Format::Json => {
            let rows: Vec<_> = rows.iter().map(Row::json).collect();
            let report =
                json!({ "runtime": name, "held": held, "broken": broken, "skipped": skipped, "attacks": rows });
            print(&format!("{report:#}\n"));
        }
    }
    Ok(broken == 0)
}

/// Containers whose parents are gone have come to this process.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> std::result::Result<Option<Options>, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn flags_stand_anywhere_and_take_their_value_both_ways() {
        let options = parsed("--format=json security --runtime /usr/bin/runc --thorough")
            .unwrap()
            .unwrap();
        assert_eq!(options.runtime, Some("/usr/bin/runc".into()));
        assert!(options.format == Format::Json && options.thorough && !options.wrong);
        assert_eq!(parsed("security"), Ok(Some(Options::default())));
    }

    #[test]
    fn without_a_topic_there_is_help_and_other_words_are_refused() {
        for line in ["", "--help", "security -h"] {
            assert_eq!(parsed(line), Ok(None), "{line}");
        }
        for line in [
            "speed",
            "security twice",
            "security --fast",
            "security --format xml",
            "security --runtime",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<&str> = attacks::all().map(|attack| attack.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
