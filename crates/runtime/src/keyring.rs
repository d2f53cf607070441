//! Session keyrings (session-keyring(7)): every process that enters a container gets a new one, so that the caller's keys are out
//! of its reach.
//!
//! It has no name. One with a name can be joined by whoever knows it, and one that waits there under the name of a container
//! to come would be taken for new.

use crate::failure::Failure;

/// Whose keys the new keyring is counted among (`/proc/key-users`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The caller's user's, who has room or says so.
    Caller,
    /// Those of the root of a user namespace, who may have used up what he has: the keyring he has already is new as well.
    Container,
}

/// Gives the calling process a session keyring of its own.
pub(crate) fn renew(owner: Owner) -> Result<(), Failure> {
    match ferry_sys::process::new_session_keyring() {
        Err(error) => match error.raw_os_error() {
            // A kernel without keys, and filters that hide them: then there are none to keep apart.
            Some(libc::ENOSYS | libc::EPERM) => Ok(()),
            Some(libc::EDQUOT) if owner == Owner::Container => Ok(()),
            _ => Err(Failure::setup("make a session keyring", &error)),
        },
        Ok(()) => Ok(()),
    }
}
