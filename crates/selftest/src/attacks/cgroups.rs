//! The hierarchy of control groups, seen from a container.

use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::error::Result;
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "cgroup-write",
        family: "F1",
        cves: &["2022-0492"],
        what: "the container's root makes control groups in a read-only /sys/fs/cgroup",
        run: |lab| write(lab, false),
    },
    Attack {
        name: "cgroup-write-userns",
        family: "F1",
        cves: &["2023-25809"],
        what: "the same in a user namespace without a cgroup namespace",
        run: |lab| write(lab, true),
    },
];

fn write(lab: &Lab, user_namespace: bool) -> Result<Outcome> {
    let options = if lab.wrong {
        "nosuid,noexec,nodev"
    } else {
        "nosuid,noexec,nodev,ro"
    };
    let mut bundle = Bundle::new(lab)?.mount("cgroup", Path::new("cgroup"), "/sys/fs/cgroup", options);
    if user_namespace {
        // Root inside is root outside here, so that nothing but the mount is in the way. A sysfs takes a network namespace.
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        bundle = bundle
            .namespace("user")
            .namespace("network")
            .with("linux.uidMappings", map.clone())
            .with("linux.gidMappings", map);
    }
    let ended = bundle.must_run(&["cgroups=/sys/fs/cgroup", "list=/sys/fs/cgroup"])?;
    if ended.of("list=/sys/fs/cgroup").unwrap_or_default().is_empty() {
        return Outcome::skipped("no control groups are shown in the container");
    }
    let made = ended.of("cgroups=/sys/fs/cgroup").unwrap_or_default();
    Ok((!made.is_empty()).then(|| format!("made in {made}")).into())
}
