//! A /proc that is none: what is written to it (kernel parameters, labels) would go anywhere else.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::call::Ended;
use crate::error::Result;
use crate::lab::{Lab, racing};
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "proc-covered",
        family: "F1",
        cves: &["2019-16884"],
        what: "a volume or a tmpfs is mounted on /proc or on something in it",
        run: covered,
    },
    Attack {
        name: "proc-link",
        family: "F1",
        cves: &["2019-19921", "2023-27561", "2023-28642"],
        what: "the image's /proc is a symbolic link",
        run: linked,
    },
    Attack {
        name: "proc-led",
        family: "F1",
        cves: &["2025-52881", "2019-19921"],
        what: "a mount is led into /proc by a link, while a kernel parameter is set",
        run: led,
    },
    Attack {
        name: "proc-race",
        family: "F1",
        cves: &["2025-52881", "2019-19921"],
        what: "the same by a name that is exchanged all the time",
        run: raced,
    },
    Attack {
        name: "apparmor-covered",
        family: "F1",
        cves: &["2019-16884", "2025-52881"],
        what: "an AppArmor profile is applied through a /proc/self/attr that is covered",
        run: labelled,
    },
];

/// One of the IPC namespace's, and so the container's own.
const PARAMETER: &str = "kernel.shm_rmid_forced";

/// A container that sets a parameter, and whose probe may mount a /proc of its own to see whether it is set.
fn parametrised(lab: &Lab) -> Result<Bundle<'_>> {
    let mut bundle = Bundle::new(lab)?;
    if !lab.wrong {
        bundle = bundle.with("linux.sysctl", json!({ PARAMETER: "1" }));
    }
    Ok(bundle
        .may_mount()
        // Without these nothing is mounted below /proc.
        .with("linux.maskedPaths", json!([]))
        .with("linux.readonlyPaths", json!([])))
}

const SET: &str = "parameter=kernel.shm_rmid_forced";

/// A container that runs has its parameter, and nothing below /proc.
fn redirected(ended: &Ended) -> Option<String> {
    if !ended.ran() {
        return None;
    }
    let value = ended.of(SET).unwrap_or_default();
    if value != "1" {
        return Some(format!("it runs, and {PARAMETER} is {value:?} instead of 1"));
    }
    let mounts = ended.of("mounts=/proc").unwrap_or_default();
    (mounts.split(' ').any(|mount| mount.len() > "/proc".len())).then(|| format!("mounted in /proc: {mounts}"))
}

const STEPS: [&str; 2] = [SET, "mounts=/proc"];

fn covered(lab: &Lab) -> Result<Outcome> {
    let volume = lab.volume()?;
    for name in ["self/attr", "sys/kernel", "sys/vm"] {
        let _ = fs::create_dir_all(volume.join(name));
    }
    for file in ["self/attr/exec", "sys/kernel/shm_rmid_forced"] {
        let _ = fs::write(volume.join(file), "");
    }
    for target in ["/proc", "/proc/self/attr", "/proc/sys", "/proc/sys/kernel", "/proc/1"] {
        for tmpfs in [false, true] {
            let mut bundle = parametrised(lab)?;
            if target == "/proc" {
                bundle = bundle.without("/proc");
            }
            bundle = if tmpfs {
                bundle.tmpfs(target)
            } else {
                bundle.bind(&volume, target)
            };
            if lab.wrong {
                bundle = parametrised(lab)?;
            }
            if let Some(seen) = redirected(&bundle.run(&STEPS)?) {
                let kind = if tmpfs { "tmpfs" } else { "volume" };
                return Outcome::broken(format!("{kind} on {target}: {seen}"));
            }
        }
    }
    Ok(Outcome::Held)
}

fn linked(lab: &Lab) -> Result<Outcome> {
    for target in ["/elsewhere", "elsewhere", "../../elsewhere", "/tmp"] {
        let mut bundle = Bundle::new(lab)?;
        let _ = fs::create_dir(bundle.rootfs().join("elsewhere"));
        bundle.link("proc", target)?;
        if lab.wrong {
            bundle = Bundle::new(lab)?.with("linux.maskedPaths", json!([]));
        }
        let ended = bundle.run(&["masked=/proc/kcore", "masked=/proc/keys"])?;
        for step in ["masked=/proc/kcore", "masked=/proc/keys"] {
            let state = ended.of(step).unwrap_or("absent");
            if !matches!(state, "absent" | "null") {
                return Outcome::broken(format!("/proc -> {target}: it runs, and {step} is {state}"));
            }
        }
    }
    Ok(Outcome::Held)
}

fn led(lab: &Lab) -> Result<Outcome> {
    for (link, target) in [
        ("/proc/sys", "/led/kernel"),
        ("/proc", "/led/sys"),
        ("../../proc/self", "/led/attr"),
    ] {
        let mut bundle = parametrised(lab)?;
        bundle.link("led", link)?;
        bundle = bundle.tmpfs(target);
        if lab.wrong {
            bundle = parametrised(lab)?;
        }
        if let Some(seen) = redirected(&bundle.run(&STEPS)?) {
            return Outcome::broken(format!("{target} by a link to {link}: {seen}"));
        }
    }
    Ok(Outcome::Held)
}

fn raced(lab: &Lab) -> Result<Outcome> {
    let volume = lab.volume()?;
    let (directory, link) = (volume.join("place"), volume.join("other"));
    let _ = fs::create_dir_all(directory.join("kernel"));
    let _ = std::os::unix::fs::symlink("/proc/sys", &link);
    let finding = racing(lab, &directory, &link, &mut || {
        let mut bundle = parametrised(lab)?.bind(&volume, "/tmp");
        if !lab.wrong {
            let target = "/tmp/place/kernel";
            bundle = bundle.tmpfs(target);
        }
        Ok(redirected(&bundle.run(&STEPS)?))
    })?;
    Ok(finding.into())
}

fn labelled(lab: &Lab) -> Result<Outcome> {
    let profiles = Path::new("/sys/kernel/security/apparmor/profiles");
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with('Y') {
        return Outcome::skipped("no AppArmor in this kernel");
    }
    let loaded = fs::read_to_string(profiles).unwrap_or_default();
    let Some(profile) = loaded
        .lines()
        .find_map(|line| line.strip_suffix(" (enforce)"))
        .filter(|name| name.contains("docker-default") || name.contains("containers-default"))
    else {
        return Outcome::skipped("no AppArmor profile for containers is loaded");
    };
    for target in ["/proc/self/attr", "/led/self/attr"] {
        let mut bundle = parametrised(lab)?;
        bundle.link("led", "/proc")?;
        bundle = bundle.tmpfs(target);
        if lab.wrong {
            bundle = parametrised(lab)?;
        } else {
            bundle = bundle.with("process.apparmorProfile", profile.into());
        }
        let ended = bundle.run(&["read=/proc/self/attr/current"])?;
        let current = ended.of("read=/proc/self/attr/current").unwrap_or(profile);
        if !current.contains(profile) {
            return Outcome::broken(format!("tmpfs on {target}: the profile is {current}"));
        }
    }
    Ok(Outcome::Held)
}
