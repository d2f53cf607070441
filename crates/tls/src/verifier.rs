//! Whose certificates a client believes.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

/// webpki's verification, and what people do with `openssl req -x509`: the server's certificate is itself the one that is
/// believed. Go takes it, webpki does not ("CA used as end entity"). Or everybody is believed, and only the signature has to be
/// that of the certificate shown.
pub struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

enum Trust {
    Everybody,
    Nobody,
    Signed {
        by: Arc<WebPkiServerVerifier>,
        /// Those that were given for this very server.
        own: Vec<CertificateDer<'static>>,
    },
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Believes what `roots` sign; of the certificates `own`, which are among them, also themselves.
    pub fn new(
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let trust = match roots.is_empty() {
            true => Trust::Nobody,
            false => Trust::Signed {
                by: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?,
                own,
            },
        };
        Ok(Self { trust, provider })
    }

    /// Believes everybody.
    pub fn of_everybody(provider: Arc<CryptoProvider>) -> Self {
        Self {
            trust: Trust::Everybody,
            provider,
        }
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
        let (by, own) = match &self.trust {
            Trust::Everybody => return Ok(ServerCertVerified::assertion()),
            Trust::Nobody => return Err(rustls::CertificateError::UnknownIssuer.into()),
            Trust::Signed { by, own } => (by, own),
        };
        match by.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // Times are checked before this, names after it.
            Err(error) if is_authority(&error) => {
                if !own.iter().any(|own| own == end_entity) {
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
