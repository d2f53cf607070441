//! Limits: checked as Docker checks them, then as the cgroup takes them.

use ferry_api::container::{HostConfig, Resources, ThrottleDevice, Update};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};
use rustix::fs::{FileType, major, minor};

use crate::error::{Error, Result};
use crate::system::Host;

/// Less than this starts no container.
const MIN_MEMORY: i64 = 6 * 1024 * 1024;

/// Checks limits, fills in what follows from them, and says what they will not do.
pub(crate) fn validate(host: &mut HostConfig, machine: &Host) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let resources = &mut host.resources;
    let invalid = |message: &str| Err(Error::invalid(message.to_owned()));
    if resources.memory != 0 && resources.memory < MIN_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if resources.memory > 0 && resources.memory_swap > 0 && resources.memory_swap < resources.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if resources.memory == 0 && resources.memory_swap > 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = resources.memory_swappiness
        && swappiness != -1
        && !(0..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if resources.memory_reservation > 0 && resources.memory_reservation < MIN_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if resources.memory > 0 && resources.memory_reservation > resources.memory {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if resources.nano_cpus != 0 {
        let most = i64::try_from(machine.cpus).unwrap_or(1).saturating_mul(1_000_000_000);
        if !(0..=most).contains(&resources.nano_cpus) {
            let cpus = machine.cpus;
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        if resources.cpu_period > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if resources.cpu_quota > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
    }
    if resources.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            resources.cpu_shares
        )));
    }
    if resources.cpu_period != 0 && !(1_000..=1_000_000).contains(&resources.cpu_period) {
        return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (what, text) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !text.is_empty() {
            check_set(what, text, machine)?;
        }
    }
    if resources.blkio_weight != 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if resources.kernel_memory != 0 || resources.kernel_memory_tcp != 0 {
        warnings.push("Specifying a kernel memory limit is not supported and will be removed".to_owned());
    }
    // Docker's default: as much swap again as memory.
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    if resources.memory_swappiness == Some(-1) {
        resources.memory_swappiness = None;
    }
    if resources.pids_limit == Some(0) || resources.pids_limit.is_some_and(|limit| limit < -1) {
        resources.pids_limit = None;
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if host.oom_score_adj < -1000 || host.oom_score_adj > 1000 {
        let adj = host.oom_score_adj;
        return Err(Error::invalid(format!(
            "Invalid value {adj}, range for oom score adj is [-1000, 1000]"
        )));
    }
    for path in devices_of_block_io(&host.resources) {
        device_number(path)?;
    }
    for limit in host.resources.ulimits.iter().flatten() {
        if limit.hard != -1 && limit.soft > limit.hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
    }
    Ok(warnings)
}

/// A list of numbers and ranges, all of which exist on this machine.
fn check_set(what: &str, text: &str, machine: &Host) -> Result<()> {
    let invalid = || Error::invalid(format!("Invalid value {text} for cpuset {what}"));
    let available = if what == "cpus" { machine.cpus } else { 1 };
    let mut beyond = false;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>(), last.parse::<usize>());
        let (Ok(first), Ok(last)) = (first, last) else {
            return Err(invalid());
        };
        if first > last || last > 65_535 {
            return Err(invalid());
        }
        beyond |= last >= available;
    }
    if beyond {
        let (kind, range) = match what {
            "cpus" => ("CPUs", format!("0-{}", available.saturating_sub(1))),
            _ => ("memory nodes", "0".to_owned()),
        };
        return Err(Error::invalid(format!(
            "Requested {kind} are not available - requested {text}, available: {range}"
        )));
    }
    Ok(())
}

/// Puts an update over what is set; zero and absent leave a limit as it is, as in Docker.
pub(crate) fn update(host: &mut HostConfig, update: &Update) -> Result<()> {
    let (own, new) = (&mut host.resources, &update.resources);
    conflicts(own, new)?;
    if host.auto_remove && !matches!(update.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    let set = |own: &mut i64, new: i64| {
        if new != 0 {
            *own = new;
        }
    };
    set(&mut own.cpu_shares, new.cpu_shares);
    set(&mut own.memory_reservation, new.memory_reservation);
    if new.memory != 0 {
        if own.memory_swap > 0 && new.memory > own.memory_swap && new.memory_swap == 0 {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        own.memory = new.memory;
    }
    set(&mut own.memory_swap, new.memory_swap);
    set(&mut own.nano_cpus, new.nano_cpus);
    set(&mut own.cpu_period, new.cpu_period);
    set(&mut own.cpu_quota, new.cpu_quota);
    if !new.cpuset_cpus.is_empty() {
        own.cpuset_cpus.clone_from(&new.cpuset_cpus);
    }
    if !new.cpuset_mems.is_empty() {
        own.cpuset_mems.clone_from(&new.cpuset_mems);
    }
    if new.blkio_weight != 0 {
        own.blkio_weight = new.blkio_weight;
    }
    if new.pids_limit.is_some() {
        own.pids_limit = new.pids_limit;
    }
    if !update.restart_policy.name.is_empty() {
        host.restart_policy = update.restart_policy.clone();
        super::validate::restart(host)?;
    }
    Ok(())
}

/// `--cpus` is a period and a quota by another name: whoever has set the one cannot set the other (moby
/// `container/container_unix.go`, `UpdateContainer`).
fn conflicts(own: &Resources, new: &Resources) -> Result<()> {
    let pairs = [
        (
            new.nano_cpus,
            own.cpu_period,
            "Nano CPUs cannot be updated as CPU Period has",
        ),
        (
            new.nano_cpus,
            own.cpu_quota,
            "Nano CPUs cannot be updated as CPU Quota has",
        ),
        (
            new.cpu_period,
            own.nano_cpus,
            "CPU Period cannot be updated as NanoCPUs has",
        ),
        (
            new.cpu_quota,
            own.nano_cpus,
            "CPU Quota cannot be updated as NanoCPUs has",
        ),
    ];
    match pairs.iter().find(|(new, own, _)| *new > 0 && *own > 0) {
        Some((_, _, what)) => Err(Error::conflict(format!("Conflicting options: {what} already been set"))),
        None => Ok(()),
    }
}

/// The limits as the cgroup takes them.
pub(crate) fn limits(host: &HostConfig, devices: &[LinuxDeviceCgroup]) -> LinuxResources {
    let own = &host.resources;
    let mut limits = LinuxResources::default();
    let nonzero = |value: i64| (value != 0).then_some(value);
    let mut memory = LinuxMemory::default();
    memory.set_limit(nonzero(own.memory));
    memory.set_reservation(nonzero(own.memory_reservation));
    memory.set_swap(nonzero(own.memory_swap));
    memory.set_swappiness(own.memory_swappiness.and_then(|value| u64::try_from(value).ok()));
    memory.set_disable_oom_killer(own.oom_kill_disable.filter(|disable| *disable));
    if memory != LinuxMemory::default() {
        limits.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(u64::try_from(own.cpu_shares).ok().filter(|shares| *shares > 0));
    if own.nano_cpus > 0 {
        cpu.set_period(Some(100_000));
        cpu.set_quota(Some(own.nano_cpus / 10_000));
    } else {
        cpu.set_period(u64::try_from(own.cpu_period).ok().filter(|period| *period > 0));
        cpu.set_quota(nonzero(own.cpu_quota));
    }
    cpu.set_cpus((!own.cpuset_cpus.is_empty()).then(|| own.cpuset_cpus.clone()));
    cpu.set_mems((!own.cpuset_mems.is_empty()).then(|| own.cpuset_mems.clone()));
    cpu.set_realtime_period(u64::try_from(own.cpu_realtime_period).ok().filter(|period| *period > 0));
    cpu.set_realtime_runtime(nonzero(own.cpu_realtime_runtime));
    if cpu != LinuxCpu::default() {
        limits.set_cpu(Some(cpu));
    }
    if let Some(limit) = own.pids_limit.filter(|limit| *limit != 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        limits.set_pids(Some(pids));
    }
    if let Some(block) = block_io(host) {
        limits.set_block_io(Some(block));
    }
    if !devices.is_empty() {
        limits.set_devices(Some(devices.to_vec()));
    }
    limits
}

fn block_io(host: &HostConfig) -> Option<LinuxBlockIo> {
    let own = &host.resources;
    let throttle = |devices: &Option<Vec<ThrottleDevice>>| {
        let devices: Vec<_> = devices
            .iter()
            .flatten()
            .filter_map(|device| {
                let (major, minor) = device_number(&device.path).ok()?;
                LinuxThrottleDeviceBuilder::default()
                    .major(major)
                    .minor(minor)
                    .rate(device.rate)
                    .build()
                    .ok()
            })
            .collect();
        (!devices.is_empty()).then_some(devices)
    };
    let weights: Vec<_> = own
        .blkio_weight_device
        .iter()
        .flatten()
        .filter_map(|device| {
            let (major, minor) = device_number(&device.path).ok()?;
            LinuxWeightDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .weight(device.weight)
                .build()
                .ok()
        })
        .collect();
    let mut block = LinuxBlockIo::default();
    block.set_weight((own.blkio_weight > 0).then_some(own.blkio_weight));
    block.set_weight_device((!weights.is_empty()).then_some(weights));
    block.set_throttle_read_bps_device(throttle(&own.blkio_device_read_bps));
    block.set_throttle_write_bps_device(throttle(&own.blkio_device_write_bps));
    block.set_throttle_read_iops_device(throttle(&own.blkio_device_read_iops));
    block.set_throttle_write_iops_device(throttle(&own.blkio_device_write_iops));
    (block != LinuxBlockIo::default()).then_some(block)
}

/// The paths of all devices that have a limit of their own.
fn devices_of_block_io(own: &Resources) -> impl Iterator<Item = &str> {
    let throttles = [
        &own.blkio_device_read_bps,
        &own.blkio_device_write_bps,
        &own.blkio_device_read_iops,
        &own.blkio_device_write_iops,
    ];
    let throttled = throttles.into_iter().flatten().flatten().map(|device| &*device.path);
    let weighted = own.blkio_weight_device.iter().flatten().map(|device| &*device.path);
    throttled.chain(weighted)
}

/// Major and minor number of the device a limit is on; one that is not there is refused when the container is made.
fn device_number(path: &str) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path)
        .map_err(|error| Error::invalid(format!("stat {path}: {}", ferry_kit::error::io_text(&error.into()))))?;
    Ok((i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev))))
}

/// Which devices the container may use: moby's default list (`oci/defaults.go`), and what the user adds.
pub(crate) fn devices(host: &HostConfig) -> Result<Vec<LinuxDeviceCgroup>> {
    let rule = |allow: bool, kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str| {
        let builder = LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .access(access);
        let builder = if let Some(major) = major {
            builder.major(major)
        } else {
            builder
        };
        let builder = if let Some(minor) = minor {
            builder.minor(minor)
        } else {
            builder
        };
        builder
            .build()
            .map_err(|error| Error::internal("make a device rule", &error))
    };
    if host.privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")?]);
    }
    use LinuxDeviceType::{A, B, C};
    let mut rules = vec![
        rule(false, A, None, None, "rwm")?,
        rule(true, C, None, None, "m")?,
        rule(true, B, None, None, "m")?,
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, C, Some(major), Some(minor), "rwm")?);
    }
    rules.push(rule(true, C, Some(136), None, "rwm")?);
    for device in host.resources.devices.iter().flatten() {
        let access = if device.cgroup_permissions.is_empty() {
            "rwm"
        } else {
            &device.cgroup_permissions
        };
        if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(Error::invalid(format!("invalid device mode: {access}")));
        }
        let (kind, major, minor) = stat_device(&device.path_on_host)?;
        rules.push(rule(true, kind, Some(major), Some(minor), access)?);
    }
    for text in host.resources.device_cgroup_rules.iter().flatten() {
        let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = words.as_slice() else {
            return Err(invalid());
        };
        let kind = match *kind {
            "a" => A,
            "b" => B,
            "c" => C,
            _ => return Err(invalid()),
        };
        let number = |text: &str| {
            if text == "*" {
                Ok(None)
            } else {
                text.parse().map(Some).map_err(|_| invalid())
            }
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
        if access.is_empty() || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(invalid());
        }
        rules.push(rule(true, kind, number(major)?, number(minor)?, access)?);
    }
    Ok(rules)
}

/// A host device's kind and numbers.
pub(crate) fn stat_device(path: &str) -> Result<(LinuxDeviceType, i64, i64)> {
    let wrong = |why: &str| {
        Error::new(
            crate::error::Kind::Start(crate::error::StartFailure::Setup),
            format!("error gathering device information while adding custom device \"{path}\": {why}"),
        )
    };
    let stat = rustix::fs::stat(path).map_err(|_| wrong("no such file or directory"))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => LinuxDeviceType::B,
        FileType::CharacterDevice => LinuxDeviceType::C,
        _ => return Err(wrong("not a device node")),
    };
    Ok((kind, i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev))))
}
