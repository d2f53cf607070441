//! Finding the detach keys in what a client types.

/// Follows a key sequence through a stream of bytes that arrives in pieces of any size.
pub(super) struct Detach {
    keys: Vec<u8>,
    matched: usize,
}

impl Detach {
    /// `None` for an empty sequence, which never matches.
    pub fn new(keys: Vec<u8>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self { keys, matched: 0 })
    }

    /// Passes on what is input; true if the whole sequence was typed, and what follows it is dropped.
    ///
    /// A started sequence is held back until it is complete or broken, and then passed on whole, as Docker does.
    pub fn filter(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            output.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if byte == self.keys[0] {
                self.matched = 1;
            } else {
                output.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_across_pieces_and_a_broken_one_is_input() {
        let mut detach = Detach::new(vec![16, 17]).unwrap();
        let mut output = Vec::new();
        assert!(!detach.filter(b"ab\x10", &mut output));
        assert!(!detach.filter(b"c\x10\x10", &mut output));
        assert!(detach.filter(b"\x11rest", &mut output));
        assert_eq!(output, b"ab\x10c\x10");
    }
}
