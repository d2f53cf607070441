//! What control files held before an update: a part that is refused leaves nothing of the rest behind.
//!
//! Each file is read just before it is written, and all are put back in the opposite order. Every state on the way back is
//! then one that the kernel has taken on the way there, which matters where it checks one file against another (memory and
//! swap, quota, period and burst).

use rustix::io::Errno;

use crate::error::Error;
use crate::group::Group;

/// Files that have a line for each device, which is what a write of one changes.
const BY_DEVICE: [&str; 4] = ["rdma.max", "misc.max", "dmem.max", "net_prio.ifpriomap"];
const OOM_CONTROL: &str = "memory.oom_control";
const SUBTREE: &str = "cgroup.subtree_control";

/// What an update has changed, in its order.
pub(crate) type Changed<'a> = Vec<(Group<'a>, Vec<Former>)>;

/// A file of a group, and what has to be written for it to hold again what it held.
#[derive(Debug)]
pub(crate) struct Former {
    file: String,
    value: String,
    /// What means the same, for a kernel that does not take `value` any more.
    instead: Option<String>,
}

/// What a write of `value` to `file` is about to change. Nothing for what cannot be read, and for what is no setting.
pub(crate) fn of(group: &Group<'_>, file: &str, value: &str) -> Vec<Former> {
    let remembered = |file: &str| {
        let value = former(file, value, &group.read(file).ok()?)?;
        // An empty list is the parent's. A group with processes that has one of its own has to keep one (seen on Linux 6.1).
        let instead = matches!(file, "cpuset.cpus" | "cpuset.mems") && value == "\n";
        Some(Former {
            file: file.to_owned(),
            value,
            instead: instead.then(|| group.read(&format!("{file}.effective")).ok()).flatten(),
        })
    };
    match file {
        // The kernel gives a group that is not idle any more the default weight, and takes none for one that is.
        "cpu.idle" => match remembered(file) {
            Some(idle) if idle.value == "0" => ["cpu.shares", "cpu.weight"]
                .into_iter()
                .filter_map(remembered)
                .chain([idle])
                .collect(),
            idle => idle.into_iter().collect(),
        },
        // Twenty steps of the same setting.
        "cpu.weight.nice" => remembered("cpu.weight").into_iter().collect(),
        _ => remembered(file).into_iter().collect(),
    }
}

/// Puts everything back, the last first. Goes on past a failure, and then says which was the first with the words of the
/// error that made this necessary.
pub(crate) fn put_back(all: Changed<'_>, because: &dyn std::error::Error) -> Result<(), Error> {
    let mut first = None;
    for (group, formers) in all.into_iter().rev() {
        for former in formers.into_iter().rev() {
            match former.put_back(&group) {
                Err(_) if !group.exists("") => return Ok(()),
                Err(errno) if first.is_none() => first = Some((group.file(&former.file), former.value, errno)),
                _ => {}
            }
        }
    }
    match first {
        None => Ok(()),
        Some((file, value, errno)) => Err(Error::NotPutBack {
            because: chain(because),
            file,
            value,
            source: errno.into(),
        }),
    }
}

impl Former {
    fn put_back(&self, group: &Group<'_>) -> Result<(), Errno> {
        // What was refused stands as it was, and the kernel may not even take that (the weight of an idle group).
        let held = group.read(&self.file)?;
        if former(&self.file, &self.value, &held).as_ref() == Some(&self.value) {
            return Ok(());
        }
        match (group.write(&self.file, &self.value), &self.instead) {
            (Err(_), Some(instead)) => group.write(&self.file, instead.trim()),
            (done, _) => done,
        }
    }
}

/// What to write to `file`, which holds `held`, to get that back after `value` was written.
fn former(file: &str, value: &str, held: &str) -> Option<String> {
    let key = value.split_whitespace().next().unwrap_or_default();
    let line_of = |key: &str| {
        held.lines()
            .find(|line| line.split_whitespace().next() == Some(key))
            .map(|line| line.trim().to_owned())
    };
    match file {
        // Where a process is, what was done once, and what a descriptor that is closed again has asked for.
        "cgroup.procs" | "cgroup.threads" | "cgroup.type" | "memory.peak" | "memory.swap.peak" => None,
        "cgroup.pressure" => Some(held.trim().to_owned()),
        file if file.ends_with(".pressure") => None,
        SUBTREE => opposite(value, held),
        OOM_CONTROL => Some(line_of("oom_kill_disable")?.split_whitespace().nth(1)?.to_owned()),
        // `root invalid (why)`
        "cpuset.cpus.partition" => held.split_whitespace().next().map(str::to_owned),
        file if is_number_of_device(key) || BY_DEVICE.contains(&file) => {
            Some(line_of(key).unwrap_or_else(|| format!("{key} {}", nothing(file))))
        }
        // `default 100` among lines of devices.
        _ => Some(line_of("default").unwrap_or_else(|| match held.trim() {
            // A write of no bytes is none.
            "" => "\n".to_owned(),
            held => held.to_owned(),
        })),
    }
}

/// What a device has to be given for its line to go.
fn nothing(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        "rdma.max" => "hca_handle=max hca_object=max",
        file if file.contains("weight") => "default",
        file if file.contains("throttle") || file == "net_prio.ifpriomap" => "0",
        _ => "max",
    }
}

/// `+memory` and `-pids`, as far as `held` says otherwise, the other way round.
fn opposite(value: &str, held: &str) -> Option<String> {
    let held: Vec<&str> = held.split_whitespace().collect();
    let back = value.split_whitespace().filter_map(|word| {
        let (had, name) = (held.contains(&word.get(1..)?), word.get(1..)?);
        match word.get(..1)? {
            "+" if !had => Some(format!("-{name}")),
            "-" if had => Some(format!("+{name}")),
            _ => None,
        }
    });
    let back: Vec<String> = back.collect();
    (!back.is_empty()).then(|| back.join(" "))
}

/// `8:16`
fn is_number_of_device(word: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once(':')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// An error and what it comes from, a colon between each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_one_value_gets_all_of_it_back() {
        for (file, value, held, expected) in [
            ("memory.max", "4096", "max\n", "max"),
            ("cpu.max", "max 50000", "40000 100000\n", "40000 100000"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("cpuset.cpus.partition", "member", "root invalid (why)\n", "root"),
            (
                "memory.oom_control",
                "1",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
                "0",
            ),
            ("io.weight", "200", "default 100\n8:0 300\n", "default 100"),
        ] {
            assert_eq!(former(file, value, held).as_deref(), Some(expected), "{file}");
        }
        for (file, held) in [("cgroup.procs", "1\n2\n"), ("memory.pressure", "some avg10=0.00\n")] {
            assert_eq!(former(file, "1", held), None, "{file}");
        }
    }

    #[test]
    fn of_a_file_by_device_only_the_line_that_is_written_comes_back() {
        let max = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max\n";
        for (file, value, held, expected) in [
            ("io.max", "8:16 rbps=9", max, "8:16 rbps=2 wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:32 rbps=9",
                max,
                "8:32 rbps=max wbps=max riops=max wiops=max",
            ),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:0 7\n", "8:0 7"),
            ("blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"),
            ("io.bfq.weight", "8:0 5", "default 100\n", "8:0 default"),
            (
                "rdma.max",
                "mlx5 hca_handle=2",
                "mlx5 hca_handle=max hca_object=7\n",
                "mlx5 hca_handle=max hca_object=7",
            ),
            ("net_prio.ifpriomap", "lo 5", "lo 0\neth0 0\n", "lo 0"),
        ] {
            let back = former(file, value, held).unwrap();
            assert_eq!(back, expected, "{file}");
            assert_eq!(former(file, &back, held).unwrap(), expected, "{file}: it stands");
        }
    }

    #[test]
    fn controllers_are_switched_the_other_way_where_they_were_switched() {
        assert_eq!(
            opposite("+memory +pids -cpu -io", "cpu pids").as_deref(),
            Some("-memory +cpu")
        );
        assert_eq!(opposite("+cpu", "cpu"), None);
    }
}
