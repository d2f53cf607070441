use std::io::{self, Read};

use ferry_image::{Digest, Hasher};

use crate::Descriptor;

/// A reader that is an error, instead of an end, when what came is not what the descriptor says.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
    count: u64,
    wrong: bool,
}

impl<R: Read> Verified<R> {
    /// `inner` begins at the beginning of the blob.
    pub fn new(inner: R, descriptor: &Descriptor) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
            expected: descriptor.digest.clone(),
            size: descriptor.size,
            count: 0,
            wrong: false,
        }
    }

    fn check(&mut self) -> io::Result<usize> {
        let Some(hasher) = self.hasher.take() else {
            return if self.wrong {
                Err(io::ErrorKind::InvalidData.into())
            } else {
                Ok(0)
            };
        };
        let actual = hasher.finish();
        if self.count == self.size && actual == self.expected {
            return Ok(0);
        }
        self.wrong = true;
        let text = format!(
            "the blob {} is not what its digest says: {} bytes of {} came, with the digest {actual}",
            self.expected, self.count, self.size
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return self.check();
        }
        self.count += count as u64;
        if self.count > self.size {
            let text = format!("the blob {} has more than {} bytes", self.expected, self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_bytes_come_to_an_end() {
        let read = |bytes: &[u8], size| {
            let descriptor = Descriptor::new("", Digest::of("abc"), size);
            let mut out = Vec::new();
            Verified::new(bytes, &descriptor).read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(b"abc", 3).unwrap(), b"abc");
        for (bytes, size) in [(&b"abd"[..], 3), (b"ab", 3), (b"abcd", 3), (b"abc", 4), (b"", 3)] {
            assert!(read(bytes, size).is_err());
        }
    }
}
