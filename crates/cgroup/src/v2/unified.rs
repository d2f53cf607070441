//! Control files by name, as OCI's `unified` gives them.

use std::collections::{BTreeMap, HashMap};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// In the order of names, each line of a value in a write of its own.
pub(super) fn apply(limits: &mut Limits<'_>, unified: &HashMap<String, String>) -> Result<()> {
    for (file, value) in unified.iter().collect::<BTreeMap<_, _>>() {
        let invalid = |meaning: String| Error::Invalid {
            limit: "unified".to_owned(),
            value: file.chars().take(200).collect(),
            meaning,
        };
        if file.contains(['/', '\0']) || matches!(file.as_str(), "" | "." | "..") {
            return Err(invalid("a control file's name has no slashes".to_owned()));
        }
        // An empty value empties a file that can be empty, such as cpuset.cpus.
        let lines = if value.is_empty() { "\n" } else { value };
        for line in lines.split_inclusive('\n') {
            match limits.write(file, line) {
                Ok(()) => {}
                Err(Errno::NOENT | Errno::ACCESS) => {
                    let Some((controller, _)) = file.split_once('.') else {
                        return Err(invalid("it must be in the form CONTROLLER.PARAMETER".to_owned()));
                    };
                    let controllers = limits.group.read("cgroup.controllers").unwrap_or_default();
                    let known = controller == "cgroup" || controllers.split_whitespace().any(|c| c == controller);
                    return Err(invalid(if known {
                        "the group has no such file".to_owned()
                    } else {
                        format!("can't be set: controller {controller:?} not available")
                    }));
                }
                Err(e) => return Err(limits.group.refused(file, line, "the value does not fit this file", e)),
            }
        }
    }
    Ok(())
}
