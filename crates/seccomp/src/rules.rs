//! What a profile says about each system call of one architecture, as libseccomp and runc read it.
//!
//! * A rule with the default action is skipped, and so is a name the architecture does not have.
//! * A rule without conditions decides: the first of them, wherever conditional ones stand.
//! * Conditions of a rule are AND-ed, rules of a call OR-ed; where conditional rules with different actions overlap the
//!   first in the profile wins. (libseccomp's answer for those depends on its tree's order.)
//! * A rule with two conditions on the same argument falls apart into one rule a condition (runc).
//! * On x86 a rule for a socket or System V IPC call is also one for its number in `socketcall` or `ipc`.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use crate::action;
use crate::arch::Arch;
use crate::error::{Error, Result};

const ARGUMENTS: usize = 6;

/// Compares argument `argument` with `value`, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Condition {
    pub argument: u8,
    pub operator: Operator,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of the mask; the value has no others.
    EqualIn(u64),
}

/// All conditions hold: this action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Case {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Always(u32),
    /// The first case that holds, else the default.
    Cases(Vec<Case>),
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// By number; every other call has the default action.
    pub verdicts: BTreeMap<u32, Verdict>,
    /// The largest number the profile names, whatever it says about it.
    pub newest: Option<u32>,
}

impl Rules {
    pub fn of(profile: &LinuxSeccomp, arch: Arch) -> Result<Self> {
        let default = action::encode(profile.default_action(), profile.default_errno_ret());
        let mut rules = Self::default();
        for call in profile.syscalls().iter().flatten() {
            let action = action::encode(call.action(), call.errno_ret());
            for name in call.names() {
                let number = arch.number(name);
                // 0 is "none found" to runc: a profile of nothing but x86_64's `read` gets no ENOSYS either.
                rules.newest = rules.newest.max(number.filter(|number| *number != 0));
                if action != default {
                    rules.add(call, name, action, arch, number)?;
                }
            }
        }
        Ok(rules)
    }

    fn add(&mut self, call: &LinuxSyscall, name: &str, action: u32, arch: Arch, number: Option<u32>) -> Result<()> {
        let arguments = call.args().as_deref().unwrap_or_default();
        for conditions in alternatives(name, arguments, arch)? {
            if let Some((multiplexer, sub)) = arch.multiplexed(name) {
                // Its arguments are behind a pointer: only which call it is can be told, and that in argument 0.
                let select = Condition {
                    argument: 0,
                    operator: Operator::Equal,
                    value: sub.into(),
                };
                let mut selected = conditions.clone();
                selected.retain(|condition| condition.argument != 0);
                selected.insert(0, select);
                self.insert(multiplexer, selected, action);
            }
            if let Some(number) = number {
                self.insert(number, conditions, action);
            }
        }
        Ok(())
    }

    fn insert(&mut self, number: u32, conditions: Vec<Condition>, action: u32) {
        let verdict = self
            .verdicts
            .entry(number)
            .or_insert_with(|| Verdict::Cases(Vec::new()));
        match verdict {
            Verdict::Always(_) => {}
            _ if conditions.is_empty() => *verdict = Verdict::Always(action),
            Verdict::Cases(cases) => cases.push(Case { conditions, action }),
        }
    }
}

/// The conditions of one rule, or of the several it stands for.
fn alternatives(name: &str, arguments: &[LinuxSeccompArg], arch: Arch) -> Result<Vec<Vec<Condition>>> {
    let mut seen = [0u32; ARGUMENTS];
    let mut conditions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let index = argument.index();
        let invalid = || Error::Argument {
            call: name.chars().take(80).collect(),
            index,
        };
        *seen.get_mut(index).ok_or_else(invalid)? += 1;
        conditions.push(condition(argument, u8::try_from(index).map_err(|_| invalid())?, arch));
    }
    if seen.iter().any(|count| *count > 1) {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    conditions.sort_by_key(|condition| condition.argument);
    Ok(vec![conditions])
}

fn condition(argument: &LinuxSeccompArg, index: u8, arch: Arch) -> Condition {
    let width = |value: u64| {
        if arch.is_wide() {
            value
        } else {
            value & u64::from(u32::MAX)
        }
    };
    let value = width(argument.value());
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Operator::Equal, value),
        LinuxSeccompOperator::ScmpCmpNe => (Operator::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Operator::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Operator::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (Operator::Greater, value),
        LinuxSeccompOperator::ScmpCmpGe => (Operator::GreaterOrEqual, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            Operator::EqualIn(value),
            width(argument.value_two().unwrap_or_default()) & value,
        ),
    };
    Condition {
        argument: index,
        operator,
        value,
    }
}

/// The agent that answers a notification learns of it by a `write`, which therefore cannot be notified itself (runc).
pub(crate) fn check_notify(profile: &LinuxSeccomp) -> Result<bool> {
    let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if is_notify(profile.default_action()) {
        return Err(Error::Notify("as default action"));
    }
    let mut calls = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|call| is_notify(call.action()))
        .peekable();
    let notifies = calls.peek().is_some();
    if calls.any(|call| call.names().iter().any(|name| name == "write")) {
        return Err(Error::Notify("for the write syscall"));
    }
    Ok(notifies)
}
