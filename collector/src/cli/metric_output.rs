//! Where the metrics of `kansoku run` go: the backend, the Prometheus endpoint, and from where those of applications come.
//!
//! An endpoint that cannot listen is said once and costs the endpoint, not the agent. Refuses: the metrics' content.

use anyhow::{Context, Result};

use super::run::Output;
use crate::config::Config;
use crate::export::HostResource;
use crate::export::prometheus::{PrometheusOptions, Server, SnapshotAnswers, SnapshotRequests};
use crate::identity::Names;
use crate::meter::{Meter, MetricSink};
use crate::scrape::{Client, Discovery, Limits, Scraper, trust};
use crate::telemetry::{Snapshot, Text};

/// Wires the meter.
pub(super) fn meter(config: &Config, output: &Output, names: &Names) -> Meter {
    let (server, answers) = endpoint(config);
    let scraper = match scraper(config) {
        Ok(scraper) => scraper,
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "applications are not scraped");
            None
        }
    };
    let sink: Box<dyn MetricSink> = match output.metric_exporter(config) {
        Some(exporter) => Box::new(exporter),
        None => Box::new(Nobody),
    };
    let pods = names.node_pods().filter(|_| config.scrape_annotations);
    let fixed = config.scrape_targets.clone();
    let discovery = pods.map(|pods| Discovery::new(fixed, config.scrape_interval, pods));
    Meter { options: config.meter.clone(), answers, server, scraper, discovery, sink }
}

/// Metrics wait for scrapes alone.
struct Nobody;

impl MetricSink for Nobody {
    fn accept(&mut self, _: &Snapshot) {}

    fn wants(&self) -> bool {
        false
    }
}

fn endpoint(config: &Config) -> (Option<Server>, SnapshotAnswers) {
    let (requests, answers) = SnapshotRequests::channel();
    let Some(options) = &config.prometheus else { return (None, answers) };
    let server = start(options, config, requests);
    match server {
        Ok(server) => {
            let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
            tracing::info!(at = addresses.join(", "), "metrics are at /metrics");
            (Some(server), answers)
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "no Prometheus endpoint; set prometheus.listen to another address, or to none"
            );
            (None, answers)
        }
    }
}

fn start(options: &PrometheusOptions, config: &Config, requests: SnapshotRequests) -> Result<Server> {
    let host = HostResource::read(&config.resource_attributes);
    let target =
        host.attributes().iter().map(|(key, value)| (Text::from(key.clone()), Text::from(value.clone())));
    Server::start(options.clone(), target.collect(), requests)
}

fn scraper(config: &Config) -> Result<Option<Scraper>> {
    if config.scrape_targets.is_empty() && !config.scrape_annotations {
        return Ok(None);
    }
    let tls = trust(config.scrape_authorities.as_deref()).context("in scrape.certificate")?;
    let scraper = Scraper::start(Client::new(tls, Limits::default()))?;
    let left_out = scraper.set_targets(config.scrape_targets.clone());
    if left_out > 0 {
        tracing::warn!(left_out, "too many targets to scrape");
    }
    Ok(Some(scraper))
}
