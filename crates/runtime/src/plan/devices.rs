//! The device nodes that every container has.

use super::Device;

/// runtime-spec, config-linux.md "Default Devices"; console, pts and ptmx are made with the terminal.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// They belong to root, and everybody may read and write them.
pub fn defaults() -> impl Iterator<Item = Device> {
    DEFAULT.iter().map(|(path, major, minor)| Device {
        path: path.into(),
        kind: 'c',
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}
