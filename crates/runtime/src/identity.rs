//! Who a process is: `/etc/passwd` and `/etc/group` of the container, read as data.
//!
//! The files belong to the image. They are read through [`Root`] with a bound (CVE-2024-9676, CVE-2026-47262), parsed
//! here (a static binary has no NSS, and no code of the image may run), and digits are always a number, never a name
//! (CVE-2016-3697).

use std::ffi::CString;

use ferry_sys::Root;

use crate::failure::{Failure, Kind};
use crate::plan::User;

/// The most of /etc/passwd or /etc/group that is read.
const LIMIT: u64 = 1 << 20;

/// Numeric credentials, and the home directory that belongs to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks a user up in the container's own files.
pub(crate) fn resolve(root: &Root, user: &User) -> Result<Identity, Failure> {
    let passwd = Lines::read(root, "etc/passwd");
    match user {
        User::Ids { uid, gid, groups } => {
            let home = passwd
                .find(|entry| entry.number(2) == Some(*uid))
                .map(|entry| entry.field(5).to_owned());
            Ok(Identity {
                uid: *uid,
                gid: *gid,
                groups: groups.clone(),
                home: home_or_root(home),
            })
        }
        User::Named { user, groups } => named(&passwd, &Lines::read(root, "etc/group"), user, groups),
    }
}

fn home_or_root(home: Option<String>) -> String {
    home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

fn named(passwd: &Lines, group: &Lines, spec: &str, extra: &[String]) -> Result<Identity, Failure> {
    let (user, group_name) = spec.split_once(':').unwrap_or((spec, ""));
    let number = parse_id(user)?;
    let entry = match number {
        _ if user.is_empty() => passwd.find(|entry| entry.number(2) == Some(0)),
        Some(id) => passwd.find(|entry| entry.number(2) == Some(id)),
        None => passwd.find(|entry| entry.field(0) == user),
    };
    let uid = match (&entry, number) {
        _ if user.is_empty() => 0,
        (_, Some(id)) => id,
        (Some(entry), None) => entry.number(2).ok_or_else(|| unknown("user", user, "passwd"))?,
        (None, None) => return Err(unknown("user", user, "passwd")),
    };
    let gid = if group_name.is_empty() {
        entry.as_ref().and_then(|entry| entry.number(3)).unwrap_or(0)
    } else {
        group_id(group, group_name)?
    };
    // The primary group is among them, as Docker has it since CVE-2022-36109.
    let mut groups = vec![gid];
    // As Docker: naming a group takes the user's other memberships away.
    if let (Some(entry), true) = (&entry, group_name.is_empty()) {
        let name = entry.field(0);
        for line in group.entries() {
            if line.field(3).split(',').any(|member| member == name) {
                groups.extend(line.number(2));
            }
        }
    }
    for name in extra {
        groups.push(group_id(group, name)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home_or_root(entry.map(|entry| entry.field(5).to_owned())),
    })
}

fn group_id(group: &Lines, name: &str) -> Result<u32, Failure> {
    if let Some(id) = parse_id(name)? {
        return Ok(id);
    }
    let entry = group.find(|entry| entry.field(0) == name);
    entry
        .and_then(|entry| entry.number(2))
        .ok_or_else(|| unknown("group", name, "group"))
}

/// A number if `text` is one; digits that are out of range are an error and not a name.
fn parse_id(text: &str) -> Result<Option<u32>, Failure> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        // The all-ones id means "no change" to the kernel; Docker stops at 2^31 - 1.
        Ok(id) if id <= i32::MAX as u32 => Ok(Some(id)),
        _ => Err(Failure::new(Kind::Setup, "uids and gids must be in range 0-2147483647")),
    }
}

fn unknown(what: &str, name: &str, file: &str) -> Failure {
    Failure::new(
        Kind::Setup,
        format!("unable to find {what} {name}: no matching entries in {file} file"),
    )
}

/// A file of colon-separated lines; one that cannot be read is empty.
struct Lines(String);

impl Lines {
    fn read(root: &Root, path: &str) -> Self {
        Self(
            root.read(path, LIMIT)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default(),
        )
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.0
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| Entry(line.split(':').collect()))
    }

    fn find(&self, wanted: impl Fn(&Entry<'_>) -> bool) -> Option<Entry<'_>> {
        self.entries().find(|entry| wanted(entry))
    }
}

struct Entry<'a>(Vec<&'a str>);

impl<'a> Entry<'a> {
    fn field(&self, index: usize) -> &'a str {
        self.0.get(index).copied().unwrap_or_default().trim()
    }

    fn number(&self, index: usize) -> Option<u32> {
        self.field(index).parse().ok()
    }
}

/// The environment as the program gets it: a later entry replaces an earlier one of the same name, and `HOME` is there.
pub(crate) fn environment(env: &[String], home: &str) -> Result<Vec<CString>, Failure> {
    let mut result: Vec<CString> = Vec::with_capacity(env.len() + 1);
    let mut has_home = false;
    for (index, entry) in env.iter().enumerate() {
        let name = entry.split('=').next().unwrap_or_default();
        if env[index + 1..]
            .iter()
            .any(|later| later.split('=').next() == Some(name))
        {
            continue;
        }
        // An empty HOME counts as none, as in runc.
        if name == "HOME" {
            if entry.len() <= "HOME=".len() {
                continue;
            }
            has_home = true;
        }
        result.push(c_string(entry)?);
    }
    if !has_home {
        result.push(c_string(&format!("HOME={home}"))?);
    }
    Ok(result)
}

pub(crate) fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(Kind::Setup, format!("{text:?} has a null byte in it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:\napp:x:1001:1002:App:/home/app:/bin/sh\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nwheel:x:10:root,app\napp:x:1002:\nvideo:x:44:app\n";
        std::fs::write(dir.path().join("etc/group"), group).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn look_up(user: &str, groups: &[&str]) -> Result<Identity, String> {
        let (_dir, root) = root();
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        resolve(
            &root,
            &User::Named {
                user: user.into(),
                groups,
            },
        )
        .map_err(|failure| failure.message)
    }

    fn ids(identity: &Identity) -> (u32, u32, &[u32]) {
        (identity.uid, identity.gid, &identity.groups)
    }

    #[test]
    fn names_bring_their_groups_and_home() {
        let app = look_up("app", &[]).unwrap();
        assert_eq!(ids(&app), (1001, 1002, &[1002, 10, 44][..]));
        assert_eq!(app.home, "/home/app");
        assert_eq!(ids(&look_up("app:wheel", &[]).unwrap()), (1001, 10, &[10][..]));
        assert_eq!(ids(&look_up("", &[]).unwrap()), (0, 0, &[0, 10][..]));
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(look_up("1000", &[]).unwrap().uid, 1000);
        assert_eq!(ids(&look_up("7:8", &["9", "video"]).unwrap()), (7, 8, &[8, 9, 44][..]));
    }

    #[test]
    fn ids_out_of_range_and_unknown_names_are_refused() {
        for user in ["4294967296", "2147483648:0", "-1", "0:4294967295"] {
            assert_eq!(
                look_up(user, &[]).unwrap_err(),
                "uids and gids must be in range 0-2147483647",
                "{user}"
            );
        }
        assert_eq!(
            look_up("nobody", &[]).unwrap_err(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            look_up("app:x", &[]).unwrap_err(),
            "unable to find group x: no matching entries in group file"
        );
    }

    #[test]
    fn a_passwd_that_is_no_file_is_empty() {
        let (dir, root) = root();
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("etc/passwd")).unwrap();
        let user = User::Named {
            user: "5".into(),
            groups: Vec::new(),
        };
        assert_eq!(resolve(&root, &user).unwrap().uid, 5);
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let env = ["A=1", "HOME=", "B=2", "A=3"].map(String::from);
        let result = environment(&env, "/root").unwrap();
        assert_eq!(result, [c"B=2", c"A=3", c"HOME=/root"].map(CString::from));
    }
}
