//! Go's `os.FileMode`, which is how modes travel.

use rustix::fs::{FileType, Mode};

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const TYPE: u32 = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER | IRREGULAR;

/// `None`: no such kind of file.
pub fn file_type(mode: u32) -> Option<FileType> {
    Some(match mode & TYPE {
        0 => FileType::RegularFile,
        DIRECTORY => FileType::Directory,
        SYMLINK => FileType::Symlink,
        DEVICE => FileType::BlockDevice,
        bits if bits == DEVICE | CHARACTER => FileType::CharacterDevice,
        FIFO => FileType::Fifo,
        SOCKET => FileType::Socket,
        _ => return None,
    })
}

/// The permissions.
pub fn permissions(mode: u32) -> Mode {
    let mut bits = Mode::from_raw_mode(mode & 0o777);
    bits.set(Mode::SUID, mode & SETUID != 0);
    bits.set(Mode::SGID, mode & SETGID != 0);
    bits.set(Mode::SVTX, mode & STICKY != 0);
    bits
}

/// Of `st_mode`.
pub fn from_raw(raw: u32) -> u32 {
    let bits = Mode::from_raw_mode(raw);
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let kind = match FileType::from_raw_mode(raw) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        FileType::Fifo => FIFO,
        FileType::Socket => SOCKET,
        FileType::RegularFile => 0,
        FileType::Unknown => IRREGULAR,
    };
    kind | (raw & 0o777)
        | flag(bits.contains(Mode::SUID), SETUID)
        | flag(bits.contains(Mode::SGID), SETGID)
        | flag(bits.contains(Mode::SVTX), STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_there_and_back() {
        for raw in [
            0o100644, 0o040755, 0o120777, 0o104755, 0o041777, 0o020666, 0o060600, 0o010600, 0o140755,
        ] {
            let mode = from_raw(raw);
            assert_eq!(file_type(mode), Some(FileType::from_raw_mode(raw)), "{raw:o}");
            assert_eq!(permissions(mode).as_raw_mode(), raw & 0o7777, "{raw:o}");
        }
        assert_eq!(file_type(IRREGULAR), None);
        assert_eq!(file_type(DIRECTORY | SYMLINK), None);
    }
}
