//! Devices, their limits, ulimits, CPUs.

use ferry_api::container::{DeviceMapping, DeviceRequest, ThrottleDevice, Ulimit, WeightDevice};
use ferry_kit::units;

use super::Result;

fn is_mode(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c)) && text.len() <= 3
}

/// `/dev/x[:/dev/y][:rwm]`.
pub fn mapping(text: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] if is_mode(mode) => (*source, *target, *mode),
        [_, _, mode] => return Err(format!("bad mode specified: {mode}")),
        _ => return Err(format!("bad format for path: {text}")),
    };
    if source.contains('=') {
        // A CDI name, or a path with an equals sign: the daemon tells them apart.
        return Ok(DeviceMapping {
            path_on_host: text.into(),
            path_in_container: text.into(),
            cgroup_permissions: "rwm".into(),
        });
    }
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: source.into(),
        path_in_container: target.into(),
        cgroup_permissions: mode.into(),
    })
}

fn on_device(text: &str) -> Result<(&str, &str)> {
    match text.split_once(':') {
        Some((path, value)) if !path.is_empty() && !value.is_empty() && path.starts_with("/dev/") => Ok((path, value)),
        Some((path, value)) if !path.is_empty() && !value.is_empty() => {
            Err(format!("bad format for device path: {text}"))
        }
        _ => Err(format!("bad format: {text}")),
    }
}

pub fn weight(text: &str) -> Result<WeightDevice> {
    let (path, value) = on_device(text)?;
    match value.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok(WeightDevice {
            path: path.into(),
            weight,
        }),
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

pub fn bytes_rate(text: &str) -> Result<ThrottleDevice> {
    let (path, value) = on_device(text)?;
    match units::ram_in_bytes(value)
        .ok()
        .and_then(|rate| u64::try_from(rate).ok())
    {
        Some(rate) => Ok(ThrottleDevice {
            path: path.into(),
            rate,
        }),
        None => Err(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )),
    }
}

pub fn operations_rate(text: &str) -> Result<ThrottleDevice> {
    let (path, value) = on_device(text)?;
    match value.parse() {
        Ok(rate) => Ok(ThrottleDevice {
            path: path.into(),
            rate,
        }),
        Err(_) => Err(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )),
    }
}

/// `c 1:3 rwm`.
pub fn cgroup_rule(text: &str) -> Result<()> {
    let invalid = || Err(format!("invalid device cgroup format '{text}'"));
    let [kind, numbers, mode] = text.split(' ').collect::<Vec<_>>()[..] else {
        return invalid();
    };
    let Some((major, minor)) = numbers.split_once(':') else {
        return invalid();
    };
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()));
    if matches!(kind, "a" | "b" | "c") && number(major) && number(minor) && is_mode(mode) {
        Ok(())
    } else {
        invalid()
    }
}

/// `nofile=1024[:2048]`, soft and hard; -1 is unlimited.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let Some((name, values)) = text.split_once('=') else {
        return Err(format!("invalid ulimit argument: {text}"));
    };
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = values.split(':').collect();
    if parts.len() > 2 {
        return Err(format!(
            "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
        ));
    }
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| {
            format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                ferry_kit::gofmt::quote(text)
            )
        })
    };
    let soft = number(parts[0])?;
    let hard = parts.get(1).map_or(Ok(soft), |hard| number(hard))?;
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(if soft == -1 {
            format!("ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}")
        } else {
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        });
    }
    Ok(Ulimit {
        name: name.into(),
        hard,
        soft,
    })
}

/// `1.5` CPUs in units of 10⁻⁹; a fraction such as `3/2` too.
pub fn nano_cpus(text: &str) -> Result<i64> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let (digits, scale) = decimal(numerator).ok_or_else(invalid)?;
    let divisor: i128 = denominator
        .parse()
        .ok()
        .filter(|divisor| *divisor > 0)
        .ok_or_else(invalid)?;
    let nano = digits.checked_mul(1_000_000_000).ok_or_else(invalid)?;
    let divisor = scale.checked_mul(divisor).ok_or_else(invalid)?;
    if nano % divisor != 0 {
        return Err("value is too precise".into());
    }
    i64::try_from(nano / divisor).map_err(|_| invalid())
}

/// The digits as a whole number, and the power of ten to divide it by.
fn decimal(text: &str) -> Option<(i128, i128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 18
        || !fraction.bytes().all(|digit| digit.is_ascii_digit())
        || (whole.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some((
        format!("{whole}{fraction}")
            .parse::<i128>()
            .ok()
            .filter(|digits| digits.abs() < 1 << 90)?,
        scale,
    ))
}

/// `all`, a number, or `device=ID,driver=D,count=N,capabilities=C,options=…`.
pub fn gpus(text: &str) -> DeviceRequest {
    let mut request = DeviceRequest {
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    };
    for field in super::mounts::fields(text).unwrap_or_default() {
        let field = field.as_str();
        match field.split_once('=') {
            None if field == "all" => request.count = -1,
            None => request.count = field.parse().unwrap_or(1),
            Some(("count", "all")) => request.count = -1,
            Some(("count", count)) => request.count = count.parse().unwrap_or(1),
            Some(("driver", driver)) => request.driver = driver.into(),
            Some(("device", ids)) => request
                .device_ids
                .get_or_insert_default()
                .extend(ids.split(',').map(str::to_owned)),
            Some(_) => {}
        }
    }
    if request.count == 0 && request.device_ids.is_none() {
        request.count = 1;
    }
    request.options = Some(std::collections::BTreeMap::new());
    request
}
