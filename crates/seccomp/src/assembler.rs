//! Classic BPF, written from the last instruction to the first.
//!
//! Jumps only go forward, so backwards every target is known when a jump to it is written, equal returns are shared, and
//! a conditional jump that would be longer than its 8 bits gets a copy of the return, or a long jump, right behind it.
//! A [`Place`] is therefore a position counted from the *end* of the program.

use std::collections::HashMap;

use crate::program::SockFilter;

/// linux/filter.h, linux/bpf_common.h
pub(crate) mod code {
    pub(crate) const LOAD: u16 = 0x20;
    pub(crate) const AND: u16 = 0x54;
    pub(crate) const JUMP: u16 = 0x05;
    pub(crate) const IF_EQUAL: u16 = 0x15;
    pub(crate) const IF_GREATER: u16 = 0x25;
    pub(crate) const IF_GREATER_OR_EQUAL: u16 = 0x35;
    pub(crate) const RETURN: u16 = 0x06;
}

/// An instruction that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

#[derive(Debug, Default)]
pub(crate) struct Assembler {
    backwards: Vec<SockFilter>,
    returns: HashMap<u32, Place>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Place {
        self.backwards.push(SockFilter { code, jt, jf, k });
        Place(self.backwards.len() - 1)
    }

    /// Goes on with the instruction written last.
    pub fn load(&mut self, offset: u32) -> Place {
        self.push(code::LOAD, 0, 0, offset)
    }

    /// Goes on with the instruction written last.
    pub fn and(&mut self, mask: u32) -> Place {
        self.push(code::AND, 0, 0, mask)
    }

    pub fn ret(&mut self, value: u32) -> Place {
        if let Some(place) = self.returns.get(&value) {
            return *place;
        }
        let place = self.push(code::RETURN, 0, 0, value);
        self.returns.insert(value, place);
        place
    }

    /// Instructions between the next one and `place`.
    fn distance(&self, place: Place) -> usize {
        self.backwards.len() - 1 - place.0
    }

    pub fn branch(&mut self, code: u16, k: u32, mut yes: Place, mut no: Place) -> Place {
        if yes == no {
            return yes;
        }
        loop {
            match (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no))) {
                (Ok(jt), Ok(jf)) => return self.push(code, jt, jf, k),
                (Err(_), _) => yes = self.nearer(yes),
                (_, Err(_)) => no = self.nearer(no),
            }
        }
    }

    fn nearer(&mut self, place: Place) -> Place {
        match self.backwards.get(place.0) {
            Some(&SockFilter {
                code: code::RETURN, k, ..
            }) => {
                self.returns.remove(&k);
                self.ret(k)
            }
            // A program this long is refused before anyone sees it.
            _ => self.push(
                code::JUMP,
                0,
                0,
                u32::try_from(self.distance(place)).unwrap_or(u32::MAX),
            ),
        }
    }

    /// Makes the instruction written next go on at `place`.
    pub fn continue_at(&mut self, place: Place) {
        if self.distance(place) > 0 {
            self.push(
                code::JUMP,
                0,
                0,
                u32::try_from(self.distance(place)).unwrap_or(u32::MAX),
            );
        }
    }

    pub fn finish(mut self) -> Vec<SockFilter> {
        self.backwards.reverse();
        self.backwards
    }
}
