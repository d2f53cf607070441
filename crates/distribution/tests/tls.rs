//! Certificates that fit and such that do not, through an HTTP proxy: names of loopback are never verified.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod site;

use std::path::Path;

use ferry_distribution::{Client, Credentials, Options, Proxies, Roots};

use site::{Pair, Server, acceptor, anonymous, certificate, full, image, options, ready, self_signed, tunnel};

const HOST: &str = "registry.example";

async fn server(pair: &Pair, clients: Option<&Pair>) -> Server {
    Server::start_tls(Some(acceptor(pair, clients)), |_| {
        ready(full(200, &[], image(b"{}", &[])))
    })
    .await
}

/// What a client says to a server that is reached as `host`.
async fn asks(server: &Server, host: &str, change: impl FnOnce(&mut Options)) -> Result<(), String> {
    let (proxy, log) = tunnel(server.address).await;
    let empty = tempfile::NamedTempFile::new().unwrap();
    let other = self_signed("somebody.else");
    std::fs::write(empty.path(), &other.certificate).unwrap();
    let mut options = Options {
        proxies: Proxies {
            https: format!("http://{proxy}"),
            ..Proxies::default()
        },
        roots: Roots::Files(vec![empty.path().to_owned()]),
        ..options()
    };
    change(&mut options);
    let client = Client::new(options).unwrap();
    let found = client
        .resolve(&format!("{host}/a:1").parse().unwrap(), &anonymous())
        .await;
    assert!(
        log.lock()
            .unwrap()
            .iter()
            .all(|line| line.starts_with(&format!("CONNECT {host}")))
    );
    assert!(!log.lock().unwrap().is_empty(), "it did not go through the proxy");
    found.map(drop).map_err(|error| error.to_string())
}

fn certs_d(host: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(host);
    std::fs::create_dir(&own).unwrap();
    for (name, text) in files {
        std::fs::write(own.join(name), text).unwrap();
    }
    dir
}

fn with(dir: &Path) -> impl FnOnce(&mut Options) {
    let dir = dir.to_owned();
    move |options| options.certificates = vec![dir]
}

#[tokio::test]
async fn a_certificate_that_certs_d_vouches_for() {
    let pair = certificate(HOST, 2020..2100);
    let server = server(&pair, None).await;
    let unknown = asks(&server, HOST, |_| {}).await.unwrap_err();
    let wanted = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(unknown, format!("Get \"https://{HOST}/v2/a/manifests/1\": {wanted}"));
    let dir = certs_d(HOST, &[("ca.crt", &pair.authority)]);
    asks(&server, HOST, with(dir.path())).await.unwrap();
    // For this registry, not for its neighbour.
    let wrong = asks(&server, "other.example", with(dir.path())).await.unwrap_err();
    assert!(wrong.contains("unknown authority"), "{wrong}");
    let dir = certs_d("other.example", &[("ca.crt", &pair.authority)]);
    let wrong = asks(&server, "other.example", with(dir.path())).await.unwrap_err();
    assert!(
        wrong.contains("x509: certificate is valid for registry.example, not other.example"),
        "{wrong}"
    );
    let dir = certs_d(HOST, &[("ca.crt", "no PEM")]);
    let wrong = asks_nothing(&server, with(dir.path())).await;
    assert!(wrong.contains("ca.crt: no certificate in PEM"), "{wrong}");
}

/// Fails before anything is asked.
async fn asks_nothing(server: &Server, change: impl FnOnce(&mut Options)) -> String {
    let mut options = options();
    change(&mut options);
    options.proxies.https = format!("http://{}", server.address);
    let client = Client::new(options).unwrap();
    client
        .resolve(&format!("{HOST}/a:1").parse().unwrap(), &anonymous())
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn certificates_that_signed_themselves() {
    let pair = self_signed(HOST);
    let server = server(&pair, None).await;
    let unknown = asks(&server, HOST, |_| {}).await.unwrap_err();
    assert!(
        unknown.contains("x509: certificate signed by unknown authority"),
        "{unknown}"
    );
    let dir = certs_d(HOST, &[("ca.crt", &pair.certificate)]);
    asks(&server, HOST, with(dir.path())).await.unwrap();
    let dir = certs_d("other.example", &[("ca.crt", &pair.certificate)]);
    let wrong = asks(&server, "other.example", with(dir.path())).await.unwrap_err();
    assert!(wrong.contains("not other.example"), "{wrong}");
    asks(&server, HOST, |options| options.insecure = vec![HOST.to_owned()])
        .await
        .unwrap();
}

#[tokio::test]
async fn certificates_that_are_over() {
    let pair = certificate(HOST, 2020..2021);
    let server = server(&pair, None).await;
    let dir = certs_d(HOST, &[("ca.crt", &pair.authority)]);
    let over = asks(&server, HOST, with(dir.path())).await.unwrap_err();
    assert!(
        over.contains("x509: certificate has expired or is not yet valid: current time "),
        "{over}"
    );
    assert!(over.ends_with(" is after 2021-01-01T00:00:00Z"), "{over}");
}

#[tokio::test]
async fn certificates_of_clients() {
    let (pair, mine) = (certificate(HOST, 2020..2100), certificate("me", 2020..2100));
    let server = server(&pair, Some(&mine)).await;
    let dir = certs_d(HOST, &[("ca.crt", &pair.authority)]);
    assert!(asks(&server, HOST, with(dir.path())).await.is_err());
    let files = [
        ("ca.crt", &*pair.authority),
        ("client.cert", &mine.certificate),
        ("client.key", &mine.key),
    ];
    let dir = certs_d(HOST, &files);
    asks(&server, HOST, with(dir.path())).await.unwrap();
    let dir = certs_d(HOST, &files[..2]);
    let missing = asks_nothing(&server, with(dir.path())).await;
    assert!(
        missing.contains("missing key") && missing.contains("client.key"),
        "{missing}"
    );
}

#[tokio::test]
async fn plain_http_is_told_apart_and_only_for_insecure_registries() {
    let plain = Server::start(|_| ready(full(200, &[], image(b"{}", &[])))).await;
    let text = asks(&plain, HOST, |_| {}).await.unwrap_err();
    let wanted = "http: server gave HTTP response to HTTPS client";
    assert_eq!(text, format!("Get \"https://{HOST}/v2/a/manifests/1\": {wanted}"));
    assert_eq!(plain.asked().len(), 0, "nothing was asked in the clear");
}

#[tokio::test]
async fn nothing_leads_from_https_to_http() {
    let pair = certificate(HOST, 2020..2100);
    let plain = Server::start(|_| ready(full(200, &[], image(b"{}", &[])))).await;
    let dir = certs_d(HOST, &[("ca.crt", &pair.authority)]);
    let to = format!("http://{}/x", plain.address);
    let location = to.clone();
    let redirects = Server::start_tls(Some(acceptor(&pair, None)), move |_| {
        ready(full(302, &[("location", &location)], ""))
    })
    .await;
    let text = asks(&redirects, HOST, with(dir.path())).await.unwrap_err();
    assert!(
        text.contains("redirects from https to http") && text.contains("refused"),
        "{text}"
    );
    let challenge = format!("Bearer realm=\"{to}\",service=\"s\"");
    let asks_elsewhere = Server::start_tls(Some(acceptor(&pair, None)), move |_| {
        ready(full(401, &[("www-authenticate", &challenge)], ""))
    })
    .await;
    let (proxy, _) = tunnel(asks_elsewhere.address).await;
    let mut options = options();
    options.proxies.https = proxy.to_string();
    options.certificates = vec![dir.path().to_owned()];
    let credentials = Credentials::basic("me", "secret");
    let client = Client::new(options).unwrap();
    let error = client
        .resolve(&format!("{HOST}/a:1").parse().unwrap(), &credentials)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not encrypted"), "{error}");
    assert_eq!(plain.asked().len(), 0);
}
