//! Watches all objects of a kind in the cluster, as long as we lead.
//!
//! In pages, with bookmarks, and over cuts; an error is counted, said once, and asked again, ever more seldom. A kind that
//! is forbidden costs that kind. Refuses: holding an object whole.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use kube::api::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::board::{Board, Key, OBJECTS_MAX};
use super::kinds::{
    Autoscaler, Claim, CronJob, DaemonSet, Deployment, Job, Listed, Namespace, Node, Pod, Quota, ReplicaSet,
    StatefulSet,
};
use super::{Stats, lock};
use crate::dump::Glob;
use crate::identity::kubernetes::describe;

/// Objects in one page of a list: about a MiB of JSON, while it is read.
const PAGE_OBJECTS: u32 = 100;

/// What every watch needs.
#[derive(Clone)]
pub struct Watches {
    /// The API server.
    pub client: Client,
    /// Where objects go.
    pub board: Arc<Mutex<Board>>,
    /// Where errors are counted.
    pub stats: Arc<Stats>,
    /// Labels of pods that are told.
    pub labels: Arc<[Glob]>,
}

impl Watches {
    /// Starts a watch for each kind. They end when the set is dropped.
    pub fn start(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().watch::<Pod>());
        tasks.spawn(self.clone().watch::<Node>());
        tasks.spawn(self.clone().watch::<Namespace>());
        tasks.spawn(self.clone().watch::<Deployment>());
        tasks.spawn(self.clone().watch::<ReplicaSet>());
        tasks.spawn(self.clone().watch::<StatefulSet>());
        tasks.spawn(self.clone().watch::<DaemonSet>());
        tasks.spawn(self.clone().watch::<Job>());
        tasks.spawn(self.clone().watch::<CronJob>());
        tasks.spawn(self.clone().watch::<Autoscaler>());
        tasks.spawn(self.clone().watch::<Claim>());
        tasks.spawn(self.clone().watch::<Quota>());
        tasks
    }

    async fn watch<K: Listed>(self) {
        let api: Api<K> = Api::all(self.client.clone());
        let options = watcher::Config::default().page_size(PAGE_OBJECTS);
        let mut events = std::pin::pin!(watcher(api, options).default_backoff());
        let mut is_told = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    is_told = false;
                    self.take(event);
                }
                // A watch that was cut goes on where it was, without another list.
                Err(watcher::Error::WatchFailed(_)) => {}
                Err(error) => {
                    Stats::count(&self.stats.watch_errors);
                    if !std::mem::replace(&mut is_told, true) {
                        let (kind, error) = (K::KIND.name(), describe(&error));
                        tracing::warn!(
                            kind,
                            error,
                            "the API server does not tell these objects; it is asked again"
                        );
                    }
                }
            }
        }
    }

    fn take<K: Listed>(&self, event: Event<K>) {
        match event {
            Event::Init => lock(&self.board).begin(K::KIND),
            Event::InitDone => lock(&self.board).complete(K::KIND),
            Event::Apply(mut object) | Event::InitApply(mut object) => {
                object.slim(&self.labels);
                let key = key(object.meta());
                let has_place = lock(&self.board).put(K::KIND, key, Box::new(object));
                if !has_place && Stats::count(&self.stats.left_out) {
                    tracing::warn!(
                        OBJECTS_MAX,
                        "the cluster has more objects than one agent tells: the rest is left out"
                    );
                }
            }
            Event::Delete(object) => lock(&self.board).remove(K::KIND, &key(object.meta())),
        }
    }
}

fn key(meta: &ObjectMeta) -> Key {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
    (text(&meta.namespace), text(&meta.name))
}
