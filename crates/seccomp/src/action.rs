//! What a filter returns (linux/seccomp.h).

use oci_spec::runtime::LinuxSeccompAction;

/// Also what libseccomp answers to an architecture that is not in the profile.
pub(crate) const KILL_THREAD: u32 = 0;
pub(crate) const ENOSYS: u32 = ERRNO | 38;

const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
/// `SECCOMP_RET_DATA`
const DATA: u32 = 0xffff;

/// The 32-bit return value; an errno (or what a tracer gets) that is not given is EPERM, as with runc.
pub(crate) fn encode(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(EPERM) & DATA;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data,
        LinuxSeccompAction::ScmpActNotify => USER_NOTIF,
        LinuxSeccompAction::ScmpActTrace => TRACE | data,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
    }
}

/// Actions that let a call through; a tracer answers unknown calls by itself.
pub(crate) fn is_permissive(action: LinuxSeccompAction) -> bool {
    matches!(
        action,
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    )
}
