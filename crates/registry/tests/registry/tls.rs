//! TLS: who gets in, with which certificate, and what those are told who do not speak it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_registry::{Acceptor, Limits, PROTOCOLS, TlsError, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use tempfile::TempDir;

use crate::client::{self, Reply};
use crate::served::{Served, Setup};
use crate::site::scratch;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = scratch();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate and its key, for `localhost`.
    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let (certificate_path, key_path) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&certificate_path, signed.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (certificate_path, key_path)
    }

    fn files(&self, client_ca: Option<PathBuf>) -> TlsFiles {
        let (certificate, key) = self.sign("server", |_| {});
        TlsFiles {
            certificate,
            key,
            client_ca,
        }
    }
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap();
    roots.add(read).unwrap();
    roots
}

/// What `GET /v2/` is answered to a client that trusts `trusted` and shows `shown`.
fn get(
    server: &Served,
    version: &'static SupportedProtocolVersion,
    trusted: &Authority,
    shown: Option<&(PathBuf, PathBuf)>,
) -> std::io::Result<Reply> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots(trusted));
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, client::connect(server.address).unwrap());
    client::send(&mut stream, "GET", "/v2/", &[], b"")
}

fn serve(files: &TlsFiles) -> Served {
    Served::start(Setup {
        tls: Some(files),
        ..Setup::default()
    })
}

#[test]
fn a_client_that_trusts_the_authority_is_served_and_another_one_leaves() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let server = serve(&authority.files(None));
    for version in VERSIONS {
        assert_eq!(get(&server, version, &authority, None).unwrap().status, 200);
        let refused = get(&server, version, &other, None).unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    }
}

#[test]
fn with_an_authority_for_clients_only_its_own_get_in() {
    let (authority, clients, other) = (
        Authority::new("one"),
        Authority::new("clients"),
        Authority::new("other"),
    );
    let server = serve(&authority.files(Some(clients.path("ca.pem"))));
    let known = clients.sign("known", |_| {});
    let expired = clients.sign("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
    });
    let of_server = authority.sign("of-server", |_| {});
    let unknown = other.sign("unknown", |_| {});
    for version in VERSIONS {
        assert_eq!(get(&server, version, &authority, Some(&known)).unwrap().status, 200);
        for (shown, why) in [
            (None, "CertificateRequired"),
            (Some(&expired), "CertificateExpired"),
            (Some(&unknown), "UnknownCA"),
            // The server's authority is not that of the clients.
            (Some(&of_server), "UnknownCA"),
        ] {
            let refused = get(&server, version, &authority, shown).unwrap_err().to_string();
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }
    assert_eq!(
        get(&server, &version::TLS13, &authority, Some(&known)).unwrap().status,
        200
    );
}

#[test]
fn who_speaks_http_to_the_port_of_https_is_told_so() {
    let authority = Authority::new("one");
    let server = serve(&authority.files(None));
    for method in ["GET", "PUT", "PRI"] {
        let mut stream = client::connect(server.address).unwrap();
        let reply = client::send(&mut stream, method, "/v2/", &[], b"").unwrap();
        assert_eq!((reply.status, reply.code()), (400, "UNSUPPORTED".to_owned()));
        assert!(String::from_utf8_lossy(&reply.body).contains("https://"));
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
    // Neither one nor the other.
    let mut stream = client::connect(server.address).unwrap();
    stream.write_all(b"\x00\x01\x02\x03\x04\x05\x06\x07").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 32 && !answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn a_handshake_that_does_not_go_on_is_cut() {
    let authority = Authority::new("one");
    let files = authority.files(None);
    let server = Served::start(Setup {
        tls: Some(&files),
        limits: Limits {
            handshake: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Setup::default()
    });
    // Nothing; a record's begin; a record that says it is longer than what comes.
    for sent in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x40\x00\x01"] {
        let begin = Instant::now();
        let mut stream: TcpStream = client::connect(server.address).unwrap();
        stream.write_all(sent).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "{sent:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("one");
    let good = authority.files(None);
    let written = |name: &str, text: &str| {
        std::fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let (_, other_key) = authority.sign("other", |_| {});
    let cases = [
        TlsFiles {
            certificate: authority.path("nowhere"),
            ..good.clone()
        },
        TlsFiles {
            key: authority.path("nowhere"),
            ..good.clone()
        },
        TlsFiles {
            certificate: written("empty", ""),
            ..good.clone()
        },
        TlsFiles {
            certificate: written("garbage", "-----BEGIN CERTIFICATE-----\n!\n"),
            ..good.clone()
        },
        TlsFiles {
            key: good.certificate.clone(),
            ..good.clone()
        },
        TlsFiles {
            key: other_key,
            ..good.clone()
        },
        TlsFiles {
            client_ca: Some(written("none", "text")),
            ..good.clone()
        },
        TlsFiles {
            client_ca: Some(written(
                "bad",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )),
            ..good.clone()
        },
    ];
    for files in cases {
        let error: TlsError = Acceptor::read(&files, PROTOCOLS).unwrap_err();
        let folder = authority.dir.path().display().to_string();
        assert!(error.to_string().contains(&folder), "{files:?}: {error}");
    }
    assert!(Acceptor::read(&good, PROTOCOLS).is_ok());
}
