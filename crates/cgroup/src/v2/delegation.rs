//! Giving a group to the user of the container, which may then make groups below (cgroups(7), "Cgroups delegation";
//! runtime-spec, "Cgroup ownership").

use rustix::fs::Uid;
use rustix::io::Errno;

use crate::error::Result;
use crate::group::Group;

/// What the kernel says may be given away (4.15), and what that is where it does not say.
const LIST: &str = "/sys/kernel/cgroup/delegate";
const DEFAULT: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The directory, and those of its files that cannot lift a limit. A listed file need not be in every group.
pub(super) fn delegate(group: &Group<'_>, uid: u32) -> Result<()> {
    let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| DEFAULT.to_owned());
    let files = list.lines().filter(|name| !name.is_empty() && !name.contains('/'));
    for name in [""].into_iter().chain(files) {
        match group.chown(name, Uid::from_raw(uid)) {
            Ok(()) => {}
            Err(Errno::NOENT) if !name.is_empty() => {}
            Err(e) => return Err(group.io_error("give away", name, e)),
        }
    }
    Ok(())
}
