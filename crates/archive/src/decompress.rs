//! What a stream is compressed with, told from its first bytes as Docker tells it: the media type is not trusted.

use std::io::{self, BufReader, Cursor, Read};

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }
}

/// The uncompressed bytes of a stream.
pub struct Decoder<R: Read> {
    compression: Compression,
    inner: Inner<R>,
}

type Source<R> = io::Chain<Cursor<Vec<u8>>, R>;

enum Inner<R: Read> {
    Plain(Source<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Source<R>>>>),
    Xz(Box<lzma_rust2::XzReader<BufReader<Source<R>>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<BufReader<Source<R>>>>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// Enough for the longest magic number.
const MAGIC: usize = 6;
const BUFFER: usize = 64 << 10;
/// KiB that an xz stream may ask for: `xz -9` needs 64 MiB.
const XZ_MEMORY: u32 = 160 << 10;

/// Looks at the first bytes of `reader` and decodes gzip (every member), zstd (every frame, skippable ones included), xz and
/// bzip2 (every stream), or nothing.
pub fn decompress<R: Read>(mut reader: R) -> Result<Decoder<R>> {
    let mut magic = Vec::with_capacity(MAGIC);
    reader
        .by_ref()
        .take(MAGIC as u64)
        .read_to_end(&mut magic)
        .map_err(|source| Error::Read { source })?;
    let compression = sniff(&magic);
    let source = Cursor::new(magic).chain(reader);
    let inner = match compression {
        Compression::None => Inner::Plain(source),
        Compression::Gzip => {
            let source = BufReader::with_capacity(BUFFER, source);
            Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, source));
            Inner::Zstd(Box::new(decoder.map_err(|source| Error::Read { source })?))
        }
        Compression::Xz => {
            let source = BufReader::with_capacity(BUFFER, source);
            Inner::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY)))
        }
        Compression::Bzip2 => {
            let source = BufReader::with_capacity(BUFFER, source);
            Inner::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(source)))
        }
    };
    Ok(Decoder { compression, inner })
}

fn sniff(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Compression::Bzip2,
        _ => Compression::None,
    }
}

impl<R: Read> Decoder<R> {
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The stream below: what was read ahead of the decoder is lost.
    pub fn into_inner(self) -> R {
        match self.inner {
            Inner::Plain(source) => source.into_inner().1,
            Inner::Gzip(decoder) => decoder.into_inner().into_inner().into_inner().1,
            Inner::Zstd(decoder) => decoder.finish().into_inner().into_inner().1,
            Inner::Xz(decoder) => decoder.into_inner().into_inner().into_inner().1,
            Inner::Bzip2(decoder) => decoder.into_inner().into_inner().into_inner().1,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(source) => source.read(buffer),
            Inner::Gzip(decoder) => decoder.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer),
            Inner::Xz(decoder) => decoder.read(buffer),
            Inner::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(bytes: &[u8]) -> (Compression, io::Result<Vec<u8>>) {
        let mut decoder = decompress(bytes).unwrap();
        let mut out = Vec::new();
        let result = decoder.read_to_end(&mut out).map(|_| out);
        (decoder.compression(), result)
    }

    #[test]
    fn every_gzip_member_and_zstd_frame_is_read() {
        let members = [gzip(b"one "), gzip(b"two")].concat();
        let (compression, out) = decoded(&members);
        assert_eq!(
            (compression, out.unwrap().as_slice()),
            (Compression::Gzip, &b"one two"[..])
        );

        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        for stream in [
            [frame(b"one "), skippable.clone(), frame(b"two")].concat(),
            [skippable.clone(), frame(b"one "), frame(b"two"), skippable].concat(),
        ] {
            let (compression, out) = decoded(&stream);
            assert_eq!(
                (compression, out.unwrap().as_slice()),
                (Compression::Zstd, &b"one two"[..])
            );
        }
        for plain in [&b""[..], b"x", b"plain tar"] {
            assert_eq!(decoded(plain).1.unwrap(), plain);
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error_and_not_an_end() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = gzip(&bytes);
        for cut in [whole.len() - 1, whole.len() - 8, whole.len() / 2, 20, 12] {
            assert!(decoded(&whole[..cut]).1.is_err(), "{cut}");
        }
        let whole = zstd::encode_all(&bytes[..], 1).unwrap();
        for cut in [whole.len() - 1, whole.len() / 2] {
            assert!(decoded(&whole[..cut]).1.is_err(), "{cut}");
        }
    }

    #[test]
    fn xz_and_bzip2_are_read() {
        // `printf x | xz`.
        let xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\0x\0\0\0\0E\xae\xef\x83\xf8\xee\x16\n\0\x01\x19\x01\xa5,\x81\xcc\x1f\xb6\xf3}\x01\0\0\0\0\x04YZ";
        let (compression, out) = decoded(xz);
        assert_eq!((compression, out.unwrap().as_slice()), (Compression::Xz, &b"x"[..]));
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(b"two").unwrap();
        let bz = encoder.finish().unwrap();
        let (compression, out) = decoded(&bz);
        assert_eq!(
            (compression, out.unwrap().as_slice()),
            (Compression::Bzip2, &b"two"[..])
        );
        assert!(decoded(&bz[..bz.len() - 1]).1.is_err());
        assert!(decoded(&xz[..20]).1.is_err());
    }
}
