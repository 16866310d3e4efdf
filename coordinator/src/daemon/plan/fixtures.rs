//! Small clusters for the tests of plans.

use baton_core::partition::{Assignment, LeaderId, PartitionState, VersionedState};
use baton_core::placement::PlacementLimits;
use baton_core::{BrokerId, CandidateSeq, DiskId, Epoch, Generation, Incarnation, Member, TopicId, TopicPartition};
use baton_registry::recipes::membership::LiveBroker;
use baton_registry::recipes::topics::Topic;
use baton_registry::znode::{BrokerRegistration, FeatureRange, TopicNode};

use super::Snapshot;
use super::create::TopicLimits;

pub const LIMITS: TopicLimits =
    TopicLimits { partitions_max: 2_000, placement: PlacementLimits { copies_per_broker_max: 5_000 } };

pub fn disk(broker: u32) -> DiskId {
    DiskId(0xd000 + u128::from(broker))
}

pub fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), disk: disk(broker), generation: Generation(0) }
}

pub fn ids(brokers: &[u32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

pub fn live_broker(broker: u32) -> LiveBroker {
    let registration = BrokerRegistration {
        disk: disk(broker),
        incarnation: Incarnation(u64::from(broker)),
        features: FeatureRange { min: 1, max: 1 },
        draining: false,
        rack: None,
        endpoints: Vec::new(),
    };
    LiveBroker { registration, version: 0, czxid: 1 }
}

/// Brokers 1 to `live`, without topics.
pub fn snapshot(live: u32) -> Snapshot {
    let brokers = (1..=live).map(|id| (BrokerId(id), live_broker(id))).collect();
    Snapshot { brokers, brokers_read: true, topics_read: true, ..Snapshot::default() }
}

/// Led by the first replica, all in sync.
pub fn settled(replicas: &[u32]) -> PartitionState {
    let leader = replicas.first().map(|broker| LeaderId {
        broker: BrokerId(*broker),
        disk: disk(*broker),
        incarnation: Incarnation(u64::from(*broker)),
        candidate: CandidateSeq(0),
    });
    PartitionState {
        leader,
        hint: None,
        epoch: Epoch(1),
        isr: replicas.iter().copied().map(member).collect(),
        assignment: Assignment { replicas: ids(replicas), adding: Vec::new(), removing: Vec::new() },
        last_unclean_epoch: Epoch(0),
    }
}

pub fn add_topic(snapshot: &mut Snapshot, id: u32, name: &str, partitions: &[&[u32]]) {
    let node = TopicNode {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        partitions: partitions.len() as u32,
        ..TopicNode::default()
    };
    let id = TopicId(id);
    snapshot.topics.insert(id, Topic { id, node, version: 0 });
    for (partition, replicas) in (0..).zip(partitions) {
        let state = VersionedState { state: settled(replicas), version: 1 };
        snapshot.states.insert(TopicPartition { topic: id, partition }, state);
    }
}
