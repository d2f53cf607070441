//! A client's end, for one server whose authority may be given.

use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files::{certificates_in, key_in, system_roots};
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
        let text = |error: rustls::Error| format!("TLS cannot be set up: {error}");
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
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(text)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&material.certificate, &material.key) {
            (Some(certificate), Some(key)) => {
                let chain =
                    certificates_in(certificate).map_err(|reason| format!("cert.pem seems invalid: {reason}"))?;
                let key = key_in(key).map_err(|reason| format!("key.pem seems invalid: {reason}"))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| format!("the client certificate and its key cannot be used: {error}"))?
            }
            // As docker does: one without the other is not shown.
            _ => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// `host` is a name or an address, without brackets.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await
    }
}
