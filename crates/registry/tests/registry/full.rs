//! A disk that is full at any moment: what cannot be done is said, nothing is half, and with room everything goes on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ferry_image::Digest;

use crate::child::Child;
use crate::site::{image, scratch};

const PAGE: u64 = 4096;
const ONES: [u8; 4096] = [1; 4096];

/// What there is too little of.
#[derive(Clone, Copy, Debug)]
enum Want {
    Bytes,
    Files,
}

impl Want {
    /// Leaves room for so many pages, or files.
    fn fill(self, dir: &Path, left: u64) {
        fs::create_dir_all(dir).unwrap();
        match self {
            Self::Bytes => {
                let mut file = File::create(dir.join("filler")).unwrap();
                let mut length = 0;
                while file.write_all(&ONES).is_ok() {
                    length += PAGE;
                }
                file.set_len(length.saturating_sub(left * PAGE)).unwrap();
            }
            Self::Files => {
                let mut count = 0_u64;
                while File::create_new(dir.join(count.to_string())).is_ok() {
                    count += 1;
                }
                for number in count.saturating_sub(left)..count {
                    fs::remove_file(dir.join(number.to_string())).unwrap();
                }
            }
        }
    }
}

struct Site {
    server: Child,
    /// What fills the disk.
    filler: PathBuf,
    refused: BTreeSet<&'static str>,
}

impl Site {
    /// Whether it was done; else the disk is what the answer is about.
    fn ask(&mut self, what: &'static str, method: &str, path: &str, body: &[u8]) -> Option<String> {
        let reply = self.server.ask(method, path, &[], body);
        if (200..300).contains(&reply.status) {
            return Some(reply.header("location").to_owned());
        }
        assert_eq!(reply.status, 507, "{what}: {:?}", reply.json());
        let message = reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            message.contains("disk is full") && reply.code() == "UNKNOWN",
            "{message}"
        );
        self.refused.insert(what);
        None
    }

    fn push(&mut self, content: &[u8]) -> Option<String> {
        let digest = Digest::of(content).to_string();
        let at = self.ask("begin", "POST", "/v2/a/blobs/uploads/", b"")?;
        let half = content.len() / 2;
        let sent = self.ask("append", "PATCH", &at, &content[..half]);
        let sent = sent.and_then(|_| self.ask("finish", "PUT", &format!("{at}?digest={digest}"), &content[half..]));
        if sent.is_none() {
            self.server.ask("DELETE", &at, &[], b"");
            return None;
        }
        let manifest = image(&digest, content.len(), &digest, content.len());
        self.ask("manifest", "PUT", "/v2/a/manifests/t", manifest.as_bytes())?;
        Some(manifest)
    }

    /// The tag has one of these, with everything.
    fn check(&self, may_be: &[&str]) {
        let found = self.server.ask("GET", "/v2/a/manifests/t", &[], b"");
        let text = String::from_utf8(found.body.clone()).unwrap();
        assert!(may_be.contains(&&*text), "{text}");
        let digest = found.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
        let blob = self.server.ask("GET", &format!("/v2/a/blobs/{digest}"), &[], b"");
        assert_eq!(Digest::of(&blob.body).to_string(), digest);
    }
}

fn full_again_and_again(want: Want, options: &str, most: u64) {
    let dir = scratch();
    let mount = dir.path().join("disk");
    fs::create_dir(&mount).unwrap();
    let script = format!("mount -t tmpfs -o {options} tmpfs {}; exec \"$@\"", mount.display());
    let wrapper = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        &script,
        "sh",
    ]
    .map(OsString::from);
    let server = Child::start(&mount.join("root"), &wrapper);
    // The mount is the server's alone.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.id(), mount.display()));
    let mut site = Site {
        server,
        filler: inside.join("filler"),
        refused: BTreeSet::new(),
    };
    let mut last = site.push(b"the first").expect("there is room");
    for left in 0..most {
        want.fill(&site.filler, left);
        let content = format!("{left} {}", "x".repeat(20_000));
        let pushed = site.push(content.as_bytes());
        let manifest = image_of(content.as_bytes());
        // A manifest that was refused may be there, but not behind the tag.
        site.check(&[pushed.as_deref().unwrap_or(&last)]);
        let collected = site.server.collect();
        assert!(collected.starts_with("Ok("), "{collected}");
        site.check(&[pushed.as_deref().unwrap_or(&last)]);
        fs::remove_dir_all(&site.filler).unwrap();
        last = site.push(content.as_bytes()).expect("there is room again");
        assert_eq!(last, manifest);
        site.check(&[&last]);
    }
    // It was full at every moment at which something is needed.
    let moments: &[_] = match want {
        Want::Bytes => &["append", "begin", "finish", "manifest"],
        Want::Files => &["begin", "finish", "manifest"],
    };
    assert!(site.refused.iter().eq(moments), "{want:?}: {:?}", site.refused);
    assert!(site.server.ask("GET", "/healthz", &[], b"").status == 200);
    let uploads = inside.join("root/uploads");
    assert_eq!(fs::read_dir(uploads).unwrap().count(), 0);
    assert_eq!(fs::read_dir(inside.join("root/tmp")).unwrap().count(), 0);
    site.server.end();
}

fn image_of(content: &[u8]) -> String {
    let digest = Digest::of(content).to_string();
    image(&digest, content.len(), &digest, content.len())
}

#[test]
fn root_a_disk_without_room_refuses_and_goes_on() {
    full_again_and_again(Want::Bytes, "size=2m", 24);
}

#[test]
fn root_a_disk_without_inodes_refuses_and_goes_on() {
    full_again_and_again(Want::Files, "size=8m,nr_inodes=400", 16);
}
