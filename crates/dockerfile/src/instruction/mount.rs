//! `RUN --mount`: fields of CSV, `key=value` or a word alone.

use super::Expander;
use crate::error::Problem;
use crate::suggest;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    /// Each gets one of its own.
    Private,
    /// One after the other.
    Locked,
}

/// One mount. What a kind has no use for is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    /// Bind and cache: a stage, an image or a named context; empty for the build's context, or an empty cache.
    pub from: String,
    /// Bind and cache: a path in there. Of a secret it is the id.
    pub source: String,
    /// May be relative, or empty: see [`Mount::place`].
    pub target: String,
    pub read_only: bool,
    /// Tmpfs: bytes, 0 for no limit.
    pub size: i64,
    /// Of a cache, a secret or an agent.
    pub id: String,
    pub sharing: Option<Sharing>,
    /// Secret and ssh: an error if it is not there.
    pub required: bool,
    /// Cache, secret and ssh.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Secret: the variable that holds it.
    pub env: Option<String>,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
    ("tmpfs", MountKind::Tmpfs),
];
const SHARINGS: [(&str, Sharing); 3] = [
    ("locked", Sharing::Locked),
    ("private", Sharing::Private),
    ("shared", Sharing::Shared),
];
/// Those that are suggested.
const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountKind {
    fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

impl Mount {
    /// Reads a flag with the values of variables.
    pub fn parse(flag: &str, expander: &mut Expander<'_>) -> Result<Self, Problem> {
        let mut mount = Self::default();
        let mut access = None;
        for field in fields(flag)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("readonly" | "ro", None) => access = Some(true),
                ("readwrite" | "rw", None) => access = Some(false),
                ("required", None) => {
                    mount.only_for(&key, &[MountKind::Secret, MountKind::Ssh])?;
                    mount.required = true;
                }
                (_, None) => {
                    return Err(Problem::invalid(format!(
                        "invalid field '{field}' must be a key=value pair"
                    )));
                }
                ("readonly" | "ro", Some(value)) => access = Some(boolean(&key, &expander.word(value)?)?),
                ("readwrite" | "rw", Some(value)) => access = Some(!boolean(&key, &expander.word(value)?)?),
                (_, Some(value)) => {
                    let value = expander.word(value)?;
                    mount.set(&key, value, &field)?;
                }
            }
        }
        mount.read_only = access.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), Problem> {
        let wrong = |value: &str| Problem::invalid(format!("invalid value for {key}: {value}"));
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix).map_err(|_| Problem::invalid(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => self.kind = one_of(&value, &KINDS, "mount type")?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "id" => self.id = value,
            "env" => self.env = Some(value),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.required = boolean(key, &value)?;
            }
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                self.size = ferry_kit::units::ram_in_bytes(&value).map_err(|_| wrong(&value))?;
            }
            "sharing" => self.sharing = Some(one_of(&value, &SHARINGS, "sharing value")?),
            "mode" => self.mode = Some(number(&value, 8)?),
            "uid" => self.uid = Some(number(&value, 10)?),
            "gid" => self.gid = Some(number(&value, 10)?),
            _ => {
                let hint = hint(suggest::nearest(key, KEYS));
                return Err(Problem::invalid(format!("unexpected key '{key}' in '{field}'{hint}")));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<(), Problem> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        let kind = self.kind.name();
        Err(Problem::invalid(format!(
            "unexpected key '{key}' for mount type '{kind}'"
        )))
    }

    fn check(&self) -> Result<(), Problem> {
        let kind = self.kind.name();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return Err(Problem::invalid(format!(
                    "{key} not allowed for \"{kind}\" type mounts"
                )));
            }
        }
        if self.kind == MountKind::Secret {
            let what = if !self.from.is_empty() {
                Some("secret mount should not have a from")
            } else if self.sharing.is_some() {
                Some("secret mount should not define sharing")
            } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                Some("invalid secret mount. one of source, target required")
            } else if !self.source.is_empty() && !self.id.is_empty() {
                Some("both source and id can't be set")
            } else {
                None
            };
            if let Some(what) = what {
                return Err(Problem::invalid(what));
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(Problem::invalid(format!("invalid cache sharing set for {kind} mount")));
        }
        Ok(())
    }

    /// Where a bind, cache or tmpfs goes, absolute; the root cannot be mounted over.
    pub fn place(&self, workdir: &str) -> Result<String, Problem> {
        let path = crate::path::join(workdir, &self.target);
        if path == "/" {
            return Err(Problem::invalid("invalid mount target \"/\""));
        }
        Ok(path)
    }
}

fn one_of<T: Copy>(value: &str, among: &[(&'static str, T)], what: &str) -> Result<T, Problem> {
    let lower = value.to_lowercase();
    match among.iter().find(|(name, _)| *name == lower) {
        Some((_, found)) => Ok(*found),
        None => {
            let hint = hint(suggest::nearest(value, among.iter().map(|(name, _)| *name)));
            let value = ferry_kit::gofmt::quote(value);
            Err(Problem::invalid(format!("unsupported {what} {value}{hint}")))
        }
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

pub(super) fn boolean(key: &str, value: &str) -> Result<bool, Problem> {
    super::boolean(value).ok_or_else(|| Problem::invalid(format!("invalid value for {key}: {value}")))
}

/// What is wrong with a mount before anything is expanded.
pub(super) fn precheck(flag: &str) -> Result<(), Problem> {
    match source(flag).or_else(|| fields(flag).err().map(|_| String::new())) {
        // The stages a build needs are known before any variable is.
        Some(from) if from.find('$').is_some_and(|at| at + 1 < from.len()) => Err(Problem::invalid(
            "'from' doesn't support variable expansion, define alias stage instead",
        )),
        _ => fields(flag).map(|_| ()),
    }
}

/// The last `from`.
pub(super) fn source(flag: &str) -> Option<String> {
    let fields = fields(flag).ok()?;
    let from = |field: &String| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then(|| value.to_owned())
    };
    fields.iter().rev().find_map(from).filter(|from| !from.is_empty())
}

/// One record of CSV, as Go reads it.
pub(super) fn fields(flag: &str) -> Result<Vec<String>, Problem> {
    let wrong = |what: String| Problem::invalid(format!("failed to parse csv mounts: {what}"));
    if flag.is_empty() {
        return Err(wrong("EOF".to_owned()));
    }
    let mut fields = Vec::new();
    let mut rest = flag;
    loop {
        let column = flag.len() - rest.len() + 1;
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted).ok_or_else(|| {
                wrong(format!(
                    "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                ))
            })?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if let Some(at) = rest[..end].find('"') {
                    let column = column + at;
                    return Err(wrong(format!(
                        "parse error on line 1, column {column}: bare \" in non-quoted-field"
                    )));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Up to the quote that closes it; two of them are one of the field.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(_) => field.push('"'),
            None if after.is_empty() || after.starts_with(',') => return Some((field, after)),
            None => return None,
        }
        rest = &after[1..];
    }
}
