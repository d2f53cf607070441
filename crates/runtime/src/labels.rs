//! AppArmor profiles and SELinux labels, written to the process's own attributes: what `execve` shall change to, and what the
//! keys are labelled with that are made until then.
//!
//! Each file is opened through a /proc of our own while that can still be mounted, so nothing in the image can stand in its
//! place (CVE-2019-16884, CVE-2025-52881). It is written long before the program, which changes nothing until `execve`: a
//! label that the policy does not know is refused when the container is made and not when it is started.

use std::io;

use ferry_sys::Root;
use ferry_sys::mount::Mount;
use rustix::fs::OFlags;

use crate::failure::{During as _, Failure};
use crate::plan::Attached;

/// For the program that the calling process is to become.
pub(crate) fn apply(attached: &Attached) -> Result<(), Failure> {
    match (&attached.apparmor, &attached.selinux) {
        (Some(profile), _) => write(&["attr/apparmor/exec", "attr/exec"], &format!("exec {profile}")),
        (None, Some(label)) => write(&["attr/exec"], label),
        (None, None) => Ok(()),
    }
}

/// For the keys that the calling process makes: `execve` takes it back. AppArmor knows nothing of keys.
pub(crate) fn of_keys(attached: &Attached) -> Result<(), Failure> {
    match &attached.selinux {
        Some(label) => write(&["attr/keycreate"], label),
        None => Ok(()),
    }
}

/// Writes to the first of the attributes that is there.
fn write(attributes: &[&str], text: &str) -> Result<(), Failure> {
    let what = || "open the security attributes of the process";
    let proc = Root::from_fd(Mount::new("proc", &[], 0).during(what)?.into_fd());
    let pid = rustix::process::getpid().as_raw_pid();
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for attribute in attributes {
        result = proc.resolve_no_links(format!("{pid}/{attribute}"), OFlags::WRONLY | OFlags::NOCTTY);
        if result.is_ok() {
            break;
        }
    }
    let file = result.during(what)?;
    rustix::io::write(&file, text.as_bytes()).during(|| format!("apply the security label {text:?}"))?;
    Ok(())
}
