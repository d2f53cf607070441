//! What is hidden from a container, and stays hidden.

use std::fs;

use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::bundle::{Bundle, MASKED, READONLY};
use crate::call;
use crate::error::{During as _, Result};
use crate::lab::{Lab, racing};
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "mask-defaults",
        family: "F1",
        cves: &["2018-10892", "2017-16539"],
        what: "the runtime's own default configuration leaves out what Docker's hides",
        run: defaults,
    },
    Attack {
        name: "mask-effect",
        family: "F1",
        cves: &["2018-10892", "2017-16539"],
        what: "hidden paths of /proc and /sys are read, read-only ones written",
        run: effect,
    },
    Attack {
        name: "null-link",
        family: "F1",
        cves: &["2025-31133"],
        what: "a file is hidden by the image's own /dev/null, which is something else",
        run: null,
    },
    Attack {
        name: "null-race",
        family: "F1",
        cves: &["2025-31133"],
        what: "a /dev/null of a shared volume is exchanged while files are hidden",
        run: raced,
    },
];

fn defaults(lab: &Lab) -> Result<Outcome> {
    let dir = lab.volume()?;
    let made = call::runtime(lab, &["spec", "--bundle", &dir.display().to_string()])?;
    if made.code != 0 {
        return Outcome::skipped(format!("no `spec`: {}", made.said()));
    }
    let text = fs::read(dir.join("config.json")).during(|| "read the default configuration")?;
    let mut spec: Value = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .during(|| "config.json")?;
    if lab.wrong {
        spec["linux"]["maskedPaths"] = json!([]);
    }
    let listed = |key: &str, path: &str| {
        let list = spec["linux"][key].as_array();
        list.is_some_and(|list| list.iter().any(|listed| listed == path))
    };
    // A path that is hidden need not be read-only.
    let mut missing: Vec<&str> = MASKED.into_iter().filter(|path| !listed("maskedPaths", path)).collect();
    let writable = |path: &&str| !listed("readonlyPaths", path) && !listed("maskedPaths", path);
    missing.extend(READONLY.into_iter().filter(writable));
    Ok((!missing.is_empty())
        .then(|| format!("not in it: {}", missing.join(" ")))
        .into())
}

fn effect(lab: &Lab) -> Result<Outcome> {
    let mut bundle = Bundle::new(lab)?;
    if lab.wrong {
        bundle = bundle
            .with("linux.maskedPaths", json!([]))
            .with("linux.readonlyPaths", json!([]));
    }
    let mut steps: Vec<String> = MASKED.iter().map(|path| format!("masked={path}")).collect();
    steps.extend(READONLY.iter().map(|path| format!("readonly={path}")));
    steps.push("open=/proc/sys/kernel/core_pattern".to_owned());
    steps.push("open=/proc/sysrq-trigger".to_owned());
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let ended = bundle.must_run(&steps)?;
    let mut seen = Vec::new();
    for step in steps {
        let answer = ended.of(step).unwrap_or_default();
        let held = match step.split('=').next() {
            Some("open") => answer.starts_with("error"),
            _ => matches!(answer, "absent" | "null" | "empty" | "yes"),
        };
        if !held {
            seen.push(format!("{step}: {answer}"));
        }
    }
    Ok((!seen.is_empty()).then(|| seen.join("; ")).into())
}

const SECRET: &str = "masked=/etc/secret";

fn shown(ended: &call::Ended) -> Option<String> {
    let state = ended.of(SECRET)?;
    (!matches!(state, "absent" | "null")).then(|| format!("the hidden file is {state}"))
}

fn null(lab: &Lab) -> Result<Outcome> {
    for target in ["/proc/sys/kernel/core_pattern", "/etc/other", "../etc/other", ""] {
        let mut bundle = Bundle::new(lab)?
            .without("/dev")
            .with("linux.maskedPaths", json!(["/etc/secret"]));
        bundle.file("etc/secret", "secret")?;
        bundle.file("etc/other", "other")?;
        match target {
            "" => bundle.file("dev/null", "a file")?,
            target => bundle.link("dev/null", target)?,
        }
        if lab.wrong {
            bundle = Bundle::new(lab)?;
            bundle.file("etc/secret", "secret")?;
        }
        if let Some(seen) = shown(&bundle.run(&[SECRET])?) {
            return Outcome::broken(format!("/dev/null -> {target:?}: {seen}"));
        }
    }
    Ok(Outcome::Held)
}

fn raced(lab: &Lab) -> Result<Outcome> {
    let volume = lab.volume()?;
    let (null, other) = (volume.join("null"), volume.join("other"));
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, &null, FileType::CharacterDevice, Mode::from(0o666), device).during(|| "make a device")?;
    std::os::unix::fs::symlink("/etc/other", &other).during(|| "make a link")?;
    let finding = racing(lab, &null, &other, &mut || {
        let mut bundle = Bundle::new(lab)?.without("/dev").bind(&volume, "/dev");
        if !lab.wrong {
            bundle = bundle.with("linux.maskedPaths", json!(["/etc/secret"]));
        }
        bundle.file("etc/secret", "secret")?;
        bundle.file("etc/other", "other")?;
        Ok(shown(&bundle.run(&[SECRET])?))
    })?;
    Ok(finding.into())
}
