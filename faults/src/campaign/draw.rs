//! Which faults a round has: drawn from the campaign's seed and the round's number alone.

use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// `kill -9` of a broker
    KillBroker,
    /// `SIGSTOP` of a broker
    StopBroker,
    /// `SIGTERM` of a broker
    TermBroker,
    /// `kill -9` of all brokers at once
    KillAll,
    /// `SIGTERM` of each broker in turn
    RollingRestart,
    /// A broker restarted on an empty disk with its old id
    EmptyDisk,
    /// `kill -9` of the active coordinator
    KillCoordinator,
    /// `SIGSTOP` of the active coordinator
    StopCoordinator,
    /// `kill -9` of a ZooKeeper server
    KillZookeeper,
    /// `kill -9` of the leader of the ensemble
    KillZookeeperLeader,
    /// `SIGSTOP` of a ZooKeeper server
    StopZookeeper,
    /// `kill -9` of two of three ZooKeeper servers
    QuorumLost,
    /// Two brokers do not hear each other
    CutBrokers,
    /// One broker does not hear another, which hears it
    CutBrokersOneWay,
    /// A broker hears no other broker, and none hears it
    IsolateBroker,
    /// A broker hears no other broker, or none hears it
    IsolateBrokerOneWay,
    /// A broker is cut off from ZooKeeper
    CutZookeeper,
    /// The same in one direction
    CutZookeeperOneWay,
    /// The clients are cut off from a broker
    CutClients,
    /// The same in one direction
    CutClientsOneWay,
    /// A coordinator is cut off from ZooKeeper
    CutCoordinator,
    /// A broker is cut off from everything
    UnplugBroker,
    /// A host loses 5 to 30 % of its packets
    Loss,
    /// A broker's links to the others are slow and narrow
    SlowBroker,
    /// A broker's link to ZooKeeper is slow
    SlowZookeeper,
    /// The clients' links to a broker are slow and narrow
    SlowClients,
    /// A broker's connections stay open and nothing comes through
    HalfOpen,
    /// A broker's disk is filled to below its reserve
    DiskReserve,
    /// A broker's disk is filled to the last byte
    DiskFull,
    /// The wall clock of a broker or a coordinator is moved
    ClockJump,
    /// A broker can open no more files
    FilesExhausted,
    /// Topics are created and deleted
    Topics,
    /// Partitions under load are moved to other brokers
    Reassign,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether a broker may stop by itself: its storage fails, and it must not go on.
    #[must_use]
    pub fn may_end_a_broker(self) -> bool {
        matches!(self, Self::DiskFull | Self::FilesExhausted)
    }

    /// What takes its own time, and leaves no room for a second fault of a drawn length.
    fn long(self) -> bool {
        matches!(self, Self::RollingRestart)
    }
}

/// A fault with everything that is drawn about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    pub kind: Kind,
    /// Two different brokers, from 1.
    pub brokers: [u32; 2],
    /// A ZooKeeper server, from 0.
    pub zookeeper: usize,
    /// Which direction of those that have one.
    pub outbound: bool,
    /// Percent, or whatever else the kind counts: 0 to 99.
    pub amount: u32,
    /// When it begins, from the beginning of the round's faults.
    pub after: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

/// What a round consists of, in the order in which the faults begin.
#[must_use]
pub fn round(seed: u64, round: u64, brokers: u32, only: &[Kind]) -> Vec<Drawn> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round);
    let kinds = if only.is_empty() { Kind::value_variants() } else { only };
    // Every kind has its turn as the first one; the second is any.
    let mut order: Vec<Kind> = kinds.to_vec();
    let lap = round / order.len() as u64;
    order.shuffle(&mut StdRng::seed_from_u64(seed ^ lap.wrapping_mul(0xd134_2543_de82_ef95)));
    let turn = usize::try_from(round % order.len() as u64).unwrap_or(0);
    let first = draw(&mut random, order[turn], brokers);
    let mut drawn = vec![first];
    if random.random_bool(0.6)
        && let Some(kind) = kinds.choose(&mut random)
        && *kind != drawn[0].kind
    {
        let mut second = draw(&mut random, *kind, brokers);
        // Some begin together, most while the first one lasts, some right after its end.
        second.after = match random.random_range(0..10) {
            0..3 => Duration::ZERO,
            3..9 => drawn[0].lasts.mul_f64(random.random_range(0.1..0.9)),
            _ => drawn[0].lasts + Duration::from_millis(random.random_range(0..500)),
        };
        drawn.push(second);
    }
    drawn
}

fn draw(random: &mut StdRng, kind: Kind, brokers: u32) -> Drawn {
    let first = random.random_range(0..brokers);
    let second = (first + random.random_range(1..brokers.max(2))) % brokers;
    let lasts_ms = match random.random_range(0..100) {
        0..70 => random.random_range(300..2_500),
        70..95 => random.random_range(2_500..6_000),
        // Longer than ZooKeeper's session, and than what a broker forgives a follower.
        95..99 => random.random_range(6_000..12_000),
        _ => random.random_range(12_000..30_000),
    };
    Drawn {
        kind,
        brokers: [first + 1, second + 1],
        zookeeper: random.random_range(0..3),
        outbound: random.random(),
        amount: random.random_range(0..100),
        after: Duration::ZERO,
        lasts: Duration::from_millis(if kind.long() { 0 } else { lasts_ms }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_round_depends_on_its_seed_and_number_alone() {
        for number in 0..200 {
            assert_eq!(round(7, number, 4, &[]), round(7, number, 4, &[]));
        }
        assert_ne!(round(7, 1, 4, &[]), round(8, 1, 4, &[]));
    }

    #[test]
    fn every_kind_has_its_turn() {
        let all = Kind::value_variants().len();
        let seen: BTreeSet<Kind> = (0..all as u64).map(|number| round(3, number, 4, &[])[0].kind).collect();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn faults_are_short_enough_on_average_and_name_brokers_that_exist() {
        let drawn: Vec<Drawn> = (0..2_000).flat_map(|number| round(1, number, 3, &[])).collect();
        let mean = drawn.iter().map(|fault| fault.lasts).sum::<Duration>() / u32::try_from(drawn.len()).unwrap();
        assert!(mean < Duration::from_millis(3_500), "{mean:?}");
        assert!(drawn.iter().all(|fault| fault.brokers[0] != fault.brokers[1]));
        assert!(drawn.iter().flat_map(|fault| fault.brokers).all(|id| (1..=3).contains(&id)));
    }
}
