//! Where a client on this machine was started, and to do what.
//!
//! What a client sends of a directory is compared with what it sent before, by sizes and times. buildx tells directories apart by
//! their last name alone (moby/buildkit#4950): with this, two of the same name and with files of the same times are two.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use ferry_image::Digest;

/// Bytes of a command line that are looked at.
const MOST: u64 = 128 << 10;
/// What is another one in every build, and says nothing of the directory; with a value.
const OF_A_BUILD: [&str; 19] = [
    "-t",
    "--tag",
    "--label",
    "--build-arg",
    "--annotation",
    "--iidfile",
    "--metadata-file",
    "--target",
    "--progress",
    "--platform",
    "--secret",
    "--ssh",
    "--cache-from",
    "--cache-to",
    "-o",
    "--output",
    "--network",
    "--add-host",
    "--no-cache-filter",
];
const SWITCHES: [&str; 6] = ["-q", "--quiet", "--no-cache", "--pull", "--push", "--load"];

/// The digest of a process's directory and of the words it was started with; `None` if they cannot be seen.
pub fn of(process: i32) -> Option<String> {
    // Its text: the directory itself is not touched.
    let directory = std::fs::read_link(format!("/proc/{process}/cwd")).ok()?;
    let mut line = Vec::new();
    let file = File::open(format!("/proc/{process}/cmdline")).ok()?;
    file.take(MOST).read_to_end(&mut line).ok()?;
    let mut text = directory.as_os_str().as_bytes().to_vec();
    for word in words(&line) {
        text.push(0);
        text.extend_from_slice(word);
    }
    Some(Digest::of(text).to_string())
}

/// Those that are alike for builds of the same directory.
fn words(line: &[u8]) -> Vec<&[u8]> {
    let mut kept = Vec::new();
    let mut words = line.split(|byte| *byte == 0);
    while let Some(word) = words.next() {
        let is = |flag: &&str| flag.as_bytes() == word;
        let has_value = |flag: &&str| {
            word.strip_prefix(flag.as_bytes())
                .is_some_and(|rest| rest.starts_with(b"="))
        };
        if OF_A_BUILD.iter().any(is) {
            words.next();
        } else if !SWITCHES.iter().any(is) && !OF_A_BUILD.iter().any(has_value) {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_one_directory_are_alike() {
        let kept = |line: &str| words(line.replace(' ', "\0").as_bytes()).join(&b' ');
        for line in [
            "docker-buildx build -t app:1 one/app",
            "docker-buildx build --tag=app:2 --build-arg A=1 -q one/app",
            "docker-buildx build --target small --push one/app",
        ] {
            assert_eq!(kept(line), b"docker-buildx build one/app", "{line}");
        }
        assert_eq!(kept("docker-buildx build -t"), b"docker-buildx build");
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(of(own).is_some() && of(own) == of(own));
        assert_eq!(of(-1), None);
    }
}
