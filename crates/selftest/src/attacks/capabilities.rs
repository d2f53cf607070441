//! Capabilities that nobody gave.

use serde_json::json;

use crate::bundle::Bundle;
use crate::call::Ended;
use crate::error::Result;
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "user-caps",
        family: "F1",
        cves: &["2016-8867"],
        what: "a user other than root keeps capabilities, in run and exec",
        run: user,
    },
    Attack {
        name: "inheritable-caps",
        family: "F1",
        cves: &["2022-24769", "2022-29162", "2022-27649", "2022-27650", "2022-27651"],
        what: "capabilities are inheritable or ambient, in run, exec and exec --cap",
        run: inheritable,
    },
];

/// The first of these sets that is not empty.
fn held(ended: &Ended, sets: &[&str]) -> Option<String> {
    sets.iter().find_map(|set| {
        let value = ended.of(&format!("status={set}"))?;
        value
            .bytes()
            .any(|digit| digit != b'0')
            .then(|| format!("{set} {value}"))
    })
}

fn steps(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| format!("status={set}")).collect()
}

/// Looks in run and in each exec.
fn look(lab: &Lab, sets: &[&str], uid: u32, execs: &[&[&str]]) -> Result<Outcome> {
    let steps = steps(sets);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let build = || -> Result<Bundle<'_>> {
        let bundle = Bundle::new(lab)?.with("process.user", json!({ "uid": uid, "gid": uid }));
        Ok(if lab.wrong {
            bundle
                .with("process.capabilities.inheritable", json!(["CAP_CHOWN"]))
                .with("process.capabilities.ambient", json!(["CAP_CHOWN"]))
        } else {
            bundle
        })
    };
    if let Some(seen) = held(&build()?.must_run(&steps)?, sets) {
        return Outcome::broken(format!("run: {seen}"));
    }
    let mut bundle = build()?;
    bundle.up(&["sleep"])?;
    for flags in execs {
        if let Some(seen) = held(&bundle.exec(flags, &steps)?.must()?, sets) {
            return Outcome::broken(format!("exec {}: {seen}", flags.join(" ")));
        }
    }
    Ok(Outcome::Held)
}

fn user(lab: &Lab) -> Result<Outcome> {
    look(
        lab,
        &["CapPrm", "CapEff", "CapInh", "CapAmb"],
        1,
        &[&[], &["--user", "2:2"]],
    )
}

fn inheritable(lab: &Lab) -> Result<Outcome> {
    let execs: [&[&str]; 3] = [&[], &["--cap", "CAP_SYS_PTRACE"], &["--cap", "CAP_CHOWN"]];
    look(lab, &["CapInh", "CapAmb"], 0, &execs)
}
