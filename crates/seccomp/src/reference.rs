//! The same question answered straight from the profile, call by call, without ranges and without BPF.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use crate::arch::Arch;
use crate::interpreter::{Data, low};

fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1) & 0xffff;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x3_0000,
        LinuxSeccompAction::ScmpActErrno => 0x5_0000 | data,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    }
}

fn holds(argument: &LinuxSeccompArg, arch: Arch, data: &Data) -> bool {
    let wide = matches!(arch, Arch::X86_64 | Arch::Aarch64);
    let cut = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let (actual, wanted) = (cut(data.arguments[argument.index()]), cut(argument.value()));
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != wanted,
        LinuxSeccompOperator::ScmpCmpLt => actual < wanted,
        LinuxSeccompOperator::ScmpCmpLe => actual <= wanted,
        LinuxSeccompOperator::ScmpCmpEq => actual == wanted,
        LinuxSeccompOperator::ScmpCmpGe => actual >= wanted,
        LinuxSeccompOperator::ScmpCmpGt => actual > wanted,
        LinuxSeccompOperator::ScmpCmpMaskedEq => actual & wanted == cut(argument.value_two().unwrap_or(0)) & wanted,
    }
}

fn repeats(arguments: &[LinuxSeccompArg]) -> bool {
    arguments
        .iter()
        .enumerate()
        .any(|(n, a)| arguments[..n].iter().any(|b| a.index() == b.index()))
}

/// Whether a rule for `name` is about this call at all, and if it has conditions, whether they hold.
fn matches(call: &LinuxSyscall, name: &str, arch: Arch, data: &Data) -> Option<(bool, bool)> {
    let arguments = call.args().as_deref().unwrap_or_default();
    let any = |arguments: &[LinuxSeccompArg]| arguments.iter().any(|a| holds(a, arch, data));
    let all = |arguments: &[LinuxSeccompArg]| arguments.iter().all(|a| holds(a, arch, data));
    if arch.number(name) == Some(data.number) {
        return Some((
            arguments.is_empty(),
            if repeats(arguments) {
                any(arguments)
            } else {
                all(arguments)
            },
        ));
    }
    let (multiplexer, sub) = arch.multiplexed(name)?;
    if multiplexer != data.number {
        return None;
    }
    let selected = low(data.arguments[0]) == sub;
    let rest: Vec<LinuxSeccompArg> = arguments.iter().filter(|a| a.index() != 0).copied().collect();
    let on_selector = rest.len() != arguments.len();
    let rest = if repeats(arguments) {
        on_selector || any(&rest)
    } else {
        all(&rest)
    };
    Some((false, selected && rest))
}

pub fn verdict(profile: &LinuxSeccomp, archs: &[Arch], data: &Data) -> u32 {
    let default = value(profile.default_action(), profile.default_errno_ret());
    let listed: Vec<Arch> = profile
        .architectures()
        .iter()
        .flatten()
        .filter_map(|a| Arch::from_oci(*a))
        .collect();
    let known = |arch: Arch| archs.contains(&arch) || listed.contains(&arch);
    let x32 = data.number & (1 << 30) != 0;
    let arch = match data.token {
        0xc000_003e if x32 => Arch::X32,
        0xc000_003e => Arch::X86_64,
        0x4000_0003 => Arch::X86,
        0xc000_00b7 => Arch::Aarch64,
        0x4000_0028 => Arch::Arm,
        _ => return 0,
    };
    let calls: Vec<&LinuxSyscall> = profile.syscalls().iter().flatten().collect();
    let named = || {
        calls
            .iter()
            .flat_map(|call| call.names().iter().map(move |name| (*call, name)))
    };

    let strict = !matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    );
    let newest = named().filter_map(|(_, name)| arch.number(name)).max().unwrap_or(0);
    if strict && listed.contains(&arch) && newest != 0 && data.number > newest {
        return 0x5_0026;
    }
    if matches!(arch, Arch::X86_64 | Arch::X32) {
        let own = if data.number >= 1 << 30 {
            Arch::X32
        } else {
            Arch::X86_64
        };
        let skipped = data.number == u32::MAX && known(Arch::X86_64);
        if !known(own) && !skipped {
            return 0;
        }
    } else if !known(arch) {
        return 0;
    }

    let rules = || {
        let rules = named().map(|(call, name)| (value(call.action(), call.errno_ret()), call, name));
        rules.filter(|(action, ..)| *action != default)
    };
    let unconditional = rules().find(|(_, call, name)| matches(call, name, arch, data).is_some_and(|m| m.0));
    let conditional = || rules().find(|(_, call, name)| matches(call, name, arch, data).is_some_and(|m| m.1));
    unconditional
        .or_else(conditional)
        .map_or(default, |(action, ..)| action)
}
