//! Device access: a program at the group's directory (see [`crate::devices::program`]), one a group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ferry_sys::bpf;
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::io::Errno;

use crate::devices::{self, Rules};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Puts the rules of `list` in force for the group `directory` is open on, in the place of those it had.
///
/// A program that runs already is replaced in one step; where there are several, which is nobody's doing but a crash's,
/// the new one is attached before they are taken off. A group whose rules allow everything has no program: those above it
/// have their say all the same.
pub(super) fn apply(limits: &mut Limits<'_>, directory: BorrowedFd<'_>, list: &[LinuxDeviceCgroup]) -> Result<()> {
    let fail = |action| {
        let path = limits.group.file("");
        move |source: io::Error| Error::Devices { action, path, source }
    };
    let held: Vec<OwnedFd> = match bpf::device_programs(directory) {
        // One that is gone by now is one less to take off.
        Ok(ids) => ids.into_iter().filter_map(|id| bpf::program(id).ok()).collect(),
        Err(error) if is_forbidden(&error) => {
            limits.unsupported(
                "devices",
                &format!("{} rules", list.len()),
                "bpf(2) in a user namespace",
            );
            return Ok(());
        }
        Err(error) => return Err(fail("ask for the device rules")(error)),
    };
    let rules = Rules::new(list)?;
    if rules.allow && rules.exceptions.is_empty() {
        return take_off(directory, &held).map_err(fail("take the device rules off"));
    }
    let code = devices::program(list)?;
    let program = bpf::load_device_program(&code).map_err(fail("load the device rules"))?;
    let attached = match held.as_slice() {
        [only] => bpf::attach(directory, program.as_fd(), Some(only.as_fd())),
        several => bpf::attach(directory, program.as_fd(), None).and_then(|()| take_off(directory, several)),
    };
    attached.map_err(fail("attach the device rules"))
}

fn take_off(directory: BorrowedFd<'_>, programs: &[OwnedFd]) -> io::Result<()> {
    programs
        .iter()
        .try_for_each(|program| bpf::detach(directory, program.as_fd()))
}

/// In a user namespace there are no device programs, for nobody; nor can anybody make a device there.
fn is_forbidden(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && !in_initial_user_namespace()
}

fn in_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
