//! `linux.intelRdt`: the class of service a container's processes are in, a directory of the resctrl file system
//! (Linux, Documentation/filesystems/resctrl.rst).
//!
//! A class that this runtime made is named by the container's id, and goes with the container. One that the configuration
//! names by `closID` is somebody's who may have other containers in it: it stays.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FsWord;
use serde::{Deserialize, Serialize};

use crate::config::IntelRdt;
use crate::error::{During as _, Error, Result};

const MOUNT: &str = "/sys/fs/resctrl";
/// linux/magic.h
const RDTGROUP_SUPER_MAGIC: FsWord = 0x0765_5821;

/// A container's class of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Class {
    pub path: PathBuf,
    /// It was made for this container alone.
    pub own: bool,
    /// A monitoring group in it, of the container alone.
    pub monitor: Option<PathBuf>,
}

/// Where resctrl is mounted.
pub(crate) fn mount() -> Result<PathBuf> {
    let is_mounted = rustix::fs::statfs(MOUNT).is_ok_and(|stat| stat.f_type == RDTGROUP_SUPER_MAGIC);
    if !is_mounted {
        let problem =
            format!("no resctrl file system is mounted at {MOUNT}: this machine has no Intel RDT, or it is off");
        return Err(Error::config("linux.intelRdt", problem));
    }
    Ok(MOUNT.into())
}

/// Refuses what no machine could do.
pub(crate) fn check(rdt: &IntelRdt) -> Result<()> {
    if let Some(class) = rdt.clos_id.as_deref().filter(|class| *class != "/")
        && (matches!(class, "." | "..") || class.contains('/') || class.contains('\0'))
    {
        let problem = format!("{class:?} is not a name of a class of service");
        return Err(Error::config("linux.intelRdt.closID", problem));
    }
    if let Some(schema) = &rdt.mem_bw_schema
        && (!schema.starts_with("MB:") || schema.contains('\n'))
    {
        let problem = format!("{schema:?} is not one line that begins with MB:");
        return Err(Error::config("linux.intelRdt.memBwSchema", problem));
    }
    Ok(())
}

/// The lines to write to `schemata`, one write each.
fn schemata(rdt: &IntelRdt) -> Vec<String> {
    let mut writes = Vec::new();
    let cache = rdt.l3_cache_schema.as_deref().unwrap_or_default();
    let bandwidth = rdt.mem_bw_schema.as_deref().unwrap_or_default();
    // "If l3CacheSchema contains a line beginning with MB:, the value written MUST be the non-MB: line(s)" and memBwSchema.
    let mut lines: Vec<&str> = cache
        .lines()
        .filter(|line| bandwidth.is_empty() || !line.trim_start().starts_with("MB:"))
        .filter(|line| !line.is_empty())
        .collect();
    lines.extend(Some(bandwidth).filter(|line| !line.is_empty()));
    if !lines.is_empty() {
        writes.push(lines.join("\n"));
    }
    let all = rdt.schemata.join("\n");
    if !all.is_empty() {
        writes.push(all);
    }
    writes
}

/// Which class `rdt` asks for below `root`. Known before anything is made, so that it is found again whatever happens.
pub(crate) fn class(root: &Path, rdt: &IntelRdt, id: &str) -> Class {
    let named = rdt.clos_id.as_deref().filter(|class| !class.is_empty());
    let path = match named {
        // The default class is the file system's root.
        Some("/") => root.to_owned(),
        name => root.join(name.unwrap_or(id)),
    };
    let monitors = rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm;
    Class {
        own: named.is_none(),
        monitor: monitors.then(|| path.join("mon_groups").join(id)),
        path,
    }
}

/// Puts process `pid` in its class, made if that is for this runtime to do.
pub(crate) fn enter(class: &Class, rdt: &IntelRdt, pid: i32) -> Result<()> {
    let writes = schemata(rdt);
    let path = &class.path;
    let exists = path.is_dir();
    if !exists && !class.own && writes.is_empty() {
        let problem = format!(
            "the class {} does not exist, and there is no schema to make it with",
            path.display()
        );
        return Err(Error::config("linux.intelRdt.closID", problem));
    }
    if !exists {
        fs::create_dir(path).during(|| format!("make the class of service {}", path.display()))?;
    }
    let filled = fill(class, &writes, exists && !class.own, pid);
    if filled.is_err() && !exists {
        // What this call made goes again; the first error is the one that tells.
        let _ = fs::remove_dir(path);
    }
    filled
}

fn fill(class: &Class, writes: &[String], compare: bool, pid: i32) -> Result<()> {
    let file = class.path.join("schemata");
    if compare && !writes.is_empty() {
        let have = fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
        if let Some(line) = writes
            .iter()
            .flat_map(|text| text.lines())
            .find(|line| !has(&have, line))
        {
            let problem = format!(
                "the class exists, and {line:?} is not in its schemata: {:?}",
                have.trim()
            );
            return Err(Error::config("linux.intelRdt.closID", problem));
        }
    } else {
        write_schemata(&file, writes)?;
    }
    if let Some(monitor) = &class.monitor {
        fs::create_dir(monitor).during(|| format!("make the monitoring group {}", monitor.display()))?;
    }
    for group in [Some(&class.path), class.monitor.as_ref()].into_iter().flatten() {
        let tasks = group.join("tasks");
        fs::write(&tasks, pid.to_string()).during(|| format!("write {}", tasks.display()))?;
    }
    Ok(())
}

fn write_schemata(file: &Path, writes: &[String]) -> Result<()> {
    for text in writes {
        fs::write(file, format!("{text}\n")).during(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Whether a line such as `L3:0=f;1=f` holds in what `schemata` shows, in whatever order and with leading zeros or not.
fn has(have: &str, line: &str) -> bool {
    let parse = |line: &str| {
        let (resource, rest) = line.trim().split_once(':')?;
        let mut domains: Vec<(String, String)> = Vec::new();
        for domain in rest.split(';').filter(|domain| !domain.trim().is_empty()) {
            let (number, value) = domain.split_once('=')?;
            let value = value.trim().trim_start_matches('0').to_lowercase();
            domains.push((number.trim().to_owned(), value));
        }
        domains.sort();
        Some((resource.trim().to_owned(), domains))
    };
    let Some((resource, wanted)) = parse(line) else {
        return false;
    };
    let mut found = have.lines().filter_map(parse);
    found.any(|(name, domains)| name == resource && wanted.iter().all(|domain| domains.contains(domain)))
}

/// Other schemata for a container's class (`update --l3-cache-schema`, `--mem-bw-schema`). The kernel takes the lines of one
/// write one after the other and keeps those before one that it refuses: then the former ones are written again.
pub(crate) fn update(class: &Path, rdt: &IntelRdt) -> Result<()> {
    check(rdt)?;
    let file = class.join("schemata");
    let former = fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
    let written = write_schemata(&file, &schemata(rdt));
    if written.is_err() {
        // The first error is the one that tells.
        let _ = fs::write(&file, former);
    }
    written
}

/// Removes what was made for the container.
pub(crate) fn leave(class: &Class) -> Result<()> {
    let own = class.own.then_some(&class.path);
    for path in class.monitor.iter().chain(own) {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).during(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(class: Option<&str>, cache: &str, bandwidth: &str) -> IntelRdt {
        IntelRdt {
            clos_id: class.map(str::to_owned),
            l3_cache_schema: Some(cache.to_owned()),
            mem_bw_schema: Some(bandwidth.to_owned()),
            ..IntelRdt::default()
        }
    }

    #[test]
    fn schemata_are_written_in_the_order_of_the_specification() {
        let mut given = rdt(None, "L3:0=f\nMB:0=10", "MB:0=20");
        assert_eq!(schemata(&given), ["L3:0=f\nMB:0=20"]);
        given.schemata = vec!["L2:0=f".into(), "L3:0=1".into()];
        assert_eq!(schemata(&given), ["L3:0=f\nMB:0=20", "L2:0=f\nL3:0=1"]);
        assert_eq!(schemata(&rdt(None, "L3:0=f\nMB:0=10", "")), ["L3:0=f\nMB:0=10"]);
        assert!(schemata(&rdt(None, "", "")).is_empty());
    }

    fn put(root: &Path, rdt: &IntelRdt, pid: i32) -> Result<Class> {
        let class = class(root, rdt, "c");
        enter(&class, rdt, pid).map(|()| class)
    }

    #[test]
    fn a_class_of_the_container_comes_and_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let class = put(root.path(), &rdt(None, "L3:0=f", ""), 42).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join("c").join(name)).unwrap();
        assert_eq!((read("schemata"), read("tasks")), ("L3:0=f\n".into(), "42".into()));
        // In the real file system the files go with the directory.
        for name in ["schemata", "tasks"] {
            fs::remove_file(root.path().join("c").join(name)).unwrap();
        }
        leave(&class).unwrap();
        leave(&class).unwrap();
        assert!(!root.path().join("c").exists());
    }

    #[test]
    fn a_named_class_must_exist_or_match() {
        let root = tempfile::tempdir().unwrap();
        let absent = put(root.path(), &rdt(Some("gold"), "", ""), 1).unwrap_err();
        assert!(absent.to_string().contains("linux.intelRdt.closID"), "{absent}");
        fs::create_dir(root.path().join("gold")).unwrap();
        fs::write(root.path().join("gold/schemata"), "    L3:0=0ff;1=0ff\n").unwrap();
        let class = put(root.path(), &rdt(Some("gold"), "L3:1=ff", ""), 7).unwrap();
        assert!(!class.own);
        assert_eq!(fs::read_to_string(root.path().join("gold/tasks")).unwrap(), "7");
        put(root.path(), &rdt(Some("gold"), "L3:1=f", ""), 7).unwrap_err();
        leave(&class).unwrap();
        assert!(root.path().join("gold").exists());
    }

    #[test]
    fn what_is_no_class_or_schema_is_refused() {
        for bad in [
            rdt(Some("../x"), "", ""),
            rdt(Some(".."), "", ""),
            rdt(None, "", "L3:0=f"),
            rdt(None, "", "MB:0=1\nMB:1=1"),
        ] {
            check(&bad).unwrap_err();
        }
        check(&rdt(Some("gold"), "L3:0=f", "MB:0=1")).unwrap();
    }
}
