//! Where the metrics of `kansoku run` go: the backend, the Prometheus endpoint, and from where those of applications come.
//!
//! An endpoint that cannot listen is said once and costs the endpoint, not the agent. Refuses: the metrics' content.

use anyhow::{Context, Result};

use super::run::Output;
use crate::cluster::{Cluster, ClusterOptions};
use crate::config::Config;
use crate::export::HostResource;
use crate::export::prometheus::{PrometheusOptions, Server, SnapshotAnswers, SnapshotRequests};
use crate::health::Health;
use crate::identity::{Names, kubernetes};
use crate::meter::{Meter, MetricSink};
use crate::scrape::{Access, Client, ClusterAccess, Discovery, Limits, Scraper, trust};
use crate::telemetry::{Snapshot, Text};

/// Wires the meter.
pub(super) fn meter(config: &Config, output: &Output, names: &Names, health: &Health) -> Meter {
    let (server, answers) = endpoint(config, health);
    let api = api(config);
    let cluster = cluster(config, api.clone(), health);
    let scraper = match scraper(config, api, health) {
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
    let elected = cluster.as_ref().map(Cluster::targets);
    let fixed = config.scrape_targets.clone();
    let discovery = Discovery::new(fixed, config.scrape_interval, pods, elected);
    Meter {
        options: config.meter.clone(),
        answers,
        server,
        scraper,
        cluster,
        discovery,
        sink,
        health: health.clone(),
    }
}

/// Where the API server is, if anything here needs it.
fn api(config: &Config) -> Option<kube::Config> {
    let is_wanted = config.cluster.is_some()
        || config.scrape_targets.iter().any(|target| target.access == Access::Cluster);
    let found = is_wanted.then(|| kubernetes::config_blocking(&config.names.api))?;
    found.unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "the API server cannot be asked");
        None
    })
}

/// This agent's part in the election, where one is wanted.
fn cluster(config: &Config, api: Option<kube::Config>, health: &Health) -> Option<Cluster> {
    let options = config.cluster.clone()?;
    let Some(api) = api else {
        tracing::warn!("nothing is told of the cluster: the agent is no pod, and no kubeconfig is named");
        return None;
    };
    let started = Cluster::start(options, api, health);
    started
        .inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "nothing is told of the cluster"))
        .ok()
}

/// Metrics wait for scrapes alone.
struct Nobody;

impl MetricSink for Nobody {
    fn accept(&mut self, _: &Snapshot) {}

    fn wants(&self) -> bool {
        false
    }
}

fn endpoint(config: &Config, health: &Health) -> (Option<Server>, SnapshotAnswers) {
    let (requests, answers) = SnapshotRequests::channel();
    let Some(options) = &config.prometheus else { return (None, answers) };
    let server = start(options, config, requests, health.clone());
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

fn start(
    options: &PrometheusOptions,
    config: &Config,
    requests: SnapshotRequests,
    health: Health,
) -> Result<Server> {
    let host = HostResource::read(&config.resource_attributes);
    let target =
        host.attributes().iter().map(|(key, value)| (Text::from(key.clone()), Text::from(value.clone())));
    Server::start(options.clone(), target.collect(), requests, health)
}

fn scraper(config: &Config, api: Option<kube::Config>, health: &Health) -> Result<Option<Scraper>> {
    let is_elected = config.cluster.as_ref().is_some_and(ClusterOptions::scrapes);
    if config.scrape_targets.is_empty() && !config.scrape_annotations && !is_elected {
        return Ok(None);
    }
    let tls = trust(config.scrape_authorities.as_deref()).context("in scrape.certificate")?;
    let mut client = Client::new(tls, Limits::default());
    if let Some(api) = api {
        client = client.with_cluster(ClusterAccess::new(&api, config.cluster_verify)?);
    }
    let scraper = Scraper::start(client, health)?;
    let left_out = scraper.set_targets(config.scrape_targets.clone());
    if left_out > 0 {
        tracing::warn!(left_out, "too many targets to scrape");
    }
    Ok(Some(scraper))
}
