//! The sending end of a [`Watch`]: bounded, and honest about what did not fit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::{Event, Watch};

/// Events that a slow reader may leave waiting before it is told to read everything again.
pub const EVENTS_MAX: usize = 4096;

/// One writer only: the server's side of one watch.
#[derive(Debug)]
pub struct EventSender {
    events: mpsc::Sender<Event>,
    /// The last event in the channel is a [`Event::Reset`] that stands for all that followed.
    overflowed: AtomicBool,
}

/// A watch and the end that feeds it.
#[must_use]
pub fn event_channel(capacity: usize, delay: Duration) -> (EventSender, Watch) {
    let (events, receiver) = mpsc::channel(capacity.max(2));
    let sender = EventSender { events, overflowed: AtomicBool::new(false) };
    (sender, Watch::with_delay(receiver, delay))
}

impl EventSender {
    /// Hands on an event. The last free place is kept for a reset: from then on, events are
    /// dropped until the reader has taken the reset, for it reads everything again after it.
    pub fn send(&self, event: Event) {
        if self.overflowed.load(Ordering::Acquire) {
            if self.events.capacity() < self.events.max_capacity() {
                return;
            }
            self.overflowed.store(false, Ordering::Release);
        }
        let last_place = self.events.capacity() <= 1;
        let event = if last_place { Event::Reset } else { event };
        self.overflowed.store(last_place, Ordering::Release);
        // A closed channel means that nobody watches any more.
        let _ = self.events.try_send(event);
    }

    /// The reader has dropped its watch.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Waits until the reader has dropped its watch.
    pub async fn closed(&self) {
        self.events.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EventKind;

    fn node(n: usize) -> Event {
        Event::Node { path: format!("/{n}"), kind: EventKind::Changed }
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_to_read_again_and_then_goes_on() {
        let (sender, mut watch) = event_channel(4, Duration::ZERO);
        for n in 0..10 {
            sender.send(node(n));
        }
        for n in 0..3 {
            assert_eq!(watch.next().await, Some(node(n)));
        }
        sender.send(node(90)); // The reset is not taken yet and covers this one.
        assert_eq!(watch.next().await, Some(Event::Reset));
        sender.send(node(91));
        assert_eq!(watch.next().await, Some(node(91)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_event_is_not_lost_when_the_wait_is_cancelled() {
        let (sender, mut watch) = event_channel(4, Duration::from_secs(1));
        sender.send(node(1));
        assert!(tokio::time::timeout(Duration::from_millis(1), watch.next()).await.is_err());
        assert_eq!(watch.next().await, Some(node(1)));
    }
}
