//! All 2^32 numbers of one architecture token, as few ranges with the same leaf.

use std::collections::BTreeMap;

use crate::action::{ENOSYS, KILL_THREAD};
use crate::arch::{Arch, X32_BIT};
use crate::rules::{Rules, Verdict};

/// What happens to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf {
    Return(u32),
    /// Look at the arguments; an index into the program's tests.
    Test(usize),
}

/// From `start` to the next range's; the first starts at 0.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub start: u32,
    pub leaf: Leaf,
    /// Single numbers inside with another leaf: one comparison each, where a range would take two.
    pub except: Vec<(u32, Leaf)>,
}

/// More exceptions than this would make the path to a leaf longer than the search they save.
const EXCEPTIONS: usize = 4;

/// A total map from numbers to leaves, by the first number of each stretch.
#[derive(Debug)]
pub(crate) struct Numbers(BTreeMap<u32, Leaf>);

impl Numbers {
    fn filled(leaf: Leaf) -> Self {
        Self(BTreeMap::from([(0, leaf)]))
    }

    fn at(&self, number: u32) -> Leaf {
        self.0
            .range(..=number)
            .next_back()
            .map_or(Leaf::Return(KILL_THREAD), |(_, leaf)| leaf.clone())
    }

    /// Both ends belong to the stretch.
    fn set(&mut self, first: u32, last: u32, leaf: Leaf) {
        if first > last {
            return;
        }
        if let Some(next) = last.checked_add(1) {
            let behind = self.at(next);
            self.0.insert(next, behind);
        }
        let inside: Vec<u32> = self.0.range(first..=last).map(|(start, _)| *start).collect();
        for start in inside {
            self.0.remove(&start);
        }
        self.0.insert(first, leaf);
    }

    /// The numbers of a token. `members` are its ABIs with their rules, and whether they are in the profile's own list
    /// of architectures, which is where runc puts its ENOSYS.
    pub fn of(members: &[(Arch, Rules, bool)], default: u32, enosys: bool, tests: &mut Vec<(Verdict, bool)>) -> Self {
        let mut numbers = Self::filled(Leaf::Return(default));
        let has = |arch: Arch| members.iter().any(|(member, ..)| *member == arch);
        if has(Arch::X86_64) && !has(Arch::X32) {
            // All but -1: with it a tracer skips a call, and the filter sees the call again (seccomp(2)).
            numbers.set(X32_BIT, u32::MAX - 1, Leaf::Return(KILL_THREAD));
        }
        if has(Arch::X32) && !has(Arch::X86_64) {
            numbers.set(0, X32_BIT - 1, Leaf::Return(KILL_THREAD));
        }
        for (arch, rules, _) in members {
            for (&number, verdict) in &rules.verdicts {
                let leaf = match verdict {
                    Verdict::Always(action) => Leaf::Return(*action),
                    Verdict::Cases(_) => {
                        tests.push((verdict.clone(), arch.is_wide()));
                        Leaf::Test(tests.len() - 1)
                    }
                };
                numbers.set(number, number, leaf);
            }
        }
        for (arch, rules, listed) in members {
            if let Some(newest) = rules.newest.filter(|_| enosys && *listed) {
                let beyond = newest.saturating_add(1);
                // Bit 30 alone tells x86_64 from x32 here, whatever is in bit 31.
                let quarters: &[(u32, u32)] = match arch {
                    Arch::X86_64 => &[(0, X32_BIT - 1), (2 * X32_BIT, 3 * X32_BIT - 1)],
                    Arch::X32 => &[(X32_BIT, 2 * X32_BIT - 1), (3 * X32_BIT, u32::MAX)],
                    _ => &[(0, u32::MAX)],
                };
                for &(first, last) in quarters {
                    numbers.set(first.max(beyond), last, Leaf::Return(ENOSYS));
                }
            }
        }
        numbers
    }

    /// Neighbours with the same leaf become one range, and lone numbers inside one become its exceptions.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        let mut stretches: Vec<(u32, &Leaf)> = Vec::new();
        for (&start, leaf) in &self.0 {
            if stretches.last().is_none_or(|(_, last)| *last != leaf) {
                stretches.push((start, leaf));
            }
        }
        let mut at = 0;
        while let Some(&(start, leaf)) = stretches.get(at) {
            let mut except = Vec::new();
            while let (Some(&(lone, other)), Some(&(next, again))) = (stretches.get(at + 1), stretches.get(at + 2)) {
                if next - lone != 1 || again != leaf || except.len() == EXCEPTIONS {
                    break;
                }
                except.push((lone, other.clone()));
                at += 2;
            }
            ranges.push(Range {
                start,
                leaf: leaf.clone(),
                except,
            });
            at += 1;
        }
        ranges
    }
}
