//! An upstream that lies, fails or breaks off.

use ferry_image::Digest;

use crate::origin::{Origin, Reply};
use crate::served::{Served, noise};

#[test]
fn wrong_bytes_are_whole_for_nobody_and_stored_for_nobody() {
    let origin = Origin::start();
    let cache = Served::start(&["--upstream", &format!("http://{}", origin.address)]);
    let content = noise(2 << 20);
    for (at, place) in [(0, "first"), (1 << 20, "middle"), ((2 << 20) - 1, "last")] {
        let mut wrong = content.clone();
        wrong[at] ^= 1;
        let (digest, path) = (Digest::of(&content), format!("/v2/a/blobs/{}", Digest::of(&content)));
        origin.put(&path, Reply::new(200, wrong));
        for _ in 0..2 {
            let answer = cache.get(&path);
            assert!(!answer.whole && answer.body.len() < content.len(), "{place}");
        }
        assert!(!cache.has(&digest), "{place}");
    }
    let small = Digest::of("small");
    let path = format!("/v2/a/blobs/{small}");
    for wrong in ["smell", "small and more", "", "s"] {
        origin.put(&path, Reply::new(200, wrong));
        let answer = cache.get(&path);
        assert_eq!(answer.status, 502, "{wrong}");
        assert!(answer.text().contains(&small.to_string()), "{}", answer.text());
    }
    origin.put(&path, Reply::new(200, "small"));
    assert_eq!(cache.get(&path).text(), "small");
    let mut silent = Reply::new(200, content.clone());
    silent.silent = true;
    let path = format!("/v2/a/blobs/{}", Digest::of(&content));
    origin.put(&path, silent);
    let answer = cache.get(&path);
    assert_eq!(answer.status, 502);
    assert!(
        answer.text().contains("does not say how many bytes"),
        "{}",
        answer.text()
    );
    assert_eq!(std::fs::read_dir(cache.root().join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_connection_that_is_cut_is_mended_or_ends_as_a_cut_one() {
    let origin = Origin::start();
    let cache = Served::start(&["--upstream", &format!("http://{}", origin.address)]);
    let content = noise(3 << 20);
    let path = format!("/v2/a/blobs/{}", origin.blob("a", &content));
    let cut = |bytes| Reply {
        cut: bytes,
        ..Reply::new(200, content.clone())
    };
    origin.put(&path, cut(1 << 10));
    let answer = cache.get(&path);
    assert!(!answer.whole);
    origin.put(&path, cut(1 << 20));
    let answer = cache.get(&path);
    assert!(answer.whole && answer.body == content);
}

#[test]
fn refusals_are_passed_on_as_what_they_mean() {
    let origin = Origin::start();
    let cache = Served::start(&["--upstream", &format!("http://{}", origin.address)]);
    let digest = Digest::of("x");
    let html = || Reply::new(200, "<html>").header("content-type", "text/html");
    let other = || Reply::new(200, "{}").header("content-type", "application/json");
    for (reply, status, code) in [
        (Reply::new(500, ""), 502, "UNKNOWN"),
        (Reply::new(401, ""), 403, "DENIED"),
        (Reply::new(403, ""), 403, "DENIED"),
        (Reply::new(404, ""), 404, "MANIFEST_UNKNOWN"),
        (Reply::new(418, ""), 502, "UNKNOWN"),
        (Reply::new(429, "").header("retry-after", "7"), 429, "TOOMANYREQUESTS"),
        (html(), 502, "UNKNOWN"),
        (other(), 502, "UNKNOWN"),
    ] {
        for name in ["1".to_owned(), digest.to_string()] {
            let path = format!("/v2/a/manifests/{name}");
            origin.put(&path, reply.clone());
            let answer = cache.get(&path);
            assert_eq!(answer.status, status, "{path} {}", answer.text());
            assert!(answer.text().contains(code), "{}", answer.text());
            let after = if status == 429 { "7" } else { "" };
            assert_eq!(answer.header("retry-after"), after);
        }
    }
    let path = format!("/v2/a/blobs/{digest}");
    for (reply, status) in [(500, 502), (401, 403), (404, 404), (429, 429)] {
        origin.put(&path, Reply::new(reply, "").header("retry-after", "3"));
        for method in ["GET", "HEAD"] {
            assert_eq!(cache.ask(method, &path).status, status, "{method} {reply}");
        }
    }
    assert!(!cache.has(&digest));
}
