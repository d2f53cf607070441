//! Which kernel parameters a container may set: those of its own namespaces (runc's list).

use std::os::linux::fs::MetadataExt as _;

use ferry_runtime::namespace::{CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS};
use ferry_runtime::plan::Namespaces;

use crate::config::Linux;
use crate::error::{Error, Result};

const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

pub(super) fn check(linux: &Linux, namespaces: &Namespaces, has_hostname: bool) -> Result<Vec<(String, String)>> {
    let own = |flag: u64| namespaces.create & flag != 0 || namespaces.join.iter().any(|(joined, _)| *joined == flag);
    let mut result = Vec::new();
    for (key, value) in linux.sysctl.iter().flatten() {
        let key = normal(key);
        let refuse = |why: &str| Err(Error::Invalid(format!("sysctl {key:?} {why}")));
        if IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
            if !own(CLONE_NEWIPC) {
                return refuse("is not allowed in the hosts ipc namespace");
            }
        } else if key.starts_with("net.") {
            if !own(CLONE_NEWNET) || joins_own_network(namespaces) {
                return refuse("not allowed in host network namespace");
            }
        } else if key == "kernel.domainname" {
            if !own(CLONE_NEWUTS) {
                return refuse("is not allowed in the hosts uts namespace");
            }
        } else if key == "kernel.hostname" {
            return refuse(if has_hostname {
                "conflicts with the field hostname"
            } else {
                "is not allowed as it conflicts with the OCI \"hostname\" field"
            });
        } else {
            return refuse("is not in a separate kernel namespace");
        }
        result.push((key, value.clone()));
    }
    Ok(result)
}

/// `net/ipv4/conf/eth0.5/forwarding` is a name too (sysctl.d(5)): the first separator decides.
fn normal(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// A path to the caller's own network namespace is the host's, whatever it is called.
fn joins_own_network(namespaces: &Namespaces) -> bool {
    let Some((_, path)) = namespaces.join.iter().find(|(flag, _)| *flag == CLONE_NEWNET) else {
        return false;
    };
    let number = |path: &std::path::Path| std::fs::metadata(path).map(|meta| (meta.st_dev(), meta.st_ino()));
    matches!((number(path), number("/proc/self/ns/net".as_ref())), (Ok(a), Ok(b)) if a == b)
}
