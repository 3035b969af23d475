//! When which target is scraped: each on its own interval, at a moment of it that its URL's hash chooses, so that a
//! thousand targets spread and stay where they are over restarts.
//!
//! At most `CONCURRENT_MAX` scrapes run at once; a target whose turn passes while it waits is skipped until the next.
//! Refuses: retries. The next interval is one.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fnv::FnvHasher;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::board::{Board, Status};
use super::client::Client;
use super::loss::Losses;
use super::target::{INTERVAL_MIN, Target};
use super::translate::{Starts, own, translate};

/// Scrapes at once: with what a page may cost, this bounds the memory in use.
const CONCURRENT_MAX: usize = 8;

/// A target that is followed.
struct Followed {
    target: Arc<Target>,
    id: u64,
    starts: Arc<Mutex<Starts>>,
    task: AbortHandle,
}

/// What all tasks share.
struct Shared {
    client: Client,
    board: Arc<Mutex<Board>>,
    places: Semaphore,
}

/// Follows the targets of `wanted` until its sender is gone.
pub(super) async fn run(
    client: Client,
    board: Arc<Mutex<Board>>,
    mut wanted: watch::Receiver<Vec<Arc<Target>>>,
) {
    let shared = Arc::new(Shared { client, board, places: Semaphore::new(CONCURRENT_MAX) });
    let mut followed = HashMap::new();
    let mut next_id = 0;
    loop {
        let targets = wanted.borrow_and_update().clone();
        replace(&shared, &mut followed, targets, &mut next_id);
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Stops what is no longer wanted, starts what is new. A target that changed in all but its URL keeps its starts.
fn replace(
    shared: &Arc<Shared>,
    followed: &mut HashMap<String, Followed>,
    targets: Vec<Arc<Target>>,
    next_id: &mut u64,
) {
    let mut before = std::mem::take(followed);
    for target in targets {
        let url = target.spec.url();
        // Of two targets with one URL the first counts.
        if followed.contains_key(&url) {
            continue;
        }
        let (id, starts) = match before.remove(&url) {
            Some(known) if known.target == target => {
                followed.insert(url, known);
                continue;
            }
            Some(known) => {
                known.task.abort();
                (known.id, known.starts)
            }
            None => {
                *next_id += 1;
                (*next_id, Arc::default())
            }
        };
        let task = tokio::spawn(follow(shared.clone(), target.clone(), id, starts.clone())).abort_handle();
        followed.insert(url, Followed { target, id, starts, task });
    }
    // An aborted task does not run again before its result is removed: this thread is the only one.
    for gone in before.into_values() {
        gone.task.abort();
        lock(&shared.board).remove(gone.id);
    }
}

async fn follow(shared: Arc<Shared>, target: Arc<Target>, id: u64, starts: Arc<Mutex<Starts>>) {
    let interval = target.interval.max(INTERVAL_MIN);
    let first = Instant::now() + wait(&target.spec.url(), interval, since_epoch());
    let mut turns = interval_at(first, interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        turns.tick().await;
        let Ok(_place) = shared.places.acquire().await else { return };
        shared.turn(&target, id, &starts).await;
    }
}

impl Shared {
    async fn turn(&self, target: &Target, id: u64, starts: &Mutex<Starts>) {
        let (started, time_unix_ns) = (Instant::now(), since_epoch().as_nanos() as u64);
        let result = self.client.scrape(target).await;
        let duration_s = started.elapsed().as_secs_f64();
        let own = own(target, result.as_ref().ok().map(|page| page.samples), duration_s);
        let url = target.spec.url();
        let (status, metrics, losses) = match result {
            Err(failure) => {
                (Status { url, failure: Some(failure), flaws: Vec::new() }, Vec::new(), Losses::default())
            }
            Ok(mut page) => {
                let flaws = std::mem::take(&mut page.flaws);
                let mut losses = std::mem::take(&mut page.losses);
                let translated = translate(page, target, &mut lock(starts), time_unix_ns);
                losses.merge(&translated.losses);
                (Status { url, failure: None, flaws }, translated.metrics, losses)
            }
        };
        lock(&self.board).put((id, target.is_elected), status, own, metrics, &losses);
    }
}

/// How long until the target's moment of the interval.
fn wait(url: &str, interval: Duration, now: Duration) -> Duration {
    let mut hasher = FnvHasher::default();
    hasher.write(url.as_bytes());
    let interval_ns = interval.as_nanos().max(1);
    let moment = u128::from(hasher.finish()) % interval_ns;
    let wait = (moment + interval_ns - now.as_nanos() % interval_ns) % interval_ns;
    Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
}

pub(super) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the lock guards is whole after each statement, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_spread_and_stay() {
        let interval = Duration::from_mins(1);
        let mut quarters = [0; 4];
        for number in 0..1000 {
            let url = format!("http://10.0.0.{}:{number}/metrics", number % 250);
            let at = |now: u64| Duration::from_secs(now) + wait(&url, interval, Duration::from_secs(now));
            assert_eq!(
                at(1_000).as_nanos() % interval.as_nanos(),
                at(9_999).as_nanos() % interval.as_nanos()
            );
            assert!(wait(&url, interval, Duration::from_secs(77)) < interval);
            quarters[(at(0).as_secs() / 15) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (180..320).contains(count)), "{quarters:?}");
    }
}
