//! Block I/O (cgroup-v1/blkio-controller.rst). Weights exist with the BFQ scheduler (`blkio.bfq.*`) and existed with CFQ.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use crate::error::Result;
use crate::limits::Limits;

type Throttles<'a> = [(&'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>); 4];

fn throttles(block_io: &LinuxBlockIo) -> Throttles<'_> {
    [
        (
            "blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            block_io.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            block_io.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            block_io.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            block_io.throttle_write_iops_device(),
        ),
    ]
}

pub(super) fn asked(block_io: &LinuxBlockIo) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        asked.push(("blockIO.weight".to_owned(), weight.to_string()));
    }
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        asked.push(("blockIO.leafWeight".to_owned(), weight.to_string()));
    }
    for device in block_io.weight_device().iter().flatten() {
        let weight = device.weight().or(device.leaf_weight()).unwrap_or_default();
        asked.push((
            "blockIO.weightDevice".to_owned(),
            format!("{}:{} {weight}", device.major(), device.minor()),
        ));
    }
    for (limit, _, devices) in throttles(block_io) {
        for device in devices.iter().flatten() {
            asked.push((
                limit.to_owned(),
                format!("{}:{} {}", device.major(), device.minor(), device.rate()),
            ));
        }
    }
    asked
}

/// Leaf weights are CFQ's, which no kernel since 5.0 has.
fn leaf_weights(limits: &mut Limits<'_>, block_io: &LinuxBlockIo) -> Result<()> {
    const MEANING: &str = "leaf weights are 10 to 1000, of a device that is there";
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        limits.set("blockIO.leafWeight", "blkio.leaf_weight", &weight.to_string(), MEANING)?;
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            let line = format!("{}:{} {weight}", device.major(), device.minor());
            limits.put(
                "blockIO.weightDevice.leafWeight",
                "blkio.leaf_weight_device",
                &line,
                MEANING,
            )?;
        }
    }
    Ok(())
}

pub(super) fn apply(limits: &mut Limits<'_>, block_io: &LinuxBlockIo) -> Result<()> {
    let weight = block_io.weight().filter(|weight| *weight != 0);
    let by_device = block_io
        .weight_device()
        .iter()
        .flatten()
        .filter_map(|d| Some((d, d.weight().filter(|w| *w != 0)?)));
    let by_device: Vec<String> = by_device
        .map(|(device, weight)| format!("{}:{} {weight}", device.major(), device.minor()))
        .collect();
    if weight.is_some() || !by_device.is_empty() {
        let bfq = !limits.group.exists("blkio.weight");
        let (file, device_file, meaning) = if bfq {
            (
                "blkio.bfq.weight",
                "blkio.bfq.weight_device",
                "weights are 1 to 1000, of a device that is there",
            )
        } else {
            (
                "blkio.weight",
                "blkio.weight_device",
                "weights are 10 to 1000, of a device that is there",
            )
        };
        if let Some(weight) = weight {
            limits.set("blockIO.weight", file, &weight.to_string(), meaning)?;
        }
        for line in by_device {
            limits.put("blockIO.weightDevice", device_file, &line, meaning)?;
        }
    }
    leaf_weights(limits, block_io)?;
    for (limit, file, devices) in throttles(block_io) {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            limits.put(
                limit,
                file,
                &line,
                "a throttle needs a whole disk that is there, and a rate",
            )?;
        }
    }
    Ok(())
}
