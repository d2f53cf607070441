//! A volume that two containers share: one exchanges a directory in it with a link, while the other one starts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::error::{During as _, Result};
use crate::lab::{CANARY, Lab, racing};
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "mount-race",
        family: "F1",
        cves: &["2021-30465"],
        what: "a mount's target is exchanged with a link out of the container",
        run: target,
    },
    Attack {
        name: "create-race",
        family: "F1",
        cves: &["2024-45310"],
        what: "directories and files are made on the host where a mount's target is missing",
        run: missing,
    },
];

/// A volume with the directory `place` and a link `other` to the host.
fn trap(lab: &Lab) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let volume = lab.volume()?;
    let (place, other) = (volume.join("place"), volume.join("other"));
    fs::create_dir(&place).during(|| "make a directory")?;
    symlink(lab.host(), &other).during(|| "make a link")?;
    Ok((volume, place, other))
}

fn target(lab: &Lab) -> Result<Outcome> {
    let (volume, place, other) = trap(lab)?;
    let source = lab.volume()?;
    fs::write(source.join("mark"), "mark").during(|| "write a mark")?;
    // Where the link leads to when it is taken for one of the container's.
    let led = format!("mounts={}", lab.host().display());
    let steps = ["mounts=/tmp", &led, "read=/tmp/place/canary", "read=/tmp/other/canary"];
    let finding = racing(lab, &place, &other, &mut || {
        // The probe looks at mounts by a /proc of its own.
        let mut bundle = Bundle::new(lab)?.bind(&volume, "/tmp").may_mount();
        if !lab.wrong {
            bundle = bundle.bind(&source, "/tmp/place");
        }
        let ended = bundle.run(&steps)?;
        if !ended.ran() {
            return Ok(None);
        }
        if ended.stdout.contains(CANARY) {
            return Ok(Some("a file of the host is read".to_owned()));
        }
        // Whichever of its names the directory has by now.
        let mounts = ended.of("mounts=/tmp").unwrap_or_default();
        let there = mounts.split(' ').any(|mount| mount.len() > "/tmp".len());
        let led = ended.of(&led).is_some_and(|mounts| !mounts.is_empty());
        Ok((!there && !led).then(|| format!("it runs, and the mount is nowhere in it ({mounts})")))
    })?;
    Ok(finding.into())
}

fn missing(lab: &Lab) -> Result<Outcome> {
    let (volume, place, other) = trap(lab)?;
    let file = lab.volume()?.join("file");
    fs::write(&file, "").during(|| "write a file")?;
    let source = lab.volume()?;
    let finding = racing(lab, &place, &other, &mut || {
        let name = lab.fresh("new");
        let mut bundle = Bundle::new(lab)?
            .bind(&volume, "/tmp")
            .bind(&file, &format!("/tmp/place/{name}-file"))
            .bind(&source, &format!("/tmp/place/{name}/below"));
        if lab.wrong {
            bundle = Bundle::new(lab)?
                .bind(&lab.host(), "/tmp")
                .bind(&source, &format!("/tmp/{name}/below"));
        }
        bundle.run(&["ids"])?;
        lab.host_changed()
    })?;
    Ok(finding.into())
}
