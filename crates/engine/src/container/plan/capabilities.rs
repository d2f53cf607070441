//! Which capabilities a container has (moby `oci/caps`).

use ferry_runtime::caps;
use ferry_runtime::plan::Capabilities;

use crate::container::record::Record;
use crate::error::{Error, Result};

/// moby `caps.DefaultCapabilities` of 28.5.2.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What a privileged process has: all that there is to give.
pub(crate) fn all() -> u64 {
    ALL & available()
}

/// All that this Ferry knows.
const ALL: u64 = (1 << caps::NAMES.len()) - 1;

/// The mask a container's record asks for, within what this process may hand on.
pub(crate) fn of(record: &Record) -> Result<u64> {
    let host = &record.host_config;
    let wanted = if host.privileged {
        ALL
    } else {
        let empty = Vec::new();
        let add = host.cap_add.as_ref().map_or(&empty, |words| &words.0);
        let drop = host.cap_drop.as_ref().map_or(&empty, |words| &words.0);
        tweak(add, drop)?
    };
    Ok(wanted & available())
}

/// The bounding set of this process: what it does not have it cannot give.
fn available() -> u64 {
    use std::sync::OnceLock;
    static AVAILABLE: OnceLock<u64> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .unwrap_or(ALL)
    })
}

/// The default set with `drop` taken away and `add` put in; `ALL` on either side turns it around.
fn tweak(add: &[String], drop: &[String]) -> Result<u64> {
    let masks = |names: &[String], what: &str| -> Result<(u64, bool)> {
        let (mut mask, mut all) = (0, false);
        for name in names {
            let upper = name.to_uppercase();
            if upper == "ALL" {
                all = true;
                continue;
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            mask |= caps::bit(&full)
                .ok_or_else(|| Error::invalid(format!("invalid {what}: unknown capability: {full:?}")))?;
        }
        Ok((mask, all))
    };
    let (drop, drop_all) = masks(drop, "CapDrop")?;
    let (add, add_all) = masks(add, "CapAdd")?;
    Ok(match (add_all, drop_all) {
        (true, _) => ALL & !drop,
        (false, true) => add,
        (false, false) => caps::mask(DEFAULT) & !drop | add,
    })
}

/// The five sets: inheritable and ambient stay empty (CVE-2022-24769, CVE-2016-8867).
pub(super) fn sets(mask: u64) -> Capabilities {
    Capabilities {
        bounding: mask,
        effective: mask,
        permitted: mask,
        inheritable: 0,
        ambient: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> u64 {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        tweak(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(mask(&[], &[]), 0xa804_25fb);
    }

    #[test]
    fn all_turns_a_side_around() {
        assert_eq!(mask(&["ALL"], &["net_raw"]), ALL & !(1 << 13));
        assert_eq!(mask(&["chown"], &["all"]), 1);
        assert_eq!(mask(&["SYS_ADMIN"], &["CAP_CHOWN"]), 0xa804_25fb & !1 | 1 << 21);
        let error = tweak(&["foo".to_owned()], &[]).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }
}
