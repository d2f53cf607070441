//! AppArmor profiles and SELinux labels: what `execve` shall change to, written to the process's own attributes.
//!
//! The file is opened through a /proc of our own while that can still be mounted, so nothing in the image can stand in its
//! place (CVE-2019-16884, CVE-2025-52881), and written just before the program.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use ferry_sys::Root;
use ferry_sys::mount::Mount;
use rustix::fs::OFlags;

use crate::failure::{During as _, Failure};
use crate::plan::Attached;

/// An open attribute and what belongs into it.
#[derive(Debug)]
pub(crate) struct Label {
    file: OwnedFd,
    text: String,
}

impl Label {
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens the attribute of the calling process, which has to be the one that executes the program.
pub(crate) fn open(attached: &Attached) -> Result<Option<Label>, Failure> {
    let (text, paths): (String, &[&str]) = match (&attached.apparmor, &attached.selinux) {
        (Some(profile), _) => (format!("exec {profile}"), &["attr/apparmor/exec", "attr/exec"]),
        (None, Some(label)) => (label.clone(), &["attr/exec"]),
        (None, None) => return Ok(None),
    };
    let what = || "open the security attributes of the process";
    let proc = Root::from_fd(Mount::new("proc", &[], 0).during(what)?.into_fd());
    let pid = rustix::process::getpid().as_raw_pid();
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for path in paths {
        result = proc.resolve_no_links(format!("{pid}/{path}"), OFlags::WRONLY | OFlags::NOCTTY);
        if result.is_ok() {
            break;
        }
    }
    let file = result.during(what)?;
    Ok(Some(Label { file, text }))
}

impl Label {
    pub fn apply(&self) -> Result<(), Failure> {
        let what = || format!("apply the security label {:?}", self.text);
        rustix::io::write(&self.file, self.text.as_bytes()).during(what)?;
        Ok(())
    }
}
