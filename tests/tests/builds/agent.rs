//! An SSH agent without keys, which does whatever else it is asked.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const REQUEST_IDENTITIES: u8 = 11;
const NO_IDENTITIES: [u8; 9] = [0, 0, 0, 5, 12, 0, 0, 0, 0];
const SUCCESS: [u8; 5] = [0, 0, 0, 1, 6];

/// Listens at `path` until the test ends.
pub fn start(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(|| serve(stream));
        }
    });
}

fn serve(mut stream: UnixStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message)?;
        match message.first() {
            Some(&REQUEST_IDENTITIES) => stream.write_all(&NO_IDENTITIES)?,
            _ => stream.write_all(&SUCCESS)?,
        }
    }
}
