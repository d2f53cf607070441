//! System calls that reach what a container does not need of the kernel.

use std::collections::BTreeSet;

use ferry_seccomp::Arch;
use serde_json::Value;

use crate::bundle::{Bundle, CAPABILITIES};
use crate::error::{During as _, Result};
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "seccomp",
        family: "F1",
        cves: &["2022-0492", "2022-0847", "2026-31431"],
        what: "system calls that Docker's default profile refuses",
        run: |lab| refused(lab, ""),
    },
    Attack {
        name: "seccomp-foreign",
        family: "F1",
        cves: &["2026-31431"],
        what: "the same by x32 numbers and by int 0x80",
        run: |lab| refused(lab, "foreign"),
    },
];

/// Docker's profile for Docker's capabilities on this kernel.
fn profile() -> Result<Value> {
    let caps: BTreeSet<String> = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
    let kernel = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(0));
    let profile = ferry_seccomp::default_profile(&caps, kernel, Arch::NATIVE)?;
    serde_json::to_value(profile)
        .map_err(std::io::Error::from)
        .during(|| "write the profile")
}

fn refused(lab: &Lab, part: &str) -> Result<Outcome> {
    if part == "foreign" && !cfg!(target_arch = "x86_64") {
        return Outcome::skipped("this machine has one entry for system calls");
    }
    let mut bundle = Bundle::new(lab)?;
    if !lab.wrong {
        bundle = bundle.with("linux.seccomp", profile()?);
    }
    let step = format!("calls={part}");
    let ended = bundle.must_run(&[&step])?;
    let open = ended.of(&step).unwrap_or("the probe did not say");
    Ok((!open.is_empty()).then(|| format!("let through: {open}")).into())
}
