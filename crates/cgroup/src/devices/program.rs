//! Device access on v2: an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`, attached to the group's directory.
//!
//! ```text
//! r2 = type   r3 = requested access   r4 = major   r5 = minor
//! for each exception:  does it match?  -> return its answer
//! return the default
//! ```
//! As with the v1 controller, a request for several kinds of access is allowed by an exception that has all of them, and
//! denied by one that has any.

use oci_spec::runtime::LinuxDeviceCgroup;

use super::rules::{Access, Kind, Node, Rules};
use crate::error::Error;

/// linux/bpf.h, linux/bpf_common.h: class, operation and source in one byte.
mod code {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const AND: u8 = 0x54;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const MOVE: u8 = 0xb4;
    pub(super) const MOVE_REGISTER: u8 = 0xbc;
    /// 32-bit jumps (5.1): device numbers have no sign.
    pub(super) const IF_EQUAL: u8 = 0x16;
    pub(super) const IF_NOT_EQUAL: u8 = 0x56;
    pub(super) const IF_NOT_EQUAL_REGISTER: u8 = 0x5e;
    pub(super) const EXIT: u8 = 0x95;
}

const TYPE_BLOCK: u32 = 1;
const TYPE_CHAR: u32 = 2;

/// `struct bpf_insn`
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: u32,
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let [o0, o1] = self.offset.to_ne_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_ne_bytes();
        // The two registers are bit fields, the destination in the lower half on little-endian machines.
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.destination
        } else {
            self.destination << 4 | self.source
        };
        [self.code, registers, o0, o1, i0, i1, i2, i3]
    }
}

fn with_immediate(code: u8, destination: u8, immediate: u32) -> Instruction {
    Instruction {
        code,
        destination,
        source: 0,
        offset: 0,
        immediate,
    }
}

fn with_register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction {
        code,
        destination,
        source,
        offset,
        immediate: 0,
    }
}

/// The program for an OCI device list, instruction by instruction in native byte order, ready for bpf(2). It answers 1
/// for allowed, 0 for denied. Its size grows with the number of exceptions, at most nine instructions each.
pub fn program(list: &[LinuxDeviceCgroup]) -> Result<Vec<[u8; 8]>, Error> {
    let rules = Rules::new(list)?;
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type /* access << 16 | type */, major, minor; }
        with_register(code::LOAD_WORD, 2, 1, 0),
        with_register(code::MOVE_REGISTER, 3, 2, 0),
        with_immediate(code::AND, 2, 0xffff),
        with_immediate(code::SHIFT_RIGHT, 3, 16),
        with_register(code::LOAD_WORD, 4, 1, 4),
        with_register(code::LOAD_WORD, 5, 1, 8),
    ];
    for (node, access) in &rules.exceptions {
        program.extend(exception(*node, *access, !rules.allow));
    }
    program.extend(answer(rules.allow));
    Ok(program.into_iter().map(Instruction::bytes).collect())
}

fn answer(allow: bool) -> [Instruction; 2] {
    [
        with_immediate(code::MOVE, 0, u32::from(allow)),
        with_immediate(code::EXIT, 0, 0),
    ]
}

fn exception(node: Node, access: Access, allow: bool) -> Vec<Instruction> {
    let kind = match node.kind {
        Kind::Block => TYPE_BLOCK,
        Kind::Char => TYPE_CHAR,
    };
    let mut block = vec![with_immediate(code::IF_NOT_EQUAL, 2, kind)];
    if access != Access::ALL {
        block.push(with_register(code::MOVE_REGISTER, 1, 3, 0));
        block.push(with_immediate(code::AND, 1, access.0.into()));
        block.push(if allow {
            with_register(code::IF_NOT_EQUAL_REGISTER, 1, 3, 0)
        } else {
            with_immediate(code::IF_EQUAL, 1, 0)
        });
    }
    block.extend(node.major.map(|major| with_immediate(code::IF_NOT_EQUAL, 4, major)));
    block.extend(node.minor.map(|minor| with_immediate(code::IF_NOT_EQUAL, 5, minor)));
    block.extend(answer(allow));
    // Every jump leaves the block when the exception does not match.
    let length = block.len();
    for (at, instruction) in block.iter_mut().enumerate() {
        let jumps = [code::IF_EQUAL, code::IF_NOT_EQUAL, code::IF_NOT_EQUAL_REGISTER];
        if jumps.contains(&instruction.code) {
            instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::testing::rule;
    use super::*;
    use crate::devices::defaults;

    /// Runs the program as the kernel would.
    fn run(program: &[[u8; 8]], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let [code, both, o0, o1, i0, i1, i2, i3] = program[at];
            let (destination, source) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
            let immediate = u32::from_ne_bytes([i0, i1, i2, i3]);
            let jump = match code {
                code::LOAD_WORD => {
                    assert_eq!(source, 1);
                    registers[destination] = context[offset / 4];
                    false
                }
                code::AND => {
                    registers[destination] &= immediate;
                    false
                }
                code::SHIFT_RIGHT => {
                    registers[destination] >>= immediate;
                    false
                }
                code::MOVE => {
                    registers[destination] = immediate;
                    false
                }
                code::MOVE_REGISTER => {
                    registers[destination] = registers[source];
                    false
                }
                code::IF_EQUAL => registers[destination] == immediate,
                code::IF_NOT_EQUAL => registers[destination] != immediate,
                code::IF_NOT_EQUAL_REGISTER => registers[destination] != registers[source],
                code::EXIT => return registers[0],
                unknown => panic!("instruction {unknown:#x}"),
            };
            at += 1 + if jump { offset } else { 0 };
        }
    }

    const READ: u32 = 2;
    const WRITE: u32 = 4;

    #[test]
    fn the_defaults_allow_null_and_nodes_but_no_disk() {
        let program = program(&defaults()).unwrap();
        assert_eq!(run(&program, TYPE_CHAR, READ | WRITE, 1, 3), 1);
        assert_eq!(run(&program, TYPE_CHAR, READ, 136, 77), 1);
        assert_eq!(run(&program, TYPE_CHAR, READ, 1, 1), 0);
        assert_eq!(run(&program, TYPE_BLOCK, READ, 8, 0), 0);
        assert_eq!(run(&program, TYPE_BLOCK, 1, 8, 0), 1);
        assert_eq!(run(&program, TYPE_BLOCK, 1 | READ, 8, 0), 0);
    }

    #[test]
    fn a_denied_access_is_denied_in_company_too() {
        let program = program(&[rule(true, "a"), rule(false, "c 1:3 w")]).unwrap();
        assert_eq!(run(&program, TYPE_CHAR, READ, 1, 3), 1);
        assert_eq!(run(&program, TYPE_CHAR, READ | WRITE, 1, 3), 0);
        assert_eq!(run(&program, TYPE_BLOCK, WRITE, 1, 3), 1);
    }

    #[test]
    fn large_numbers_keep_their_value() {
        let program = program(&[rule(true, "c 4294967295:4294967294 r")]).unwrap();
        assert_eq!(run(&program, TYPE_CHAR, READ, u32::MAX, u32::MAX - 1), 1);
        assert_eq!(run(&program, TYPE_CHAR, READ, u32::MAX, u32::MAX), 0);
    }

    proptest! {
        #[test]
        fn the_program_answers_what_the_rules_say(
            list in proptest::collection::vec(
                (any::<bool>(), "(b|c)", "([0-2]|\\*)", "([0-2]|\\*)", "(r|w|m|rw|rwm)"), 0..8),
            allow in any::<bool>(), block in any::<bool>(), access in 1u8..8, major in 0u32..4, minor in 0u32..4,
        ) {
            let mut rules = vec![rule(allow, "a")];
            rules.extend(list.iter().map(|(allow, kind, a, b, access)| rule(*allow, &format!("{kind} {a}:{b} {access}"))));
            if let Ok(state) = Rules::new(&rules) {
                let kind = if block { Kind::Block } else { Kind::Char };
                let fits = |have: Option<u32>, number: u32| have.is_none_or(|have| have == number);
                let met = state.exceptions.iter().any(|(node, held)| {
                    let enough = if state.allow { held.0 & access != 0 } else { access & !held.0 == 0 };
                    node.kind == kind && fits(node.major, major) && fits(node.minor, minor) && enough
                });
                let code = if block { TYPE_BLOCK } else { TYPE_CHAR };
                let answer = run(&program(&rules).unwrap(), code, access.into(), major, minor);
                prop_assert_eq!(answer == 1, state.allow != met);
            }
        }
    }
}
