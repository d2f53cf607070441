//! The CNCF registry with passwords, tokens and TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod site;

use std::sync::Arc;

use bytes::Bytes;
use ferry_distribution::{Client, Credentials, Options, Proxies};
use ferry_image::media::OCI_MANIFEST;

use site::{Cncf, Server, anonymous, certificate, client, descriptor, full, image, options, ready, reference, tunnel};

/// bcrypt of `secret`, made by htpasswd.
async fn htpasswd() -> String {
    let hash = tokio::task::spawn_blocking(|| bcrypt::hash("secret", 4).unwrap())
        .await
        .unwrap();
    format!("me:{}\n", hash.replacen("$2b$", "$2y$", 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords() {
    let auth = "auth: {htpasswd: {realm: r, path: DIR/htpasswd}}";
    let Some(cncf) = Cncf::start(&[("htpasswd", &htpasswd().await)], "", auth).await else {
        return;
    };
    let host = cncf.address.to_string();
    let (right, wrong) = (Credentials::basic("me", "secret"), Credentials::basic("me", "wrong"));
    let logged_in = client().login(&host, &right).await.unwrap();
    assert_eq!(
        (logged_in.status.as_str(), logged_in.identity_token),
        ("Login Succeeded", None)
    );
    // As Docker Engine 28.5.2 says it.
    let refused = client().login(&host, &wrong).await.unwrap_err();
    let wanted = format!("login attempt to http://{host}/v2/ failed with status: 401 Unauthorized");
    assert_eq!(refused.to_string(), wanted);
    assert!(refused.is_unauthorized());
    let tagged = reference(cncf.address, "a:1");
    for credentials in [anonymous(), wrong] {
        let error = client().resolve(&tagged, &credentials).await.unwrap_err();
        assert!(error.is_unauthorized(), "{error}");
    }
    let error = client().resolve(&tagged, &anonymous()).await.unwrap_err();
    let url = format!("http://{host}/v2/a/manifests/1");
    assert_eq!(error.to_string(), format!("Get \"{url}\": no basic auth credentials"));
    push_and_pull(&client(), &tagged, &right).await;
}

async fn push_and_pull(client: &Client, tagged: &ferry_image::Reference, credentials: &Credentials) {
    let config = Bytes::from_static(b"{}");
    let repository = client.repository(tagged, credentials).unwrap();
    repository
        .push_blob(&descriptor(&config), Arc::new(config.clone()), &[], |_| {})
        .await
        .unwrap();
    let manifest = Bytes::from(image(&config, &[]));
    repository.push_manifest(tagged, OCI_MANIFEST, &manifest).await.unwrap();
    let found = client.resolve(tagged, credentials).await.unwrap();
    assert_eq!(found.bytes, manifest);
    assert_eq!(repository.small_blob(&descriptor(&config), 100).await.unwrap(), config);
}

/// Tokens as the registry's own documentation has them: a JWT signed with a key whose certificate it knows.
fn jwt(certificate: &str, key: &rcgen::KeyPair, service: &str, access: &serde_json::Value) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let der: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.encode(STANDARD.decode(der).unwrap());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [der] });
    let claims = serde_json::json!({
        "iss": "issuer", "sub": "me", "aud": service, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "x",
        "access": access,
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = rcgen::SigningKey::sign(key, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw(&signature)))
}

/// From ASN.1 to two numbers of 32 bytes.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let size = usize::from(rest[1]);
        let number = &rest[2..2 + size];
        let number = &number[number.len().saturating_sub(32)..];
        out.extend(std::iter::repeat_n(0, 32 - number.len()).chain(number.iter().copied()));
        rest = &rest[2 + size..];
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["issuer".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    let bundle = certificate.clone();
    let server = Server::start(move |asked| {
        let field = |name: &str| -> Vec<String> {
            let pairs = form_urlencoded::parse(asked.query.as_bytes());
            pairs.filter(|(found, _)| found == name).map(|(_, value)| value.into_owned()).collect()
        };
        let body = form_urlencoded::parse(&asked.body).into_owned().collect::<Vec<_>>();
        let refreshed = body.iter().any(|(name, value)| name == "refresh_token" && value == "kept");
        let known = asked.header("authorization") == "Basic bWU6c2VjcmV0" || refreshed;
        if !known && !asked.header("authorization").is_empty() {
            return ready(full(401, &[], r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#));
        }
        let mut scopes = field("scope");
        scopes.extend(body.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' ').map(str::to_owned)));
        // Who is not known may do nothing.
        let access: Vec<_> = scopes
            .iter()
            .filter(|_| known)
            .map(|scope| {
                let parts: Vec<_> = scope.split(':').collect();
                serde_json::json!({ "type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>() })
            })
            .collect();
        let token = jwt(&certificate, &key, "reg", &access.into());
        let refresh = if field("offline_token") == ["true"] { "kept" } else { "" };
        ready(full(200, &[], serde_json::json!({ "token": token, "refresh_token": refresh, "expires_in": 300 }).to_string()))
    })
    .await;
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: reg, issuer: issuer, rootcertbundle: DIR/bundle.pem}}}}",
        server.address
    );
    let Some(cncf) = Cncf::start(&[("bundle.pem", &bundle)], "", &auth).await else {
        return;
    };
    let host = cncf.address.to_string();
    let tagged = reference(cncf.address, "team/a:1");
    let right = Credentials::basic("me", "secret");
    push_and_pull(&client(), &tagged, &right).await;
    // Nobody, and somebody else.
    let error = client().resolve(&tagged, &anonymous()).await.unwrap_err();
    let wanted = format!(
        "pull access denied for {host}/team/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
    );
    assert_eq!(error.to_string(), wanted);
    let error = client()
        .login(&host, &Credentials::basic("me", "wrong"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{host}/v2/\": unauthorized: incorrect username or password")
    );
    let logged_in = client().login(&host, &right).await.unwrap();
    assert_eq!(logged_in.identity_token.as_deref(), Some("kept"));
    assert!(!format!("{logged_in:?}").contains("kept"));
    let identity = Credentials::Identity {
        username: "me".to_owned(),
        token: "kept".to_owned(),
    };
    push_and_pull(&client(), &tagged, &identity).await;
    // A mount asks for both repositories.
    let other = client().repository(&reference(cncf.address, "team/b"), &right).unwrap();
    assert!(other.mount_blob(&descriptor(b"{}"), "team/a").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls() {
    let pair = certificate("registry.example", 2020..2100);
    let http = "  tls: {certificate: DIR/tls.crt, key: DIR/tls.key}";
    let files = [("tls.crt", &*pair.certificate), ("tls.key", &*pair.key)];
    let Some(cncf) = Cncf::start(&files, http, "").await else {
        return;
    };
    let (proxy, _) = tunnel(cncf.address).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("registry.example")).unwrap();
    std::fs::write(dir.path().join("registry.example/ca.crt"), &pair.authority).unwrap();
    let with = |certificates| {
        let proxies = Proxies {
            https: format!("http://{proxy}"),
            ..Proxies::default()
        };
        Client::new(Options {
            proxies,
            certificates,
            ..options()
        })
        .unwrap()
    };
    let tagged = "registry.example/a:1".parse().unwrap();
    push_and_pull(&with(vec![dir.path().to_owned()]), &tagged, &anonymous()).await;
    let error = with(Vec::new()).resolve(&tagged, &anonymous()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("x509: certificate signed by unknown authority"),
        "{error}"
    );
    // On loopback nobody looks at certificates.
    push_and_pull(&client(), &reference(cncf.address, "a:1"), &anonymous()).await;
}
