//! What to trust and what to present over TLS. Reads certificate files once, at start.
//!
//! Refuses: an option to skip verification, key passwords, and revocation lists.

use std::{error::Error, io, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context, bail, ensure};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{Endpoint, Signal};

/// What an endpoint's TLS depends on: two with the same share their connections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    /// False for plain text: then the system's certificates aren't needed, and may be absent.
    encrypted: bool,
    certificate: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

impl Identity {
    pub(super) fn new(encrypted: bool, endpoint: &Endpoint) -> Identity {
        Identity {
            encrypted,
            certificate: endpoint.certificate.clone(),
            client_certificate: endpoint.client_certificate.clone(),
            client_key: endpoint.client_key.clone(),
        }
    }

    /// Reads the files. Those given are read even for a plain endpoint, so that a wrong path shows at once.
    ///
    /// # Errors
    /// A file that can't be read or holds no PEM, a certificate without its key or the reverse, no system
    /// certificates. The message names the file and the variables that set it.
    pub(super) fn load(&self, signal: Signal) -> anyhow::Result<ClientConfig> {
        let roots = self.roots(signal)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match (&self.client_certificate, &self.client_key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate, &variables(signal, "CLIENT_CERTIFICATE"))?;
                let set_by = variables(signal, "CLIENT_KEY");
                let key_der = private_key(key, &set_by)?;
                builder.with_client_auth_cert(chain, key_der).with_context(|| {
                    format!("{} does not fit {} ({set_by})", key.display(), certificate.display())
                })
            }
            (Some(_), None) => {
                bail!("the client certificate needs its key: set {}", variables(signal, "CLIENT_KEY"))
            }
            (None, Some(_)) => {
                bail!("the client key needs its certificate: set {}", variables(signal, "CLIENT_CERTIFICATE"))
            }
        }
    }

    fn roots(&self, signal: Signal) -> anyhow::Result<RootCertStore> {
        let set_by = variables(signal, "CERTIFICATE");
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.certificate {
            for certificate in certificates(path, &set_by)? {
                roots.add(certificate).with_context(|| {
                    format!("{} holds a certificate that can't be trusted ({set_by})", path.display())
                })?;
            }
        } else if self.encrypted {
            // The system's store may hold a few odd certificates; the rest still serves.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(
                !roots.is_empty(),
                "found no system certificates to trust: set {set_by} to the backend's CA file, \
                 or provide /etc/ssl/certs"
            );
        }
        Ok(roots)
    }
}

/// What the user can do about a failed handshake, if `error` is one. A backend's wish for a client certificate isn't
/// among them: with TLS 1.3 it shows only as a connection that closes.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        match rustls_error(error) {
            // A bad signature is what a CA of the same name but another key leaves.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => {
                return Some(
                    "set OTEL_EXPORTER_OTLP_CERTIFICATE to the CA file that signed the backend's certificate",
                );
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                return Some("if the backend speaks plain text on this port, use an http:// endpoint");
            }
            _ => next = error.source(),
        }
    }
    None
}

/// An `io::Error` names the source of its content as its own, so the content itself has to be asked for; connectors
/// put one into another.
fn rustls_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(content) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = content;
    }
    error.downcast_ref()
}

fn certificates(path: &Path, set_by: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path, set_by)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not valid PEM ({set_by})", path.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no PEM certificate ({set_by})", path.display());
    Ok(certificates)
}

fn private_key(path: &Path, set_by: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path, set_by)?)
        .with_context(|| format!("{} holds no unencrypted PEM private key ({set_by})", path.display()))
}

fn read(path: &Path, set_by: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {} ({set_by})", path.display()))
}

fn variables(signal: Signal, option: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{option} or {}", signal.variable(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads from files with these contents; the empty expectation is success.
    #[track_caller]
    fn check(ca: Option<&str>, certificate: Option<&str>, key: Option<&str>, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let identity = Identity {
            encrypted: false,
            certificate: ca.map(|content| write("ca.pem", content)),
            client_certificate: certificate.map(|content| write("client.pem", content)),
            client_key: key.map(|content| write("client.key", content)),
        };
        let message =
            identity.load(Signal::Profiles).err().map_or(String::new(), |error| format!("{error:#}"));
        assert_eq!(message.is_empty(), expected.is_empty(), "{message}");
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    #[test]
    fn files_are_checked() {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (pem, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        check(None, None, None, &[]);
        check(Some(&pem), None, None, &[]);
        check(Some(&pem), Some(&pem), Some(&key), &[]);
        check(
            Some("rubbish"),
            None,
            None,
            &["ca.pem", "holds no PEM", "OTEL_EXPORTER_OTLP_PROFILES_CERTIFICATE"],
        );
        check(Some(&key), None, None, &["ca.pem", "holds no PEM certificate"]);
        check(Some("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----"), None, None, &["ca.pem"]);
        check(None, Some(&pem), None, &["OTEL_EXPORTER_OTLP_CLIENT_KEY"]);
        check(None, None, Some(&key), &["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"]);
        check(None, Some(&pem), Some(&pem), &["client.key", "private key", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]);
        check(None, Some(&pem), Some(&other), &["client.key", "does not fit", "client.pem"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let identity = Identity {
            encrypted: true,
            certificate: Some("/nowhere/ca.pem".into()),
            client_certificate: None,
            client_key: None,
        };
        let message = format!("{:#}", identity.load(Signal::Logs).unwrap_err());
        assert!(
            message.starts_with("cannot read /nowhere/ca.pem (OTEL_EXPORTER_OTLP_CERTIFICATE or "),
            "{message}"
        );
    }
}
