//! A client's end, for one server whose authority may be given.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files::{certificates, certificates_in, key, key_in, system_roots};
use crate::session::Session;
use crate::verifier::Verifier;

/// What a client believes and shows; contents of files as PEM.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// The authorities that are believed, and no others; `None`: those of the machine.
    pub ca: Option<Vec<u8>>,
    pub certificate: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
    /// Whoever answers is believed.
    pub skip_verify: bool,
}

/// The same as files.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// Authorities that are believed besides those of the machine.
    pub ca: Option<PathBuf>,
    /// A certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

/// Makes connections safe. Cheap to clone.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Fails on material that cannot be used, in words for the user. May read the machine's authorities.
    pub fn new(material: &Material) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (&material.ca, material.skip_verify) {
            (_, true) => Arc::new(Verifier::of_everybody(provider.clone())),
            (ca, false) => {
                let (mut roots, mut own) = (RootCertStore::empty(), Vec::new());
                match ca {
                    None => roots = system_roots().map_err(|error| error.to_string())?,
                    Some(pem) => {
                        own = certificates_in(pem).map_err(|reason| format!("ca.pem seems invalid: {reason}"))?;
                        for certificate in &own {
                            let added = roots.add(certificate.clone());
                            added.map_err(|error| format!("ca.pem seems invalid: {error}"))?;
                        }
                    }
                }
                let verifier = Verifier::new(roots, own, provider.clone());
                Arc::new(verifier.map_err(|error| format!("certificates cannot be verified: {error}"))?)
            }
        };
        let shown = match (&material.certificate, &material.key) {
            (Some(certificate), Some(key)) => {
                let chain =
                    certificates_in(certificate).map_err(|reason| format!("cert.pem seems invalid: {reason}"))?;
                Some((
                    chain,
                    key_in(key).map_err(|reason| format!("key.pem seems invalid: {reason}"))?,
                ))
            }
            // As docker does: one without the other is not shown.
            _ => None,
        };
        Self::build(provider, verifier, shown)
    }

    /// The same with files that are named.
    pub fn read(files: &ClientFiles) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match files.skip_verify {
            true => Verifier::of_everybody(provider.clone()),
            false => {
                let mut roots = system_roots().map_err(|error| error.to_string())?;
                let own = files.ca.as_deref().map(certificates).transpose();
                let own = own.map_err(|error| error.to_string())?.unwrap_or_default();
                roots.add_parsable_certificates(own.iter().cloned());
                let verifier = Verifier::new(roots, own, provider.clone());
                verifier.map_err(|error| format!("certificates cannot be verified: {error}"))?
            }
        };
        let shown = match &files.identity {
            None => None,
            Some((certificate, path)) => {
                let chain = certificates(certificate).map_err(|error| error.to_string())?;
                Some((chain, key(path).map_err(|error| error.to_string())?))
            }
        };
        Self::build(provider, Arc::new(verifier), shown)
    }

    fn build(
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
        shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match shown {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate and its key cannot be used: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// A connection to `host` that the caller drives.
    pub fn session(&self, host: &str) -> io::Result<Session> {
        let inner = rustls::ClientConnection::new(self.0.config().clone(), server_name(host)?);
        Ok(Session::new(inner.map_err(io::Error::other)?))
    }

    /// `host` is a name or an address, without brackets.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>> {
        self.0.connect(server_name(host)?, stream).await
    }
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
