//! How pages of the cluster are asked: with the service account's token, over connections that its certificates vouch for.
//!
//! Refuses: client certificates and other credentials of a kubeconfig; an agent in a pod has a token.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderValue;
use kube::Config;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::client::trust;
use super::loss::Failure;

/// Bytes of a token; those of service accounts have about one KiB.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// The way to the cluster's own pages.
pub struct ClusterAccess {
    tls: ClientConfig,
    token_file: Option<PathBuf>,
}

impl ClusterAccess {
    /// As the API server is asked. `verifies` is whether certificates have to be the cluster's: kubeadm's scheduler,
    /// controller manager and kubelets make their own.
    ///
    /// # Errors
    /// Certificates that are none.
    pub fn new(config: &Config, verifies: bool) -> Result<Self> {
        let tls = match (verifies, &config.root_cert) {
            (false, _) => unverified()?,
            (true, None) => trust(None)?,
            (true, Some(certificates)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    let certificate = CertificateDer::from(certificate.clone());
                    roots.add(certificate).context("a certificate of the cluster is not valid")?;
                }
                builder()?.with_root_certificates(roots).with_no_client_auth()
            }
        };
        Ok(Self { tls, token_file: config.auth_info.token_file.clone().map(PathBuf::from) })
    }

    /// What connections are made with.
    pub(super) fn tls(&self) -> ClientConfig {
        self.tls.clone()
    }

    /// The value of `Authorization`, read anew each time: tokens are replaced within the hour.
    pub(super) fn credentials(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let mut token = String::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut token));
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        match (read, value) {
            (Ok(_), Ok(mut value)) => {
                value.set_sensitive(true);
                Ok(Some(value))
            }
            (Err(error), _) => Err(Failure::Connection(format!("the token cannot be read: {error}"))),
            (_, Err(_)) => Err(Failure::Connection("the token is no text".to_owned())),
        }
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

fn unverified() -> Result<ClientConfig> {
    let verifier = Arc::new(Anybody { provider: provider() });
    Ok(builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes every certificate, as the user asked; the handshake itself is still checked.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
