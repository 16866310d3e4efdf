//! One file per znode: where it lives, who writes it, and its bytes.
//!
//! ```text
//! /cluster                    [`cluster`]       who this cluster is
//! /broker-ids/{id}            [`broker_id`]     ephemeral: the claim of a broker id
//! /brokers/{id}               [`broker`]        ephemeral: how to reach a live broker
//! /absent/{id}                [`absent`]        since when a broker is away
//! /coordinator/c-N            [`coordinator`]   ephemeral sequential: who would coordinate
//! /coordinator/epoch          [`coordinator`]   who does, and the fence of its writes
//! /topics/{namespace}:{name}  [`topic`]         name → id
//! /t                          [`topic`]         the next topic id
//! /t/{id}                     [`topic`]         a topic, and what is being done to it
//! /deleted/{id}               [`tombstone`]     a deleted topic, until its data is gone
//! /p/{id}/{n}                 [`partition`]     a partition's state: the authority
//! /p/{id}/{n}/c-N             [`candidate`]     ephemeral sequential: who could lead it
//! /producer-ids               [`producer_ids`]  the next block of producer ids
//! ```

pub mod absent;
pub mod broker;
pub mod broker_id;
pub mod candidate;
pub mod cluster;
pub mod codec;
pub mod coordinator;
pub mod partition;
pub mod producer_ids;
pub mod tombstone;
pub mod topic;

pub use absent::Absence;
pub use broker::{BrokerRegistration, Endpoint, FeatureRange};
pub use broker_id::BrokerClaim;
pub use candidate::Candidate;
pub use cluster::ClusterIdentity;
pub use codec::{Znode, ZnodeError};
pub use coordinator::{CoordinatorCandidate, CoordinatorTerm};
pub use producer_ids::ProducerIdBlocks;
pub use tombstone::Tombstone;
pub use topic::{Intent, PlannedPartition, TopicIds, TopicLink, TopicNode};
