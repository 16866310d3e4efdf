//! Scenes: things that go wrong together, as they do where brokers are run. Single faults at
//! random moments meet so seldom that some decisions would never be taken.

use rand::Rng;

use super::broker_name;
use super::draw::Draw;
use super::plan::{Strike, Timed, What};
use super::topic::{Place, Topic};

/// Times are those after the scene's beginning.
fn at(at_ms: u64, for_ms: u64, what: What) -> Timed {
    Timed { at_ms, for_ms, what }
}

impl Draw {
    /// One of all scenes.
    pub fn scene(&mut self) -> Vec<Timed> {
        match self.rng.random_range(0..15) {
            0 => self.away_and_back(),
            1 => self.another_minimum(),
            2 => self.full_disks(),
            3 => self.drained(),
            4 => self.answers_lost(),
            5 => self.late_readings(),
            6 => self.deaf_in_one_direction(),
            7 => self.sessions_end_together(),
            8 => self.leaders_one_after_the_other(),
            9 => self.majority_lost(),
            10 => self.cut_off_leader_with_a_tail(),
            11 if self.damages => self.damaged_while_it_leads(),
            11 => self.follower_cannot_keep_up(),
            12 => self.unclean_while_cut_off(),
            _ => self.last_copy_lost(),
        }
    }

    /// A broker's copy goes and comes back; then the leader dies.
    fn away_and_back(&mut self) -> Vec<Timed> {
        let (place, broker) = (self.place(), self.broker());
        let stays = (1..=self.brokers).find(|other| *other != broker).unwrap_or(1);
        let other = if self.chance(0.5) { stays } else { stays % self.brokers + 1 };
        let other = if other == broker { stays } else { other };
        let (away, back) = (self.replicas_without(broker), self.replicas_without(other));
        let (returns, dies) = (self.between(50, 2_500), self.between(50, 2_000));
        let strike = self.pick(&[Strike::Kill, Strike::PowerOff, Strike::Pause, Strike::Drain], Strike::Kill);
        vec![
            at(0, 0, What::Reassign { place, replicas: away }),
            at(returns, 0, What::Reassign { place, replicas: back }),
            at(returns + dies, self.between(500, 6_000), What::ToLeader { place, strike }),
        ]
    }

    /// `min.insync.replicas` changes while brokers come and go.
    fn another_minimum(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        let (place, strike) = (self.place(), self.pick(&[Strike::Kill, Strike::Isolate, Strike::Expire], Strike::Kill));
        vec![
            at(0, self.between(2_000, 6_000), What::Kill { host: broker_name(one) }),
            at(self.between(0, 1_000), 0, self.min_insync()),
            at(self.between(500, 2_000), self.between(500, 4_000), What::ToLeader { place, strike }),
            at(self.between(1_000, 3_000), 0, self.min_insync()),
            at(self.between(2_000, 4_000), self.between(200, 2_000), What::SlowDisk { broker: other, ms: 200 }),
        ]
    }

    /// No room on several disks, on the leader's first.
    fn full_disks(&mut self) -> Vec<Timed> {
        let (place, broker) = (self.place(), self.broker());
        let registry = self.pick(&[Strike::NoRegistry, Strike::Expire, Strike::SlowDisk], Strike::Expire);
        vec![
            at(0, self.between(1_000, 9_000), What::ToLeader { place, strike: Strike::FullDisk }),
            at(self.between(0, 1_500), self.between(500, 6_000), What::FullDisk { broker }),
            at(self.between(0, 2_000), self.between(100, 2_000), What::ToLeader { place, strike: registry }),
            at(self.between(2_000, 4_000), 0, What::ToLeader { place, strike: Strike::RefuseAppend }),
        ]
    }

    /// A broker is stopped well while others cannot take over at once.
    fn drained(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        let (place, percent) = (self.place(), self.rng.random_range(20..=70));
        let mut scene = vec![
            at(200, 0, What::Drain { broker: one }),
            at(0, self.between(300, 4_000), What::SlowDisk { broker: other, ms: 150 + 50 * u64::from(other) }),
            at(self.between(0, 400), 0, What::ToLeader { place, strike: Strike::Drain }),
        ];
        if self.chance(0.5) {
            scene.push(at(0, self.between(500, 3_000), What::LoseAnswers { host: broker_name(one), percent }));
        }
        if self.chance(0.3) {
            scene.push(at(self.between(0, 500), self.between(500, 3_000), What::FullDisk { broker: other }));
        }
        scene
    }

    /// Writes to the registry of unknown outcome, at the moment at which they are needed.
    fn answers_lost(&mut self) -> Vec<Timed> {
        let (one, lasts) = (self.broker(), self.between(1_000, 8_000));
        let place = self.place();
        let mut scene = Vec::new();
        for broker in (1..=self.brokers).filter(|broker| *broker != one) {
            let percent = self.rng.random_range(20..=80);
            scene.push(at(0, lasts, What::LoseAnswers { host: broker_name(broker), percent }));
        }
        scene.push(at(300, self.between(500, 4_000), What::Kill { host: broker_name(one) }));
        scene.push(at(self.between(500, 3_000), 0, What::ToLeader { place, strike: Strike::Expire }));
        scene
    }

    /// Every broker reads what was, while the leader changes.
    fn late_readings(&mut self) -> Vec<Timed> {
        let place = self.place();
        let mut scene = Vec::new();
        for broker in 1..=self.brokers {
            if self.chance(0.7) {
                let lasts = self.between(500, 6_000);
                scene.push(at(self.below(500), lasts, What::Lag { host: broker_name(broker) }));
            }
        }
        let strike = self.pick(&[Strike::Kill, Strike::PowerOff, Strike::Expire, Strike::Isolate], Strike::Kill);
        scene.push(at(self.between(300, 1_500), self.between(300, 3_000), What::ToLeader { place, strike }));
        scene.push(at(self.between(1_500, 4_000), 300, What::ToLeader { place, strike: Strike::Kill }));
        let (one, other) = self.two_brokers();
        let (a, b) = (broker_name(one), broker_name(other));
        scene.push(at(self.between(0, 2_000), self.between(100, 2_500), What::Partition { a, b }));
        scene.push(at(self.between(0, 3_000), 0, What::ToLeader { place, strike: Strike::Expire }));
        scene
    }

    /// Frames are lost in one direction for longer than anybody waits for them.
    fn deaf_in_one_direction(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        let lasts = self.between(6_000, 18_000);
        let mut scene = vec![at(0, lasts, What::OneWay { from: broker_name(one), to: broker_name(other) })];
        if self.chance(0.5) {
            let third = self.broker();
            if third != one {
                let to = broker_name(third);
                scene.push(at(self.below(2_000), lasts, What::OneWay { from: broker_name(one), to }));
            }
        }
        scene
    }

    /// All sessions end at once, as after a long outage of the registry.
    fn sessions_end_together(&mut self) -> Vec<Timed> {
        let (silent, place) = (self.broker(), self.place());
        let mut scene: Vec<Timed> =
            (1..=self.brokers).map(|b| at(self.below(50), 0, What::Expire { host: broker_name(b) })).collect();
        let outage = if self.chance(0.5) { What::NoQuorum } else { What::Pause { host: broker_name(silent) } };
        scene.push(at(0, self.between(200, 6_000), outage));
        scene.push(at(self.between(50, 3_000), 500, What::ToLeader { place, strike: Strike::Kill }));
        scene
    }

    /// Each leader dies as soon as it has begun, so that the copies tell of several epochs.
    fn leaders_one_after_the_other(&mut self) -> Vec<Timed> {
        let (place, slow, all) = (self.place(), self.broker(), self.chance(0.5));
        let (mut when, mut scene) = (0, Vec::new());
        for broker in (1..=self.brokers).filter(|broker| all || *broker == slow) {
            scene.push(at(0, 6_000, What::SlowDisk { broker, ms: self.between(50, 500) }));
        }
        for _ in 0..self.between(2, 5) {
            let strike = self.pick(&[Strike::Kill, Strike::PowerOff, Strike::Isolate, Strike::Pause], Strike::Kill);
            scene.push(at(when, self.between(500, 3_000), What::ToLeader { place, strike }));
            when += self.between(150, 1_200);
        }
        scene
    }

    /// Too few replicas are left, and an operator goes on with one of them.
    fn majority_lost(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        let lasts = self.between(2_000, 8_000);
        let unclean = self.elect_unclean();
        let mut scene = vec![
            at(0, lasts, What::PowerOff { broker: one, torn: 1 }),
            at(self.below(800), lasts, What::PowerOff { broker: other, torn: 0 }),
            at(self.between(1_000, 2_000), 0, unclean),
        ];
        if self.chance(0.5) {
            scene.push(at(self.between(2_000, 3_000), 0, self.elect_unclean()));
        }
        scene
    }

    /// The in-sync replicas shrink to one, which goes away; those that come back lack what it
    /// acknowledged alone, and an operator goes on with one of them. Then it returns.
    fn last_copy_lost(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        let place = Place { topic: Topic::Drafts, partition: self.rng.random_range(0..Topic::Drafts.partitions()) };
        let strike = self.pick(&[Strike::Kill, Strike::PowerOff, Strike::Isolate], Strike::Kill);
        let (left, back) = (self.between(800, 1_500), self.between(5_500, 8_000));
        let mut scene = vec![
            at(0, left + 600, What::Kill { host: broker_name(one) }),
            at(0, left + 700, What::Kill { host: broker_name(other) }),
            at(left, back - left, What::ToLeader { place, strike }),
            at(left + 400, back - left - 400, What::ToLeader { place, strike }),
        ];
        for broker in [one, other] {
            let asked = self.between(2_500, 4_000);
            scene.push(at(asked, 0, What::ElectUnclean { partition: place.partition, broker }));
        }
        if self.chance(0.3) {
            scene.push(at(back - 300, 3_000, What::Lag { host: broker_name(one) }));
            scene.push(at(back + 500, 1_000, What::ToLeader { place, strike: Strike::Kill }));
        }
        scene
    }

    /// A leader that reaches clients only goes on taking records that nobody else has.
    fn cut_off_leader_with_a_tail(&mut self) -> Vec<Timed> {
        let (place, lasts) = (self.place(), self.between(1_000, 9_000));
        let mut scene: Vec<Timed> = Vec::new();
        let (one, other) = self.two_brokers();
        for a in 1..=self.brokers {
            for b in a + 1..=self.brokers {
                if a == one || b == one {
                    let (a, b) = (broker_name(a), broker_name(b));
                    scene.push(at(0, lasts, What::Partition { a, b }));
                }
            }
        }
        scene.push(at(self.between(300, 3_000), 800, What::PowerOff { broker: other, torn: 0 }));
        scene.push(at(self.between(1_000, 3_000), 300, What::ToLeader { place, strike: Strike::Kill }));
        scene
    }

    /// The disk that damages does it to copies that lead, or that are about to.
    fn damaged_while_it_leads(&mut self) -> Vec<Timed> {
        let place = self.place();
        let mut replicas = self.replicas_without(self.brokers);
        replicas.sort_unstable();
        let mut scene = vec![at(0, 0, What::Reassign { place, replicas }), at(500, 0, What::ElectPreferred { place })];
        for _ in 0..4 {
            let batch = self.rng.random_range(0..10_000);
            scene.push(at(self.between(600, 2_500), self.between(2_000, 8_000), What::BitRot { broker: 1, batch }));
        }
        if self.chance(0.5) {
            scene.push(at(self.between(1_000, 4_000), 500, What::ToLeader { place, strike: Strike::Kill }));
        }
        scene
    }

    /// A disk is so slow that what is sent to it piles up.
    fn follower_cannot_keep_up(&mut self) -> Vec<Timed> {
        let (one, other) = self.two_brokers();
        vec![
            at(0, self.between(4_000, 9_000), What::SlowDisk { broker: one, ms: self.between(400, 3_000) }),
            at(self.below(3_000), self.between(50, 800), What::Overloaded { broker: other }),
            at(self.below(5_000), self.between(200, 3_000), What::Pause { host: broker_name(other) }),
        ]
    }

    /// The operator goes on with a copy that was cut off, and that has not all of what the
    /// others acknowledged.
    fn unclean_while_cut_off(&mut self) -> Vec<Timed> {
        let (chosen, partition) = (self.broker(), self.rng.random_range(0..Topic::Drafts.partitions()));
        let place = Place { topic: Topic::Drafts, partition };
        let mut scene = Vec::new();
        for other in (1..=self.brokers).filter(|other| *other != chosen) {
            let (a, b) = (broker_name(chosen), broker_name(other));
            scene.push(at(0, 4_000, What::Partition { a, b }));
        }
        scene.push(at(self.between(1_500, 4_500), 0, What::ElectUnclean { partition, broker: chosen }));
        scene.push(at(self.between(2_500, 6_000), 500, What::ToLeader { place, strike: Strike::Kill }));
        scene
    }
}
