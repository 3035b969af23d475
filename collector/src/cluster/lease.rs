//! The Lease at the API server: read, taken, renewed and given back, each write on top of the version that was read.
//!
//! Refuses: judging who leads. A write that another one came before is a [`Conflict`](Write::Conflict), not an error.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::Stream;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::election::{LEASE_DURATION, Record};

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The HTTP status of a write that another one came before.
const CONFLICT: u16 = 409;

/// The lease of an election, in the eyes of one candidate.
#[derive(Clone)]
pub struct Leases {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// What became of a write.
#[derive(Debug)]
pub enum Write {
    /// It counts.
    Done(Box<Lease>),
    /// Another write came before, or the lease is gone.
    Conflict,
}

impl Leases {
    /// The lease of this name, for a candidate that calls itself `identity`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity }
    }

    /// What the candidate calls itself.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Tells each change of the lease; `None` where there is none. It goes on after errors, ever more seldom.
    pub fn watch(&self) -> impl Stream<Item = Result<Option<Lease>, watcher::Error>> + Send + use<> {
        watcher::watch_object(self.api.clone(), &self.name).default_backoff()
    }

    /// The lease now.
    ///
    /// # Errors
    ///
    /// Why the server gives none.
    pub async fn read(&self) -> Result<Option<Lease>> {
        in_time(self.api.get_opt(&self.name)).await
    }

    /// Takes the lease, on top of what was read.
    ///
    /// # Errors
    ///
    /// Why the server refuses.
    pub async fn take(&self, read: Option<Lease>) -> Result<Write> {
        let now = MicroTime(Timestamp::now());
        let before = read.as_ref().and_then(|lease| lease.spec.as_ref());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
            // client-go counts the first holder as none.
            lease_transitions: Some(transitions.saturating_add(i32::from(read.is_some()))),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        match read {
            Some(lease) => self.replace(Lease { spec: Some(spec), ..lease }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                written(in_time(self.api.create(&PostParams::default(), &lease)).await)
            }
        }
    }

    /// Renews the lease that we hold.
    ///
    /// # Errors
    ///
    /// Why the server refuses.
    pub async fn renew(&self, mut lease: Lease) -> Result<Write> {
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        self.replace(lease).await
    }

    /// Gives the lease back, so that another takes it at once.
    ///
    /// # Errors
    ///
    /// Why the server refuses.
    pub async fn release(&self, mut lease: Lease) -> Result<Write> {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.replace(lease).await
    }

    async fn replace(&self, lease: Lease) -> Result<Write> {
        written(in_time(self.api.replace(&self.name, &PostParams::default(), &lease)).await)
    }
}

/// Asks once who holds a lease; empty for nobody.
///
/// # Errors
///
/// Why the server does not say.
pub async fn try_lease(config: kube::Config, name: &str) -> Result<String> {
    let namespace = config.default_namespace.clone();
    let leases = Leases::new(Client::try_from(config)?, &namespace, name, String::new());
    Ok(leases.read().await?.map(|lease| record(&lease).holder).unwrap_or_default())
}

/// What a lease says of its holder.
pub fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.to_string()),
        duration_s: spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0),
    }
}

async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T> {
    Ok(tokio::time::timeout(ANSWER_MAX, answer).await.context("no answer in time")??)
}

fn written(answer: Result<Lease>) -> Result<Write> {
    match answer {
        Ok(lease) => Ok(Write::Done(Box::new(lease))),
        Err(error) => match error.downcast_ref() {
            Some(kube::Error::Api(status)) if status.code == CONFLICT || status.is_not_found() => {
                Ok(Write::Conflict)
            }
            _ => Err(error),
        },
    }
}
