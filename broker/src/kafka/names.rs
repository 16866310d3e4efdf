//! Topic ids and names as Kafka has them.

use baton_core::TopicId;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::service::KafkaService;

/// A topic of the request: the newer versions name it by its id only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedTopic {
    pub(super) name: String,
}

impl KafkaService {
    /// Kafka's topic ids have 128 bits: the cluster's first 96, so that topics of two clusters
    /// differ, and the topic's own 32.
    pub(super) fn topic_uuid(&self, id: TopicId) -> Uuid {
        topic_uuid(&self.parts.cluster, id)
    }

    /// The name of the topic with this id; none if there is none.
    pub(super) fn topic_by_uuid(&self, uuid: Uuid) -> Option<NamedTopic> {
        let id = topic_id(&self.parts.cluster, uuid)?;
        let topic = self.parts.view.topic_by_id(id).filter(|topic| !topic.deleting)?;
        Some(NamedTopic { name: topic.name.to_string() })
    }
}

fn topic_uuid(cluster: &str, id: TopicId) -> Uuid {
    let cluster = Uuid::parse_str(cluster).unwrap_or(Uuid::max()).as_u128();
    Uuid::from_u128((cluster & !u128::from(u32::MAX)) | u128::from(id.0))
}

fn topic_id(cluster: &str, uuid: Uuid) -> Option<TopicId> {
    let id = TopicId(u32::try_from(uuid.as_u128() & u128::from(u32::MAX)).ok()?);
    (topic_uuid(cluster, id) == uuid).then_some(id)
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        let cluster = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let uuid = topic_uuid(cluster, TopicId(0x2a));
        assert_eq!(uuid.to_string(), "67e55044-10b1-426f-9247-bb680000002a");
        assert_eq!(topic_id(cluster, uuid), Some(TopicId(0x2a)));
        assert_eq!(topic_id(cluster, Uuid::nil()), None);
        assert_eq!(topic_id("another", uuid), None);
    }
}
