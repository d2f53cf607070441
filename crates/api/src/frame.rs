//! The framing of attach, exec and log streams without a tty (`application/vnd.docker.multiplexed-stream`).
//!
//! ```text
//! byte 0      stream: 0 stdin, 1 stdout, 2 stderr, 3 an error of the engine
//! bytes 1-3   zero
//! bytes 4-7   payload length, big-endian
//! bytes 8-    payload
//! ```

use crate::{Error, Result};

pub const HEADER_LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The payload is the text of an error; the stream ends after it.
    System = 3,
}

impl Stream {
    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            3 => Ok(Self::System),
            stream => Err(Error::UnknownStream { stream }),
        }
    }
}

/// The eight bytes before a payload of `len` bytes.
pub fn header(stream: Stream, len: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// A payload, or as much of one as has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub stream: Stream,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Appends header and payload; a payload of 4 GiB or more becomes several frames, an empty one none.
    pub fn encode(&self, into: &mut Vec<u8>) {
        for chunk in self.payload.chunks(u32::MAX as usize) {
            into.extend_from_slice(&header(self.stream, u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
            into.extend_from_slice(chunk);
        }
    }
}

/// Takes a stream apart as it arrives, in pieces of any size, without copying and without memory beyond one header.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_LEN],
    filled: usize,
    /// The stream and the number of payload bytes still to come, once a header is complete.
    current: Option<(Stream, u32)>,
}

impl Decoder {
    /// The next piece of payload in `input`, which is advanced past it; `None` when `input` is used up. A payload that
    /// arrives in
    /// pieces comes out in pieces. After an error the stream cannot be read on.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>> {
        loop {
            if let Some((stream, left)) = self.current {
                if left == 0 {
                    self.current = None;
                    continue;
                }
                if input.is_empty() {
                    return Ok(None);
                }
                let take = u32::try_from(input.len()).unwrap_or(u32::MAX).min(left);
                let (payload, rest) = input.split_at(take as usize);
                *input = rest;
                self.current = Some((stream, left - take));
                return Ok(Some(Frame { stream, payload }));
            }
            let take = input.len().min(HEADER_LEN - self.filled);
            let (head, rest) = input.split_at(take);
            self.header[self.filled..self.filled + take].copy_from_slice(head);
            self.filled += take;
            *input = rest;
            if self.filled < HEADER_LEN {
                return Ok(None);
            }
            let [byte, _, _, _, a, b, c, d] = self.header;
            self.current = Some((Stream::from_byte(byte)?, u32::from_be_bytes([a, b, c, d])));
            self.filled = 0;
        }
    }

    /// Whether the stream may end here: not inside a header or a payload.
    pub fn at_boundary(&self) -> bool {
        self.filled == 0 && self.current.is_none_or(|(_, left)| left == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool)> {
        let (mut out, mut err, mut decoder) = (Vec::new(), Vec::new(), Decoder::default());
        for mut piece in pieces.iter().copied() {
            while let Some(frame) = decoder.next(&mut piece)? {
                let to = if frame.stream == Stream::Stderr {
                    &mut err
                } else {
                    &mut out
                };
                to.extend_from_slice(frame.payload);
            }
            assert!(piece.is_empty());
        }
        Ok((out, err, decoder.at_boundary()))
    }

    #[test]
    fn a_header_is_what_stdcopy_writes() {
        assert_eq!(header(Stream::Stderr, 0x01020304), [2, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_empty_frame_is_passed_over() {
        let bytes = [header(Stream::Stdout, 0), header(Stream::Stdout, 0)].concat();
        assert_eq!(decode(&[&bytes]).unwrap(), (vec![], vec![], true));
    }

    #[test]
    fn a_stream_number_above_three_is_an_error() {
        assert_eq!(
            decode(&[&[7, 0, 0, 0, 0, 0, 0, 0]]),
            Err(Error::UnknownStream { stream: 7 })
        );
    }

    #[test]
    fn a_cut_off_frame_is_noticed() {
        let bytes = [&header(Stream::Stdout, 4)[..], b"abc"].concat();
        assert_eq!(decode(&[&bytes]).unwrap(), (b"abc".to_vec(), vec![], false));
        assert!(!decode(&[&bytes[..3]]).unwrap().2);
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_decodes_to_the_same_bytes(
            frames in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1usize..50,
        ) {
            let (mut bytes, mut out, mut err) = (Vec::new(), Vec::new(), Vec::new());
            for (is_err, payload) in &frames {
                let stream = if *is_err { Stream::Stderr } else { Stream::Stdout };
                Frame { stream, payload }.encode(&mut bytes);
                if *is_err { &mut err } else { &mut out }.extend_from_slice(payload);
            }
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(decode(&pieces).unwrap(), (out, err, true));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
