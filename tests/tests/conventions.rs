//! The names of all that the agent says, against the semantic conventions of OpenTelemetry as the Python package has them: nothing
//! is called as they call something else, or as they no longer do.
//!
//! Refuses: names that neither the conventions nor this repository's documents know. The package has no types: what is not a text
//! is listed here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde_json::Value as Json;
use tests::agent::{Agent, STOP_MAX};
use tests::callers::curl;
use tests::dnsmasq::{Dnsmasq, NAME, dig};
use tests::postgres::Postgres;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::services::Service;
use tests::tools;
use tests::web_server::WebServer;

/// What this repository says of its own names.
const DOCUMENTS: [&str; 3] = [
    include_str!("../../README.md"),
    include_str!("../../docs/metrics.md"),
    include_str!("../../ARCHITECTURE.md"),
];

/// Attributes of the conventions that are numbers.
const NUMBERS: [&str; 16] = [
    "client.port",
    "cpu.logical_number",
    "db.response.returned_rows",
    "http.request.body.size",
    "http.request.resend_count",
    "http.response.body.size",
    "http.response.status_code",
    "network.local.port",
    "network.peer.port",
    "process.exit.code",
    "process.parent_pid",
    "process.pid",
    "process.user.id",
    "process.vpid",
    "server.port",
    "thread.id",
];

/// Attributes of the conventions that are lists of texts.
const LISTS: [&str; 3] = ["dns.answers", "process.command_args", "k8s.pod.ip"];

/// All that a run said: types and values of attributes by name, and units of metrics.
#[derive(Default)]
struct Said {
    attributes: BTreeMap<String, BTreeSet<(&'static str, String)>>,
    metrics: BTreeMap<String, (String, &'static str)>,
}

impl Said {
    fn add(&mut self, attributes: &[KeyValue]) {
        for attribute in attributes {
            let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => ("text", text.clone()),
                Some(Value::IntValue(number)) => ("number", number.to_string()),
                Some(Value::ArrayValue(_)) => ("list", String::new()),
                Some(Value::BoolValue(_)) => ("truth", String::new()),
                other => ("other", format!("{other:?}")),
            };
            self.attributes.entry(attribute.key.clone()).or_default().insert(value);
        }
    }

    fn add_data(&mut self, data: Option<&Data>) -> &'static str {
        let Some(data) = data else { return "" };
        match data {
            Data::Gauge(gauge) => {
                gauge.data_points.iter().for_each(|point| self.add(&point.attributes));
                "gauge"
            }
            Data::Sum(sum) => {
                sum.data_points.iter().for_each(|point| self.add(&point.attributes));
                if sum.is_monotonic { "counter" } else { "updowncounter" }
            }
            Data::Histogram(histogram) => {
                histogram.data_points.iter().for_each(|point| self.add(&point.attributes));
                "histogram"
            }
            Data::ExponentialHistogram(histogram) => {
                histogram.data_points.iter().for_each(|point| self.add(&point.attributes));
                "histogram"
            }
            Data::Summary(_) => "summary",
        }
    }

    fn of(receiver: &Receiver) -> Self {
        let mut said = Self::default();
        for resource in receiver.traces().iter().flat_map(|request| &request.resource_spans) {
            resource.resource.iter().for_each(|resource| said.add(&resource.attributes));
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                said.add(&span.attributes);
                span.links.iter().for_each(|link| said.add(&link.attributes));
            }
        }
        for resource in receiver.logs().iter().flat_map(|request| &request.resource_logs) {
            resource.resource.iter().for_each(|resource| said.add(&resource.attributes));
            let records = resource.scope_logs.iter().flat_map(|scope| &scope.log_records);
            records.for_each(|record| said.add(&record.attributes));
        }
        for request in receiver.profiles() {
            for resource in request.resource_profiles.iter().flat_map(|resource| &resource.resource) {
                said.add(&resource.attributes);
            }
        }
        for resource in receiver.metrics().iter().flat_map(|request| &request.resource_metrics) {
            resource.resource.iter().for_each(|resource| said.add(&resource.attributes));
            for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let kind = said.add_data(metric.data.as_ref());
                said.metrics.insert(metric.name.clone(), (metric.unit.clone(), kind));
            }
        }
        said
    }
}

/// Something of each signal and protocol.
fn work() -> Receiver {
    let (web, redis, postgres) = (WebServer::start(), Service::redis(), Postgres::start(&[]));
    let (dns, service) =
        (Dnsmasq::start(([127, 77, 0, 1], 53).into()), Service::script("python3", "times.py", &[]));
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [endpoint, protocol] = receiver.variables();
    let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
    let settings = ["profile.window_ms=500", "metrics.interval_ms=500", "io.slow_ms=1", "io.files=true"];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let agent = Agent::run(&arguments, &variables);
    curl(&[], &["/file?a=1", "/missing/17", "/broken", "/moved"].map(|target| web.url(target)));
    postgres.sql("create table orders (id int); select * from orders");
    let mut psql = postgres.client_over_tcp("psql");
    // A statement that fails is an exchange too.
    let _failed = psql.args(["-X", "-c", "select 1", "-c", "select 1/0"]).output();
    let mut cli = Command::new(tools::require("redis-cli", "redis-tools"));
    tools::succeed(cli.args(["-p", &redis.port().to_string(), "publish", "channel", "message"]));
    for name in [NAME, "missing.test"] {
        dig(dns.address(), &["+notcp", name, "A"]);
    }
    // The service dies of it.
    let url = format!("http://{}/crash", service.address());
    let _crashed = Command::new("curl").args(["-s", &url]).status();
    std::thread::sleep(std::time::Duration::from_secs(3));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    receiver
}

/// Whether a document names it, as OTLP or as Prometheus does, or the group that it belongs to.
fn is_documented(name: &str) -> bool {
    let flat = name.replace(['.', '-'], "_");
    DOCUMENTS
        .iter()
        .any(|document| document.contains(&format!("`{name}`")) || document.contains(&format!("`{flat}")))
}

#[test]
fn all_names_are_of_the_conventions_or_documented() {
    const SCRIPT: &str = include_str!("../workloads/conventions.py");
    let registry: Json =
        serde_json::from_str(&tools::output_of("python3", &["-c", SCRIPT])).expect("the script prints JSON");
    let said = Said::of(&work());
    assert!(!said.attributes.is_empty() && !said.metrics.is_empty());
    let mut wrong = Vec::new();
    for (name, values) in &said.attributes {
        let kinds: BTreeSet<&str> = values.iter().map(|(kind, _)| *kind).collect();
        let Some(known) = registry["attributes"].get(name) else {
            if !name.starts_with("kansoku.") && !is_documented(name) {
                wrong.push(format!("attribute {name}: neither in the registry nor documented"));
            }
            continue;
        };
        if known["is_deprecated"] == true {
            wrong.push(format!("attribute {name}: deprecated"));
        }
        let expected = match &**name {
            name if NUMBERS.contains(&name) => "number",
            name if LISTS.contains(&name) => "list",
            _ => "text",
        };
        if kinds != BTreeSet::from([expected]) {
            wrong.push(format!("attribute {name}: {kinds:?}, not {expected}"));
        }
        // Some lists are open: the values are those that are known to be usual.
        let unusual = values.iter().filter(|(_, value)| {
            known["values"].as_array().is_some_and(|listed| !listed.iter().any(|one| one == value))
        });
        let unusual: Vec<&str> = unusual.map(|(_, value)| &**value).collect();
        if !unusual.is_empty() {
            println!("attribute {name}: {unusual:?} beside {}", known["values"]);
        }
    }
    for (name, (unit, kind)) in &said.metrics {
        match registry["metrics"].get(name) {
            None if name.starts_with("kansoku.") || is_documented(name) => {}
            None => wrong.push(format!("metric {name}: neither in the registry nor documented")),
            Some(known) if known["is_deprecated"] == true => wrong.push(format!("metric {name}: deprecated")),
            Some(known) => {
                if known["unit"] != **unit || known["instrument"] != **kind {
                    wrong.push(format!("metric {name}: a {kind} in {unit:?}, not {known}"));
                }
            }
        }
    }
    println!("{} attributes, {} metrics", said.attributes.len(), said.metrics.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
