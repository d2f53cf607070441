//! Certificates: whose signatures are believed, what we show ourselves, and what is said when they do not fit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::options::Roots;
use crate::{Error, Result};

/// Where distributions keep the certificates of authorities, in the order in which Go looks.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A file with certificates or a key is smaller than this.
const FILE_MAX: u64 = 4 << 20;

/// What is needed to speak TLS with one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Directories whose `*.crt` are believed as well.
    pub(crate) authorities: Vec<PathBuf>,
    /// Directories that may have a `*.cert` and the `*.key` that belongs to it: shown to this host.
    pub(crate) identities: Vec<PathBuf>,
    pub(crate) skip_verify: bool,
}

/// The files of a [`Trust`], with their sizes and times.
pub(crate) type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

impl Trust {
    /// Differs once a file has come, gone or changed. Of hosts without files it costs a failing open a directory.
    pub(crate) fn stamp(&self) -> Stamp {
        let directories = self.authorities.iter().chain(&self.identities);
        let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok());
        let mut stamp: Stamp = entries
            .flat_map(Iterator::flatten)
            .map(|entry| {
                let data = std::fs::metadata(entry.path()).ok();
                let size = data.as_ref().map_or(0, std::fs::Metadata::len);
                (entry.path(), size, data.and_then(|data| data.modified().ok()))
            })
            .collect();
        stamp.sort();
        stamp
    }
}

/// Certificates of authorities. Reads files. A machine without any bundle has none.
pub(crate) fn roots(roots: &Roots) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            if let Some(path) = BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
                // Bundles have a few that are not understood.
                store.add_parsable_certificates(certificates(path)?);
            }
        }
        Roots::Files(paths) => {
            for path in paths {
                add(&mut store, &mut Vec::new(), path)?;
            }
        }
    }
    Ok(store)
}

/// Reads files.
pub(crate) fn client_config(roots: &RootCertStore, trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| Error::Options(format!("TLS cannot be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let verifier: Arc<dyn ServerCertVerifier> = if trust.skip_verify {
        Arc::new(Anything(provider))
    } else {
        let (mut store, mut own) = (roots.clone(), Vec::new());
        for path in files(&trust.authorities, "crt")? {
            add(&mut store, &mut own, &path)?;
        }
        let inner = if store.is_empty() {
            None
        } else {
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build();
            Some(built.map_err(|error| Error::Options(format!("certificates cannot be verified: {error}")))?)
        };
        Arc::new(Verifier { inner, own, provider })
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity(&trust.identities)? {
        None => builder.with_no_client_auth(),
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| Error::Certificates {
                path,
                reason: format!("the certificate and its key cannot be used: {error}"),
            })?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The files of these directories with that extension, sorted. A directory that is not there has none.
fn files(directories: &[PathBuf], extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories {
        let failed = |error: std::io::Error| Error::Certificates {
            path: directory.clone(),
            reason: error.to_string(),
        };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

type Identity = (PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The first pair. As with Docker, one without the other is an error.
fn identity(directories: &[PathBuf]) -> Result<Option<Identity>> {
    // Docker's words.
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for key in files(directories, "key")? {
        let certificate = key.with_extension("cert");
        if !certificate.is_file() {
            return Err(Error::Certificates {
                reason: format!(
                    "missing client certificate {} for key {}",
                    name(&certificate),
                    name(&key)
                ),
                path: key,
            });
        }
    }
    let Some(path) = files(directories, "cert")?.into_iter().next() else {
        return Ok(None);
    };
    let key_path = path.with_extension("key");
    if !key_path.is_file() {
        return Err(Error::Certificates {
            reason: format!(
                "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                name(&key_path),
                name(&path)
            ),
            path,
        });
    }
    let pem = read(&key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| Error::Certificates {
        path: key_path,
        reason: format!("no private key in PEM: {error}"),
    })?;
    let chain = certificates(&path)?;
    Ok(Some((path, chain, key)))
}

fn add(store: &mut RootCertStore, own: &mut Vec<CertificateDer<'static>>, path: &Path) -> Result<()> {
    for certificate in certificates(path)? {
        own.push(certificate.clone());
        store.add(certificate).map_err(|error| Error::Certificates {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |reason: String| Error::Certificates {
        path: path.to_owned(),
        reason,
    };
    let pem = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| wrong(format!("no certificate in PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("no certificate in PEM".to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Error::Certificates {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// webpki's verification, and what people do with `openssl req -x509`: the registry's certificate is itself the one that is
/// believed. Go takes it, webpki does not ("CA used as end entity").
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// Those that were given for this registry.
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        };
        match inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // Times are checked before this, names after it.
            Err(error) if is_authority(&error) => {
                if !self.own.iter().any(|own| own == end_entity) {
                    return Err(rustls::CertificateError::UnknownIssuer.into());
                }
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// webpki has no variant of its own for it in rustls.
fn is_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) if other.to_string().contains("CaUsedAsEndEntity"))
}

/// For insecure registries: the signature still has to be that of the certificate shown.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// As Go words it, with what to do about it.
pub(crate) fn explain(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let x509 = |text: String| format!("tls: failed to verify certificate: x509: {text}");
    match error {
        rustls::Error::InvalidCertificate(certificate) => x509(match certificate {
            Certificate::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            Certificate::BadSignature => {
                "certificate signed by unknown authority (one of that name is known, and did not sign it)".to_owned()
            }
            Certificate::Expired | Certificate::NotValidYet => "certificate has expired or is not yet valid".to_owned(),
            Certificate::ExpiredContext { time, not_after } => format!(
                "certificate has expired or is not yet valid: current time {} is after {}",
                date(*time),
                date(*not_after)
            ),
            Certificate::NotValidYetContext { time, not_before } => format!(
                "certificate has expired or is not yet valid: current time {} is before {}",
                date(*time),
                date(*not_before)
            ),
            Certificate::NotValidForNameContext { expected, presented } => wrong_name(&expected.to_str(), presented),
            other => other.to_string(),
        }),
        // The first byte of "HTTP/1.1 400 Bad Request" is no type of a record.
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        rustls::Error::AlertReceived(alert) => self::alert(&format!("{alert:?}")),
        other => format!("tls: {other}"),
    }
}

/// `CertificateRequired` as `certificate required`: what Go says of most alerts.
pub(crate) fn alert(name: &str) -> String {
    let (mut words, mut before) = (String::new(), true);
    for letter in name.chars() {
        if letter.is_uppercase() && !before {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
        before = letter.is_uppercase();
    }
    format!("remote error: tls: {words}")
}

/// `presented` as webpki prints names: `DnsName("a")`, `IpAddress(127.0.0.1)`.
fn wrong_name(expected: &str, presented: &[String]) -> String {
    let inside = |name: &String| {
        let from = name.find('(').map_or(0, |at| at + 1);
        name[from..].trim_end_matches(')').trim_matches('"').to_owned()
    };
    let is_address = expected.parse::<std::net::IpAddr>().is_ok();
    let fitting = presented.iter().filter(|name| name.starts_with("Ip") == is_address);
    let names: Vec<String> = fitting.map(inside).collect();
    match (names.is_empty(), is_address) {
        (true, true) => format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs"),
        (true, false) => format!("certificate is not valid for any names, but wanted to match {expected}"),
        _ => format!("certificate is valid for {}, not {expected}", names.join(", ")),
    }
}

/// RFC 3339 in UTC, without fractions.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_go_does() {
        let presented = [r#"DnsName("a.example")"#.to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        assert_eq!(
            wrong_name("b.example", &presented),
            "certificate is valid for a.example, not b.example"
        );
        assert_eq!(
            wrong_name("127.0.0.1", &presented),
            "certificate is valid for 10.0.0.1, not 127.0.0.1"
        );
        assert_eq!(
            wrong_name("127.0.0.1", &presented[..1]),
            "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        );
    }
}
