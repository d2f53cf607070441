//! Command lines, read and explained exactly as spf13/pflag and cobra do it for docker.
//!
//! A command's flags are written down once, in the form its help prints them, one a line:
//!
//! ```text
//! -f, --filter filter | Filter output based on conditions provided
//! --no-trunc | Don't truncate output
//! ```
//!
//! The word after the name is the value's type, which says how it is checked; a flag without one is a switch. Lines that
//! start with a blank continue the text above. clap is not used here: its grammar (`--rm=false`, `-e=X`, a value that starts with a
//! dash, the last one wins) and its texts differ from pflag's in most of the places scripts rely on.

mod parse;
mod usage;

pub use parse::{Matches, Problem, uint16};
pub use usage::flag_texts;

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

/// Checks a value when it is read: flag and value to docker's complaint.
pub type Check = fn(&str, &str) -> Result<(), String>;

#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// What the command is dispatched by: `ps`, `container inspect`.
    pub name: &'static str,
    /// Every path to it, as its help lists them: `container ls, container list, container ps, ps`. Empty when the name is the only one.
    pub aliases: &'static str,
    /// What stands behind the name in the usage line: `[OPTIONS] CONTAINER`.
    pub synopsis: &'static str,
    pub about: &'static str,
    /// What lists of commands say of it, where that is not the first line of `about`.
    pub short: &'static str,
    pub arity: Arity,
    pub flags: &'static str,
    /// Flags that docker has not, in the same form; the help shows them apart.
    pub own: &'static str,
    /// Hidden names: `("net", "network")`.
    pub hidden: &'static [(&'static str, &'static str)],
    /// Of the hidden names, those docker warns about.
    pub deprecated: &'static [&'static str],
    /// The first argument ends the flags.
    pub stops_at_argument: bool,
    pub check: Check,
}

impl Spec {
    /// Nothing set; a base for constants.
    pub const EMPTY: Self = Self {
        name: "",
        aliases: "",
        synopsis: "",
        about: "",
        short: "",
        arity: Arity::None,
        flags: "",
        own: "",
        hidden: &[],
        deprecated: &[],
        stops_at_argument: false,
        check: |_, _| Ok(()),
    };

    /// What lists of commands say of it: the first line, if nothing else.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        match self.short {
            "" => self.about.lines().next().unwrap_or_default(),
            short => short,
        }
    }

    /// The flags in the order of the help.
    #[must_use]
    pub fn definitions(&self) -> Vec<Flag> {
        let mut flags = Self::read(self.flags);
        flags.extend(Self::read(self.own));
        flags
    }

    /// Those of docker's, and those that are not.
    #[must_use]
    pub fn groups(&self) -> [Vec<Flag>; 2] {
        [self.flags, self.own].map(Self::read)
    }

    fn read(text: &'static str) -> Vec<Flag> {
        let mut flags: Vec<Flag> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix(' '), flags.last_mut()) {
                (Some(more), Some(flag)) => flag.more.push(more),
                _ => flags.extend(Flag::read(line)),
            }
        }
        flags.sort_by_key(|flag| flag.name);
        flags
    }
}

/// One flag, as its line in [`Spec::flags`] says.
#[derive(Debug, Clone)]
pub struct Flag {
    pub short: Option<char>,
    pub name: &'static str,
    /// Empty for a switch.
    pub kind: &'static str,
    pub text: &'static str,
    pub more: Vec<&'static str>,
}

impl Flag {
    fn read(line: &'static str) -> Option<Self> {
        let (names, text) = line.split_once(" | ")?;
        let (short, long) = match names.trim().split_once(", --") {
            Some((short, long)) => (short.chars().nth(1), long),
            None => (None, names.trim().strip_prefix("--")?),
        };
        let (name, kind) = long.split_once(' ').unwrap_or((long, ""));
        Some(Self {
            short,
            name,
            kind,
            text,
            more: Vec::new(),
        })
    }

    /// As complaints name it: `-f, --filter`.
    #[must_use]
    pub fn title(&self) -> String {
        self.short.map_or_else(
            || format!("--{}", self.name),
            |short| format!("-{short}, --{}", self.name),
        )
    }
}

/// The line of a `--format` that prints tables.
macro_rules! table_format {
    () => {
        "--format string | Format output using a custom template:
 'table':            Print output in table format with column headers (default)
 'table TEMPLATE':   Print output in table format using the given Go template
 'json':             Print in JSON format
 'TEMPLATE':         Print output using the given Go template.
 Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
    };
}

/// The line of a `--format` that prints objects.
macro_rules! plain_format {
    ($short:literal) => {
        concat!(
            $short,
            "--format string | Format output using a custom template:
 'json':             Print in JSON format
 'TEMPLATE':         Print output using the given Go template.
 Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
        )
    };
    () => {
        $crate::flags::plain_format!("")
    };
}

pub(crate) use {plain_format, table_format};

#[cfg(test)]
mod tests;
