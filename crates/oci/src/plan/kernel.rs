//! What the kernel keeps with every process of a container: `linux.personality` and `linux.memoryPolicy`.

use crate::config::{Linux, MemoryPolicy};
use crate::error::{Error, Result};
use crate::number_list;

/// personality(2): `PER_LINUX` or `PER_LINUX32`.
pub(super) fn personality(linux: &Linux) -> Result<Option<u64>> {
    let Some(personality) = &linux.personality else {
        return Ok(None);
    };
    if personality.flags.as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::config("linux.personality.flags", "no flag is supported"));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => Err(Error::Invalid(format!("invalid personality domain {other}"))),
    }
}

/// linux/mempolicy.h
pub(crate) const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
pub(crate) const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];
/// `MAX_NUMNODES` of the largest kernels.
const MOST_NODES: u32 = 1024;

/// set_mempolicy(2): the mode with its flags, and the nodes as a bit mask (runtime-spec 1.3).
pub(super) fn memory_policy(given: Option<&MemoryPolicy>) -> Result<Option<(u32, Vec<u64>)>> {
    let Some(policy) = given else { return Ok(None) };
    let number =
        |table: &[(&str, u32)], name: &str| table.iter().find(|(known, _)| *known == name).map(|entry| entry.1);
    let field = |name: &str| format!("linux.memoryPolicy.{name}");
    let mut mode = number(&MEMORY_MODES, &policy.mode)
        .ok_or_else(|| Error::config(field("mode"), format!("{:?} is not a memory policy", policy.mode)))?;
    for flag in policy.flags.iter().flatten() {
        mode |= number(&MEMORY_FLAGS, flag)
            .ok_or_else(|| Error::config(field("flags"), format!("{flag:?} is not a flag of memory policies")))?;
    }
    let mut mask = Vec::new();
    if let Some(list) = policy.nodes.as_deref().filter(|list| !list.is_empty()) {
        let nodes = number_list::parse(list, MOST_NODES)
            .ok_or_else(|| Error::config(field("nodes"), format!("{list:?} is not a list of memory nodes")))?;
        for node in nodes {
            let (word, bit) = (node as usize / 64, node % 64);
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << bit;
        }
    }
    Ok(Some((mode, mask)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: &str, nodes: &str, flags: &[&str]) -> Result<Option<(u32, Vec<u64>)>> {
        memory_policy(Some(&MemoryPolicy {
            mode: mode.to_owned(),
            nodes: Some(nodes.to_owned()),
            flags: Some(flags.iter().map(|flag| (*flag).to_owned()).collect()),
        }))
    }

    #[test]
    fn a_memory_policy_becomes_numbers() {
        let (mode, mask) = policy("MPOL_BIND", "0-1,65", &["MPOL_F_STATIC_NODES"])
            .unwrap()
            .unwrap();
        assert_eq!((mode, mask), (2 | 1 << 15, vec![3, 2]));
        assert_eq!(policy("MPOL_LOCAL", "", &[]).unwrap(), Some((4, vec![])));
        assert_eq!(memory_policy(None).unwrap(), None);
    }

    #[test]
    fn what_is_no_memory_policy_is_refused_by_its_field() {
        for (mode, nodes, flag, field) in [
            ("BIND", "0", "MPOL_F_STATIC_NODES", "linux.memoryPolicy.mode"),
            ("MPOL_BIND", "x", "MPOL_F_STATIC_NODES", "linux.memoryPolicy.nodes"),
            ("MPOL_BIND", "0", "MPOL_F_NONE", "linux.memoryPolicy.flags"),
        ] {
            let error = policy(mode, nodes, &[flag]).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
