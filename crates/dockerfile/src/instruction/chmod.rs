//! `--chmod`: an octal number, or symbols as of chmod(1).
//!
//! ```text
//! mode   = clause { "," clause }        who  = { "u" | "g" | "o" | "a" }, all if empty
//! clause = who op perms { op perms }    op   = "+" | "-" | "="      perms = { "r" "w" "x" "X" "s" "t" } | "u" | "g" | "o"
//! ```

use crate::error::Problem;

const MAX: u32 = 0o7777;

/// How permissions are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 07777.
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// One operation of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits it is about: of the user, the group, others.
    who: u32,
    operator: char,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// `rwx` for everybody and the bits above; `execute` is `X`.
    Bits { bits: u32, execute: bool },
    /// Those that one of `u`, `g`, `o` has.
    Of(char),
}

impl Chmod {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if is_number(text) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= MAX => Ok(Self::Octal(mode)),
                _ => Err(Problem::invalid(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                ))),
            };
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        match clauses {
            Some(clauses) => Ok(Self::Symbolic(clauses.concat())),
            None => Err(Problem::invalid("invalid syntax")),
        }
    }

    /// The permissions of something that has `mode`; 12 bits.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(mode & MAX, |mode, clause| clause.apply(mode, is_directory)),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `ug+rw-x`: one list of whom, any number of operations.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let end = text.find(|c| !matches!(c, 'u' | 'g' | 'o' | 'a'))?;
    let (whom, mut rest) = text.split_at(end);
    let who = match whom {
        "" => MAX,
        whom => whom.chars().map(bits_of).fold(0, |all, bits| all | bits),
    };
    let mut found = Vec::new();
    while let Some(operator) = rest.chars().next() {
        if !matches!(operator, '+' | '-' | '=') {
            return None;
        }
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        found.push(Clause {
            who,
            operator,
            permissions: permissions(&rest[1..end])?,
        });
        rest = &rest[end..];
    }
    Some(found)
}

fn bits_of(who: char) -> u32 {
    match who {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o1007,
        _ => MAX,
    }
}

fn permissions(text: &str) -> Option<Permissions> {
    if let ("u" | "g" | "o", Some(who)) = (text, text.chars().next()) {
        return Some(Permissions::Of(who));
    }
    let mut bits = 0;
    let mut execute = false;
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            'X' => execute = true,
            _ => return None,
        }
    }
    Some(Permissions::Bits { bits, execute })
}

impl Clause {
    fn apply(self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits { bits, execute } if execute && (is_directory || mode & 0o111 != 0) => bits | 0o111,
            Permissions::Bits { bits, .. } => bits,
            Permissions::Of(who) => {
                let shift = match who {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                (mode >> shift & 7) * 0o111
            }
        };
        // The sticky bit belongs to nobody in particular.
        let bits = bits & (self.who | bits & 0o1000);
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !(self.who & 0o777) & !(self.who & 0o6000) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_apply_as_chmod_applies_them() {
        for (text, file, directory) in [
            ("755", 0o755, 0o755),
            ("0", 0, 0),
            ("u=rwX,go=", 0o600, 0o700),
            ("u+x", 0o744, 0o755),
            ("a-r", 0o200, 0o311),
            ("+x", 0o755, 0o755),
            ("g=u", 0o664, 0o775),
            ("o=g,g-w", 0o644, 0o755),
            ("u+s,+t", 0o5644, 0o5755),
            ("go-rwx", 0o600, 0o700),
            ("u=", 0o044, 0o055),
            ("ug+w-r", 0o224, 0o335),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(0o644, false), file, "{text}");
            assert_eq!(chmod.apply(0o755, true), directory, "{text}");
        }
        for text in ["77777", "999", "", "rwx", "u", "u+q", "+x,", "u=rwx,,g=r"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
