//! The router in process: what clients do, what they may not, and what attackers try.

use axum::body::Body;
use ferry_image::Digest;
use http::{Method, StatusCode};
use serde_json::json;

use crate::site::{self, Answer, Site};

#[tokio::test]
async fn an_image_goes_in_and_comes_out() {
    let site = Site::open();
    let (config, layer) = (site.blob("a/b", b"{}").await, site.blob("a/b", b"layer").await);
    let manifest = site::image(&config, 2, &layer, 5);
    let put = site.manifest("a/b", "latest", &manifest).await;
    assert_eq!(put.status, StatusCode::CREATED);
    let digest = Digest::of(&manifest).to_string();
    assert_eq!(put.header("docker-content-digest"), digest);
    let got = site.get("/v2/a/b/manifests/latest").await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, manifest.as_bytes()));
    assert_eq!(got.header("etag"), format!("\"{digest}\""));
    let same = site
        .send(
            Method::GET,
            &format!("/v2/a/b/manifests/{digest}"),
            &[("if-none-match", &format!("\"{digest}\""))],
            "",
        )
        .await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let path = format!("/v2/a/b/blobs/{layer}");
    let part = site.send(Method::GET, &path, &[("range", "bytes=1-2")], "").await;
    assert_eq!(
        (part.status, &part.body[..], part.header("content-range")),
        (StatusCode::PARTIAL_CONTENT, &b"ay"[..], "bytes 1-2/5")
    );
    let past = site.send(Method::GET, &path, &[("range", "bytes=5-")], "").await;
    assert_eq!(
        (past.status, past.header("content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */5")
    );
    let head = site.send(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "5"));
    let tags = site.get("/v2/a/b/tags/list").await;
    assert_eq!(tags.json(), json!({ "name": "a/b", "tags": ["latest"] }));
    assert_eq!(site.get("/v2/nobody/tags/list").await.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn manifests_that_name_what_is_not_there_are_refused() {
    let site = Site::open();
    let config = site.blob("a", b"{}").await;
    let missing = Digest::of("missing").to_string();
    let refused = site.manifest("a", "1", &site::image(&config, 2, &missing, 7)).await;
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN");
    // In another repository it is not there either.
    let elsewhere = site.blob("b", b"layer").await;
    assert_eq!(
        site.manifest("a", "1", &site::image(&config, 2, &elsewhere, 5))
            .await
            .code(),
        "MANIFEST_BLOB_UNKNOWN"
    );
    assert_eq!(
        site.manifest("a", "1", &site::image(&config, 3, &config, 2))
            .await
            .code(),
        "MANIFEST_INVALID"
    );
    assert_eq!(site.get("/v2/a/manifests/1").await.code(), "MANIFEST_UNKNOWN");
    let large = " ".repeat((4 << 20) + 1);
    assert_eq!(
        site.manifest("a", "1", &large).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

/// BuildKit's caches with `image-manifest=false`: an index of layers and a configuration.
#[tokio::test]
async fn an_index_may_name_blobs_but_no_manifest_that_is_one() {
    let site = Site::open();
    let (config, layer) = (site.blob("a", b"{}").await, site.blob("a", b"layer").await);
    let part = |media_type: &str, digest: &str, size: usize| json!({ "mediaType": media_type, "digest": digest, "size": size });
    let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let config = part("application/vnd.buildkit.cacheconfig.v0", &config, 2);
    for kind in [ferry_image::media::OCI_INDEX, ferry_image::media::DOCKER_INDEX] {
        let index = |layer| json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [layer, config] }).to_string();
        let put = site.manifest("a", "cache", &index(part(layer_type, &layer, 5))).await;
        assert_eq!(put.status, StatusCode::CREATED, "{kind}: {:?}", put.body);
        for (media_type, digest, size, code) in [
            (layer_type, layer.as_str(), 6, "MANIFEST_INVALID"),
            (
                layer_type,
                &Digest::of("missing").to_string(),
                7,
                "MANIFEST_BLOB_UNKNOWN",
            ),
            (ferry_image::media::OCI_MANIFEST, &layer, 5, "MANIFEST_BLOB_UNKNOWN"),
        ] {
            let refused = site.manifest("a", "bad", &index(part(media_type, digest, size))).await;
            assert_eq!(refused.code(), code, "{kind} {media_type} {digest} {size}");
        }
    }
}

/// As when an administrator removes the file of a damaged blob, so that it is pushed again.
#[tokio::test]
async fn what_the_disk_lost_is_asked_for_once_a_push_was_refused() {
    let site = Site::open();
    let (config, layer) = (site.blob("a", b"{}").await, site.blob("a", b"layer").await);
    let image = site::image(&config, 2, &layer, 5);
    let path = format!("/v2/a/blobs/{layer}");
    assert_eq!(site.get(&path).await.status, StatusCode::OK);
    let hex = layer.strip_prefix("sha256:").unwrap();
    let files = site.files();
    let content = files.keys().find(|path| path.ends_with(hex)).unwrap();
    std::fs::remove_file(content).unwrap();
    assert_eq!(site.manifest("a", "1", &image).await.code(), "MANIFEST_BLOB_UNKNOWN");
    let head = site.send(Method::HEAD, &path, &[], "").await;
    assert_eq!(
        (head.status, site.get(&path).await.status),
        (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND)
    );
    site.blob("a", b"layer").await;
    assert_eq!(site.manifest("a", "1", &image).await.status, StatusCode::CREATED);
    assert_eq!(site.get(&path).await.body, &b"layer"[..]);
}

#[tokio::test]
async fn chunks_follow_each_other_or_are_refused() {
    let site = Site::open();
    let begun = site.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let at = begun.header("location").to_owned();
    let patch = async |range: &str, bytes: &'static str| {
        site.send(
            Method::PATCH,
            &at,
            &[("content-range", range), ("content-length", &bytes.len().to_string())],
            bytes,
        )
        .await
    };
    let first = patch("0-4", "01234").await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));
    for range in [
        "0-4",
        "6-10",
        "18446744073709551610-18446744073709551614",
        "4-0",
        "x",
        "0-18446744073709551615",
    ] {
        let refused = patch(range, "56789").await;
        assert_eq!(
            (refused.status, refused.header("range")),
            (StatusCode::RANGE_NOT_SATISFIABLE, "0-4"),
            "{range}"
        );
    }
    assert_eq!(patch("5-6", "56789").await.code(), "SIZE_INVALID");
    let longer = site
        .send(Method::PATCH, &at, &[("content-range", "5-6")], "56789")
        .await;
    assert_eq!(longer.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(patch("5-9", "56789").await.status, StatusCode::ACCEPTED);
    let status = site.get(&at).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-9"));
    // Somebody else's repository has no such upload.
    assert_eq!(site.get(&at.replace("/a/", "/b/")).await.code(), "BLOB_UPLOAD_UNKNOWN");
    let digest = Digest::of("0123456789ab");
    let done = site
        .send(Method::PUT, &format!("{at}?digest={digest}"), &[], "ab")
        .await;
    assert_eq!(done.status, StatusCode::CREATED);
    assert_eq!(site.get(&format!("/v2/a/blobs/{digest}")).await.body, "0123456789ab");
    assert_eq!(site.get(&at).await.code(), "BLOB_UPLOAD_UNKNOWN");
    let wrong = site
        .send(
            Method::POST,
            &format!("/v2/a/blobs/uploads/?digest={digest}"),
            &[],
            "other",
        )
        .await;
    assert_eq!(wrong.code(), "DIGEST_INVALID");
}

#[tokio::test]
async fn an_upload_goes_on_after_the_server_was_started_again() {
    let mut site = Site::open();
    let at = site
        .send(Method::POST, "/v2/a/blobs/uploads/", &[], "")
        .await
        .header("location")
        .to_owned();
    site.send(Method::PATCH, &at, &[], "first ").await;
    site = site.again().await;
    assert_eq!(site.get(&at).await.header("range"), "0-5");
    let digest = {
        let mut hasher = ferry_image::Hasher::new(ferry_image::Algorithm::Sha512);
        hasher.update(b"first second");
        hasher.finish()
    };
    let done = site
        .send(Method::PUT, &format!("{at}?digest={digest}"), &[], "second")
        .await;
    assert_eq!(done.status, StatusCode::CREATED);
    assert_eq!(site.get(&format!("/v2/a/blobs/{digest}")).await.body, "first second");
}

#[tokio::test]
async fn hostile_paths_and_numbers_are_answered_plainly() {
    let site = Site::open();
    site.blob("a", b"x").await;
    for path in [
        "/v2/..%2f..%2fetc/manifests/x",
        "/v2/../../etc/passwd/manifests/x",
        "/v2/A/tags/list",
        "/v2/a/../b/tags/list",
    ] {
        assert_eq!(site.get(path).await.code(), "NAME_INVALID", "{path}");
    }
    assert_eq!(site.get("/v2/a/manifests/..%2fx").await.code(), "TAG_INVALID");
    assert_eq!(
        site.get("/v2/_catalog?n=1000000000").await.json(),
        json!({ "repositories": ["a"] })
    );
    assert_eq!(site.get("/v2/_catalog?n=-1").await.code(), "PAGINATION_NUMBER_INVALID");
    for name in ["b", "c", "d"] {
        site.blob(name, b"x").await;
    }
    let page = site.get("/v2/_catalog?n=2&last=a").await;
    assert_eq!(page.json(), json!({ "repositories": ["b", "c"] }));
    assert_eq!(page.header("link"), "</v2/_catalog?n=2&last=c>; rel=\"next\"");
    assert_eq!(site.get("/v2/_catalog?n=2&last=c").await.header("link"), "");
}

#[tokio::test]
async fn referrers_are_found_by_subject_and_type() {
    let site = Site::open();
    let config = site.blob("a", b"{}").await;
    let subject = Digest::of("a manifest that is not there yet").to_string();
    let mut artifact: serde_json::Value = serde_json::from_str(&site::image(&config, 2, &config, 2)).unwrap();
    artifact["subject"] = json!({ "mediaType": "x/y", "digest": subject, "size": 3 });
    artifact["artifactType"] = "x/sbom".into();
    let put = site.manifest("a", "sbom", &artifact.to_string()).await;
    assert_eq!(put.header("oci-subject"), subject);
    let path = format!("/v2/a/referrers/{subject}");
    assert_eq!(site.get(&path).await.json()["manifests"][0]["artifactType"], "x/sbom");
    let filtered = site.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(
        (
            filtered.json()["manifests"].as_array().unwrap().len(),
            filtered.header("oci-filters-applied")
        ),
        (0, "artifactType")
    );
    assert_eq!(
        site.get(&format!("/v2/nobody/referrers/{subject}")).await.json()["manifests"],
        json!([])
    );
}

/// Family F9: who may do what, at every end point.
#[tokio::test]
async fn everybody_may_what_the_rules_say_and_nothing_else() {
    let site = Site::with_rights();
    let (mine, other) = (Site::basic("rw"), Site::basic("other"));
    let blob = site.blob_as("team/a", b"secret", &mine).await;
    let elsewhere = site.blob_as("elsewhere/x", b"theirs", &other).await;
    let image = site::image(&blob, 6, &blob, 6);
    let put = site
        .send(
            Method::PUT,
            "/v2/team/a/manifests/1",
            &[("authorization", &mine)],
            image.clone(),
        )
        .await;
    assert_eq!(put.status, StatusCode::CREATED);
    let digest = Digest::of(&image);
    let reads = [
        (Method::GET, "/v2/team/a/manifests/1".to_owned()),
        (Method::HEAD, format!("/v2/team/a/manifests/{digest}")),
        (Method::GET, format!("/v2/team/a/blobs/{blob}")),
        (Method::HEAD, format!("/v2/team/a/blobs/{blob}")),
        (Method::GET, "/v2/team/a/tags/list".to_owned()),
        (Method::GET, format!("/v2/team/a/referrers/{digest}")),
    ];
    let id = "0".repeat(32);
    let writes = [
        (Method::POST, "/v2/team/a/blobs/uploads/".to_owned()),
        (
            Method::POST,
            format!("/v2/team/a/blobs/uploads/?mount={elsewhere}&from=elsewhere/x"),
        ),
        (Method::PATCH, format!("/v2/team/a/blobs/uploads/{id}")),
        (Method::PUT, format!("/v2/team/a/blobs/uploads/{id}?digest={blob}")),
        (Method::GET, format!("/v2/team/a/blobs/uploads/{id}")),
        (Method::DELETE, format!("/v2/team/a/blobs/uploads/{id}")),
        (Method::PUT, "/v2/team/a/manifests/2".to_owned()),
    ];
    let deletes = [
        (Method::DELETE, "/v2/team/a/manifests/1".to_owned()),
        (Method::DELETE, format!("/v2/team/a/manifests/{digest}")),
        (Method::DELETE, format!("/v2/team/a/blobs/{blob}")),
    ];
    let denied = |answer: &Answer| matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    for (who, may_read, may_write) in [
        ("", false, false),
        ("ro", true, false),
        ("rw", true, true),
        ("other", false, false),
    ] {
        for (allowed, requests) in [(may_read, &reads[..]), (may_write, &writes[..]), (false, &deletes[..])] {
            for (method, path) in requests {
                for as_token in [false, true] {
                    let authorization = match (who, as_token) {
                        ("", _) => site.token("", "repository:team/a:pull,push,delete").await,
                        (who, true) => site.token(who, "repository:team/a:pull,push,delete").await,
                        (who, false) => Site::basic(who),
                    };
                    let answer = site
                        .send(method.clone(), path, &[("authorization", &authorization)], "")
                        .await;
                    assert_eq!(
                        denied(&answer),
                        !allowed,
                        "{who:?} {method} {path} token {as_token}: {}",
                        answer.status
                    );
                }
            }
        }
        let anonymous = site.send(Method::GET, "/v2/team/a/manifests/1", &[], "").await;
        assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
        assert!(
            anonymous
                .header("www-authenticate")
                .contains("scope=\"repository:team/a:pull\"")
        );
    }
    // A mount from where one may not read is an upload like any other, whether or not the blob is there.
    for from in [elsewhere.clone(), Digest::of("nowhere").to_string()] {
        let path = format!("/v2/team/a/blobs/uploads/?mount={from}&from=elsewhere/x");
        assert_eq!(
            site.send(Method::POST, &path, &[("authorization", &mine)], "")
                .await
                .status,
            StatusCode::ACCEPTED
        );
    }
    let unseen = site
        .send(
            Method::HEAD,
            &format!("/v2/team/a/blobs/{elsewhere}"),
            &[("authorization", &mine)],
            "",
        )
        .await;
    assert_eq!(unseen.status, StatusCode::NOT_FOUND);
    let catalog = site
        .send(Method::GET, "/v2/_catalog", &[("authorization", &other)], "")
        .await;
    assert_eq!(catalog.json(), json!({ "repositories": ["elsewhere/x"] }));
}

#[tokio::test]
async fn nothing_is_deleted_where_that_is_off() {
    let site = Site::open_with(|options| options.delete = false);
    let config = site.blob("a", b"{}").await;
    site.manifest("a", "1", &site::image(&config, 2, &config, 2)).await;
    for path in ["/v2/a/manifests/1".to_owned(), format!("/v2/a/blobs/{config}")] {
        assert_eq!(site.send(Method::DELETE, &path, &[], "").await.code(), "UNSUPPORTED");
    }
    assert_eq!(site.get("/v2/a/manifests/1").await.status, StatusCode::OK);
    let site = Site::open();
    let config = site.blob("a", b"{}").await;
    let image = site::image(&config, 2, &config, 2);
    site.manifest("a", "1", &image).await;
    let blob = format!("/v2/a/blobs/{config}");
    assert_eq!(
        site.send(Method::DELETE, &blob, &[], "").await.status,
        StatusCode::CONFLICT
    );
    let manifest = format!("/v2/a/manifests/{}", Digest::of(&image));
    assert_eq!(
        site.send(Method::DELETE, &manifest, &[], "").await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(site.get("/v2/a/manifests/1").await.code(), "MANIFEST_UNKNOWN");
    assert_eq!(
        site.send(Method::DELETE, &blob, &[], Body::empty()).await.status,
        StatusCode::ACCEPTED
    );
}
