//! Certificates and keys on disk, as PEM.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

/// A file that does not serve its purpose.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub reason: String,
}

impl Error {
    pub(crate) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// At least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates_in(&read(path)?).map_err(|reason| Error::new(path, reason))
}

/// At least one; else what is wrong.
pub fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Err(error) => Err(format!("no certificate in PEM: {error}")),
        Ok(found) if found.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
    }
}

pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    key_in(&read(path)?).map_err(|reason| Error::new(path, reason))
}

pub fn key_in(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("no private key in PEM: {error}"))
}

/// The authorities this machine believes. One without a bundle believes none.
pub fn system_roots() -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if let Some(path) = BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
        // Bundles have a few that are not understood.
        store.add_parsable_certificates(certificates(path)?);
    }
    Ok(store)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
    read.map_err(|error| Error::new(path, error.to_string()))?;
    Ok(bytes)
}
