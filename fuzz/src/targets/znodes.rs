//! What is in ZooKeeper: anybody can write there.

use std::fmt::Debug;

use baton_core::partition::PartitionState;
use baton_registry::znode::{
    Absence, BrokerClaim, BrokerRegistration, Candidate, ClusterIdentity, CoordinatorCandidate, CoordinatorTerm,
    ProducerIdBlocks, Tombstone, TopicIds, TopicLink, TopicNode, Znode, broker, candidate, partition, topic,
};

/// The first byte says which znode it is to be.
pub fn znodes(input: &[u8]) {
    let Some((kind, data)) = input.split_first() else { return };
    match kind % 14 {
        0 => read::<Absence>(data),
        1 => read::<BrokerClaim>(data),
        2 => read::<BrokerRegistration>(data),
        3 => read::<Candidate>(data),
        4 => read::<ClusterIdentity>(data),
        5 => read::<CoordinatorCandidate>(data),
        6 => read::<CoordinatorTerm>(data),
        7 => read::<PartitionState>(data),
        8 => read::<ProducerIdBlocks>(data),
        9 => read::<Tombstone>(data),
        10 => read::<TopicIds>(data),
        11 => read::<TopicLink>(data),
        12 => read::<TopicNode>(data),
        _ => paths(data),
    }
}

/// What was read is written in a way that reads the same.
fn read<Z: Znode + PartialEq + Debug>(data: &[u8]) {
    let Ok(value) = Z::decode(data) else { return };
    assert_eq!(Z::decode(&value.encode()), Ok(value));
}

fn paths(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let _ = (broker::broker_of(&path), candidate::sequence_of(&path), topic::topic_of(&path));
    if let Some(id) = partition::partition_of(&path) {
        // Also for what is below a partition.
        assert!(path.starts_with(&partition::path(id)), "{path} is of {id}");
    }
}
