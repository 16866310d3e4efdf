//! Who leads what: one view for the whole client, and the search for new leaders.
//!
//! Whoever finds that a leader does not answer, or denies, reports the partition as lost. The
//! finder then puts *held* metadata calls to other brokers, which answer at the moment at
//! which they know a leader of a higher epoch; no poll interval adds to the outage.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use baton_core::{BrokerId, Epoch, Error};
use baton_proto::v1;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};

use crate::{
    backoff::Dice,
    error::{Attempt, ClientError},
    failover::Failover,
    net::{self, Pool, Purpose},
    view::{Move, View},
};

/// How many changes of leaders are kept for a slow reader.
const FAILOVERS_KEPT: usize = 1024;
/// A partition is searched for so long after it was last reported lost.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How long one broker holds a search.
pub(crate) const HOLD: Duration = Duration::from_millis(500);
/// Lost partitions are asked for in at most so many groups, so that one that stays without a
/// leader does not hold up the answer about the others.
const GROUPS_MAX: usize = 32;

/// A partition whose leader is being searched for.
#[derive(Clone, Debug)]
struct Lost {
    above: Epoch,
    /// When the oldest request was sent that the leader did not answer.
    since: Instant,
    reported: Instant,
    /// Calls under way that ask for it.
    asking: usize,
    next_ask: Instant,
    failures: u32,
}

pub(crate) type PartitionName = (Arc<str>, u32);

/// Held calls about some partitions: which brokers to ask, and what.
pub(crate) struct Search {
    pub addresses: Vec<String>,
    pub partitions: Vec<(PartitionName, Epoch)>,
}

pub(crate) struct Metadata {
    view: watch::Sender<Arc<View>>,
    lost: Mutex<BTreeMap<PartitionName, Lost>>,
    lost_count: AtomicUsize,
    pub wake: Notify,
    failovers: broadcast::Sender<Failover>,
    bootstrap: Vec<String>,
    dice: Arc<Dice>,
}

impl Metadata {
    pub(crate) fn new(bootstrap: Vec<String>, dice: Arc<Dice>) -> Self {
        Self {
            view: watch::Sender::new(Arc::default()),
            lost: Mutex::default(),
            lost_count: AtomicUsize::new(0),
            wake: Notify::new(),
            failovers: broadcast::Sender::new(FAILOVERS_KEPT),
            bootstrap,
            dice,
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Wakes whoever waits for a change of the view.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(crate) fn failovers(&self) -> broadcast::Receiver<Failover> {
        self.failovers.subscribe()
    }

    /// Takes an answer in and returns the topics that its broker does not know.
    pub(crate) fn learn(&self, answer: &v1::MetadataResponse) -> Vec<(String, Error)> {
        let (mut moves, mut refused) = (Vec::new(), Vec::new());
        self.view.send_modify(|view| (moves, refused) = Arc::make_mut(view).merge(answer));
        self.announce(moves);
        refused
    }

    /// Takes in what an error says about who leads.
    pub(crate) fn hint(&self, topic: &str, partition: u32, leader: &v1::Leader) {
        let mut moved = None;
        self.view.send_if_modified(|view| {
            moved = Arc::make_mut(view).hint(topic, partition, leader);
            moved.is_some()
        });
        self.announce(moved);
    }

    /// Forgets a topic that is gone.
    pub(crate) fn forget(&self, topic: &str) {
        self.view.send_if_modified(|view| Arc::make_mut(view).topics.remove(topic).is_some());
    }

    /// The leader of this epoch does not answer, or says that it does not lead.
    pub(crate) fn leader_lost(&self, topic: &Arc<str>, partition: u32, above: Epoch, since: Instant) {
        let known = self.view.borrow().leadership(topic, partition);
        if known.is_some_and(|known| known.broker.is_some() && known.epoch > above) {
            return;
        }
        let now = Instant::now();
        let mut lost = self.lock();
        let entry = lost.entry((topic.clone(), partition)).or_insert_with(|| Lost {
            above,
            since,
            reported: now,
            asking: 0,
            next_ask: now,
            failures: 0,
        });
        entry.above = entry.above.max(above);
        entry.since = entry.since.min(since);
        entry.reported = now;
        self.lost_count.store(lost.len(), Ordering::Release);
        drop(lost);
        self.wake.notify_one();
    }

    /// The leader that was reported lost answers after all.
    pub(crate) fn leader_answers(&self, topic: &Arc<str>, partition: u32) {
        if self.lost_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut lost = self.lock();
        lost.remove(&(topic.clone(), partition));
        self.lost_count.store(lost.len(), Ordering::Release);
    }

    /// Addresses to ask, in random order: all brokers that are known, but `not` these, and
    /// the bootstrap addresses behind them.
    pub(crate) fn addresses(&self, not: &[BrokerId]) -> Vec<String> {
        let view = self.view();
        let mut known: Vec<String> =
            view.brokers.iter().filter(|(id, _)| !not.contains(id)).map(|(_, address)| address.clone()).collect();
        self.dice.shuffle(&mut known);
        let excluded: Vec<&String> = not.iter().filter_map(|id| view.brokers.get(id)).collect();
        let mut bootstrap: Vec<String> = self.bootstrap.clone();
        self.dice.shuffle(&mut bootstrap);
        for address in bootstrap {
            if !known.contains(&address) && !excluded.contains(&&address) {
                known.push(address);
            }
        }
        known
    }

    /// What to ask now, and when to look again.
    pub(crate) fn searches(&self, now: Instant) -> (Vec<Search>, Option<Instant>) {
        let mut lost = self.lock();
        lost.retain(|_, entry| now < entry.reported + SEARCH_TIME);
        self.lost_count.store(lost.len(), Ordering::Release);
        let mut due: Vec<(PartitionName, Epoch)> = Vec::new();
        let mut next = None;
        for (name, entry) in lost.iter_mut().filter(|(_, entry)| entry.asking == 0) {
            if entry.next_ask <= now {
                due.push((name.clone(), entry.above));
            } else {
                next = Some(next.map_or(entry.next_ask, |next: Instant| next.min(entry.next_ask)));
            }
        }
        let mut searches = Vec::new();
        let view = self.view();
        for group in due.chunks(due.len().div_ceil(GROUPS_MAX).max(1)) {
            let leaders: Vec<BrokerId> =
                group.iter().filter_map(|((topic, partition), _)| view.leadership(topic, *partition)?.broker).collect();
            let mut addresses = self.addresses(&leaders);
            if addresses.is_empty() {
                addresses = self.addresses(&[]);
            }
            addresses.truncate(2);
            for (name, _) in group {
                if let Some(entry) = lost.get_mut(name) {
                    entry.asking = addresses.len();
                }
            }
            searches.push(Search { addresses, partitions: group.to_vec() });
        }
        (searches, next)
    }

    /// One broker has answered a search, or failed to.
    pub(crate) fn searched(&self, partitions: &[(PartitionName, Epoch)], answered: bool, now: Instant) {
        let mut lost = self.lock();
        for (name, _) in partitions {
            let Some(entry) = lost.get_mut(name) else { continue };
            entry.asking = entry.asking.saturating_sub(1);
            entry.failures = if answered { 0 } else { entry.failures.saturating_add(1) };
            let (base, most) = (Duration::from_millis(10), Duration::from_millis(200));
            entry.next_ask = now + self.dice.backoff(base, most, entry.failures);
        }
    }

    fn announce(&self, moves: impl IntoIterator<Item = Move>) {
        let mut lost = self.lock();
        let now = Instant::now();
        for Move { topic, partition, old, new } in moves {
            let Some(new_leader) = new.broker else { continue };
            let name = (topic, partition);
            let outage = match lost.get(&name) {
                Some(entry) if new.epoch > entry.above => {
                    let since = entry.since;
                    lost.remove(&name);
                    Some(now.saturating_duration_since(since))
                }
                _ => None,
            };
            if old.epoch > Epoch::NONE && old.broker != new.broker {
                let failover =
                    Failover { topic: name.0, partition, old_leader: old.broker, new_leader, epoch: new.epoch, outage };
                // Nobody may be listening.
                let _ = self.failovers.send(failover);
            }
        }
        self.lost_count.store(lost.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Lost>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one broker for metadata.
pub(crate) async fn ask(
    pool: &Pool,
    address: &str,
    request: v1::MetadataRequest,
    timeout: Duration,
) -> Result<v1::MetadataResponse, ClientError> {
    let mut broker = pool.broker(address, Purpose::Control)?;
    match tokio::time::timeout(timeout, broker.metadata(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::status_error(address, &status)),
        Err(_) => {
            let reason = format!("no answer within {timeout:?}");
            Err(ClientError::Unreachable(vec![Attempt { address: address.to_owned(), reason }]))
        }
    }
}
