//! Pulling from servers that behave, more or less.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod site;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferry_distribution::{BlobStream, Content, Credentials, Error, Mirror, Options, Verified};
use ferry_image::Digest;

use site::{
    Cutter, Server, anonymous, blob, chunks, client, descriptor, full, image, noise, options, ready, reference,
};

async fn all(mut stream: BlobStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_comes_whole() {
    let (config, layer) = (b"{}".as_slice(), noise(3 << 20));
    let manifest = image(config, &[&layer]);
    let digest = Digest::of(&manifest);
    let (served, layer_digest) = (manifest.clone(), Digest::of(&layer).to_string());
    let bytes = layer.clone();
    let server = Server::start(move |asked| {
        ready(match asked.path.rsplit('/').next().unwrap() {
            "1" => full(
                200,
                &[("content-type", "application/vnd.oci.image.manifest.v1+json")],
                served.clone(),
            ),
            name if name == layer_digest => blob(&asked, &bytes),
            _ => full(200, &[], "{}"),
        })
    })
    .await;
    let tagged = reference(server.address, "team/app:1");
    let repository = client().repository(&tagged, &anonymous()).unwrap();
    let found = repository.resolve(&tagged).await.unwrap();
    assert_eq!((&found.descriptor.digest, &found.bytes[..]), (&digest, &manifest[..]));
    let Content::Image { config, layers } = &found.content else {
        panic!()
    };
    assert_eq!(&repository.small_blob(config, 1 << 20).await.unwrap()[..], b"{}");
    // As `Pull::layer` does it: a thread that blocks, from an offset on.
    let runtime = tokio::runtime::Handle::current();
    let (reader, wanted) = (repository.reader(&layers[0], 0, &runtime), layers[0].clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        Verified::new(reader, &wanted).read_to_end(&mut bytes).map(|_| bytes)
    });
    assert_eq!(read.await.unwrap().unwrap(), layer);
    let mut reader = repository.reader(&layers[0], 1_000_001, &runtime);
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert_eq!(read.await.unwrap().unwrap(), layer[1_000_001..]);
    assert_eq!(server.asked().last().unwrap().header("range"), "bytes=1000001-");
}

#[tokio::test]
async fn connections_that_are_cut_every_8_mib_cost_nothing() {
    let bytes = noise(50 << 20);
    let served = bytes.clone();
    let server = Server::start(move |asked| ready(blob(&asked, &served))).await;
    let cutter = Cutter::start(server.address, 8 << 20, u64::MAX).await;
    let repository = client()
        .repository(&reference(cutter.address, "a"), &anonymous())
        .unwrap();
    let mut stream = repository.blob(&descriptor(&bytes), 0);
    let mut hash = ferry_image::Hasher::default();
    while let Some(chunk) = stream.next().await.unwrap() {
        hash.update(&chunk);
    }
    assert_eq!(hash.finish(), Digest::of(&bytes));
    let wire = cutter.down.load(Ordering::Relaxed);
    assert!(stream.connections() >= 7, "{} connections", stream.connections());
    assert_eq!(stream.received(), bytes.len() as u64);
    assert!(
        wire as f64 <= bytes.len() as f64 * 1.05,
        "{wire} bytes of {}",
        bytes.len()
    );
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_beginning_again() {
    let bytes = noise(3 << 20);
    let (served, times) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        // Longer each time, then cut.
        let end = (1 << 20) * (times.fetch_add(1, Ordering::Relaxed) + 1);
        let (part, rest) = (served.slice(..end.min(served.len())), end < served.len());
        let length = served.len().to_string();
        let parts = [Some(part), rest.then(Bytes::new)].into_iter().flatten();
        ready(chunks(
            200,
            &[("content-length", &length)],
            Duration::ZERO,
            parts.take_while(|part| !part.is_empty()),
        ))
    })
    .await;
    let repository = client()
        .repository(&reference(server.address, "a"), &anonymous())
        .unwrap();
    let mut stream = repository.blob(&descriptor(&bytes), 0);
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == bytes);
    assert!(stream.ignores_range());
    assert_eq!((stream.connections(), stream.received()), (3, 6 << 20));
}

#[tokio::test]
async fn failures_that_pass_are_waited_for() {
    let bytes = noise(1000);
    let (served, times) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        ready(match times.fetch_add(1, Ordering::Relaxed) {
            0 => full(500, &[], "oops"),
            1 => full(503, &[("retry-after", "1")], ""),
            2 => full(
                429,
                &[("retry-after", "0")],
                r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#,
            ),
            _ => blob(&asked, &served),
        })
    })
    .await;
    let began = std::time::Instant::now();
    let repository = client()
        .repository(&reference(server.address, "a"), &anonymous())
        .unwrap();
    assert_eq!(all(repository.blob(&descriptor(&bytes), 0)).await.unwrap(), bytes);
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "Retry-After was not waited for"
    );
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn failures_that_stay_end() {
    let server = Server::start(|_| ready(full(503, &[], ""))).await;
    let tagged = reference(server.address, "team/app:1");
    let error = client().resolve(&tagged, &anonymous()).await.unwrap_err();
    assert!(error.to_string().contains("/v2/team/app/manifests/1"), "{error}");
    assert!(error.to_string().contains("503 Service Unavailable"), "{error}");
    assert_eq!(server.asked().len(), 5);
    let server = Server::start(|_| ready(full(429, &[("retry-after", "3600")], ""))).await;
    let error = client()
        .resolve(&reference(server.address, "a"), &anonymous())
        .await
        .unwrap_err();
    assert!(error.is_rate_limit() && error.to_string().contains("3600 s"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_holds_a_few_mib_and_ends_when_dropped() {
    let bytes = noise(64 << 20);
    let served = bytes.clone();
    let server = Server::start(move |asked| ready(blob(&asked, &served))).await;
    let counter = Cutter::start(server.address, u64::MAX, u64::MAX).await;
    let repository = client()
        .repository(&reference(counter.address, "a"), &anonymous())
        .unwrap();
    let mut reader = repository.reader(&descriptor(&bytes), 0, &tokio::runtime::Handle::current());
    let reader = tokio::task::spawn_blocking(move || {
        reader.read_exact(&mut [0; 1000]).unwrap();
        reader
    });
    let reader = reader.await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let came = counter.down.load(Ordering::Relaxed);
    // What is in flight, and what the kernel's sockets hold.
    assert!(came < 24 << 20, "{} MiB came for 1000 bytes", came >> 20);
    drop(reader);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = counter.down.load(Ordering::Relaxed);
    assert!(
        after - came < 8 << 20,
        "{} MiB came after it was dropped",
        (after - came) >> 20
    );
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_when_they_fail() {
    let manifest = image(b"{}", &[]);
    let served = manifest.clone();
    let working = Server::start(move |_| ready(full(200, &[], served.clone()))).await;
    let lying = Server::start(|_| ready(full(200, &[("content-type", "text/html")], "<html>"))).await;
    let refusing = Server::start(|_| ready(full(401, &[], ""))).await;
    let served = manifest.clone();
    let registry = Server::start(move |_| ready(full(200, &[], served.clone()))).await;
    let domain = registry.address.to_string();
    let mirror = |address: &str| Mirror::new(&domain, &format!("http://{address}")).unwrap();
    let with = |mirrors: Vec<Mirror>| ferry_distribution::Client::new(Options { mirrors, ..options() }).unwrap();
    let tagged = reference(registry.address, "a:1");
    let credentials = Credentials::basic("me", "secret");
    // Nobody listens on port 1.
    let [silent, lies, refuses, works] = [
        "127.0.0.1:1",
        &lying.address.to_string(),
        &refusing.address.to_string(),
        &working.address.to_string(),
    ]
    .map(mirror);
    let client = with(vec![silent.clone(), lies.clone(), refuses.clone(), works]);
    let found = client.resolve(&tagged, &credentials).await.unwrap();
    assert_eq!(found.registry, working.address.to_string());
    assert_eq!(
        (registry.asked().len(), lying.asked().len(), refusing.asked().len()),
        (0, 1, 1)
    );
    assert_eq!(working.asked()[0].query, format!("ns={}", domain.replace(':', "%3A")));
    let found = with(vec![silent, lies, refuses])
        .resolve(&tagged, &credentials)
        .await
        .unwrap();
    assert_eq!(found.registry, domain);
    for mirror in [&working, &lying, &refusing] {
        assert!(
            mirror
                .asked()
                .iter()
                .all(|asked| asked.header("authorization").is_empty())
        );
    }
}

#[tokio::test]
async fn many_requests_share_a_token() {
    let layers: Vec<Bytes> = (1..9).map(|size| noise(size * 1000)).collect();
    let tokens = Arc::new(AtomicUsize::new(0));
    let (counted, served) = (tokens.clone(), layers.clone());
    let server = Server::start(move |asked| {
        let host = asked.header("host").to_owned();
        if asked.path == "/token" {
            counted.fetch_add(1, Ordering::Relaxed);
            assert_eq!(asked.header("authorization"), "Basic bWU6c2VjcmV0");
            assert_eq!(asked.query, "account=me&scope=repository%3Aa%3Apull&service=reg");
            return Box::pin(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                full(200, &[], r#"{"token":"abc","expires_in":300}"#)
            });
        }
        if asked.header("authorization") != "Bearer abc" {
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="reg",scope="repository:a:pull""#);
            return ready(full(401, &[("www-authenticate", &challenge)], ""));
        }
        let found = served
            .iter()
            .find(|bytes| asked.path.ends_with(Digest::of(bytes).encoded()))
            .unwrap();
        ready(blob(&asked, found))
    })
    .await;
    let credentials = Credentials::basic("me", "secret");
    let repository = client()
        .repository(&reference(server.address, "a"), &credentials)
        .unwrap();
    let streams = layers.iter().map(|bytes| all(repository.blob(&descriptor(bytes), 0)));
    for (got, bytes) in futures_util::future::join_all(streams).await.into_iter().zip(&layers) {
        assert!(got.unwrap() == *bytes);
    }
    assert_eq!(tokens.load(Ordering::Relaxed), 1);
    let last = repository.blob(&descriptor(&layers[0]), 0);
    let before = server.asked().len();
    all(last).await.unwrap();
    assert_eq!(
        server.asked().len(),
        before + 1,
        "a token that is known is shown at once"
    );
}
