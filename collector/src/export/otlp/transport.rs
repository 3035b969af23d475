//! One signal's way to its backend: checks the endpoint, and makes single attempts over gRPC or HTTP.
//!
//! Refuses to retry, and to connect before the first attempt.

use std::{error::Error, iter::successors, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use super::{
    Endpoint, Protocol, Signal,
    answer::Answer,
    grpc::GrpcTransport,
    http::HttpTransport,
    tls::{self, Identity},
};

/// Shared out over the addresses of a name, so that a dead one leaves time for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long without acknowledgement the kernel gives a connection up (`TCP_USER_TIMEOUT`). Without it an HTTP/2
/// connection to a node that vanished swallows every attempt for a quarter of an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);
/// When the kernel starts to ask whether an idle connection is alive.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Headers that say how a message is framed: wrong ones make the request unreadable.
const FRAMING_HEADERS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const USER_AGENT: &str = concat!("kansoku/", env!("CARGO_PKG_VERSION"));

/// The client both protocols send through.
pub(super) type Client = legacy::Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// Clients by what tells their connections apart: signals that go the same way share connections and certificates.
#[derive(Default)]
pub(super) struct Clients {
    built: Vec<(Protocol, Identity, Client)>,
}

/// Sends one signal's requests.
pub(super) struct Transport {
    wire: Wire,
    timeout: Duration,
    name: String,
}

enum Wire {
    Grpc(GrpcTransport),
    Http(HttpTransport),
}

impl Transport {
    /// # Errors
    /// An endpoint that can't be right; the message says what to change.
    pub(super) fn new(
        signal: Signal,
        endpoint: &Endpoint,
        clients: &mut Clients,
    ) -> anyhow::Result<Transport> {
        ensure!(
            !endpoint.timeout.is_zero(),
            "a timeout of 0 lets nothing through; set {}",
            signal.variable("TIMEOUT")
        );
        let uri = uri(endpoint).with_context(|| {
            format!("bad endpoint {:?}; set {}", endpoint.url, signal.variable("ENDPOINT"))
        })?;
        let headers =
            headers(endpoint).with_context(|| format!("bad header; set {}", signal.variable("HEADERS")))?;
        let identity = Identity::new(uri.scheme() == Some(&Scheme::HTTPS), endpoint);
        let client = clients.get(signal, endpoint.protocol, identity)?;
        let name = name(&uri);
        let wire = match endpoint.protocol {
            Protocol::Grpc => Wire::Grpc(GrpcTransport::new(signal, client, uri, headers, endpoint)),
            Protocol::HttpProtobuf => {
                Wire::Http(HttpTransport::new(client, uri, headers, endpoint.compression))
            }
        };
        Ok(Transport { wire, timeout: endpoint.timeout, name })
    }

    /// Scheme, host and port, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes one attempt, within the endpoint's timeout.
    pub(super) async fn send(&self, body: Bytes) -> Answer {
        let attempt = async {
            match &self.wire {
                Wire::Grpc(grpc) => grpc.send(body).await,
                Wire::Http(http) => http.send(body).await,
            }
        };
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Answer::Retry {
            after: None,
            why: format!("no answer within {:?}", self.timeout),
        })
    }
}

impl Clients {
    fn get(&mut self, signal: Signal, protocol: Protocol, identity: Identity) -> anyhow::Result<Client> {
        let found =
            self.built.iter().find(|(built_for, files, _)| *built_for == protocol && *files == identity);
        if let Some((_, _, client)) = found {
            return Ok(client.clone());
        }
        let client = build(signal, protocol, &identity)?;
        self.built.push((protocol, identity, client.clone()));
        Ok(client)
    }
}

/// The text of a failed connection with all its causes, and what to do about it if that is known.
pub(super) fn describe<'a>(error: &'a (dyn Error + 'static)) -> String {
    let source = |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    };
    let causes: Vec<String> = successors(Some(error), source).map(ToString::to_string).collect();
    let advice = tls::advice(error).map_or(String::new(), |advice| format!(" ({advice})"));
    format!("{}{advice}", causes.join(": "))
}

fn build(signal: Signal, protocol: Protocol, identity: &Identity) -> anyhow::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    let tls = HttpsConnectorBuilder::new().with_tls_config(identity.load(signal)?).https_or_http();
    let connector = match protocol {
        Protocol::Grpc => tls.enable_http2().wrap_connector(tcp),
        Protocol::HttpProtobuf => tls.enable_http1().enable_http2().wrap_connector(tcp),
    };
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http2_only(protocol == Protocol::Grpc)
        .build(connector))
}

/// Parses the endpoint's URL. A gRPC one may lack its scheme, which `insecure` then decides.
fn uri(endpoint: &Endpoint) -> anyhow::Result<Uri> {
    let url = endpoint.url.trim();
    let uri: Uri = match (url.contains("://"), endpoint.protocol) {
        (true, _) => url.parse()?,
        (false, Protocol::Grpc) => {
            let scheme = if endpoint.insecure { "http" } else { "https" };
            format!("{scheme}://{url}").parse()?
        }
        (false, Protocol::HttpProtobuf) => bail!("it has to start with http:// or https://"),
    };
    let scheme = uri.scheme_str().unwrap_or_default();
    ensure!(matches!(scheme, "http" | "https"), "{scheme} is not supported, only http and https");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    ensure!(!uri.host().unwrap_or_default().is_empty(), "it names no host");
    ensure!(!authority.contains('@'), "credentials belong into a header, such as authorization");
    Ok(uri)
}

fn name(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}

/// The user's headers and our own. Errors name the header but not its value.
fn headers(endpoint: &Endpoint) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let key: HeaderName = name.trim().parse().with_context(|| format!("{name:?} is no header name"))?;
        let mut value = HeaderValue::from_str(value.trim())
            .with_context(|| format!("the value of {name:?} holds characters that a header can't"))?;
        ensure!(!FRAMING_HEADERS.contains(&key), "{key} is the connection's own; leave it out");
        // Keeps it out of debug output and of HTTP/2's compression tables.
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::super::Compression;
    use super::*;

    fn endpoint(url: &str, protocol: Protocol, insecure: bool) -> Endpoint {
        Endpoint {
            url: url.to_owned(),
            protocol,
            compression: Compression::None,
            headers: vec![],
            timeout: Duration::from_secs(10),
            certificate: None,
            client_certificate: None,
            client_key: None,
            insecure,
        }
    }

    #[test]
    fn urls_are_checked() {
        #[track_caller]
        fn check(url: &str, protocol: Protocol, insecure: bool, expected: Result<&str, &str>) {
            let parsed = uri(&endpoint(url, protocol, insecure));
            match (parsed, expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri.to_string(), expected),
                (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
                (parsed, expected) => panic!("{url}: {parsed:?} instead of {expected:?}"),
            }
        }
        use Protocol::{Grpc, HttpProtobuf};
        check("http://localhost:4317", Grpc, false, Ok("http://localhost:4317/"));
        check("https://localhost:4317/", Grpc, true, Ok("https://localhost:4317/"));
        check("collector:4317", Grpc, false, Ok("https://collector:4317/"));
        check("collector:4317", Grpc, true, Ok("http://collector:4317/"));
        check("[::1]:4317", Grpc, true, Ok("http://[::1]:4317/"));
        check(" http://c:4318/v1/logs?a=b ", HttpProtobuf, false, Ok("http://c:4318/v1/logs?a=b"));
        check("collector:4318/v1/logs", HttpProtobuf, false, Err("http://"));
        check("unix:///run/otlp.sock", HttpProtobuf, false, Err(""));
        check("ftp://host/", HttpProtobuf, false, Err("ftp is not supported"));
        check("http://user:secret@host/", HttpProtobuf, false, Err("authorization"));
        check("http://", HttpProtobuf, false, Err(""));
        check("http://ho st/", HttpProtobuf, false, Err(""));
        check("", Grpc, false, Err(""));
    }

    #[test]
    fn headers_are_checked_and_kept_secret() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: Result<(), &str>) {
            let mut endpoint = endpoint("http://localhost", Protocol::Grpc, false);
            endpoint.headers = vec![(name.to_owned(), value.to_owned())];
            assert!(!format!("{endpoint:?}").contains("secret"));
            match (headers(&endpoint), expected) {
                (Ok(headers), Ok(())) => {
                    assert_eq!(headers[header::USER_AGENT], USER_AGENT);
                    assert!(!format!("{headers:?}").contains("secret"));
                }
                (Err(error), Err(part)) => {
                    let message = format!("{error:#}");
                    assert!(message.contains(part) && !message.contains("secret"), "{message}");
                }
                (result, _) => panic!("{name}: {result:?}"),
            }
        }
        check("Authorization", "Bearer secret", Ok(()));
        check(" x-tenant ", " secret", Ok(()));
        check("user-agent", "secret", Ok(()));
        check("Content-Length", "secret", Err("content-length"));
        check("x tenant", "secret", Err("x tenant"));
        check("x-tenant", "secret\r\nx: y", Err("x-tenant"));
    }

    #[test]
    fn signals_of_one_backend_share_a_client() {
        let mut clients = Clients::default();
        for (url, protocol, expected) in [
            ("http://a:4317", Protocol::Grpc, 1),
            ("http://b:4317", Protocol::Grpc, 1),
            ("http://a:4318", Protocol::HttpProtobuf, 2),
        ] {
            Transport::new(Signal::Logs, &endpoint(url, protocol, false), &mut clients).unwrap();
            assert_eq!(clients.built.len(), expected);
        }
    }
}
