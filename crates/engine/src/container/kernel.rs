//! Limits that the kernel does not have: left out, and said so in the answer to a create, in Docker's words (moby
//! `daemon/daemon_unix.go`, `verifyPlatformContainerResources`).

use ferry_api::container::Resources;

const NO_OOM_SWITCH: &str = "Your kernel does not support OomKillDisable. OomKillDisable discarded.";
const OOM_WITHOUT_LIMIT: &str = "OOM killer is disabled for the container, but no memory limit is set, this can result in \
     the system running out of resources.";
const NO_SWAPPINESS: &str = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
     swappiness discarded.";

/// Takes out what control groups of this version (1 or 2) have no limit for.
pub(crate) fn discard(own: &mut Resources, version: u8) -> Vec<String> {
    let mut warnings = Vec::new();
    if own.memory_swappiness.is_some_and(|value| value != -1) && version == 2 {
        warnings.push(NO_SWAPPINESS.to_owned());
        own.memory_swappiness = None;
    }
    if own.oom_kill_disable == Some(true) {
        if version == 2 {
            warnings.push(NO_OOM_SWITCH.to_owned());
            own.oom_kill_disable = Some(false);
        } else if own.memory == 0 {
            warnings.push(OOM_WITHOUT_LIMIT.to_owned());
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(version: u8, memory: i64) -> (Vec<String>, Resources) {
        let mut own = Resources {
            memory,
            memory_swappiness: Some(5),
            oom_kill_disable: Some(true),
            ..Resources::default()
        };
        (discard(&mut own, version), own)
    }

    #[test]
    fn what_version_2_has_not_got_is_left_out() {
        let (told, own) = warnings(2, 1 << 26);
        assert_eq!(told, [NO_SWAPPINESS, NO_OOM_SWITCH]);
        assert_eq!((own.memory_swappiness, own.oom_kill_disable), (None, Some(false)));
        assert!(discard(&mut Resources::default(), 2).is_empty());
    }

    #[test]
    fn version_1_warns_of_a_container_without_limit_that_nobody_may_kill() {
        assert_eq!(warnings(1, 0).0, [OOM_WITHOUT_LIMIT]);
        let (told, own) = warnings(1, 1 << 26);
        assert!(told.is_empty());
        assert_eq!((own.memory_swappiness, own.oom_kill_disable), (Some(5), Some(true)));
    }
}
