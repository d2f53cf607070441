//! Tags, which move; and whose a name is.

use crate::origin::{Origin, Reply};
use crate::served::Served;

#[test]
fn a_tag_is_asked_for_again_after_its_time_and_what_it_was_is_not() {
    let origin = Origin::start();
    let url = format!("http://{}", origin.address);
    let patient = Served::start(&["--upstream", &url]);
    let eager = Served::start(&["--upstream", &url, "--upstream-ttl", "0"]);
    let (path, asked) = ("/v2/a/manifests/1", "GET /v2/a/manifests/1");
    let first = origin.image("a", "1", b"first");
    let digest = |cache: &Served| cache.get(path).header("docker-content-digest").to_owned();
    for cache in [&patient, &eager] {
        assert_eq!(digest(cache), first.to_string());
    }
    assert_eq!(digest(&eager), first.to_string());
    assert_eq!((origin.count(asked), origin.count("HEAD /v2/a/manifests/1")), (2, 1));
    let second = origin.image("a", "1", b"second");
    assert_eq!(digest(&patient), first.to_string());
    assert_eq!(digest(&eager), second.to_string());
    assert_eq!(eager.get(&format!("/v2/a/manifests/{first}")).status, 200);

    // Down is no reason to give nothing; denied is, and so is gone.
    for (status, expected) in [(500, 200), (403, 403)] {
        origin.put(path, Reply::new(status, ""));
        let answer = eager.get(path);
        assert_eq!(answer.status, expected, "{}", answer.text());
        assert_eq!(answer.header("warning").is_empty(), expected != 200);
        origin.put(path, Reply::new(200, ""));
    }
    origin.take(path);
    assert_eq!(eager.get(path).status, 404);
    origin.die();
    assert_eq!(eager.get(path).status, 502);
    assert_eq!(digest(&patient), first.to_string());
}

#[test]
fn names_lead_to_their_upstream_and_only_ones_own_are_pushed_to() {
    let (docker, quay) = (Origin::start(), Origin::start());
    docker.image("library/x", "1", b"docker");
    quay.image("team/x", "1", b"quay");
    docker.put(
        "/v2/library/x/tags/list",
        Reply::new(200, r#"{"name":"library/x","tags":["1","0"]}"#),
    );
    let upstream = |name: &str, origin: &Origin| format!("{name}=http://{}", origin.address);
    let cache = Served::start(&[
        "--upstream",
        &upstream("docker.io", &docker),
        "--upstream",
        &upstream("quay.io", &quay),
        "--upstream-except",
        "own",
    ]);
    for path in ["library/x", "x", "docker.io/library/x", "docker.io/x", "quay.io/team/x"] {
        assert_eq!(cache.get(&format!("/v2/{path}/manifests/1")).status, 200, "{path}");
    }
    assert_eq!(cache.get("/v2/team/x/manifests/1?ns=quay.io").status, 200);
    assert_eq!(cache.get("/v2/team/x/manifests/1?ns=docker.io").status, 404);
    let unknown = cache.get("/v2/team/x/manifests/1?ns=ghcr.io");
    assert!(unknown.status == 404 && unknown.text().contains("no cache of ghcr.io"));
    assert_eq!(
        docker.count("GET /v2/library/x/manifests/1"),
        1,
        "one copy, whatever it is called"
    );
    let tags = cache.get("/v2/x/tags/list?n=1");
    assert!(
        tags.text().contains(r#"["0"]"#) && tags.header("link").contains("last=0"),
        "{}",
        tags.text()
    );

    for path in ["x", "docker.io/library/x", "quay.io/team/x"] {
        let refused = cache.ask("POST", &format!("/v2/{path}/blobs/uploads/"));
        assert_eq!(refused.status, 405, "{path}");
        assert!(refused.text().contains("is a cache of http://"), "{}", refused.text());
    }
    assert_eq!(cache.ask("POST", "/v2/own/x/blobs/uploads/").status, 202);
    assert_eq!(cache.ask("POST", "/v2/ghcr.io/x/blobs/uploads/").status, 202);
}

/// Rights come before anything is looked up, here or there, and are those of the name in storage, whatever the client calls it.
#[test]
fn who_may_not_see_a_repository_makes_nobody_ask_for_it() {
    let origin = Origin::start();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let (secret, digest) = (origin.image("a/x", "1", b"secret"), origin.blob("a/x", b"secret"));
    origin.image("library/x", "1", b"public");
    let rights = format!(
        r#"{{"upstreams":[{{"name":"docker.io","url":"http://{}"}}],"auth":{{"rights":[
            {{"who":["anonymous"],"repositories":["a/**","docker.io/library/*"],"allow":["pull"]}}]}}}}"#,
        origin.address
    );
    std::fs::write(&config, rights).unwrap();
    let cache = Served::start(&["--config", config.to_str().unwrap()]);
    for path in [
        "a/x/manifests/1?ns=docker.io".to_owned(),
        "a/x/manifests/1".to_owned(),
        "docker.io/a/x/manifests/1".to_owned(),
        format!("a/x/manifests/{secret}"),
        format!("a/x/blobs/{digest}"),
        "a/x/tags/list".to_owned(),
        format!("a/x/referrers/{secret}"),
    ] {
        for method in ["GET", "HEAD"] {
            let status = cache.ask(method, &format!("/v2/{path}")).status;
            assert!(matches!(status, 401 | 403), "{method} {path}: {status}");
        }
    }
    assert_eq!(origin.count(""), 0);
    assert_eq!(cache.get("/v2/x/manifests/1").status, 200);
}
