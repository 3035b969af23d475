//! One scrape: a GET, and its body read into the parser as it arrives.
//!
//! Whatever the target does, a scrape costs at most its timeout, its limits and one connection: no connection outlives it.
//! Refuses redirects, HTTP/2, cookies, proxies, and credentials but the cluster's.
//!
//! Source of the headers: Prometheus `scrape/scrape.go`.

use std::error::Error;
use std::io::{self, Write};
use std::iter::successors;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use super::access::ClusterAccess;
use super::loss::Failure;
use super::target::{Access, Target};
use super::text::{Format, Limits, Page, Parser};

const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const USER_AGENT: &str = concat!("kansoku/", env!("CARGO_PKG_VERSION"));
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
/// Shared out over the addresses of a name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of an answer, and bytes of them; beyond, the scrape fails.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Characters of a target's own words in a message.
const WORDS_CHARS_MAX: usize = 200;

/// Fetches pages.
pub struct Client {
    http: Http,
    cluster: Option<(Http, ClusterAccess)>,
    limits: Limits,
}

type Http = legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// What to trust: the system's certificates, or those of a PEM file instead.
///
/// # Errors
/// A file that can't be read or holds no PEM certificate.
pub fn trust(authorities: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match authorities {
        // Without any, https targets fail and are counted; the others are scraped.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(path) => {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.with_context(|| format!("{} is not valid PEM", path.display()))?)?;
            }
            ensure!(!roots.is_empty(), "{} holds no PEM certificate", path.display());
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Client {
    /// A client for targets of any scheme.
    pub fn new(tls: ClientConfig, limits: Limits) -> Client {
        Client { http: http(tls), cluster: None, limits }
    }

    /// For targets of the cluster too.
    #[must_use]
    pub fn with_cluster(self, access: ClusterAccess) -> Client {
        Client { cluster: Some((http(access.tls()), access)), ..self }
    }

    /// Scrapes once, within the target's timeout.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn scrape(&self, target: &Target) -> Result<Page, Failure> {
        let time = target.timeout.min(target.interval);
        tokio::time::timeout(time, self.fetch(target, time)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn fetch(&self, target: &Target, time: Duration) -> Result<Page, Failure> {
        let (http, credentials) = match (target.access, &self.cluster) {
            (Access::Open, _) => (&self.http, None),
            (Access::Cluster, Some((http, access))) => (http, access.credentials()?),
            (Access::Cluster, None) => {
                return Err(Failure::Connection("there is no access to the cluster".to_owned()));
            }
        };
        let mut request = Request::get(target.spec.url());
        if let Some(credentials) = credentials {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let request = request
            .header(header::ACCEPT, ACCEPT)
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::USER_AGENT, USER_AGENT)
            .header(TIMEOUT_HEADER, time.as_secs_f64().to_string())
            .body(Empty::new())
            .map_err(|error| Failure::Connection(describe(&error)))?;
        let response = http.request(request).await.map_err(|error| Failure::Connection(describe(&error)))?;
        self.read(response).await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Page, Failure> {
        let (head, mut body) = response.into_parts();
        if head.status.is_redirection() {
            return Err(Failure::Redirect(head.status.as_u16()));
        }
        if head.status != StatusCode::OK {
            return Err(Failure::Status(head.status.as_u16()));
        }
        let sink = Sink {
            parser: Parser::new(format(&head.headers)?, self.limits.clone()),
            bytes_left: self.limits.body_bytes_max,
            is_over: false,
        };
        let mut unpacker = Unpacker::new(&head.headers, sink)?;
        let mut bytes = 0usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Incomplete(describe(&error)))?;
            let Some(data) = frame.data_ref() else { continue };
            bytes = bytes.saturating_add(data.len());
            if bytes > self.limits.body_bytes_max {
                return Err(Failure::BodySize);
            }
            unpacker.feed(data)?;
        }
        unpacker.finish()
    }
}

/// A client that trusts what `tls` says.
fn http(tls: ClientConfig) -> Http {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new())
        // An idle connection to each of a thousand targets would be a thousand files.
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .http1_max_headers(HEADERS_MAX)
        .http1_max_buf_size(HEADER_BYTES_MAX)
        .build(connector)
}

/// By the content type; none at all is Prometheus' text, as in Prometheus 2.
fn format(headers: &HeaderMap) -> Result<Format, Failure> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Prometheus) };
    let text = String::from_utf8_lossy(value.as_bytes());
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        "text/plain" | "" => Ok(Format::Prometheus),
        _ => Err(Failure::ContentType(printable(&text))),
    }
}

/// Takes a body as it was sent.
enum Unpacker {
    Plain(Box<Sink>),
    Gzip(Box<MultiGzDecoder<Sink>>),
}

/// Takes a body as it was meant, up to the limit.
struct Sink {
    parser: Parser,
    bytes_left: usize,
    is_over: bool,
}

impl Unpacker {
    fn new(headers: &HeaderMap, sink: Sink) -> Result<Unpacker, Failure> {
        match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Unpacker::Plain(Box::new(sink))),
            Some(b"gzip" | b"x-gzip") => Ok(Unpacker::Gzip(Box::new(MultiGzDecoder::new(sink)))),
            Some(other) => Err(Failure::Encoding(printable(&String::from_utf8_lossy(other)))),
        }
    }

    fn feed(&mut self, data: &[u8]) -> Result<(), Failure> {
        match self {
            Unpacker::Plain(sink) => sink.write_all(data).map_err(|_| Failure::BodySize),
            Unpacker::Gzip(decoder) => decoder.write_all(data).map_err(|_| decoder.get_ref().failure()),
        }
    }

    fn finish(self) -> Result<Page, Failure> {
        let sink = match self {
            Unpacker::Plain(sink) => *sink,
            Unpacker::Gzip(mut decoder) => {
                decoder.try_finish().map_err(|_| decoder.get_ref().failure())?;
                decoder.finish().map_err(|_| Failure::Encoding("gzip".to_owned()))?
            }
        };
        sink.parser.finish()
    }
}

impl Sink {
    fn failure(&self) -> Failure {
        if self.is_over { Failure::BodySize } else { Failure::Encoding("gzip".to_owned()) }
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(bytes_left) = self.bytes_left.checked_sub(data.len()) else {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.bytes_left = bytes_left;
        self.parser.feed(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error with its causes.
fn describe<'a>(error: &'a (dyn Error + 'static)) -> String {
    let source = |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    };
    let causes: Vec<String> = successors(Some(error), source).map(ToString::to_string).collect();
    printable(&causes.join(": "))
}

fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
