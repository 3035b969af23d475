//! TLS of the endpoint: rustls with ring, from files that are read again when they changed.
//!
//! Refuses: TLS before 1.2, files that do not fit together (the ones before stay in use, with a warning).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::watched_file::{self, WatchedFiles};

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC1.
    pub key: PathBuf,
    /// Whose certificates clients must show; none asks for none.
    pub client_ca: Option<PathBuf>,
}

/// Accepts TLS with the newest files that fit together.
pub struct Tls {
    options: TlsOptions,
    files: WatchedFiles,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Errors: files that cannot be read or do not fit together.
    pub fn new(options: TlsOptions) -> Result<Self> {
        let paths = [Some(&options.certificate), Some(&options.key), options.client_ca.as_ref()];
        let mut files = WatchedFiles::new(paths.into_iter().flatten().cloned().collect());
        files.changed();
        let acceptor = acceptor(&options)?;
        Ok(Self { options, files, acceptor })
    }

    /// The acceptor for one more connection.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        if self.files.changed() {
            match acceptor(&self.options) {
                Ok(acceptor) => self.acceptor = acceptor,
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the certificate for scrapes stays as it was"
                    );
                }
            }
        }
        self.acceptor.clone()
    }
}

fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("TLS of the Prometheus endpoint")?;
    let builder = match &options.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| format!("{} is no authority", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.with_context(|| path.display().to_string())?)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(&watched_file::read(&options.key)?)
        .with_context(|| format!("{} has no private key in PEM", options.key.display()))?;
    let mut config = builder
        .with_single_cert(certificates(&options.certificate)?, key)
        .with_context(|| format!("{} and its key do not fit together", options.certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let content = watched_file::read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", path.display()))?;
    ensure!(!certificates.is_empty(), "{} has no certificate", path.display());
    Ok(certificates)
}
