//! Registries that lie, and what they do not get: our memory, our time, our credentials.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferry_distribution::{Client, Credentials, Descriptor, Error, Limits, Manifest, Options, Result, TokenServers};
use ferry_image::Digest;

use site::{
    Asked, Body, Server, anonymous, chunks, client, descriptor, full, image, limits, noise, options, peak, ready,
    reference,
};

const OCI: (&str, &str) = ("content-type", "application/vnd.oci.image.manifest.v1+json");
/// Of this whole test program, whatever is sent to it. Debug symbols and test threads are in it.
const MEMORY: u64 = 96;

async fn resolve(answer: impl Fn(&Asked) -> hyper::Response<Body> + Send + Sync + 'static) -> Result<Manifest> {
    let server = Server::start(move |asked| ready(answer(&asked))).await;
    let found = client()
        .resolve(&reference(server.address, "team/app:1"), &anonymous())
        .await;
    if let Err(error) = &found {
        let text = error.to_string();
        assert!(text.contains(&server.address.to_string()), "no registry in: {text}");
        assert!(text.contains("team/app"), "no repository in: {text}");
    }
    assert!(peak() < MEMORY, "{} MiB", peak());
    found
}

async fn refused(answer: impl Fn(&Asked) -> hyper::Response<Body> + Send + Sync + 'static) -> String {
    resolve(answer).await.unwrap_err().to_string()
}

/// One mebibyte, again and again.
fn endless() -> impl Iterator<Item = Bytes> + Send + Sync {
    std::iter::repeat(Bytes::from(vec![b' '; 1 << 20]))
}

async fn blob_from(server: &Server, blob: &Descriptor) -> Result<u64> {
    let repository = client()
        .repository(&reference(server.address, "team/app"), &anonymous())
        .unwrap();
    let mut stream = repository.blob(blob, 0);
    let mut size = 0;
    while let Some(chunk) = stream.next().await? {
        size += chunk.len() as u64;
    }
    Ok(size)
}

#[tokio::test]
async fn a_manifest_with_the_wrong_digest() {
    let other = Digest::of("other").to_string();
    let text = refused(move |_| full(200, &[OCI, ("docker-content-digest", &other)], image(b"{}", &[]))).await;
    assert!(
        text.contains(&Digest::of("other").to_string()) && text.contains("its digest is"),
        "{text}"
    );
    let text = refused(|_| {
        full(
            200,
            &[OCI, ("docker-content-digest", "sha256:../../x")],
            image(b"{}", &[]),
        )
    })
    .await;
    assert!(text.contains("Docker-Content-Digest"), "{text}");
    // By digest, whatever the header says.
    let (wanted, bytes) = (Digest::of(image(b"{}", &[])), image(b"x", &[]));
    let stated = wanted.to_string();
    let server =
        Server::start(move |_| ready(full(200, &[OCI, ("docker-content-digest", &stated)], bytes.clone()))).await;
    let by_digest = reference(server.address, &format!("a@{wanted}"));
    let error = client().resolve(&by_digest, &anonymous()).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    let repository = client().repository(&by_digest, &anonymous()).unwrap();
    let bytes = image(b"x", &[]);
    let short = Descriptor::new("", Digest::of(&bytes), 3);
    assert!(
        repository
            .manifest(&short)
            .await
            .unwrap_err()
            .to_string()
            .contains("its descriptor says 3")
    );
}

#[tokio::test]
async fn a_manifest_of_a_gibibyte() {
    let text = refused(|_| full(200, &[OCI, ("docker-content-digest", "")], Bytes::new())).await;
    assert!(!text.is_empty());
    // Announced, and not announced.
    let text = refused(|_| chunks(200, &[OCI, ("content-length", "1073741824")], Duration::ZERO, endless())).await;
    assert!(text.contains("more than 4194304 bytes"), "{text}");
    let text = refused(|_| chunks(200, &[OCI], Duration::ZERO, endless())).await;
    assert!(text.contains("more than 4194304 bytes"), "{text}");
    let text = refused(|_| full(200, &[OCI], r#"{"a":"#.repeat(100_000))).await;
    assert!(text.contains("nested"), "{text}");
}

#[tokio::test]
async fn pages_instead_of_manifests() {
    let text = refused(|_| {
        full(
            200,
            &[("content-type", "text/html; charset=utf-8")],
            "<html>Sign in</html>",
        )
    })
    .await;
    assert!(
        text.contains("no JSON") && text.contains("text/html") && text.contains("login"),
        "{text}"
    );
    let text = refused(|_| full(200, &[OCI], "")).await;
    assert!(text.contains("no JSON"), "{text}");
    let text = refused(|_| full(200, &[OCI], r#"{"schemaVersion":1,"fsLayers":[]}"#)).await;
    assert!(text.contains("schema 1"), "{text}");
    // The wrong type, or none, of the right thing.
    for content_type in ["text/plain", "application/json", "application/octet-stream"] {
        let found = resolve(move |_| full(200, &[("content-type", content_type)], image(b"{}", &[])))
            .await
            .unwrap();
        assert_eq!(found.descriptor.media_type, OCI.1);
    }
    assert_eq!(
        resolve(|_| full(200, &[], image(b"{}", &[])))
            .await
            .unwrap()
            .descriptor
            .media_type,
        OCI.1
    );
}

#[tokio::test]
async fn errors_without_end() {
    let text = refused(|_| chunks(404, &[], Duration::ZERO, endless())).await;
    assert!(text.contains("manifest for") && text.contains("not found"), "{text}");
    let text = refused(|_| chunks(403, &[], Duration::from_millis(1), endless())).await;
    assert!(text.contains("pull access denied for"), "{text}");
}

#[tokio::test]
async fn blobs_of_the_wrong_size() {
    let wanted = descriptor(&noise(100_000));
    let longer = Server::start(|_| ready(full(200, &[], noise(100_001)))).await;
    let text = blob_from(&longer, &wanted).await.unwrap_err().to_string();
    assert!(
        text.contains("it has 100001 bytes, its descriptor says 100000") && text.contains("team/app"),
        "{text}"
    );
    // Without end, and without saying so: what was promised is what comes.
    let endless_server = Server::start(|_| ready(chunks(200, &[], Duration::ZERO, endless()))).await;
    assert_eq!(blob_from(&endless_server, &wanted).await.unwrap(), 100_000);
    assert!(peak() < MEMORY, "{} MiB", peak());
    // Too short, and each time again.
    let shorter = Server::start(|asked| {
        ready(match asked.from() {
            None => chunks(200, &[], Duration::ZERO, [noise(1000)].into_iter()),
            Some(_) => full(416, &[], ""),
        })
    })
    .await;
    let text = blob_from(&shorter, &wanted).await.unwrap_err().to_string();
    assert!(text.contains("it has no byte 1000"), "{text}");
    let nothing = Server::start(|_| ready(chunks(200, &[], Duration::ZERO, std::iter::empty()))).await;
    let error = blob_from(&nothing, &wanted).await.unwrap_err();
    assert!(error.is_network(), "{error}");
    assert_eq!(nothing.asked().len(), 5);
    // A part that is another one.
    for range in ["bytes 5-99999/100000", "bytes 0-9/10", "bytes */100000", ""] {
        let server = Server::start(move |_| ready(full(206, &[("content-range", range)], "x"))).await;
        assert!(
            matches!(blob_from(&server, &wanted).await.unwrap_err(), Error::Answer { .. }),
            "{range}"
        );
    }
    let missing = Server::start(|_| ready(full(404, &[], ""))).await;
    let error = blob_from(&missing, &wanted).await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains(&wanted.digest.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_blob_with_the_wrong_digest() {
    let server = Server::start(|_| ready(full(200, &[], "{}"))).await;
    let repository = client()
        .repository(&reference(server.address, "team/app"), &anonymous())
        .unwrap();
    let error = repository.small_blob(&descriptor(b"[]"), 1000).await.unwrap_err();
    assert!(
        matches!(error, Error::Digest { .. }) && error.to_string().contains("team/app"),
        "{error}"
    );
    let error = repository
        .small_blob(&descriptor(&noise(1001)), 1000)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_trickle_is_no_progress() {
    let wanted = descriptor(&noise(100_000));
    let served = noise(100_000);
    let server = Server::start(move |asked| {
        let from = usize::try_from(asked.from().unwrap_or(0)).unwrap();
        let (rest, size) = (served.slice(from..), served.len());
        let bytes = (0..rest.len()).map(move |at| rest.slice(at..=at));
        let range = format!("bytes {from}-{}/{size}", size - 1);
        ready(chunks(
            206,
            &[("content-range", &range)],
            Duration::from_millis(20),
            bytes,
        ))
    })
    .await;
    let began = Instant::now();
    let error = blob_from(&server, &wanted).await.unwrap_err();
    assert!(error.to_string().contains("stalled"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // No answer at all.
    let silent = Server::start(|_| Box::pin(std::future::pending())).await;
    let options = Options {
        limits: Limits {
            answer: Duration::from_millis(100),
            ..limits()
        },
        ..Options::default()
    };
    let error = Client::new(options)
        .unwrap()
        .resolve(&reference(silent.address, "a"), &anonymous())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("timeout awaiting response headers"),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_get_no_credentials_and_end() {
    let bytes = noise(5000);
    let served = bytes.clone();
    let elsewhere = Server::start(move |asked| ready(site::blob(&asked, &served))).await;
    let to = format!("http://{}/signed?x=1", elsewhere.address);
    let registry = Server::start(move |asked| {
        ready(match asked.header("authorization") {
            "" => full(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
            _ => full(307, &[("location", &to)], ""),
        })
    })
    .await;
    let credentials = Credentials::basic("me", "secret");
    let repository = client()
        .repository(&reference(registry.address, "a"), &credentials)
        .unwrap();
    assert_eq!(
        repository.small_blob(&descriptor(&bytes), 1 << 20).await.unwrap(),
        bytes
    );
    assert!(
        registry
            .asked()
            .last()
            .unwrap()
            .header("authorization")
            .starts_with("Basic")
    );
    assert!(
        elsewhere
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty() && asked.header("cookie").is_empty())
    );
    // A 401 from elsewhere gets none either.
    let asks = Server::start(|_| ready(full(401, &[("www-authenticate", "Basic realm=\"r\"")], ""))).await;
    let to = format!("http://{}/", asks.address);
    let registry = Server::start(move |_| ready(full(302, &[("location", &to)], ""))).await;
    let error = client()
        .resolve(&reference(registry.address, "a"), &credentials)
        .await
        .unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert!(
        asks.asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    // In a circle, nowhere, and to something else.
    let text = refused(|asked| full(302, &[("location", &asked.path)], "")).await;
    assert!(text.contains("stopped after 10 redirects"), "{text}");
    for location in ["file:///etc/passwd", "http://", "unix:/run/docker.sock"] {
        let text = refused(move |_| full(302, &[("location", location)], "")).await;
        assert!(text.contains("redirects to nowhere"), "{text}");
    }
    assert!(refused(|_| full(302, &[], "")).await.contains("redirects to nowhere"));
}

#[tokio::test]
async fn wrong_passwords_are_shown_once() {
    let server = Server::start(|_| {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        ready(full(401, &[("www-authenticate", "Basic realm=\"r\"")], body))
    })
    .await;
    let credentials = Credentials::basic("me", "wrong");
    let error = client()
        .resolve(&reference(server.address, "a"), &credentials)
        .await
        .unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"http://{}/v2/a/manifests/latest\": unauthorized: authentication required",
            server.address
        )
    );
    assert_eq!(server.asked().len(), 2);
    let error = client()
        .login(&server.address.to_string(), &credentials)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "login attempt to http://{}/v2/ failed with status: 401 Unauthorized",
            server.address
        )
    );
}

/// A registry whose tokens come from `realm`, with what it answers.
async fn with_tokens(
    token: impl Fn(&Asked) -> hyper::Response<Body> + Send + Sync + 'static,
) -> (Server, Result<Manifest>) {
    let server = Server::start(move |asked| {
        if asked.path == "/token" {
            return ready(token(&asked));
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
        ready(full(401, &[("www-authenticate", &challenge)], ""))
    })
    .await;
    let found = client()
        .resolve(&reference(server.address, "a"), &Credentials::basic("me", "x"))
        .await;
    (server, found)
}

#[tokio::test]
async fn token_servers_lie_as_well() {
    for body in [
        "",
        "<html>",
        "{}",
        r#"{"token":"a\nb"}"#,
        r#"{"token":"a b"}"#,
        r#"{"token":3}"#,
    ] {
        let (_, found) = with_tokens(move |_| full(200, &[], body)).await;
        assert!(matches!(found, Err(Error::Answer { .. })), "{body}");
    }
    let (_, found) = with_tokens(|_| chunks(200, &[], Duration::ZERO, endless())).await;
    assert!(matches!(found, Err(Error::TooLarge { .. })));
    // Tokens that are not taken: tried anew once, and that is that.
    let (server, found) = with_tokens(|_| full(200, &[], r#"{"token":"x","expires_in":18446744073709551615}"#)).await;
    assert!(found.unwrap_err().is_unauthorized());
    assert!(server.count("/token") <= 2 && server.count("/manifests/") <= 3);
    let (_, found) = with_tokens(|_| full(401, &[], r#"{"details":"incorrect username or password"}"#)).await;
    assert!(
        found
            .unwrap_err()
            .to_string()
            .contains("unauthorized: incorrect username or password")
    );
    assert!(peak() < MEMORY, "{} MiB", peak());
}

#[tokio::test]
async fn identity_tokens_are_posted_and_never_in_a_url() {
    let server = Server::start(move |asked| {
        if asked.path == "/token" {
            let body = String::from_utf8(asked.body.to_vec()).unwrap();
            assert_eq!((asked.method.as_str(), asked.query.as_str()), ("POST", ""));
            assert_eq!(body, "grant_type=refresh_token&refresh_token=re%2Ffresh&service=s&client_id=docker&scope=repository%3Aa%3Apull");
            return ready(full(200, &[], r#"{"access_token":"tok"}"#));
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
        ready(match asked.header("authorization") {
            "Bearer tok" => full(200, &[OCI], image(b"{}", &[])),
            _ => full(401, &[("www-authenticate", &challenge)], ""),
        })
    })
    .await;
    let credentials = Credentials::Identity {
        username: "me".to_owned(),
        token: "re/fresh".to_owned(),
    };
    client()
        .resolve(&reference(server.address, "a"), &credentials)
        .await
        .unwrap();
    assert!(!format!("{credentials:?}").contains("fresh"));
}

/// CVE-2026-33540: a registry that sends us to a server which is none of its own.
#[tokio::test]
async fn cve_2026_33540_nobody_but_the_registry_and_its_own_token_server_gets_credentials() {
    let stranger = Server::start(|_| ready(full(200, &[], r#"{"token":"tok"}"#))).await;
    let realm = format!("http://localhost:{}/token", stranger.address.port());
    let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
    let registry = Server::start(move |asked| {
        ready(match asked.header("authorization") {
            "Bearer tok" => full(200, &[OCI], image(b"{}", &[])),
            _ => full(401, &[("www-authenticate", &challenge)], ""),
        })
    })
    .await;
    let wanted = reference(registry.address, "a");
    let basic = Credentials::basic("me", "secret");
    let identity = Credentials::Identity {
        username: "me".to_owned(),
        token: "refresh".to_owned(),
    };
    let with = |servers: TokenServers| {
        let options = Options {
            token_servers: servers,
            ..options()
        };
        Client::new(options).unwrap()
    };
    // Unattended: neither credentials nor a request, and the message says what to do.
    for credentials in [&basic, &identity, &anonymous()] {
        let client = with(TokenServers::OwnDomain(Vec::new()));
        let error = client.resolve(&wanted, credentials).await.unwrap_err().to_string();
        assert!(
            error.contains(&registry.address.to_string()) && error.contains("name localhost:"),
            "{error}"
        );
    }
    assert_eq!(stranger.asked().len(), 0);
    assert!(
        registry
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    // Named, it is asked.
    let named = TokenServers::OwnDomain(vec![format!("localhost:{}", stranger.address.port())]);
    with(named).resolve(&wanted, &basic).await.unwrap();
    assert!(stranger.asked()[0].header("authorization").starts_with("Basic "));
    // For somebody who chose the registry as well, as Docker does.
    with(TokenServers::Any).resolve(&wanted, &basic).await.unwrap();
    // A token server that sends us on to a stranger gets no further, with a refresh token in the body least of all.
    let before = stranger.asked().len();
    for (status, credentials) in [(307, &identity), (308, &identity), (307, &basic), (302, &anonymous())] {
        let to = realm.clone();
        let registry = Server::start(move |asked| {
            if asked.path == "/token" {
                return ready(full(status, &[("location", &to)], ""));
            }
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
            ready(full(401, &[("www-authenticate", &challenge)], ""))
        })
        .await;
        let error = client().resolve(&reference(registry.address, "a"), credentials).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("it redirects to localhost"), "{error}");
    }
    assert_eq!(stranger.asked().len(), before);
}

#[tokio::test]
async fn lists_end() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = pages.clone();
    let tags = |server: &Server| {
        let repository = client()
            .repository(&reference(server.address, "team/app"), &anonymous())
            .unwrap();
        async move { repository.tags().await }
    };
    let server = Server::start(move |_| {
        let page = counted.fetch_add(1, Ordering::Relaxed);
        let link = format!("</v2/team/app/tags/list?last={}>; rel=\"next\"", page.min(2));
        ready(full(200, &[("link", &link)], format!(r#"{{"tags":["t{page}"]}}"#)))
    })
    .await;
    assert!(tags(&server).await.unwrap_err().to_string().contains("do not end"));
    assert!(pages.load(Ordering::Relaxed) < 6);
    let away = Server::start(|_| {
        ready(full(
            200,
            &[("link", "<http://127.0.0.2/x>; rel=\"next\"")],
            r#"{"tags":null}"#,
        ))
    })
    .await;
    assert!(tags(&away).await.unwrap_err().to_string().contains("another host"));
    let odd = Server::start(|_| ready(full(200, &[], r#"{"tags":["../../x"]}"#))).await;
    assert!(tags(&odd).await.unwrap_err().to_string().contains("no tag"));
    let honest = Server::start(|asked| {
        ready(match asked.query.contains("last") {
            false => full(
                200,
                &[("link", "</v2/team/app/tags/list?last=a&n=1>; rel=\"next\"")],
                r#"{"tags":["a"]}"#,
            ),
            true => full(200, &[], r#"{"tags":["b"]}"#),
        })
    })
    .await;
    assert_eq!(tags(&honest).await.unwrap(), ["a", "b"]);
    let flood = Server::start(|_| ready(chunks(200, &[], Duration::ZERO, endless()))).await;
    assert!(matches!(tags(&flood).await.unwrap_err(), Error::TooLarge { .. }));
    assert!(peak() < MEMORY + 48, "{} MiB", peak());
    drop(options());
}
