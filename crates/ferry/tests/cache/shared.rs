//! One fetch for all.

use std::io::Read as _;
use std::sync::Arc;

use crate::origin::{Gate, Origin, Reply};
use crate::served::{Served, noise, wait_until};

#[test]
fn sixteen_clients_share_one_fetch_and_the_upstream_may_die_after_it() {
    let origin = Origin::start();
    let content = noise(5 << 20);
    let manifest = origin.image("a/b", "1", &content);
    let blob = origin.blob("a/b", &content);
    let path = format!("/v2/a/b/blobs/{blob}");
    let gate = Arc::new(Gate::default());
    let gated = Reply {
        gate: Some((1 << 20, gate.clone())),
        ..Reply::new(200, content.clone())
    };
    origin.put(&path, gated);
    let url = format!("http://{}", origin.address);
    let cache = Served::start(&["--upstream", &url, "--upstream-ttl", "0"]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| cache.get(&path))).collect();
        let manifests: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| cache.get(&format!("/v2/a/b/manifests/{manifest}"))))
            .collect();
        wait_until("the blob is asked for", || origin.count(&format!("GET {path}")) == 1);
        std::thread::sleep(std::time::Duration::from_millis(200));
        gate.open();
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!((answer.status, answer.whole), (200, true));
            assert!(answer.body == content);
        }
        for client in manifests {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    assert_eq!(origin.count(&format!("GET {path}")), 1);
    assert_eq!(origin.count("HEAD"), 0);
    assert_eq!(origin.count("GET /v2/a/b/manifests"), 1);
    assert_eq!(cache.get("/v2/a/b/manifests/1").header("warning"), "");

    origin.die();
    assert!(cache.get(&path).body == content);
    assert_eq!(
        cache.get(&format!("/v2/a/b/manifests/{manifest}")).header("warning"),
        ""
    );
    let stale = cache.get("/v2/a/b/manifests/1");
    assert_eq!(stale.status, 200);
    assert!(
        stale.header("warning").starts_with("111 - \"Revalidation Failed"),
        "{}",
        stale.head
    );
    let missing = cache.get("/v2/a/b/manifests/2");
    assert_eq!(missing.status, 502);
    assert!(
        missing.text().contains("a/b") && missing.text().contains("connection refused"),
        "{}",
        missing.text()
    );
    let cache = cache.kill_and_start(&["--upstream", &url]);
    assert!(cache.get(&path).body == content);
    assert_eq!(cache.get("/v2/a/b/manifests/1").status, 200);
}

#[test]
fn bytes_are_passed_on_while_they_come_and_a_client_that_goes_stops_nothing() {
    let origin = Origin::start();
    let content = noise(3 << 20);
    let blob = origin.blob("a", &content);
    let path = format!("/v2/a/blobs/{blob}");
    let gate = Arc::new(Gate::default());
    let gated = Reply {
        gate: Some((2 << 20, gate.clone())),
        ..Reply::new(200, content.clone())
    };
    origin.put(&path, gated);
    let cache = Served::start(&["--upstream", &format!("http://{}", origin.address)]);
    let mut first = cache.open("GET", &path);
    first.read_exact(&mut vec![0; 1 << 20]).unwrap();
    drop(first);
    // Another one has what came at once, and not all while the upstream waits.
    let mut second = cache.open("GET", &path);
    second.read_exact(&mut vec![0; 1 << 20]).unwrap();
    drop(second);
    gate.open();
    wait_until("the blob is here", || cache.has(&blob));
    origin.die();
    assert!(cache.get(&path).body == content);
    assert_eq!(std::fs::read_dir(cache.root().join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_cache_that_is_killed_in_a_fetch_begins_it_anew() {
    let origin = Origin::start();
    let content = noise(3 << 20);
    let blob = origin.blob("a", &content);
    let path = format!("/v2/a/blobs/{blob}");
    let gated = Reply {
        gate: Some((2 << 20, Arc::new(Gate::default()))),
        ..Reply::new(200, content.clone())
    };
    origin.put(&path, gated);
    let url = format!("http://{}", origin.address);
    let cache = Served::start(&["--upstream", &url]);
    cache.open("GET", &path).read_exact(&mut vec![0; 1 << 20]).unwrap();
    let cache = cache.kill_and_start(&["--upstream", &url]);
    origin.put(&path, Reply::new(200, content.clone()));
    assert!(cache.get(&path).body == content);
}
