//! Which peers are alive: one detector for each pair of brokers, driving both elections and
//! the shrinking of in-sync replicas.
//!
//! Dead at once when the port refuses or another incarnation answers; silent after missed
//! heartbeats, if another live broker does not hear it either (or, with nobody to ask, when
//! its session ends). A wrong verdict costs an election, never a record: epochs and versioned
//! writes keep things safe.

use std::collections::BTreeMap;

use crate::branches::reached;
use crate::ids::{BrokerId, Incarnation};
use crate::replica::{Health, Peer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DetectorConfig {
    pub heartbeat_ms: u64,
    /// So many heartbeats may be missed.
    pub missed_max: u64,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 250, missed_max: 3 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The registry lists this broker.
    Registered { broker: BrokerId },
    /// The registry does not list it any more: its session ended.
    Unregistered { broker: BrokerId },
    /// A heartbeat, or anything else on its stream.
    Heard { broker: BrokerId, incarnation: Incarnation, draining: bool },
    /// Nobody listens on its port: the process is gone.
    Refused { broker: BrokerId },
    /// Another live broker's answer to [`Advice::Ask`].
    Answer { broker: BrokerId, hears_it: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The opinion of this broker changed.
    Changed { broker: BrokerId, health: Health },
    /// Ask the other live brokers whether they hear it.
    Ask { broker: BrokerId, incarnation: Incarnation },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    incarnation: Option<Incarnation>,
    heard_ms: u64,
    asked_ms: Option<u64>,
    /// Its session ended; until then nobody's silence is taken for its end unconfirmed.
    unregistered: bool,
    peer: Peer,
}

/// The state of the detector of one broker.
#[derive(Clone, Debug)]
pub struct Detector {
    config: DetectorConfig,
    watched: BTreeMap<BrokerId, Watched>,
}

impl Detector {
    #[must_use]
    pub fn new(config: DetectorConfig) -> Self {
        Self { config, watched: BTreeMap::new() }
    }

    /// What is thought of every peer, for [`crate::replica::Env`].
    #[must_use]
    pub fn peers(&self) -> BTreeMap<BrokerId, Peer> {
        self.watched.iter().map(|(broker, watched)| (*broker, watched.peer)).collect()
    }

    #[must_use]
    pub fn health(&self, broker: BrokerId) -> Health {
        self.watched.get(&broker).map_or(Health::Unknown, |watched| watched.peer.health)
    }

    /// Whether this broker heard that process within the last heartbeats: the answer to a
    /// peer that asks.
    #[must_use]
    pub fn hears(&self, broker: BrokerId, incarnation: Incarnation, now_ms: u64) -> bool {
        self.watched
            .get(&broker)
            .is_some_and(|watched| watched.peer.health == Health::Alive(incarnation) && !self.overdue(watched, now_ms))
    }

    pub fn observe(&mut self, observation: Observation, now_ms: u64, out: &mut Vec<Advice>) {
        match observation {
            Observation::Registered { broker } => self.entry(broker, now_ms).unregistered = false,
            Observation::Unregistered { broker } => self.unregistered(broker, now_ms, out),
            Observation::Heard { broker, incarnation, draining } => {
                self.heard(broker, incarnation, draining, now_ms, out);
            }
            Observation::Refused { broker } => {
                reached!("detector.port_refused");
                self.judge(broker, Health::Dead, now_ms, out);
            }
            Observation::Answer { broker, hears_it } => self.answered(broker, hears_it, now_ms, out),
        }
    }

    /// To be called several times per heartbeat.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Advice>) {
        let heartbeat_ms = self.config.heartbeat_ms;
        let limit_ms = heartbeat_ms * self.config.missed_max;
        for (broker, watched) in &mut self.watched {
            let (Health::Alive(incarnation), Some(_)) = (watched.peer.health, watched.incarnation) else {
                continue;
            };
            if now_ms.saturating_sub(watched.heard_ms) < limit_ms {
                continue;
            }
            if watched.unregistered {
                reached!("detector.silent_after_session");
                watched.peer.health = Health::Silent;
                out.push(Advice::Changed { broker: *broker, health: Health::Silent });
                continue;
            }
            if watched.asked_ms.is_none_or(|asked| now_ms.saturating_sub(asked) >= heartbeat_ms) {
                reached!("detector.asks_others");
                watched.asked_ms = Some(now_ms);
                out.push(Advice::Ask { broker: *broker, incarnation });
            }
        }
    }

    fn overdue(&self, watched: &Watched, now_ms: u64) -> bool {
        now_ms.saturating_sub(watched.heard_ms) >= self.config.heartbeat_ms * self.config.missed_max
    }

    fn entry(&mut self, broker: BrokerId, now_ms: u64) -> &mut Watched {
        self.watched.entry(broker).or_insert(Watched {
            incarnation: None,
            heard_ms: now_ms,
            asked_ms: None,
            unregistered: false,
            peer: Peer { health: Health::Unknown, draining: false },
        })
    }

    fn judge(&mut self, broker: BrokerId, health: Health, now_ms: u64, out: &mut Vec<Advice>) {
        let watched = self.entry(broker, now_ms);
        if watched.peer.health != health {
            watched.peer.health = health;
            out.push(Advice::Changed { broker, health });
        }
    }

    fn heard(
        &mut self,
        broker: BrokerId,
        incarnation: Incarnation,
        draining: bool,
        now_ms: u64,
        out: &mut Vec<Advice>,
    ) {
        let watched = self.entry(broker, now_ms);
        watched.incarnation = Some(incarnation);
        watched.heard_ms = now_ms;
        watched.asked_ms = None;
        let leaves = draining != watched.peer.draining;
        if leaves {
            reached!("detector.notes_draining");
        }
        if matches!(watched.peer.health, Health::Alive(old) if old != incarnation) {
            reached!("detector.notes_another_incarnation");
        }
        watched.peer.draining = draining;
        let health = Health::Alive(incarnation);
        if watched.peer.health != health || leaves {
            watched.peer.health = health;
            out.push(Advice::Changed { broker, health });
        }
    }

    /// The session ended. Who is still heard is alive; who has been silent is now given up
    /// without anybody's confirmation.
    fn unregistered(&mut self, broker: BrokerId, now_ms: u64, out: &mut Vec<Advice>) {
        let limit_ms = self.config.heartbeat_ms * self.config.missed_max;
        let watched = self.entry(broker, now_ms);
        watched.unregistered = true;
        let silent = now_ms.saturating_sub(watched.heard_ms) >= limit_ms || watched.incarnation.is_none();
        let given_up = matches!(watched.peer.health, Health::Dead | Health::Silent);
        if !silent {
            reached!("detector.heard_though_unregistered");
        }
        if silent && !given_up {
            reached!("detector.unregistered_while_silent");
            self.judge(broker, Health::Silent, now_ms, out);
        }
    }

    fn answered(&mut self, broker: BrokerId, hears_it: bool, now_ms: u64, out: &mut Vec<Advice>) {
        let Some(watched) = self.watched.get(&broker) else {
            return;
        };
        let asked = watched.asked_ms.is_some() && self.overdue(watched, now_ms);
        if !asked {
            reached!("detector.takes_no_late_answer");
        }
        if asked && !hears_it && matches!(watched.peer.health, Health::Alive(_)) {
            reached!("detector.silence_confirmed");
            self.judge(broker, Health::Silent, now_ms, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: BrokerId = BrokerId(2);
    const I: Incarnation = Incarnation(7);

    fn heard(detector: &mut Detector, incarnation: Incarnation, now_ms: u64) -> Vec<Advice> {
        let mut out = Vec::new();
        detector.observe(Observation::Heard { broker: B, incarnation, draining: false }, now_ms, &mut out);
        out
    }

    fn observe(detector: &mut Detector, observation: Observation, now_ms: u64) -> Vec<Advice> {
        let mut out = Vec::new();
        detector.observe(observation, now_ms, &mut out);
        out
    }

    fn tick(detector: &mut Detector, now_ms: u64) -> Vec<Advice> {
        let mut out = Vec::new();
        detector.tick(now_ms, &mut out);
        out
    }

    #[test]
    fn a_refused_port_is_death_at_once() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        assert_eq!(
            observe(&mut d, Observation::Refused { broker: B }, 10),
            [Advice::Changed { broker: B, health: Health::Dead }]
        );
        assert!(observe(&mut d, Observation::Refused { broker: B }, 20).is_empty(), "said once");
    }

    #[test]
    fn silence_needs_confirmation() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        assert!(tick(&mut d, 749).is_empty());
        assert_eq!(tick(&mut d, 750), [Advice::Ask { broker: B, incarnation: I }]);
        assert!(tick(&mut d, 800).is_empty(), "asked once per heartbeat");
        assert!(observe(&mut d, Observation::Answer { broker: B, hears_it: true }, 810).is_empty());
        assert_eq!(d.health(B), Health::Alive(I));
        assert_eq!(
            observe(&mut d, Observation::Answer { broker: B, hears_it: false }, 820),
            [Advice::Changed { broker: B, health: Health::Silent }]
        );
    }

    #[test]
    fn an_answer_that_comes_after_a_heartbeat_is_void() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        tick(&mut d, 750);
        heard(&mut d, I, 760);
        assert!(observe(&mut d, Observation::Answer { broker: B, hears_it: false }, 770).is_empty());
    }

    #[test]
    fn with_nobody_to_ask_the_session_decides() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        tick(&mut d, 4_000);
        assert_eq!(
            observe(&mut d, Observation::Unregistered { broker: B }, 4_100),
            [Advice::Changed { broker: B, health: Health::Silent }]
        );
    }

    #[test]
    fn a_session_that_ends_before_the_silence_was_noticed_still_decides() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        assert!(observe(&mut d, Observation::Unregistered { broker: B }, 500).is_empty());
        assert_eq!(tick(&mut d, 750), [Advice::Changed { broker: B, health: Health::Silent }]);
    }

    #[test]
    fn a_lost_session_of_a_broker_that_is_heard_means_nothing() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 4_000);
        assert!(observe(&mut d, Observation::Unregistered { broker: B }, 4_100).is_empty());
    }

    #[test]
    fn another_incarnation_is_news() {
        let mut d = Detector::new(DetectorConfig::default());
        heard(&mut d, I, 0);
        let other = Incarnation(8);
        assert_eq!(heard(&mut d, other, 10), [Advice::Changed { broker: B, health: Health::Alive(other) }]);
        assert!(!d.hears(B, I, 11), "the old process is not heard");
        assert!(d.hears(B, other, 11));
    }
}
