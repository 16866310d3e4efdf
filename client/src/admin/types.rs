//! What administrators ask and are told.

use std::{collections::BTreeMap, time::Duration};

use baton_core::{BrokerId, Epoch, Offset};
use baton_proto::v1;

use crate::net;

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    pub name: String,
    /// One if it is absent.
    pub partitions: Option<u32>,
    /// Three, or as many as there are brokers, if it is absent.
    pub replication: Option<u32>,
    /// Kafka's keys.
    pub config: BTreeMap<String, String>,
    /// Instead of the two counts: which brokers hold each partition.
    pub assignment: Vec<Vec<BrokerId>>,
    /// Answered when every partition is led, or after this time.
    pub timeout: Duration,
    /// Checks only.
    pub validate_only: bool,
}

impl TopicSpec {
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication: None,
            config: BTreeMap::new(),
            assignment: Vec::new(),
            timeout: Duration::from_secs(30),
            validate_only: false,
        }
    }

    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    #[must_use]
    pub fn replication(mut self, replication: u32) -> Self {
        self.replication = Some(replication);
        self
    }

    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    pub name: String,
    /// Eight hex digits, never reused.
    pub id: String,
    pub partitions: u32,
    pub replication: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: String,
    pub id: String,
    pub internal: bool,
    /// Sorted.
    pub partitions: Vec<PartitionDescription>,
    /// What differs from the defaults.
    pub config: BTreeMap<String, String>,
}

impl TopicDescription {
    /// The most replicas that a partition has.
    #[must_use]
    pub fn replication(&self) -> usize {
        self.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    pub partition: u32,
    pub leader: Option<BrokerId>,
    pub epoch: Epoch,
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    /// The end of what readers may see; none: the leader did not answer, or was not asked.
    pub high_watermark: Option<Offset>,
    /// The first record that is still there; none as above.
    pub log_start: Option<Offset>,
}

/// Which moment's offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first record that is still there.
    Start,
    /// The end of what readers may see.
    End,
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    pub cluster_id: String,
    pub brokers: Vec<BrokerStatus>,
    pub coordinator: Option<CoordinatorStatus>,
    /// Whether the broker that answered is connected to ZooKeeper.
    pub registry_connected: bool,
    pub topics: u32,
    pub partitions: u32,
    /// The first 1,000.
    pub problems: Vec<PartitionProblem>,
    pub problems_total: u32,
}

impl ClusterStatus {
    /// Nothing needs an operator: all brokers are there, a coordinator works, and every
    /// partition has its replicas.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.registry_connected
            && self.coordinator.is_some()
            && self.problems_total == 0
            && self.brokers.iter().all(|broker| broker.state == "live")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    pub id: BrokerId,
    /// `live`, `draining` or `absent`.
    pub state: String,
    pub rack: String,
    pub endpoints: Vec<Endpoint>,
    pub leads: u32,
    pub replicas: u32,
    pub absent_since_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub listener: String,
    /// `grpc`, `peer`, `http` or `kafka`.
    pub protocol: String,
    /// `host:port`.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorStatus {
    pub endpoint: String,
    pub epoch: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProblem {
    pub topic: String,
    pub partition: u32,
    /// `no_leader`, `under_replicated` or `below_min_isr`.
    pub problem: String,
}

/// One line of the cluster's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub offset: i64,
    pub time_ms: i64,
    /// `broker_gone`, `leader_moved`, `isr_changed`, `reassigned` and so on.
    pub kind: String,
    pub topic: Option<String>,
    pub partition: Option<u32>,
    pub broker: Option<BrokerId>,
    pub epoch: Option<Epoch>,
    pub seen: String,
    pub decided: String,
    pub result: String,
    /// Who asked: `detector`, `coordinator`, or a principal.
    pub who: String,
}

fn brokers(ids: &[u32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

impl From<v1::TopicInfo> for TopicDescription {
    fn from(wire: v1::TopicInfo) -> Self {
        let mut partitions: Vec<_> = wire.partitions.into_iter().map(PartitionDescription::from).collect();
        partitions.sort_by_key(|partition| partition.partition);
        let config = wire.config.into_iter().collect();
        Self { name: wire.name, id: wire.id, internal: wire.internal, partitions, config }
    }
}

impl From<v1::PartitionInfo> for PartitionDescription {
    fn from(wire: v1::PartitionInfo) -> Self {
        Self {
            partition: wire.partition,
            leader: wire.leader.map(BrokerId),
            epoch: Epoch(wire.epoch),
            isr: brokers(&wire.isr),
            replicas: brokers(&wire.replicas),
            adding: brokers(&wire.adding),
            removing: brokers(&wire.removing),
            high_watermark: None,
            log_start: None,
        }
    }
}

impl From<v1::ClusterStatusResponse> for ClusterStatus {
    fn from(wire: v1::ClusterStatusResponse) -> Self {
        let mut brokers: Vec<_> = wire.brokers.into_iter().map(BrokerStatus::from).collect();
        brokers.sort_by_key(|broker| broker.id);
        let problem =
            |p: v1::PartitionProblem| PartitionProblem { topic: p.topic, partition: p.partition, problem: p.problem };
        Self {
            cluster_id: wire.cluster_id,
            brokers,
            coordinator: wire.coordinator.map(|c| CoordinatorStatus { endpoint: c.endpoint, epoch: c.epoch }),
            registry_connected: wire.registry_connected,
            topics: wire.topics,
            partitions: wire.partitions,
            problems: wire.problems.into_iter().map(problem).collect(),
            problems_total: wire.problems_total,
        }
    }
}

impl From<v1::BrokerStatus> for BrokerStatus {
    fn from(wire: v1::BrokerStatus) -> Self {
        let endpoint = |e: v1::Endpoint| Endpoint {
            listener: e.listener,
            protocol: e.protocol,
            address: net::address(&e.host, e.port),
        };
        Self {
            id: BrokerId(wire.id),
            state: wire.state,
            rack: wire.rack,
            endpoints: wire.endpoints.into_iter().map(endpoint).collect(),
            leads: wire.leads,
            replicas: wire.replicas,
            absent_since_ms: wire.absent_since_ms,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(wire: v1::Event) -> Self {
        Self {
            offset: wire.offset,
            time_ms: wire.time_ms,
            kind: wire.kind,
            topic: (!wire.topic.is_empty()).then_some(wire.topic),
            partition: wire.partition,
            broker: wire.broker.map(BrokerId),
            epoch: wire.epoch.map(Epoch),
            seen: wire.seen,
            decided: wire.decided,
            result: wire.result,
            who: wire.who,
        }
    }
}
