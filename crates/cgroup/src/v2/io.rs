//! Block I/O: `io.max` for throttles, `io.bfq.weight` or `io.weight` for weights.

use oci_spec::runtime::{LinuxBlockIo, LinuxWeightDevice};

use crate::error::Result;
use crate::limits::Limits;

pub(super) fn apply(limits: &mut Limits<'_>, block_io: &LinuxBlockIo) -> Result<()> {
    weights(limits, block_io)?;
    let throttles = [
        (
            "blockIO.throttleReadBpsDevice",
            "rbps",
            block_io.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "wbps",
            block_io.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "riops",
            block_io.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "wiops",
            block_io.throttle_write_iops_device(),
        ),
    ];
    for (limit, key, devices) in throttles {
        for device in devices.iter().flatten() {
            // 0 takes a limit away, as it does on v1.
            let rate = if device.rate() == 0 {
                "max".to_owned()
            } else {
                device.rate().to_string()
            };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            limits.put(
                limit,
                "io.max",
                &line,
                "a throttle needs a whole disk that is there, and a rate",
            )?;
        }
    }
    Ok(())
}

fn weights(limits: &mut Limits<'_>, block_io: &LinuxBlockIo) -> Result<()> {
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    let of_device = |device: &LinuxWeightDevice| given(device.leaf_weight());
    let leaf = given(block_io.leaf_weight());
    if let Some(leaf) = leaf.or_else(|| block_io.weight_device().iter().flatten().find_map(of_device)) {
        limits.of_v1("blockIO.leafWeight", &leaf);
    }
    let weight = given(block_io.weight());
    let devices = block_io.weight_device().iter().flatten();
    let devices: Vec<_> = devices.filter_map(|d| Some((d, given(d.weight())?))).collect();
    if weight.is_none() && devices.is_empty() {
        return Ok(());
    }
    let bfq = limits.group.exists("io.bfq.weight");
    let meaning = "weights are 1 to 1000, of a device that is there";
    if let Some(weight) = weight {
        if bfq {
            limits.put("blockIO.weight", "io.bfq.weight", &weight.to_string(), meaning)?;
        } else {
            limits.put("blockIO.weight", "io.weight", &io_weight(weight).to_string(), meaning)?;
        }
    }
    for (device, weight) in devices {
        let (file, weight) = if bfq {
            ("io.bfq.weight", u64::from(weight))
        } else {
            ("io.weight", io_weight(weight))
        };
        let line = format!("{}:{} {weight}", device.major(), device.minor());
        limits.put("blockIO.weightDevice", file, &line, meaning)?;
    }
    Ok(())
}

/// 10 to 1000 as 1 to 10000, runc's conversion.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_place_in_the_range() {
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }
}
