//! Which build this is: the linker's own mark, so that two builds of one version can be told apart.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// ELF program header of type note, and the note that holds the build's hash (elf(5), `ld --build-id`).
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// No note section of a binary is near this.
const NOTES_MAX: u64 = 64 * 1024;

/// In hexadecimal; where the linker left no mark, what the file system knows of the binary.
pub fn id() -> String {
    let identified = File::open("/proc/self/exe").and_then(|exe| {
        let hash = build_id(&exe)?;
        let metadata = exe.metadata()?;
        Ok(hash.unwrap_or_else(|| format!("{:x}-{:x}", metadata.size(), metadata.mtime_nsec())))
    });
    identified.unwrap_or_else(|_| VERSION.to_owned())
}

fn build_id(exe: &File) -> io::Result<Option<String>> {
    let mut header = [0; 64];
    exe.read_exact_at(&mut header, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (table, size, count) = (long(&header, 32), short(&header, 54), short(&header, 56));
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        exe.read_exact_at(&mut entry, table.saturating_add(index * u64::from(size)))?;
        let (offset, length) = (long(&entry, 8), long(&entry, 32));
        if word(&entry, 0) != PT_NOTE || length > NOTES_MAX {
            continue;
        }
        let mut notes = vec![0; usize::try_from(length).unwrap_or(0)];
        exe.read_exact_at(&mut notes, offset)?;
        if let Some(hash) = find(&notes) {
            return Ok(Some(hash.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    Ok(None)
}

/// The hash in a section of notes: name size, content size, type, then both, each padded to four bytes.
fn find(mut notes: &[u8]) -> Option<&[u8]> {
    while notes.len() >= 12 {
        let size = |at| usize::try_from(word(notes, at)).unwrap_or(usize::MAX);
        let padded = |size: usize| size.checked_next_multiple_of(4);
        let content = 12_usize.checked_add(padded(size(0))?)?;
        let hash = notes.get(content..content.checked_add(size(4))?)?;
        if word(notes, 8) == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return Some(hash);
        }
        notes = notes.get(content.checked_add(padded(size(4))?)?..)?;
    }
    None
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_a_mark_and_it_stays_the_same() {
        assert_eq!(id(), id());
        assert!(id().len() >= 8, "{}", id());
    }

    #[test]
    fn malformed_notes_hold_nothing() {
        for notes in [&[][..], &[0xff; 12], &[0xff; 64], &[0; 40]] {
            assert_eq!(find(notes), None);
        }
        let mut notes = vec![4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
        notes.extend_from_slice(b"GNU\0\xab\xcd");
        assert_eq!(find(&notes), Some(&[0xab, 0xcd][..]));
    }
}
