//! Classic BPF over `struct seccomp_data`, for tests: also checks what the kernel's verifier checks.

use crate::assembler::code;
use crate::program::Program;

/// Only in the programs of others.
const IF_ANY_BIT: u16 = 0x45;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    pub number: u32,
    pub token: u32,
    pub arguments: [u64; 6],
}

/// The lower half.
pub fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let argument = |offset: u32| self.arguments[usize::try_from(offset - 16).unwrap() / 8];
        match offset {
            0 => self.number,
            4 => self.token,
            16..64 if offset.is_multiple_of(8) => low(argument(offset)),
            16..64 if offset.is_multiple_of(4) => low(argument(offset) >> 32),
            _ => panic!("load from {offset}"),
        }
    }
}

/// The verdict, and how many instructions it took.
pub fn run(program: &Program, data: &Data) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for executed in 1.. {
        let i = program.filter[at];
        let condition = match i.code {
            code::LOAD => {
                accumulator = data.word(i.k);
                None
            }
            code::AND => {
                accumulator &= i.k;
                None
            }
            code::JUMP => {
                at += usize::try_from(i.k).unwrap();
                None
            }
            code::IF_EQUAL => Some(accumulator == i.k),
            code::IF_GREATER => Some(accumulator > i.k),
            code::IF_GREATER_OR_EQUAL => Some(accumulator >= i.k),
            IF_ANY_BIT => Some(accumulator & i.k != 0),
            code::RETURN => return (i.k, executed),
            unknown => panic!("instruction {unknown:#x}"),
        };
        at += match condition {
            Some(true) => usize::from(i.jt),
            Some(false) => usize::from(i.jf),
            None => 0,
        };
        at += 1;
    }
    unreachable!()
}

/// The longest way through the program.
pub fn longest_path(program: &Program) -> usize {
    let mut longest = vec![0usize; program.filter.len()];
    for (at, i) in program.filter.iter().enumerate().rev() {
        let ahead = |offset: usize| longest[at + 1 + offset];
        longest[at] = 1 + match i.code {
            code::RETURN => 0,
            code::JUMP => ahead(usize::try_from(i.k).unwrap()),
            code::LOAD | code::AND => ahead(0),
            _ => ahead(i.jt.into()).max(ahead(i.jf.into())),
        };
    }
    longest[0]
}
