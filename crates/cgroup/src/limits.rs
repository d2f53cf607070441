//! Writing limits, and noticing what became of them.

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::former::{self, Former};
use crate::group::Group;
use crate::warning::Warning;

/// Writes limits into one group and collects what did not hold.
#[derive(Debug)]
pub(crate) struct Limits<'a> {
    pub group: Group<'a>,
    pub warnings: &'a mut Vec<Warning>,
    /// What the files held before, in the order of the writes; not kept of a new group, which goes when it is refused.
    pub former: Option<Vec<Former>>,
}

impl Limits<'_> {
    pub fn write(&mut self, file: &str, value: &str) -> rustix::io::Result<()> {
        self.remember(file, value);
        self.group.write(file, value)
    }

    pub fn write_and_read(&mut self, file: &str, value: &str) -> rustix::io::Result<String> {
        self.remember(file, value);
        self.group.write_and_read(file, value)
    }

    fn remember(&mut self, file: &str, value: &str) {
        if let Some(former) = &mut self.former {
            former.extend(former::of(&self.group, file, value));
        }
    }

    /// Writes `value` and warns when the file then holds something that does not mean the same.
    pub fn set(&mut self, limit: &str, file: &str, value: &str, meaning: &str) -> Result<()> {
        match self.attempt(limit, file, value)? {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.group.refused(file, value, meaning, errno)),
        }
    }

    /// As [`Self::set`], leaving the judgement of a refusal (the inner error) to the caller.
    pub fn attempt(&mut self, limit: &str, file: &str, value: &str) -> Result<Result<(), Errno>> {
        match self.write_and_read(file, value) {
            Ok(held) => {
                if !same(value, &held) {
                    self.warnings.push(Warning::Adjusted {
                        limit: limit.to_owned(),
                        asked: value.to_owned(),
                        held,
                    });
                }
                Ok(Ok(()))
            }
            Err(errno) => self.missing_or(limit, file, value, errno),
        }
    }

    /// Writes without reading back, for files that do not show what was written.
    pub fn put(&mut self, limit: &str, file: &str, value: &str, meaning: &str) -> Result<()> {
        let outcome = match self.write(file, value) {
            Ok(()) => Ok(()),
            Err(errno) => self.missing_or(limit, file, value, errno)?,
        };
        outcome.map_err(|errno| self.group.refused(file, value, meaning, errno))
    }

    pub fn unsupported(&mut self, limit: &str, asked: &str, missing: &str) {
        self.warnings.push(Warning::Unsupported {
            limit: limit.to_owned(),
            asked: asked.to_owned(),
            missing: missing.to_owned(),
        });
    }

    /// Leaves out what only v1 has.
    pub fn of_v1(&mut self, limit: &str, asked: &dyn ToString) {
        self.warnings.push(Warning::NoCounterpart {
            limit: limit.to_owned(),
            asked: asked.to_string(),
            version: 2,
        });
    }

    fn missing_or(&mut self, limit: &str, file: &str, value: &str, errno: Errno) -> Result<Result<(), Errno>> {
        match errno {
            Errno::NODEV | Errno::NOENT if !self.group.exists("") => Err(Error::NotFound(self.group.file(""))),
            Errno::NOENT | Errno::OPNOTSUPP => {
                self.unsupported(limit, value, file);
                Ok(Ok(()))
            }
            errno => Ok(Err(errno)),
        }
    }
}

/// Byte counts are held in whole pages (at most 64 KiB), and `-1` as the largest number of them there is.
fn same(asked: &str, held: &str) -> bool {
    const UNLIMITED: u64 = 1 << 62;
    const LARGEST_PAGE: u64 = 64 * 1024;
    if asked == held {
        return true;
    }
    match (asked, held.parse::<u64>()) {
        ("-1" | "max", Ok(held)) => held >= UNLIMITED,
        ("-1" | "max", Err(_)) => matches!(held, "-1" | "max"),
        (asked, Ok(held)) => match asked.parse::<u64>() {
            Ok(asked) if asked >= LARGEST_PAGE => asked.abs_diff(held) < LARGEST_PAGE || asked.min(held) >= UNLIMITED,
            _ => false,
        },
        // More than the kernel counts is no limit.
        (asked, Err(_)) => held == "max" && asked.parse::<u64>().is_ok_and(|asked| asked >= UNLIMITED),
    }
}

/// A list such as `0-2,5`, sorted into ranges; `None` when it is no list. cpuset(7), "List format".
pub(crate) fn cpu_list(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut ranges = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_rounding_and_unlimited_are_no_surprise() {
        assert!(same("-1", "9223372036854771712"));
        assert!(same("100000001", "99999744"));
        assert!(same("max", "max"));
        assert!(same("9223372036854775807", "max"));
        assert!(!same("1", "2"));
        assert!(!same("104857600", "52428800"));
        assert!(!same("-1", "4096"));
    }

    #[test]
    fn cpu_lists_compare_by_meaning() {
        assert_eq!(cpu_list("0,1, 2-3"), cpu_list("0-3"));
        assert_eq!(cpu_list("3,1"), Some(vec![(1, 1), (3, 3)]));
        assert_eq!(cpu_list("3-1"), None);
        assert_eq!(cpu_list("a"), None);
    }
}
