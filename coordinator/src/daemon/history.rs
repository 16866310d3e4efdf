//! Records what happens in the topic `__events`: in order, bounded, and never in anybody's way.
//!
//! Every coordinator sees the changes of partitions, and the elected one records them. One that
//! stands by keeps those of the last seconds, and records them when it is elected: they may be
//! what the coordinator before it did not live to record. So a change that it did record may
//! be there twice; none is missing for that reason.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_broker::clock::{Clock, Seed};
use baton_core::event::{Event, EventKind};
use baton_core::{Error, ErrorCode};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::brokers::{BrokerCalls, peer_address};
use super::plan::changes;
use super::plan::internal::EVENTS_TOPIC;
use super::view::{StateChange, View};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

struct Waiting {
    number: u64,
    since: Instant,
    event: Event,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Waiting>,
    next_number: u64,
    /// Since that was last recorded.
    dropped: u64,
}

/// How the history stands, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryCounts {
    pub waiting: u64,
    pub recorded: u64,
    pub dropped: u64,
}

pub struct History {
    clock: Arc<dyn Clock>,
    capacity: usize,
    /// How long a coordinator that stands by keeps what it saw.
    keep: Duration,
    queue: Mutex<Queue>,
    recording: watch::Sender<bool>,
    added: watch::Sender<()>,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

/// What to append next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Event(u64, Event),
    /// So many were dropped.
    Dropped(u64),
}

impl History {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, capacity: usize, keep: Duration) -> Self {
        Self {
            clock,
            capacity: capacity.max(1),
            keep,
            queue: Mutex::default(),
            recording: watch::Sender::new(false),
            added: watch::Sender::new(()),
            recorded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event of now, to be filled in and given to [`History::record`].
    #[must_use]
    pub fn event(&self, kind: EventKind) -> Event {
        Event::new(self.clock.now_ms(), kind).who("coordinator")
    }

    /// Puts an event in the queue. When it is full, the oldest makes room.
    pub fn record(&self, event: Event) {
        tracing::info!(
            kind = event.kind.name(),
            topic = event.topic.as_deref(),
            partition = event.partition,
            broker = event.broker.map(|broker| broker.0),
            seen = event.seen,
            decided = event.decided,
            result = event.result,
            who = event.who,
            "the cluster changed"
        );
        let recording = *self.recording.borrow();
        let mut queue = self.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        queue.events.push_back(Waiting { number, since: Instant::now(), event });
        if !recording {
            forget_old(&mut queue, self.keep);
        }
        while queue.events.len() > self.capacity {
            queue.events.pop_front();
            if recording {
                queue.dropped += 1;
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(queue);
        self.added.send_replace(());
    }

    /// Puts what changed in the queue, joined where many partitions have it in common.
    pub fn record_changes(&self, changed: &[StateChange]) {
        let now_ms = self.clock.now_ms();
        let events = changed
            .iter()
            .flat_map(|change| changes::changes(&change.topic, change.id.partition, &change.old, &change.new, now_ms))
            .collect();
        for event in changes::coalesce(events) {
            self.record(event);
        }
    }

    /// This coordinator was elected.
    pub fn begin(&self) {
        forget_old(&mut self.lock(), self.keep);
        self.recording.send_replace(true);
    }

    /// It no longer is.
    pub fn end(&self) {
        self.recording.send_replace(false);
    }

    #[must_use]
    pub fn counts(&self) -> HistoryCounts {
        HistoryCounts {
            waiting: self.lock().events.len() as u64,
            recorded: self.recorded.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn next(&self) -> Option<Next> {
        let queue = self.lock();
        if queue.dropped > 0 {
            return Some(Next::Dropped(queue.dropped));
        }
        queue.events.front().map(|first| Next::Event(first.number, first.event.clone()))
    }

    fn done(&self, next: &Next) {
        let mut queue = self.lock();
        match next {
            Next::Dropped(count) => queue.dropped = queue.dropped.saturating_sub(*count),
            Next::Event(number, _) => {
                // It may have been dropped meanwhile.
                if queue.events.front().is_some_and(|first| first.number == *number) {
                    queue.events.pop_front();
                }
            }
        }
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }

    fn to_append(&self, next: &Next) -> Event {
        match next {
            Next::Event(_, event) => event.clone(),
            Next::Dropped(count) => self
                .event(EventKind::EventsDropped)
                .seen("events came faster than they could be recorded")
                .result(format!("{count} events dropped")),
        }
    }

    /// Appends what waits while this coordinator is the elected one. Never ends.
    pub async fn run(self: Arc<Self>, view: Arc<View>, brokers: Arc<dyn BrokerCalls>, seed: Seed) {
        let mut rng = seed.rng();
        let mut recording = self.recording.subscribe();
        let mut added = self.added.subscribe();
        let mut pause = RETRY_MIN;
        loop {
            if recording.wait_for(|is| *is).await.is_err() {
                return;
            }
            added.mark_unchanged();
            let Some(next) = self.next() else {
                if added.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match append(&view, &*brokers, &self.to_append(&next)).await {
                Ok(()) => {
                    self.done(&next);
                    pause = RETRY_MIN;
                }
                Err(error) if is_hopeless(error.code) => {
                    tracing::warn!(%error, "an event was refused and is left out of the history");
                    self.done(&next);
                }
                Err(error) => {
                    tracing::debug!(%error, "an event is not recorded yet");
                    let jittered = pause.mul_f64(rng.random_range(0.5..1.0));
                    sleep(jittered).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

fn forget_old(queue: &mut Queue, keep: Duration) {
    let now = Instant::now();
    while queue.events.front().is_some_and(|first| now.duration_since(first.since) > keep) {
        queue.events.pop_front();
    }
}

/// Whether the same event would be refused for ever.
fn is_hopeless(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::InvalidRequest | ErrorCode::FrameTooLarge | ErrorCode::BatchTooLarge)
}

/// Asks the leader of the history's partition.
async fn append(view: &View, brokers: &dyn BrokerCalls, event: &Event) -> Result<(), Error> {
    let address = view.read(|snapshot| {
        let topic = snapshot.topic(EVENTS_TOPIC)?;
        let nobody = || Error::new(ErrorCode::NoLeader, "nobody leads the history").topic(EVENTS_TOPIC);
        let (_, known) = snapshot.states_of(topic.id).next().ok_or_else(nobody)?;
        let leader = known.state.leader.ok_or_else(nobody)?.broker;
        let live = snapshot.brokers.get(&leader).ok_or_else(nobody)?;
        peer_address(leader, &live.registration)
    })?;
    brokers.append_internal(&address, EVENTS_TOPIC, 0, event.encode()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_broker::clock::ManualClock;

    fn history(capacity: usize) -> History {
        History::new(Arc::new(ManualClock::at(7)), capacity, Duration::from_secs(10))
    }

    fn kinds(history: &History) -> Vec<EventKind> {
        history.lock().events.iter().map(|waiting| waiting.event.kind).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_make_room_and_that_is_recorded() {
        let history = history(2);
        history.begin();
        for kind in [EventKind::BrokerGone, EventKind::LeaderMoved, EventKind::IsrChanged, EventKind::BrokerBack] {
            history.record(history.event(kind));
        }
        assert_eq!(kinds(&history), [EventKind::IsrChanged, EventKind::BrokerBack]);
        let next = history.next().unwrap();
        assert_eq!(next, Next::Dropped(2));
        assert_eq!(history.to_append(&next).result, "2 events dropped");
        history.done(&next);
        assert!(matches!(history.next(), Some(Next::Event(2, _))));
        assert_eq!(history.counts(), HistoryCounts { waiting: 2, recorded: 1, dropped: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_dropped_while_it_is_appended_takes_no_other_with_it() {
        let history = history(1);
        history.begin();
        history.record(history.event(EventKind::BrokerGone));
        let first = history.next().unwrap();
        history.record(history.event(EventKind::BrokerBack));
        history.done(&first);
        assert_eq!(kinds(&history), [EventKind::BrokerBack]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_by_keeps_the_last_seconds_only() {
        let history = history(10);
        history.record(history.event(EventKind::BrokerGone));
        tokio::time::advance(Duration::from_secs(11)).await;
        history.record(history.event(EventKind::LeaderMoved));
        assert_eq!(kinds(&history), [EventKind::LeaderMoved]);
        history.begin();
        assert_eq!(kinds(&history), [EventKind::LeaderMoved]);
        tokio::time::advance(Duration::from_secs(60)).await;
        history.record(history.event(EventKind::IsrChanged));
        assert_eq!(kinds(&history).len(), 2, "who is elected keeps everything");
    }
}
