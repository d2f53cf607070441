//! The mount table, read once when the engine starts (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mounted control group hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Super-block options of the mount: controllers, and `name=…` for named hierarchies.
    V1(Vec<String>),
    V2,
}

/// All cgroup mounts in table order. Lines that are no mountinfo lines are skipped.
pub(crate) fn parse(table: &str) -> Vec<CgroupMount> {
    table.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<CgroupMount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut file_system = file_system.split(' ');
    let kind = match file_system.next()? {
        "cgroup2" => Kind::V2,
        "cgroup" => {
            let options = file_system.nth(1)?;
            Kind::V1(
                options
                    .split(',')
                    .filter(|o| !matches!(*o, "rw" | "ro"))
                    .map(str::to_owned)
                    .collect(),
            )
        }
        _ => return None,
    };
    let path = mount.split(' ').nth(4)?;
    Some(CgroupMount {
        path: unescape(path),
        kind,
    })
}

/// Space, tab, newline and backslash are written as `\ooo`.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = (byte == b'\\').then(|| bytes.get(at + 1..at + 4)).flatten();
        let value = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn v1_v2_and_named_hierarchies_are_told_apart() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 /a /sys/fs/my\\040cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].kind, Kind::V1(vec!["cpu".into(), "cpuacct".into()]));
        assert_eq!(mounts[1].kind, Kind::V1(vec!["xattr".into(), "name=systemd".into()]));
        assert_eq!(
            mounts[2],
            CgroupMount {
                path: "/sys/fs/my cgroup".into(),
                kind: Kind::V2
            }
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panicking(text in "[ -~\\\\\n]{0,200}") {
            parse(&text);
            unescape(&text);
        }
    }
}
