//! A profile to a program: token check, search by number, conditions on arguments.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::action;
use crate::arch::Arch;
use crate::assembler::{Assembler, Place, code};
use crate::error::{Error, Result};
use crate::numbers::{Leaf, Numbers, Range};
use crate::program::{FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, Program};
use crate::rules::{self, Case, Condition, Operator, Rules, Verdict};

/// `BPF_MAXINSNS`
const MAX_INSTRUCTIONS: usize = 4096;

/// Offsets in `struct seccomp_data`; the halves of an argument are those of a little-endian machine.
const NUMBER: u32 = 0;
const TOKEN: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Compiles `profile` for the machine's own architectures `archs` (at least [`Arch::NATIVE`], most used first) and those
/// the profile lists. Any other architecture is killed, as libseccomp does.
pub fn compile(profile: &LinuxSeccomp, archs: &[Arch]) -> Result<Program> {
    let notifies = rules::check_notify(profile)?;
    let listed: Vec<Arch> = profile
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| Arch::from_oci(*arch))
        .collect();
    let mut wanted: Vec<Arch> = Vec::new();
    for &arch in archs.iter().chain(&listed) {
        if !wanted.contains(&arch) {
            wanted.push(arch);
        }
    }
    let default = action::encode(profile.default_action(), profile.default_errno_ret());
    let enosys = !action::is_permissive(profile.default_action());

    let mut tests = Vec::new();
    let mut tokens: Vec<(u32, Vec<Range>)> = Vec::new();
    for arch in &wanted {
        if tokens.iter().any(|(token, _)| *token == arch.token()) {
            continue;
        }
        let same_token = wanted.iter().filter(|other| other.token() == arch.token());
        let members = same_token.map(|&member| Ok((member, Rules::of(profile, member)?, listed.contains(&member))));
        let members = members.collect::<Result<Vec<_>>>()?;
        tokens.push((
            arch.token(),
            Numbers::of(&members, default, enosys, &mut tests).ranges(),
        ));
    }

    let mut compiler = Compiler {
        code: Assembler::default(),
        default,
        places: vec![None; tests.len()],
        tests,
    };
    // Back to front: the first architecture stands nearest to the start.
    let mut entries = Vec::new();
    for (token, ranges) in tokens.iter().rev() {
        let root = compiler.search(ranges);
        compiler.code.continue_at(root);
        entries.push((*token, compiler.code.load(NUMBER)));
    }
    let mut next = compiler.code.ret(action::KILL_THREAD);
    for (token, entry) in entries {
        next = compiler.code.branch(code::IF_EQUAL, token, entry, next);
    }
    compiler.code.continue_at(next);
    compiler.code.load(TOKEN);
    let filter = compiler.code.finish();
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(filter.len()));
    }
    Ok(Program {
        filter,
        flags: flags(profile, notifies),
    })
}

/// TSYNC means nothing to a filter that is loaded by the only thread.
fn flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        // The kernel refuses it without a listener.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    let listener = if notifies { FLAG_NEW_LISTENER } else { 0 };
    match profile.flags() {
        // As with runc: a filter alone is no reason to slow the program down (spec_store_bypass_disable).
        None => listener | FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(listener, |flags, flag| flags | bit(flag)),
    }
}

struct Compiler {
    code: Assembler,
    default: u32,
    /// Conditions on arguments, and whether these have 64 bits; each is written once.
    tests: Vec<(Verdict, bool)>,
    places: Vec<Option<Place>>,
}

impl Compiler {
    /// Expects the number in the accumulator.
    fn search(&mut self, ranges: &[Range]) -> Place {
        match ranges {
            [] => self.code.ret(self.default),
            [range] => self.range(range),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let pivot = high.first().map_or(0, |range| range.start);
                let high = self.search(high);
                let low = self.search(low);
                self.code.branch(code::IF_GREATER_OR_EQUAL, pivot, high, low)
            }
        }
    }

    fn range(&mut self, range: &Range) -> Place {
        let mut place = self.leaf(&range.leaf);
        for (number, leaf) in &range.except {
            let lone = self.leaf(leaf);
            place = self.code.branch(code::IF_EQUAL, *number, lone, place);
        }
        place
    }

    fn leaf(&mut self, leaf: &Leaf) -> Place {
        match leaf {
            Leaf::Return(action) => self.code.ret(*action),
            Leaf::Test(index) => self.test(*index),
        }
    }

    fn test(&mut self, index: usize) -> Place {
        if let Some(place) = self.places.get(index).copied().flatten() {
            return place;
        }
        let place = match self.tests.get(index).cloned() {
            Some((Verdict::Cases(cases), wide)) => self.cases(&cases, wide),
            Some((Verdict::Always(action), _)) => self.code.ret(action),
            None => self.code.ret(self.default),
        };
        if let Some(slot) = self.places.get_mut(index) {
            *slot = Some(place);
        }
        place
    }

    fn cases(&mut self, cases: &[Case], wide: bool) -> Place {
        let mut otherwise = self.code.ret(self.default);
        for case in cases.iter().rev() {
            let mut holds = self.code.ret(case.action);
            for condition in case.conditions.iter().rev() {
                holds = self.condition(condition, wide, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    /// 64 bits are compared as two halves, the upper one first.
    fn condition(&mut self, condition: &Condition, wide: bool, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        let low_offset = ARGUMENTS + 8 * u32::from(condition.argument);
        let high_offset = low_offset + 4;
        let (low, high) = halves(condition.value);
        let strict = match condition.operator {
            Operator::Equal => {
                let next = self.equal(low_offset, low, u32::MAX, yes, no);
                return if wide {
                    self.equal(high_offset, high, u32::MAX, next, no)
                } else {
                    next
                };
            }
            Operator::EqualIn(mask) => {
                let (low_mask, high_mask) = halves(mask);
                let next = self.equal(low_offset, low, low_mask, yes, no);
                return if wide {
                    self.equal(high_offset, high, high_mask, next, no)
                } else {
                    next
                };
            }
            Operator::NotEqual => {
                let equal = Condition {
                    operator: Operator::Equal,
                    ..*condition
                };
                return self.condition(&equal, wide, no, yes);
            }
            Operator::Less => {
                let opposite = Condition {
                    operator: Operator::GreaterOrEqual,
                    ..*condition
                };
                return self.condition(&opposite, wide, no, yes);
            }
            Operator::LessOrEqual => {
                let opposite = Condition {
                    operator: Operator::Greater,
                    ..*condition
                };
                return self.condition(&opposite, wide, no, yes);
            }
            Operator::Greater => code::IF_GREATER,
            Operator::GreaterOrEqual => code::IF_GREATER_OR_EQUAL,
        };
        let compare = self.code.branch(strict, low, yes, no);
        self.code.continue_at(compare);
        let lower = self.code.load(low_offset);
        if !wide {
            return lower;
        }
        let same = self.code.branch(code::IF_EQUAL, high, lower, no);
        let compare = self.code.branch(code::IF_GREATER, high, yes, same);
        self.code.continue_at(compare);
        self.code.load(high_offset)
    }

    fn equal(&mut self, offset: u32, value: u32, mask: u32, yes: Place, no: Place) -> Place {
        if mask == 0 {
            return yes;
        }
        let compare = self.code.branch(code::IF_EQUAL, value, yes, no);
        self.code.continue_at(compare);
        if mask != u32::MAX {
            self.code.and(mask);
        }
        self.code.load(offset)
    }
}

fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(value >> 32).unwrap_or_default();
    (low, high)
}
