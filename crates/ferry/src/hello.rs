//! `hello`: what a program sees of the container it is in. Runs as the first process of `ferry/hello`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

/// The kernel's names in the order of their numbers (linux/capability.h, 5.15).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
/// cgroup v1 says "no limit" with a number near this.
const NO_LIMIT: u64 = 1 << 62;
/// Where the text of a long value is broken.
const WIDTH: usize = 60;

pub fn main() -> ExitCode {
    let mut text = String::from("Hello from Ferry!\n\nThis container runs, and here is what its program sees:\n\n");
    for (name, value) in [
        ("process", process()),
        ("host name", host_name()),
        ("user", user()),
        ("root", root()),
        ("memory", memory()),
        ("processors", processors()),
        ("capabilities", capabilities()),
        ("seccomp", seccomp()),
        ("new rights", new_rights()),
        ("network", network()),
    ] {
        for (index, line) in wrapped(&value).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let _ = writeln!(text, "  {name:<14} {line}");
        }
    }
    text.push_str("\nTo try something else:\n  ferry run -it --rm IMAGE sh\n");
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A field of `/proc/self/status` (proc_pid_status(5)).
fn status(name: &str) -> Option<String> {
    let text = read("/proc/self/status")?;
    text.lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn unknown() -> String {
    "not to be seen (is /proc mounted?)".to_owned()
}

fn process() -> String {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = entries.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok())
    });
    format!(
        "PID {} of {} in its PID namespace",
        std::process::id(),
        others.count().max(1)
    )
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn user() -> String {
    let ids = format!(
        "uid {}, gid {}",
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    let map = read("/proc/self/uid_map").unwrap_or_default();
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    });
    let ranges: Vec<_> = ranges.collect();
    match ranges.as_slice() {
        [] => ids,
        [(0, 0, 4_294_967_295)] => format!("{ids}; the same on the host (no user namespace of its own)"),
        ranges => {
            let range =
                |(inside, outside, count): &(u64, u64, u64)| format!("{inside} is {outside} outside ({count} ids)");
            format!(
                "{ids}; user namespace: {}",
                ranges.iter().map(range).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// The type of the file system at `/`, from the last mount there (proc_pid_mountinfo(5)).
fn root() -> String {
    let table = read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        (point == "/").then(|| (kind.split(' ').next().unwrap_or_default(), options))
    });
    match mounts.collect::<Vec<_>>().last() {
        Some((kind, options)) if options.split(',').any(|option| option == "ro") => format!("{kind}, read-only"),
        Some((kind, _)) => (*kind).to_owned(),
        None => unknown(),
    }
}

fn memory() -> String {
    let limit = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    match limit.as_deref().map(str::parse::<u64>) {
        None => "no control group to be seen".to_owned(),
        Some(Ok(bytes)) if bytes < NO_LIMIT => format!("at most {} MiB", bytes >> 20),
        Some(_) => "no limit".to_owned(),
    }
}

fn processors() -> String {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    let one = |name: &str| read(&format!("/sys/fs/cgroup/cpu/{name}"));
    let limit = read("/sys/fs/cgroup/cpu.max")
        .or_else(|| Some(format!("{} {}", one("cpu.cfs_quota_us")?, one("cpu.cfs_period_us")?)));
    let share = limit.and_then(|text| {
        let (quota, period) = text.split_once(' ')?;
        let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    });
    match share {
        Some(share) => format!("{there}, of which it may use {share:.2}"),
        None => format!("{there}, no limit"),
    }
}

fn capabilities() -> String {
    let Some(set) = status("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok()) else {
        return unknown();
    };
    let all = (1_u64 << CAPABILITIES.len()) - 1;
    let held: Vec<&str> = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| set >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    match held.len() {
        0 => "none".to_owned(),
        _ if set & all == all => "all: this container is privileged".to_owned(),
        count => format!("{count} of {}: {}", CAPABILITIES.len(), held.join(" ")),
    }
}

fn seccomp() -> String {
    match status("Seccomp").as_deref() {
        Some("0") => "off: every system call is allowed".to_owned(),
        Some("1") => "strict".to_owned(),
        Some("2") => {
            let filters = status("Seccomp_filters").unwrap_or_else(|| "1".to_owned());
            format!("filtered ({filters} filter{})", if filters == "1" { "" } else { "s" })
        }
        _ => unknown(),
    }
}

fn new_rights() -> String {
    match status("NoNewPrivs").as_deref() {
        Some("1") => "never (no_new_privs)".to_owned(),
        Some(_) => "by set-user-ID programs, within the capabilities above".to_owned(),
        None => unknown(),
    }
}

fn network() -> String {
    let table = read("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = table
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    match names.as_slice() {
        [] => "no interfaces".to_owned(),
        ["lo"] => "lo only: it reaches nobody".to_owned(),
        names => names.join(" "),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fits = lines
            .last()
            .is_some_and(|line| line.is_empty() || line.len() + word.len() < WIDTH);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_broken_between_words() {
        let text = "word ".repeat(40);
        let lines = wrapped(text.trim());
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= WIDTH && !line.starts_with(' ')));
        assert_eq!(lines.join(" "), text.trim());
    }

    #[test]
    fn everything_has_something_to_say() {
        for value in [
            process(),
            user(),
            root(),
            memory(),
            processors(),
            capabilities(),
            seccomp(),
            new_rights(),
            network(),
        ] {
            assert!(!value.is_empty());
        }
    }
}
