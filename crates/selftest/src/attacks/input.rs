//! A configuration and names that are no good.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::call;
use crate::error::{During as _, Result};
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "huge-map",
        family: "F1",
        cves: &["2021-43784"],
        what: "a user namespace's map has more than 64 KiB, and the namespaces are the host's",
        run: map,
    },
    Attack {
        name: "id-path",
        family: "F8",
        cves: &["2025-54867"],
        what: "a container's id is a path out of the state directory",
        run: id,
    },
];

/// The bits of a message with the map in it could run over into those that say which namespaces to make.
fn map(lab: &Lab) -> Result<Outcome> {
    for ranges in [6_000_u32, 20_000] {
        let map: Vec<Value> = (0..ranges)
            .map(|number| json!({ "containerID": number, "hostID": number, "size": 1 }))
            .collect();
        let mut bundle = Bundle::new(lab)?;
        if !lab.wrong {
            bundle = bundle
                .namespace("user")
                .with("linux.uidMappings", json!(map))
                .with("linux.gidMappings", json!(map));
        }
        let ended = bundle.run(&["read=/proc/self/uid_map"])?;
        if ended.hung || ended.code >= 128 {
            return Outcome::broken(format!(
                "{ranges} ranges: the runtime ends with {}, {}",
                ended.code,
                ended.said()
            ));
        }
        if ended.ran() {
            let inside = ended.of("read=/proc/self/uid_map").unwrap_or_default();
            let inside: String = inside.chars().take(60).collect();
            return Outcome::broken(format!("{ranges} ranges: it runs, and the map is {inside}…"));
        }
    }
    Ok(Outcome::Held)
}

fn id(lab: &Lab) -> Result<Outcome> {
    // Beside the runtime's state, and nothing else is there.
    let beside = Path::new(lab.state()).parent().unwrap_or(Path::new("/"));
    let (outside, victim) = (beside.join("outside"), beside.join("victim"));
    fs::create_dir_all(&victim).during(|| "make a directory")?;
    let ids = ["../outside", "a/../../outside", "..", ".", "a/b"];
    for id in if lab.wrong { &["outside"][..] } else { &ids } {
        let mut bundle = Bundle::new(lab)?;
        let name = std::mem::replace(&mut bundle.id, (*id).to_owned());
        let ended = bundle.run(&["ids"]);
        bundle.id = name;
        if outside.exists() {
            let _ = fs::remove_dir_all(outside);
            return Outcome::broken(format!("{id:?}: state is kept outside of its directory"));
        }
        match ended {
            Ok(ended) if ended.ran() => return Outcome::broken(format!("{id:?}: a container of that name runs")),
            _ if !victim.exists() => {
                return Outcome::broken(format!("{id:?}: what is beside the runtime's state was removed"));
            }
            _ => {}
        }
    }
    // No other command may take one either.
    call::runtime(lab, &["delete", "--force", "../victim"])?;
    Ok((!victim.exists())
        .then(|| "delete ../victim: it was removed".to_owned())
        .into())
}
