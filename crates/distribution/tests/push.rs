//! Pushing to Ferry's own registry and to the CNCF one, also over connections that break.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod site;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferry_distribution::{Credentials, Descriptor, Error, Pushed, Repository};
use ferry_image::Digest;
use ferry_image::media::OCI_MANIFEST;

use site::{Cncf, Cutter, Own, Server, anonymous, chunks, client, descriptor, full, image, noise, ready, reference};

fn repository(address: SocketAddr, name: &str) -> Repository {
    client().repository(&reference(address, name), &anonymous()).unwrap()
}

async fn push(repository: &Repository, bytes: &Bytes, from: &[&str]) -> Result<Pushed, Error> {
    repository
        .push_blob(&descriptor(bytes), Arc::new(bytes.clone()), from, |_| {})
        .await
}

async fn pulled(repository: &Repository, bytes: &Bytes) -> bool {
    repository.small_blob(&descriptor(bytes), u64::MAX).await.unwrap() == *bytes
}

/// The same for every registry.
async fn round_trip(address: SocketAddr, keeps_referrers: bool) {
    let (one, two) = (repository(address, "team/one"), repository(address, "team/two"));
    let (config, layer) = (Bytes::from_static(b"{}"), noise(5 << 20));
    assert!(!one.has_blob(&descriptor(&layer)).await.unwrap());
    let heard = Arc::new(AtomicU64::new(0));
    let hears = heard.clone();
    let pushed = one
        .push_blob(&descriptor(&layer), Arc::new(layer.clone()), &[], move |at| {
            hears.store(at, Ordering::Relaxed);
        })
        .await
        .unwrap();
    assert_eq!(
        pushed,
        Pushed::Uploaded {
            sent: layer.len() as u64
        }
    );
    assert_eq!(heard.load(Ordering::Relaxed), layer.len() as u64);
    assert_eq!(push(&one, &layer, &[]).await.unwrap(), Pushed::Existed);
    assert!(matches!(
        push(&one, &config, &[]).await.unwrap(),
        Pushed::Uploaded { sent: 2 }
    ));
    assert!(one.has_blob(&descriptor(&layer)).await.unwrap());
    assert!(pulled(&one, &layer).await);
    push(&two, &layer, &["team/none", "team/one"]).await.unwrap();
    assert!(two.has_blob(&descriptor(&layer)).await.unwrap());
    assert!(two.mount_blob(&descriptor(&config), "team/one").await.unwrap());
    assert!(!two.mount_blob(&descriptor(b"nowhere"), "team/one").await.unwrap());
    assert!(matches!(
        push(&two, &Bytes::new(), &[]).await.unwrap(),
        Pushed::Uploaded { sent: 0 }
    ));

    let manifest = Bytes::from(image(&config, &[&layer]));
    for tag in ["1", "2", "a"] {
        let tagged = reference(address, &format!("team/one:{tag}"));
        let published = one.push_manifest(&tagged, OCI_MANIFEST, &manifest).await.unwrap();
        assert_eq!(
            (published.digest, published.referrers_tag),
            (Digest::of(&manifest), None)
        );
    }
    let tagged = reference(address, "team/one:1");
    let found = one.resolve(&tagged).await.unwrap();
    assert_eq!(found.bytes, manifest);
    assert_eq!(one.head(&tagged).await.unwrap(), found.descriptor);
    assert_eq!(one.manifest(&found.descriptor).await.unwrap(), found);
    let mut tags = one.tags().await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2", "a"]);

    let mut signature: serde_json::Value = serde_json::from_slice(&image(&config, &[])).unwrap();
    signature["subject"] = serde_json::to_value(&found.descriptor).unwrap();
    signature["artifactType"] = "application/x.sig".into();
    let signature = Bytes::from(serde_json::to_vec(&signature).unwrap());
    let untagged = reference(address, "team/one").without_tag_and_digest();
    for _ in 0..2 {
        let published = one.push_manifest(&untagged, OCI_MANIFEST, &signature).await.unwrap();
        let tag = (!keeps_referrers).then(|| format!("sha256-{}", Digest::of(&manifest).encoded()));
        assert_eq!(published.referrers_tag, tag);
    }
    let referrers = one.referrers(&Digest::of(&manifest), None).await.unwrap();
    assert_eq!(
        referrers.iter().map(|found| &found.digest).collect::<Vec<_>>(),
        [&Digest::of(&signature)]
    );
    assert_eq!(
        one.referrers(&Digest::of(&manifest), Some("application/x.sig"))
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(one.referrers(&Digest::of(&manifest), Some("other")).await.unwrap(), []);
    assert_eq!(one.referrers(&Digest::of("nobody"), None).await.unwrap(), []);

    let by_digest = untagged.clone().with_digest(Digest::of(&manifest));
    one.delete_manifest(&by_digest).await.unwrap();
    let gone = one.resolve(&tagged).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
    let text = gone.to_string();
    assert!(
        text.starts_with(&format!(
            "manifest for {address}/team/one:1 not found: manifest unknown: "
        )),
        "{text}"
    );
    assert!(one.delete_manifest(&by_digest).await.unwrap_err().is_not_found());
    let unknown = repository(address, "no/where").tags().await.unwrap_err();
    let wanted = format!("repository {address}/no/where not found: name unknown: ");
    assert!(unknown.to_string().starts_with(&wanted), "{unknown}");
    assert!(matches!(
        one.push_manifest(&tagged, OCI_MANIFEST, &Bytes::from(image(b"missing", &[])))
            .await
            .unwrap_err(),
        Error::Refused { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_with_ferrys_own_registry() {
    let own = Own::start().await;
    round_trip(own.address, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_with_the_cncf_registry() {
    let Some(cncf) = Cncf::start(&[], "", "").await else {
        return;
    };
    round_trip(cncf.address, false).await;
}

/// What a connection had sent when it broke is taken in only after the registry was asked how much is there.
#[tokio::test]
async fn an_upload_that_turns_out_to_be_longer_goes_on() {
    const UPLOAD: (&str, &str) = ("location", "/v2/a/blobs/uploads/1");
    let (sent, asked_for) = (AtomicU64::new(0), AtomicU64::new(0));
    let server = Server::start(move |asked| {
        let first = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed) == 0;
        let answer = match asked.method.as_str() {
            "HEAD" => full(404, &[], ""),
            "POST" => full(202, &[UPLOAD], ""),
            "GET" if first(&asked_for) => full(204, &[UPLOAD, ("range", "0-9")], ""),
            "GET" => full(204, &[UPLOAD, ("range", "0-49")], ""),
            // The connection breaks.
            "PATCH" if first(&sent) => return Box::pin(async { panic!("as wanted") }),
            "PATCH" if !asked.header("content-range").starts_with("50-") => full(416, &[], ""),
            "PATCH" => full(202, &[UPLOAD, ("range", "0-99")], ""),
            _ => full(201, &[], ""),
        };
        ready(answer)
    })
    .await;
    push(&repository(server.address, "a"), &noise(100), &[]).await.unwrap();
    let patches = server.asked().into_iter().filter(|asked| asked.method == "PATCH");
    let ranges: Vec<_> = patches.map(|asked| asked.header("content-range").to_owned()).collect();
    assert_eq!(ranges, ["0-99", "10-99", "50-99"]);
    assert_eq!(
        server.asked().iter().filter(|asked| asked.method == "DELETE").count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_where_it_was_cut() {
    let own = Own::start().await;
    let cutter = Cutter::start(own.address, u64::MAX, 8 << 20).await;
    let (bytes, repository) = (noise(50 << 20), repository(cutter.address, "a"));
    let Pushed::Uploaded { sent } = push(&repository, &bytes, &[]).await.unwrap() else {
        panic!()
    };
    assert!(
        pulled(
            &client().repository(&reference(own.address, "a"), &anonymous()).unwrap(),
            &bytes
        )
        .await
    );
    let wire = cutter.up.load(Ordering::Relaxed);
    assert!(cutter.connections.load(Ordering::Relaxed) >= 7);
    assert!(
        wire as f64 <= bytes.len() as f64 * 1.3,
        "{wire} bytes over the wire, {sent} sent, of {}",
        bytes.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_forgets_gets_chunks_that_come_through() {
    let Some(cncf) = Cncf::start(&[], "", "").await else {
        return;
    };
    let cutter = Cutter::start(cncf.address, u64::MAX, 8 << 20).await;
    let (bytes, repository) = (noise(30 << 20), repository(cutter.address, "a"));
    push(&repository, &bytes, &[]).await.unwrap();
    assert!(
        pulled(
            &client()
                .repository(&reference(cncf.address, "a"), &anonymous())
                .unwrap(),
            &bytes
        )
        .await
    );
    let wire = cutter.up.load(Ordering::Relaxed);
    // What came before the cut is lost, once.
    assert!(
        wire as f64 <= bytes.len() as f64 * 1.5,
        "{wire} bytes over the wire for {}",
        bytes.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_never_comes_through_ends() {
    let Some(cncf) = Cncf::start(&[], "", "").await else {
        return;
    };
    let own = Own::start().await;
    for address in [cncf.address, own.address] {
        // Not even the smallest chunk.
        let cutter = Cutter::start(address, u64::MAX, 1000).await;
        let pushed = tokio::time::timeout(Duration::from_secs(60), async {
            push(&repository(cutter.address, "a"), &noise(1 << 20), &[]).await
        });
        let error = pushed.await.expect("it ends").unwrap_err();
        assert!(error.is_network(), "{error}");
    }
}

#[tokio::test]
async fn a_registry_without_patch_gets_one_put() {
    let kept: Arc<Mutex<Bytes>> = Arc::default();
    let keeps = kept.clone();
    let server = Server::start(move |asked| {
        ready(match asked.method.as_str() {
            "HEAD" => full(404, &[], ""),
            "POST" => full(202, &[("location", "/v2/a/blobs/uploads/1?state=x")], ""),
            "PUT" => {
                assert!(asked.query.starts_with("state=x&digest=sha256%3A"), "{}", asked.query);
                *keeps.lock().unwrap() = asked.body.clone();
                full(201, &[], "")
            }
            _ => full(405, &[], ""),
        })
    })
    .await;
    let bytes = noise(1 << 20);
    push(&repository(server.address, "a"), &bytes, &[]).await.unwrap();
    assert!(*kept.lock().unwrap() == bytes);
}

#[tokio::test]
async fn uploads_that_lead_elsewhere_get_no_credentials() {
    let elsewhere = Server::start(|_| ready(full(201, &[], ""))).await;
    let to = format!("http://{}/upload", elsewhere.address);
    let registry = Server::start(move |asked| {
        ready(match (asked.header("authorization"), asked.method.as_str()) {
            ("", _) => full(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
            (_, "HEAD") => full(404, &[], ""),
            _ => full(202, &[("location", &to)], ""),
        })
    })
    .await;
    let credentials = Credentials::basic("me", "secret");
    let repository = client()
        .repository(&reference(registry.address, "a"), &credentials)
        .unwrap();
    push(&repository, &noise(1000), &[]).await.unwrap();
    assert!(
        elsewhere
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    assert!(elsewhere.count("/upload") == 2);
}

#[tokio::test]
async fn pushes_that_fail_say_why() {
    let repository_of = |server: &Server| repository(server.address, "team/app");
    let denied = Server::start(|asked| {
        ready(match asked.method.as_str() {
            "HEAD" => full(404, &[], ""),
            _ => full(
                403,
                &[],
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            ),
        })
    })
    .await;
    let error = push(&repository_of(&denied), &noise(10), &[]).await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("team/app"), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("denied: requested access to the resource is denied"),
        "{error}"
    );
    // A source that is shorter than it says, or fails.
    let own = Own::start().await;
    let blob = Descriptor::new("", Digest::of("x"), 1000);
    let short: Arc<dyn ferry_distribution::Source> = Arc::new(noise(999));
    let error = repository(own.address, "a")
        .push_blob(&blob, short, &[], |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Source { source, .. } if source.to_string().contains("ends 1 bytes early")),
        "{error}"
    );
    let missing: Arc<dyn ferry_distribution::Source> = Arc::new(std::path::PathBuf::from("/nowhere"));
    let error = repository(own.address, "a")
        .push_blob(&blob, missing, &[], |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    // Content that is not what its digest says.
    let wrong: Arc<dyn ferry_distribution::Source> = Arc::new(noise(1000));
    let error = repository(own.address, "a")
        .push_blob(&blob, wrong, &[], |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("digest invalid"), "{error}");
    let nowhere = Server::start(|asked| {
        ready(if asked.method == "HEAD" {
            full(404, &[], "")
        } else {
            full(202, &[], "")
        })
    })
    .await;
    let error = push(&repository_of(&nowhere), &noise(10), &[]).await.unwrap_err();
    assert!(error.to_string().contains("without saying where"), "{error}");
    let endless = Server::start(|asked| {
        ready(match asked.method.as_str() {
            "HEAD" => full(404, &[], ""),
            _ => chunks(500, &[], Duration::ZERO, std::iter::repeat(noise(1 << 20))),
        })
    })
    .await;
    let error = push(&repository_of(&endless), &noise(10), &[]).await.unwrap_err();
    assert!(error.to_string().contains("500"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_come_in_order_and_fall_back_to_one_connection() {
    let own = Own::start().await;
    let bytes = noise(33 << 20);
    push(&repository(own.address, "a"), &bytes, &[]).await.unwrap();
    let counter = Cutter::start(own.address, 9 << 20, u64::MAX).await;
    let repository_through = repository(counter.address, "a");
    let mut stream = repository_through.ranges(&descriptor(&bytes), 12_345, 3);
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == bytes[12_345..]);
    assert_eq!(stream.received(), bytes.len() as u64 - 12_345);
    assert!(stream.connections() >= 16);
    // As a reader, and given up in the middle.
    let mut reader = repository_through.ranged_reader(&descriptor(&bytes), 0, 4, &tokio::runtime::Handle::current());
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut bytes = vec![0; 5 << 20];
        reader.read_exact(&mut bytes).map(|()| bytes)
    });
    assert!(read.await.unwrap().unwrap() == bytes[..5 << 20]);
    let before = counter.down.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(counter.down.load(Ordering::Relaxed) - before < 12 << 20);
    let served = bytes.clone();
    let ignorant = Server::start(move |_| ready(full(200, &[], served.clone()))).await;
    let mut stream = repository(ignorant.address, "a").ranges(&descriptor(&bytes), 1, 4);
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == bytes[1..]);
    assert_eq!((stream.connections(), ignorant.asked().len()), (1, 1));
}
