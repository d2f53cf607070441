//! What the runtime, or who called it, has open; and working directories that lead there.

use crate::bundle::Bundle;
use crate::call::Ended;
use crate::error::Result;
use crate::lab::{CANARY, LEAKED, Lab};
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "inherited-fds",
        family: "F1",
        cves: &["2024-21626"],
        what: "descriptors of the runtime and of its caller are looked for in run and exec",
        run: inherited,
    },
    Attack {
        name: "run-cwd-fd",
        family: "F1",
        cves: &["2024-21626"],
        what: "run with the working directory /proc/self/fd/N, N from 3 to 64, also behind a link",
        run: run_in,
    },
    Attack {
        name: "exec-cwd-fd",
        family: "F1",
        cves: &["2024-21626"],
        what: "exec with the working directory /proc/self/fd/N, N from 3 to 64",
        run: exec_in,
    },
    Attack {
        name: "handed-cwd-fd",
        family: "F1",
        cves: &["2024-21626"],
        what: "a directory of the host that is handed in becomes the working directory",
        run: handed_in,
    },
];

const FIRST: i32 = 3;
const LAST: i32 = 64;

fn inherited(lab: &Lab) -> Result<Outcome> {
    let preserve = format!("--preserve-fds={}", LEAKED.end - FIRST);
    let wrong: &[&str] = if lab.wrong { &[&preserve] } else { &[] };
    let mut bundle = Bundle::new(lab)?;
    let ended = bundle.run_with(wrong, &["fds"])?.must()?;
    if let Some(open) = open(&ended) {
        return Outcome::broken(format!("run: {open}"));
    }
    let mut bundle = Bundle::new(lab)?;
    bundle.up(&["sleep"])?;
    let ended = bundle.exec(wrong, &["fds"])?.must()?;
    Ok(open(&ended).map(|open| format!("exec: {open}")).into())
}

fn open(ended: &Ended) -> Option<String> {
    let open = ended.of("fds")?;
    (!open.is_empty()).then(|| format!("open in the container: {open}"))
}

/// Where a program that was let run has found itself.
fn misled(ended: &Ended) -> Option<String> {
    if !ended.ran() {
        return None;
    }
    let directory = ended.of("cwd").unwrap_or_default();
    let canary = ended.of("read=canary").unwrap_or_default();
    if canary.contains(CANARY) {
        return Some(format!(
            "a file of the host is read in the working directory ({directory})"
        ));
    }
    (directory != "inside").then(|| format!("the working directory is {directory}"))
}

const STEPS: [&str; 2] = ["cwd", "read=canary"];

fn run_in(lab: &Lab) -> Result<Outcome> {
    for number in FIRST..=LAST {
        let mut bundle = Bundle::new(lab)?;
        let mut path = format!("/proc/self/fd/{number}");
        if number % 2 == 1 {
            bundle.link("work", &path)?;
            path = "/work".to_owned();
        }
        if lab.wrong {
            bundle = bundle.bind(&lab.host(), "/tmp");
            path = "/tmp".to_owned();
        }
        bundle = bundle.with("process.cwd", path.into());
        if let Some(seen) = misled(&bundle.run(&STEPS)?) {
            return Outcome::broken(format!("N = {number}: {seen}"));
        }
    }
    Ok(Outcome::Held)
}

fn exec_in(lab: &Lab) -> Result<Outcome> {
    let mut bundle = Bundle::new(lab)?;
    if lab.wrong {
        bundle = bundle.bind(&lab.host(), "/tmp");
    }
    bundle.up(&["sleep"])?;
    for number in FIRST..=LAST {
        let path = if lab.wrong {
            "/tmp".to_owned()
        } else {
            format!("/proc/self/fd/{number}")
        };
        if let Some(seen) = misled(&bundle.exec(&["--cwd", &path], &STEPS)?) {
            return Outcome::broken(format!("N = {number}: {seen}"));
        }
    }
    Ok(Outcome::Held)
}

/// Here the descriptor is there for sure: a runtime that does not look where it is ends up outside.
fn handed_in(lab: &Lab) -> Result<Outcome> {
    let preserve = format!("--preserve-fds={}", LEAKED.end - FIRST);
    let path = format!("/proc/self/fd/{}", LEAKED.end - 1);
    let build = |cwd: &str| -> Result<Bundle<'_>> {
        let bundle = Bundle::new(lab)?;
        Ok(if lab.wrong {
            bundle.bind(&lab.host(), "/tmp").with("process.cwd", "/tmp".into())
        } else {
            bundle.with("process.cwd", cwd.into())
        })
    };
    if let Some(seen) = misled(&build(&path)?.run_with(&[&preserve], &STEPS)?) {
        return Outcome::broken(format!("run: {seen}"));
    }
    let mut bundle = build("/")?;
    bundle.up(&["sleep"])?;
    let ended = bundle.exec(&[&preserve, "--cwd", &path], &STEPS)?;
    Ok(misled(&ended).map(|seen| format!("exec: {seen}")).into())
}
