//! Whose a socket is, by a walk of /proc: for messages to people, since it takes milliseconds and may be out of date.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process that has a socket open. Several may have the same one; this is that of the lowest number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub inode: u64,
    pub pid: u32,
    /// The name the process gives itself, at most 15 bytes (`/proc/PID/comm`).
    pub name: String,
}

/// How long a walk goes on. A machine full of processes takes 50 ms; what was not found by then has no owner.
const LONGEST: Duration = Duration::from_millis(500);

/// The process that has the socket open; `None` when there is none in this PID namespace, or none could be seen in time.
pub fn owner(inode: u64) -> Option<Owner> {
    owners(&[inode]).pop()
}

/// The owners of several sockets, in one walk, in order of their processes.
pub fn owners(inodes: &[u64]) -> Vec<Owner> {
    let mut wanted: Vec<u64> = inodes.iter().copied().filter(|inode| *inode != 0).collect();
    let (start, mut found) = (Instant::now(), Vec::new());
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        if wanted.is_empty() || start.elapsed() > LONGEST {
            break;
        }
        let process = Path::new("/proc").join(pid.to_string());
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket(link.to_str()?)) else {
                continue;
            };
            if let Some(at) = wanted.iter().position(|other| *other == inode) {
                wanted.swap_remove(at);
                let name = fs::read(process.join("comm")).unwrap_or_default();
                let name = String::from_utf8_lossy(&name).trim_end().to_owned();
                found.push(Owner { inode, pid, name });
            }
            if wanted.is_empty() || start.elapsed() > LONGEST {
                break;
            }
        }
    }
    found
}

/// The number in `socket:[number]`.
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_socket_names_its_inode() {
        assert_eq!(socket("socket:[123]"), Some(123));
        for other in ["pipe:[123]", "socket:[x]", "socket:[123", "/socket:[1]"] {
            assert_eq!(socket(other), None);
        }
    }
}
