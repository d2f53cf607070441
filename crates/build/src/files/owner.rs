//! `--chown`: users and groups by name, as BuildKit looks them up.

use std::io;

use ferry_sys::Root;

use crate::error::{Error, Result};

/// Bytes of `/etc/passwd` and `/etc/group`.
const MAX_FILE: u64 = 16 << 20;

/// User and group of `user[:group]`, and what is strange about it. A number alone is the group's as well; a name alone has the
/// group of its line. A name that nobody has is root's, which BuildKit does not even mention.
pub(super) fn owner(text: &str, base: Option<&Root>) -> Result<((u32, u32), Vec<String>)> {
    let mut warnings = Vec::new();
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, mut gid) = match small(user) {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => match find(base, "etc/passwd", user)? {
            Some(line) => (number(&line, 2), number(&line, 3)),
            None => {
                warnings.push(format!("user {user:?} is not in /etc/passwd: root is the owner"));
                (0, 0)
            }
        },
    };
    match group {
        None => {}
        Some("") => gid = 0,
        Some(group) => match small(group) {
            Some(number) => gid = number,
            None => match find(base, "etc/group", group)? {
                Some(line) => gid = number(&line, 2),
                None => warnings.push(format!("group {group:?} is not in /etc/group: the group is {gid}")),
            },
        },
    }
    Ok(((uid, gid), warnings))
}

/// BuildKit's numbers have 31 bits; what has more is a name.
fn small(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok())
}

/// The first line that begins with a name.
fn find(base: Option<&Root>, path: &str, name: &str) -> Result<Option<String>> {
    let Some(base) = base else {
        let what =
            format!("invalid user index: -1: there is no /{path} in which {name:?} could be looked up; use numbers");
        return Err(Error::Invalid(what));
    };
    let bytes = match base.read(path, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(super::failed("read", path.as_ref(), error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim);
    Ok(lines
        .find(|line| line.split(':').next() == Some(name))
        .map(str::to_owned))
}

/// A field as a number; 0 if it is none.
fn number(line: &str, field: usize) -> u32 {
    let field = line.split(':').nth(field);
    field.and_then(|field| field.parse().ok()).unwrap_or_default()
}
