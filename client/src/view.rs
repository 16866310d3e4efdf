//! What the client knows about the cluster. It only ever learns: an answer with a lower leader
//! epoch than the one that is known comes from a broker that lags, and changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use baton_core::{BrokerId, Epoch, Error};
use baton_proto::v1;

use crate::net;

/// Who leads a partition, and since which epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub broker: Option<BrokerId>,
    pub epoch: Epoch,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Topic {
    pub id: String,
    pub partitions: Vec<Leadership>,
    pub compacted: bool,
}

/// A leader that is another one than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub topic: Arc<str>,
    pub partition: u32,
    pub old: Leadership,
    pub new: Leadership,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub cluster_id: String,
    /// The address of the gRPC listener of every broker that has been seen.
    pub brokers: BTreeMap<BrokerId, String>,
    pub topics: BTreeMap<Arc<str>, Topic>,
}

impl View {
    pub(crate) fn leadership(&self, topic: &str, partition: u32) -> Option<Leadership> {
        self.topics.get(topic)?.partitions.get(partition as usize).copied()
    }

    /// The leader of a partition and its address, if both are known.
    pub(crate) fn leader(&self, topic: &str, partition: u32) -> Option<(BrokerId, Epoch, &str)> {
        let Leadership { broker, epoch } = self.leadership(topic, partition)?;
        let broker = broker?;
        Some((broker, epoch, self.brokers.get(&broker)?))
    }

    /// Takes an answer in. Returns what moved, and the topics that the broker does not know.
    pub(crate) fn merge(&mut self, answer: &v1::MetadataResponse) -> (Vec<Move>, Vec<(String, Error)>) {
        if !answer.cluster_id.is_empty() {
            if !self.cluster_id.is_empty() && self.cluster_id != answer.cluster_id {
                self.topics.clear();
            }
            self.cluster_id.clone_from(&answer.cluster_id);
        }
        for broker in &answer.brokers {
            let grpc = broker.endpoints.iter().find(|endpoint| endpoint.protocol == "grpc");
            if let Some(endpoint) = grpc {
                self.brokers.insert(BrokerId(broker.id), net::address(&endpoint.host, endpoint.port));
            }
        }
        let (mut moves, mut refused) = (Vec::new(), Vec::new());
        for topic in &answer.topics {
            match &topic.error {
                Some(error) => refused.push((topic.name.clone(), Error::from(error))),
                None => self.merge_topic(topic, &mut moves),
            }
        }
        (moves, refused)
    }

    fn merge_topic(&mut self, answer: &v1::TopicInfo, moves: &mut Vec<Move>) {
        let name: Arc<str> = match self.topics.get_key_value(answer.name.as_str()) {
            Some((name, _)) => name.clone(),
            None => answer.name.as_str().into(),
        };
        let topic = self.topics.entry(name.clone()).or_default();
        if topic.id > answer.id {
            // Ids rise: a broker that is behind still shows the topic that had the name before.
            return;
        }
        if topic.id != answer.id {
            *topic = Topic { id: answer.id.clone(), ..Topic::default() };
        }
        topic.compacted = answer.config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
        for info in &answer.partitions {
            // Partitions come sorted and without gaps; anything else is not believed.
            let at = info.partition as usize;
            if at > topic.partitions.len() {
                break;
            }
            if at == topic.partitions.len() {
                topic.partitions.push(Leadership::default());
            }
            let new = Leadership { broker: info.leader.map(BrokerId), epoch: Epoch(info.epoch) };
            moves.extend(learn(&name, info.partition, &mut topic.partitions[at], new));
        }
    }

    /// Takes in what a broker that does not lead says about who does.
    pub(crate) fn hint(&mut self, topic: &str, partition: u32, leader: &v1::Leader) -> Option<Move> {
        let (name, known) = self.topics.get_key_value(topic)?;
        let name = name.clone();
        if known.partitions.get(partition as usize)?.epoch >= Epoch(leader.epoch) {
            return None;
        }
        if !leader.endpoint.is_empty() {
            self.brokers.insert(BrokerId(leader.broker), leader.endpoint.clone());
        }
        let new = Leadership { broker: Some(BrokerId(leader.broker)), epoch: Epoch(leader.epoch) };
        let slot = self.topics.get_mut(topic)?.partitions.get_mut(partition as usize)?;
        learn(&name, partition, slot, new)
    }
}

/// A higher epoch is believed; with the same epoch, that there is a leader.
fn learn(topic: &Arc<str>, partition: u32, slot: &mut Leadership, new: Leadership) -> Option<Move> {
    let old = *slot;
    let better = new.epoch > old.epoch || (new.epoch == old.epoch && old.broker.is_none());
    if !better || new == old {
        return None;
    }
    // A leader that is gone stays known as the one that the next leader takes over from.
    *slot = new;
    Some(Move { topic: topic.clone(), partition, old, new })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(epoch: u32, leader: Option<u32>) -> v1::MetadataResponse {
        let partition = v1::PartitionInfo { partition: 0, leader, epoch, ..Default::default() };
        let topic = v1::TopicInfo {
            name: "t".into(),
            id: "00000001".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        v1::MetadataResponse { topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn an_older_epoch_changes_nothing() {
        let mut view = View::default();
        view.merge(&answer(5, Some(1)));
        let (moves, _) = view.merge(&answer(4, Some(2)));
        assert!(moves.is_empty());
        assert_eq!(view.leadership("t", 0), Some(Leadership { broker: Some(BrokerId(1)), epoch: Epoch(5) }));
        let (moves, _) = view.merge(&answer(6, Some(2)));
        assert_eq!(moves.len(), 1);
        assert_eq!((moves[0].old.broker, moves[0].new.broker), (Some(BrokerId(1)), Some(BrokerId(2))));
    }

    #[test]
    fn with_the_same_epoch_a_leader_is_better_than_none() {
        let mut view = View::default();
        view.merge(&answer(5, None));
        view.merge(&answer(5, Some(1)));
        view.merge(&answer(5, None));
        assert_eq!(view.leadership("t", 0).and_then(|l| l.broker), Some(BrokerId(1)));
    }

    #[test]
    fn a_topic_that_was_created_anew_starts_over() {
        let mut view = View::default();
        view.merge(&answer(5, Some(1)));
        let mut again = answer(1, Some(2));
        again.topics[0].id = "00000002".into();
        view.merge(&again);
        assert_eq!(view.leadership("t", 0), Some(Leadership { broker: Some(BrokerId(2)), epoch: Epoch(1) }));
    }

    #[test]
    fn a_broker_that_is_behind_does_not_bring_a_deleted_topic_back() {
        let mut view = View::default();
        let mut again = answer(1, Some(2));
        again.topics[0].id = "0000000a".into();
        view.merge(&again);
        view.merge(&answer(5, Some(1)));
        let known = Some(Leadership { broker: Some(BrokerId(2)), epoch: Epoch(1) });
        assert_eq!(view.leadership("t", 0), known);
        view.merge(&v1::MetadataResponse { cluster_id: "one".into(), ..answer(5, Some(1)) });
        assert_eq!(view.leadership("t", 0), known);
        view.merge(&v1::MetadataResponse { cluster_id: "another".into(), ..answer(5, Some(1)) });
        assert_eq!(view.leadership("t", 0).map(|known| known.epoch), Some(Epoch(5)), "its ids begin anew");
    }

    #[test]
    fn partitions_with_a_gap_are_not_believed() {
        let mut view = View::default();
        let mut odd = answer(1, Some(1));
        odd.topics[0].partitions[0].partition = 4_000_000_000;
        view.merge(&odd);
        assert_eq!(view.leadership("t", 0), None);
    }

    #[test]
    fn a_hint_of_a_higher_epoch_names_a_leader_that_metadata_did_not() {
        let mut view = View::default();
        view.merge(&answer(5, Some(1)));
        let hint = v1::Leader { broker: 9, endpoint: "nine:7400".into(), epoch: 6 };
        assert!(view.hint("t", 0, &hint).is_some());
        assert_eq!(view.leader("t", 0), Some((BrokerId(9), Epoch(6), "nine:7400")));
        assert!(view.hint("t", 0, &v1::Leader { epoch: 5, ..hint }).is_none());
    }
}
