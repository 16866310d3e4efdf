//! The cluster's history: the newest events, as the leader of `__events` shows them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use baton_core::Offset;
use baton_core::event::Event;
use bytes::Bytes;
use tokio::sync::watch;

use crate::internal::host::Machine;

/// Events kept in memory; older ones are in the log.
pub const EVENTS_KEPT: usize = 10_000;

#[derive(Debug, Default)]
struct History {
    events: VecDeque<(Offset, Event)>,
    leading: bool,
}

/// What the listener reads. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Events {
    history: Arc<Mutex<History>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { history: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl Events {
    /// The events from `from` on, at most `max`; with `from` none, the last `max`. None unless
    /// this broker leads the history and knows all of it.
    #[must_use]
    pub fn read(&self, from: Option<Offset>, max: usize) -> Option<Vec<(Offset, Event)>> {
        let history = self.lock();
        if !history.leading {
            return None;
        }
        let skip = match from {
            Some(from) => history.events.partition_point(|(offset, _)| *offset < from),
            None => history.events.len().saturating_sub(max),
        };
        Some(history.events.iter().skip(skip).take(max).cloned().collect())
    }

    /// Changes with every event, and when this broker begins or ceases to lead.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The machine that fills it.
    #[must_use]
    pub fn machine(&self) -> EventMachine {
        EventMachine { shown: self.clone() }
    }

    fn change(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.lock());
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Applies the records of `__events`.
#[derive(Debug)]
pub struct EventMachine {
    shown: Events,
}

impl Machine for EventMachine {
    fn begin(&mut self, log_start: Offset, end: Offset) -> Offset {
        self.shown.change(|history| history.events.clear());
        Offset(end.0.saturating_sub(EVENTS_KEPT as u64)).max(log_start)
    }

    fn apply(&mut self, offset: Offset, command: &Bytes) {
        match Event::decode(command) {
            Ok(event) => self.shown.change(|history| {
                history.events.push_back((offset, event));
                if history.events.len() > EVENTS_KEPT {
                    history.events.pop_front();
                }
            }),
            Err(error) => tracing::warn!(%offset, %error, "an event of the history is not understood"),
        }
    }

    fn caught_up(&mut self) {
        self.shown.change(|history| history.leading = true);
    }

    fn end(&mut self) {
        self.shown.change(|history| {
            history.leading = false;
            history.events.clear();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::event::EventKind;

    #[test]
    fn only_a_leader_that_knows_all_answers() {
        let events = Events::default();
        let mut machine = events.machine();
        assert_eq!(machine.begin(Offset(0), Offset(2)), Offset(0));
        let event = Event::new(1, EventKind::ALL[0]);
        machine.apply(Offset(0), &event.encode());
        assert_eq!(events.read(None, 10), None);
        machine.apply(Offset(1), &event.encode());
        machine.caught_up();
        assert_eq!(events.read(Some(Offset(1)), 10), Some(vec![(Offset(1), event.clone())]));
        assert_eq!(events.read(None, 1), Some(vec![(Offset(1), event)]));
        machine.end();
        assert_eq!(events.read(None, 10), None);
    }

    #[test]
    fn the_oldest_events_are_left_to_the_log() {
        let mut machine = Events::default().machine();
        let end = Offset(25_000);
        assert_eq!(machine.begin(Offset(3), end), Offset(15_000));
    }
}
