//! Certificates: whose signatures are believed, and what we show ourselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ferry_tls::Verifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::options::Roots;
use crate::{Error, Result};

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
            store = ferry_tls::system_roots()?;
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
        Arc::new(Verifier::of_everybody(provider))
    } else {
        let (mut store, mut own) = (roots.clone(), Vec::new());
        for path in files(&trust.authorities, "crt")? {
            add(&mut store, &mut own, &path)?;
        }
        let verifier = Verifier::new(store, own, provider);
        Arc::new(verifier.map_err(|error| Error::Options(format!("certificates cannot be verified: {error}")))?)
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
    let key = ferry_tls::key(&key_path)?;
    let chain = ferry_tls::certificates(&path)?;
    Ok(Some((path, chain, key)))
}

fn add(store: &mut RootCertStore, own: &mut Vec<CertificateDer<'static>>, path: &Path) -> Result<()> {
    for certificate in ferry_tls::certificates(path)? {
        own.push(certificate.clone());
        store.add(certificate).map_err(|error| Error::Certificates {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

/// The words that are the same at both ends, and the path apart.
impl From<ferry_tls::Error> for Error {
    fn from(error: ferry_tls::Error) -> Self {
        Self::Certificates {
            path: error.path,
            reason: error.reason,
        }
    }
}
