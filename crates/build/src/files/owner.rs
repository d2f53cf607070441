//! `--chown`, looked up in the files of the tree that is written on, as BuildKit reads them.

use ferry_sys::Root;

use crate::error::{Error, Result};

/// The most bytes of /etc/passwd and /etc/group.
const MOST: u64 = 16 << 20;

/// User and group of `user[:group]`. Names that nobody knows are root's, as in BuildKit; in a tree of nothing there are none.
pub fn parse(text: &str, below: Option<&Root>) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let lookup = |path: &str, name: &str, fields: usize| -> Result<Option<Vec<u32>>> {
        let Some(root) = below else {
            return Err(Error::invalid("invalid user index: -1"));
        };
        Ok(find(&root.read(path, MOST).unwrap_or_default(), name, fields))
    };
    let (uid, own) = match (user, number(user)) {
        ("", _) => (0, 0),
        (_, Some(number)) => (number, number),
        (name, None) => match lookup("etc/passwd", name, 2)?.as_deref() {
            Some([uid, gid]) => (*uid, *gid),
            _ => (0, 0),
        },
    };
    let gid = match group {
        None => own,
        Some("") => 0,
        Some(group) => match number(group) {
            Some(number) => number,
            None => match lookup("etc/group", group, 1)?.as_deref() {
                Some([gid]) => *gid,
                _ => own,
            },
        },
    };
    Ok((uid, gid))
}

/// BuildKit's numbers have 31 bits; what is more is a name.
fn number(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok())
}

/// The numbers behind the password in the first line of a name; those that are none are 0.
fn find(bytes: &[u8], name: &str, fields: usize) -> Option<Vec<u32>> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(name)).then(|| {
            parts.next();
            let number = |part: Option<&str>| part.and_then(|part| part.parse().ok()).unwrap_or(0);
            (0..fields).map(|_| number(parts.next())).collect()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_as_buildkit_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "# x\nroot:x:0:0::/:\nme:x:10:11::/:\nodd\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "grp:x:20:me\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        for (text, expected) in [
            ("3:4", (3, 4)),
            ("5", (5, 5)),
            (":6", (0, 6)),
            ("5:", (5, 0)),
            ("me", (10, 11)),
            ("me:grp", (10, 20)),
            ("me:33", (10, 33)),
            (":grp", (0, 20)),
            ("nobody", (0, 0)),
            ("root:nobody", (0, 0)),
            ("1:nobody", (1, 1)),
            ("odd", (0, 0)),
        ] {
            assert_eq!(parse(text, Some(&root)).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("3:4", None).unwrap(), (3, 4));
        assert!(parse("me", None).is_err());
    }
}
