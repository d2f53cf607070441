//! Family F9: what attackers send, and what those may not see any more who once could.

use ferry_image::Digest;
use http::{Method, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::site::{self, Site};

/// Anything, in every place of a request, is answered, and no answer is the server's own failure.
#[test]
fn whatever_is_asked_the_server_answers_and_never_fails() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let site = runtime.block_on(async {
        let site = Site::open();
        let blob = site.blob("a/b", b"{}").await;
        site.manifest("a/b", "1", &site::image(&blob, 2, &blob, 2)).await;
        site
    });
    let digest = Digest::of("{}").to_string();
    let part = prop_oneof![
        "[a-z0-9._-]{0,8}",
        "(%2e|%2f|%5c|%00|\\.\\.|\\.|//|@|:|\\?|&|=|;|\\*|~|a/b|A){1,6}",
        Just("a/b".to_owned()),
        Just("..%2f..%2fetc%2fpasswd".to_owned()),
        Just("x".repeat(300)),
        Just(digest.clone()),
        Just("sha256:0".to_owned()),
        Just("0".repeat(32)),
        Just("sha512:".to_owned() + &"z".repeat(128)),
    ];
    let kind = prop::sample::select(vec![
        "manifests",
        "blobs",
        "blobs/uploads",
        "tags/list",
        "referrers",
        "_catalog",
        "",
    ]);
    let query = prop_oneof![
        Just(String::new()),
        "(n|last|digest|mount|from|artifactType|scope)=[a-z0-9:/%.-]{0,20}",
        Just(format!("mount={digest}&from=a/b")),
        Just(format!("digest={digest}")),
        Just("n=99999999999999999999".to_owned()),
        Just("n=1000000000&last=%ff%fe".to_owned()),
    ];
    let method = prop::sample::select(vec![
        "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO",
    ]);
    let header = prop::sample::select(vec![
        ("range", "bytes=18446744073709551615-"),
        ("content-range", "18446744073709551615-18446744073709551615"),
        ("content-range", "0-18446744073709551614"),
        ("content-length", "18446744073709551616"),
        ("content-length", "-1"),
        (
            "content-type",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        ("authorization", "Basic ===="),
        ("authorization", "Bearer ..."),
        ("accept", "\u{e9}"),
        ("if-none-match", "*"),
        ("x", ""),
    ]);
    let body = prop_oneof![
        Just(String::new()),
        Just("{}".to_owned()),
        Just("[".repeat(100_000)),
        Just(r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#.to_owned()),
        ".{0,40}",
    ];
    let requests = (method, part.clone(), kind, part, query, header, body);
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let answered = runner.run(&requests, |(method, name, kind, reference, query, header, body)| {
        let path = format!("/v2/{name}/{kind}/{reference}?{query}");
        // What is no address at all does not come this far.
        let Ok(uri) = path.parse::<http::Uri>() else {
            return Ok(());
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = runtime.block_on(site.send(method.clone(), &uri.to_string(), &[header], body));
        prop_assert!(answer.status.as_u16() < 500, "{} {} {}", method, uri, answer.status);
        // An answer to HEAD has no body.
        if answer.status.is_client_error() && method != Method::HEAD {
            prop_assert!(answer.code() != "none", "{} {} {:?}", method, uri, answer.body);
        }
        Ok(())
    });
    answered.unwrap();
    // Nothing of it left the directory.
    let strays = site
        .files()
        .into_keys()
        .filter(|path| path.to_string_lossy().contains(".."));
    assert_eq!(strays.count(), 0);
}

/// CVE-2026-35172: what was read a moment ago is in every cache there is.
#[tokio::test]
async fn what_was_taken_away_is_gone_from_the_caches() {
    let site = Site::open();
    let blob = site.blob("a", b"secret").await;
    let image = site::image(&blob, 6, &blob, 6);
    for name in ["a", "b"] {
        site.blob(name, b"secret").await;
        site.manifest(name, "1", &image).await;
    }
    let digest = Digest::of(&image);
    let paths = |name: &str| {
        [
            format!("/v2/{name}/manifests/1"),
            format!("/v2/{name}/manifests/{digest}"),
            format!("/v2/{name}/blobs/{blob}"),
        ]
    };
    for path in paths("a").iter().chain(&paths("b")) {
        for _ in 0..2 {
            assert_eq!(site.get(path).await.status, StatusCode::OK);
        }
    }
    for path in &paths("a")[1..] {
        assert_eq!(
            site.send(Method::DELETE, path, &[], "").await.status,
            StatusCode::ACCEPTED
        );
    }
    for path in &paths("a") {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(
                site.send(method, path, &[], "").await.status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }
    // The other repository has it still, and gives none of it away.
    for path in &paths("b") {
        assert_eq!(site.get(path).await.status, StatusCode::OK);
    }
    assert_eq!(site.manifest("a", "1", &image).await.code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(
        site.send(Method::DELETE, "/v2/b/manifests/1", &[], "").await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(site.get("/v2/b/manifests/1").await.status, StatusCode::NOT_FOUND);
}

/// CVE-2021-41190, CVE-2017-11468 and what else a manifest is not.
#[tokio::test]
async fn manifests_that_are_two_things_or_none_are_refused() {
    let site = Site::open();
    let blob = site.blob("a", b"{}").await;
    let good = site::image(&blob, 2, &blob, 2);
    let both = good.replacen('{', "{\"manifests\":[],", 1);
    let twice = good.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
    let deep = format!(
        "{{\"schemaVersion\":2,\"x\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for content in [
        both,
        twice,
        deep,
        "null".to_owned(),
        "[]".to_owned(),
        String::new(),
        "{".to_owned(),
    ] {
        let refused = site.manifest("a", "1", &content).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "MANIFEST_INVALID".to_owned()),
            "{content:.80}"
        );
    }
    let schema1 = [(
        "content-type",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    )];
    let refused = site
        .send(Method::PUT, "/v2/a/manifests/1", &schema1, r#"{"schemaVersion":1}"#)
        .await;
    assert!(refused.status == StatusCode::BAD_REQUEST && String::from_utf8_lossy(&refused.body).contains("schema 1"));
    let other = format!("/v2/a/manifests/{}", Digest::of("other"));
    assert_eq!(
        site.send(Method::PUT, &other, &[], good.clone()).await.code(),
        "DIGEST_INVALID"
    );
    assert_eq!(site.manifest("a", "1", &good).await.status, StatusCode::CREATED);
}
