//! Remote direct memory access: `rdma.max`, the same file in both versions (cgroup-v1/rdma.rst).

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::LinuxRdma;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::limits::Limits;
use crate::stats::Rdma;

const MAX: &str = "rdma.max";

pub(crate) fn asked(devices: &HashMap<String, LinuxRdma>) -> Vec<(String, String)> {
    let sorted: BTreeMap<_, _> = devices.iter().collect();
    sorted
        .into_iter()
        .map(|(device, limit)| (format!("rdma.{device}"), line(device, limit)))
        .collect()
}

/// `mlx4_0 hca_handle=2 hca_object=2000`
fn line(device: &str, limit: &LinuxRdma) -> String {
    let mut line = device.to_owned();
    if let Some(handles) = limit.hca_handles() {
        line.push_str(&format!(" hca_handle={handles}"));
    }
    if let Some(objects) = limit.hca_objects() {
        line.push_str(&format!(" hca_object={objects}"));
    }
    line
}

/// In the order of names.
pub(crate) fn apply(limits: &mut Limits<'_>, devices: &HashMap<String, LinuxRdma>) -> Result<()> {
    for (device, limit) in devices.iter().collect::<BTreeMap<_, _>>() {
        let invalid = |meaning: &str| Error::Invalid {
            limit: "rdma".to_owned(),
            value: device.chars().take(80).collect(),
            meaning: meaning.to_owned(),
        };
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(invalid("a device's name has no white space"));
        }
        if limit.hca_handles().is_none() && limit.hca_objects().is_none() {
            return Err(invalid("it needs hcaHandles, hcaObjects or both"));
        }
        let name = format!("rdma.{device}");
        limits.put(&name, MAX, &line(device, limit), "the device has to be there")?;
    }
    Ok(())
}

/// Limit and use by device; a file that is missing belongs to a controller that is not switched on.
pub(crate) fn stats(group: &Group<'_>) -> Result<Vec<Rdma>> {
    let read = |file: &str| match group.read(file) {
        Ok(text) => Ok(text),
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(String::new()),
        Err(e) => Err(group.io_error("read", file, e)),
    };
    let (current, max) = (read("rdma.current")?, read(MAX)?);
    let mut devices = Vec::new();
    for line in current.lines() {
        let Some(used) = entry(line) else { continue };
        let Some(limit) = max.lines().filter_map(entry).find(|entry| entry.device == used.device) else {
            continue;
        };
        devices.push(Rdma {
            device: used.device.to_owned(),
            handles: used.handles.unwrap_or_default(),
            objects: used.objects.unwrap_or_default(),
            handle_limit: limit.handles,
            object_limit: limit.objects,
        });
    }
    Ok(devices)
}

/// A line of either file; `max` is `None`.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    device: &'a str,
    handles: Option<u64>,
    objects: Option<u64>,
}

fn entry(line: &str) -> Option<Entry<'_>> {
    let (device, rest) = line.split_once(' ')?;
    let value = |key: &str| {
        rest.split_whitespace()
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    Some(Entry {
        device,
        handles: value("hca_handle"),
        objects: value("hca_object"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_limited_and_no_more() {
        let limit: LinuxRdma = serde_json::from_str(r#"{"hcaObjects": 7}"#).unwrap();
        assert_eq!(line("mlx5_1", &limit), "mlx5_1 hca_object=7");
        let limit: LinuxRdma = serde_json::from_str(r#"{"hcaHandles": 3, "hcaObjects": 7}"#).unwrap();
        assert_eq!(line("mlx5_1", &limit), "mlx5_1 hca_handle=3 hca_object=7");
    }

    #[test]
    fn entries_tell_limits_from_none() {
        let expected = Entry {
            device: "rxe0",
            handles: Some(2),
            objects: None,
        };
        assert_eq!(entry("rxe0 hca_handle=2 hca_object=max"), Some(expected));
        assert_eq!(entry(""), None);
    }
}
