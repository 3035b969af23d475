//! Request -> response.
//!
//! Refuses: methods but GET and HEAD, request bodies, and clients without credentials - except at `/readyz` and `/healthz`,
//! which the kubelet asks and which tell of nothing but the agent's threads.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::authorization::Authorization;
use super::bodies::Bodies;
use super::counters::Counters;
use super::negotiation;
use super::requests::SnapshotRequests;
use crate::clock::monotonic_ns;
use crate::health::Health;

/// Answers requests of all connections.
pub struct Answerer {
    /// Who may ask.
    pub authorization: RefCell<Authorization>,
    /// Bodies in flight.
    pub bodies: RefCell<Bodies>,
    /// Where snapshots come from.
    pub requests: SnapshotRequests,
    /// Whether the agent works.
    pub health: Health,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// A response with all of its body.
pub type Answer = Response<Full<Bytes>>;

impl Answerer {
    /// The answer to `request`.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer {
        let path = request.uri().path();
        let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
        if let Some(state) = self.state(path).filter(|_| is_read) {
            return match state {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            };
        }
        let credentials = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if !self.authorization.borrow_mut().allows(credentials) {
            self.counters.unauthorized.add(1);
            let answer = text(StatusCode::UNAUTHORIZED, "credentials are needed\n");
            return with(answer, WWW_AUTHENTICATE, self.authorization.borrow().challenge());
        }
        match path {
            "/" | "/metrics" | "/healthz" | "/readyz" if !is_read => {
                let answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD is needed\n");
                with(answer, ALLOW, "GET, HEAD")
            }
            "/" => with(text(StatusCode::OK, INDEX), CONTENT_TYPE, "text/html; charset=utf-8"),
            "/metrics" => self.scrape(request.headers()).await,
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /readyz and /healthz\n"),
        }
    }

    /// What the kubelet asks for; `None` for other paths.
    fn state(&self, path: &str) -> Option<Result<(), String>> {
        match path {
            "/healthz" => Some(self.health.live(monotonic_ns())),
            "/readyz" => Some(self.health.ready(monotonic_ns())),
            _ => None,
        }
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let start = Instant::now();
        let format = negotiation::format(joined(headers, ACCEPT).as_deref());
        let gzip = negotiation::is_gzip(joined(headers, ACCEPT_ENCODING).as_deref());
        let (Some(format), Some(gzip)) = (format, gzip) else {
            return text(
                StatusCode::NOT_ACCEPTABLE,
                "text 0.0.4, OpenMetrics 1.0.0 and protobuf are here, plain or in gzip\n",
            );
        };
        let Some(snapshot) = self.requests.snapshot().await else {
            self.counters.unanswered.add(1);
            return text(StatusCode::SERVICE_UNAVAILABLE, "the collector did not answer in time\n");
        };
        let body = match self.bodies.borrow_mut().body(&snapshot, format, gzip) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "a scrape could not be encoded");
                return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n");
            }
        };
        self.counters.scrapes.add(1);
        self.counters.scrape_ns.add_time(start.elapsed());
        self.counters.omitted.add(body.omitted);
        let mut answer = Response::new(Full::new(body.bytes));
        answer = with(answer, CONTENT_TYPE, format.content_type());
        answer = with(answer, VARY, "Accept, Accept-Encoding");
        if gzip { with(answer, CONTENT_ENCODING, "gzip") } else { answer }
    }
}

const INDEX: &str = "<!doctype html><html lang=\"en\"><title>Kansoku</title><h1>Kansoku</h1>\
    <p><a href=\"/metrics\">Metrics</a></p></html>\n";

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    with(answer, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

/// All headers of a name as one; those that are no text are left out.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}
