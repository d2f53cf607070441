//! Directories of the image that are links, in the way of what the runtime makes and mounts there.

use std::fs;

use crate::bundle::Bundle;
use crate::error::Result;
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "host-dev",
        family: "F1",
        cves: &["2026-41579", "2026-47766"],
        what: "the image's /dev is a link to the host, with and without a mount on it",
        run: |lab| leads_out(lab, "dev"),
    },
    Attack {
        name: "host-proc",
        family: "F1",
        cves: &["2026-41579"],
        what: "the image's /proc is a link to the host",
        run: |lab| leads_out(lab, "proc"),
    },
    Attack {
        name: "host-sys",
        family: "F1",
        cves: &["2026-41579"],
        what: "the image's /sys is a link to the host",
        run: |lab| leads_out(lab, "sys"),
    },
    Attack {
        name: "host-etc",
        family: "F1",
        cves: &["2025-24965"],
        what: "the image's /etc is a link to the host, and a file is mounted in it",
        run: |lab| leads_out(lab, "etc"),
    },
];

fn leads_out(lab: &Lab, name: &str) -> Result<Outcome> {
    let host = lab.host();
    let file = lab.volume()?.join("hostname");
    let _ = fs::write(&file, "name");
    let direct = host.display().to_string();
    let up = format!("../../../../../../../..{direct}");
    for target in [direct.as_str(), &up, "..", "/"] {
        for mounted in [true, false] {
            let mut bundle = Bundle::new(lab)?;
            if !mounted {
                bundle = bundle.without(&format!("/{name}"));
            }
            bundle = bundle
                .bind(&file, "/etc/hostname")
                .tmpfs("/dev/new/below")
                .with("process.cwd", format!("/{name}/work").into());
            bundle.link(name, target)?;
            if lab.wrong {
                bundle = Bundle::new(lab)?.bind(&host, "/tmp").tmpfs("/tmp/new");
            }
            bundle.run(&["ids"])?;
            if let Some(seen) = lab.host_changed()? {
                let how = if mounted { "with" } else { "without" };
                return Outcome::broken(format!("/{name} -> {target}, {how} a mount on it: {seen}"));
            }
        }
    }
    Ok(Outcome::Held)
}
