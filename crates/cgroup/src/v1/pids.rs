//! The number of tasks (cgroup-v1/pids.rst).

use oci_spec::runtime::LinuxPids;

use crate::error::Result;
use crate::limits::Limits;

pub(super) fn asked(pids: LinuxPids) -> Vec<(String, String)> {
    if pids.limit() > 0 {
        vec![("pids.limit".to_owned(), pids.limit().to_string())]
    } else {
        Vec::new()
    }
}

/// 0 is "not set", less is "no limit", as with runc.
pub(crate) fn apply(limits: &mut Limits<'_>, pids: LinuxPids) -> Result<()> {
    let value = match pids.limit() {
        0 => return Ok(()),
        limit if limit < 0 => "max".to_owned(),
        limit => limit.to_string(),
    };
    limits.set(
        "pids.limit",
        "pids.max",
        &value,
        "a limit of tasks is a number, or -1 for none",
    )
}
