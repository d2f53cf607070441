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
        for line in value.lines() {
            match limits.group.write(file, line) {
                Ok(()) => {}
                Err(Errno::NOENT | Errno::ACCESS) => {
                    let controller = file.split('.').next().unwrap_or_default();
                    return Err(invalid(format!(
                        "controller {controller} is not available, or has no such file"
                    )));
                }
                Err(e) => return Err(limits.group.refused(file, line, "the value does not fit this file", e)),
            }
        }
    }
    Ok(())
}
