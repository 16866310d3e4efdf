//! Makes the topic of groups, or that of transactions, when it is first needed, as any topic is
//! made: the coordinator of the cluster places its partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::topic::ConfigKey;
use baton_core::{Error, ErrorCode};
use baton_proto::v1;
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::coordinator::CoordinatorLink;

/// A batch has one group with all that its members say, or many offsets.
const BATCH_BYTES_MAX: &str = "10485760";

/// What the topic is configured with, as far as this version knows the keys.
const CONFIG: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("max.message.bytes", BATCH_BYTES_MAX)];

/// One attempt takes at most so long.
const WITHIN: Duration = Duration::from_secs(10);

/// After an attempt that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

pub(crate) struct Creation {
    pub(crate) topic: &'static str,
    pub(crate) view: ClusterView,
    pub(crate) coordinator: Arc<CoordinatorLink>,
    pub(crate) partitions: u32,
    /// Somebody asked for a coordinator while there was no topic.
    pub(crate) wanted: watch::Receiver<u64>,
}

impl Creation {
    /// Ends with the senders of `wanted`.
    pub(crate) async fn run(mut self) {
        while self.wanted.changed().await.is_ok() {
            if self.view.topic(self.topic).is_some() {
                continue;
            }
            match tokio::time::timeout(WITHIN, self.create()).await {
                Ok(Ok(())) => {
                    tracing::info!(topic = self.topic, partitions = self.partitions, "made a topic of coordinators")
                }
                Ok(Err(error)) if error.code == ErrorCode::TopicExists => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, topic = self.topic, "a topic of coordinators cannot be made yet")
                }
                Err(_) => {
                    self.coordinator.forget().await;
                    tracing::warn!(topic = self.topic, "a topic of coordinators was not made in time");
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn create(&self) -> Result<(), Error> {
        let known = CONFIG.iter().filter(|(key, _)| ConfigKey::find(key).is_some());
        let config: HashMap<_, _> = known.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = v1::CreateTopicRequest {
            name: self.topic.to_owned(),
            partitions: Some(self.partitions),
            config,
            timeout_ms: u32::try_from(WITHIN.as_millis()).unwrap_or(u32::MAX),
            who: "coordinators".to_owned(),
            internal: true,
            ..v1::CreateTopicRequest::default()
        };
        let mut client = self.coordinator.client().await?;
        match client.create_topic(request).await {
            Ok(reply) => reply.into_inner().error.map_or(Ok(()), |error| Err((&error).into())),
            Err(status) => {
                self.coordinator.forget().await;
                Err(Error::new(ErrorCode::FencedCoordinator, status.message()))
            }
        }
    }
}
