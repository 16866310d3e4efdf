//! DescribeLogDirs: how much room the copies on this broker take (KIP-113). There is one data
//! directory, and copies do not move between directories.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::Error;
use futures::StreamExt;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::names::{text, topic_name};
use super::service::Call;
use crate::authorizer::{Resource, Verb};
use crate::serving::PARTITIONS_MAX;
use crate::shard::{PartitionHandle, ShardInput};

/// The first version in which the whole request can fail.
const TELLS_ERROR: i16 = 3;

/// Copies that are measured at once: the log reads through each of them.
const AT_ONCE: usize = 8;

pub(super) async fn serve(call: &Call, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let response = DescribeLogDirsResponse::default();
    if let Err(error) = call.authorize(Verb::Describe, Resource::Cluster) {
        let code = if call.version >= TELLS_ERROR { error.code.kafka() } else { 0 };
        return response.with_error_code(code);
    }
    let asked: Option<BTreeSet<(String, i32)>> = request.topics.map(|topics| {
        let of = |topic: kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic| {
            let name = topic.topic.to_string();
            topic.partitions.into_iter().map(move |number| (name.clone(), number))
        };
        topics.into_iter().flat_map(of).collect()
    });
    let wanted = |handle: &PartitionHandle| {
        asked.as_ref().is_none_or(|asked| asked.contains(&(handle.topic.to_string(), number(handle))))
    };
    let copies: Vec<PartitionHandle> = call.parts().partitions.all().into_iter().filter(wanted).collect();
    let measured = futures::stream::iter(copies.into_iter().take(PARTITIONS_MAX).map(|copy| measure(call, copy)));
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (topic, partition) in measured.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().flatten() {
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(name, partitions): (String, _)| {
        DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(text(&call.parts().dir.to_string_lossy()))
        .with_topics(topics.into_iter().map(topic).collect());
    if call.version >= 4 {
        let usable = i64::try_from(call.parts().log.usage().free_bytes).unwrap_or(i64::MAX);
        result = result.with_usable_bytes(usable);
    }
    response.with_results(vec![result])
}

fn number(handle: &PartitionHandle) -> i32 {
    i32::try_from(handle.id.partition).unwrap_or(i32::MAX)
}

/// None for a copy that is not there any more, or that cannot be measured in time.
async fn measure(call: &Call, copy: PartitionHandle) -> Option<(String, DescribeLogDirsPartition)> {
    let (reply, answer) = oneshot::channel();
    call.parts().shards.tell(copy.id, ShardInput::Measure { id: copy.id, reply }).await;
    let measured: Result<u64, Error> = timeout_at(call.context.deadline, answer).await.ok()?.ok()?;
    let bytes = measured.ok()?;
    let status = copy.status.now();
    // A leader has nothing to catch up with.
    let lag = match status.leads() {
        true => 0,
        false => status.high_watermark.0.saturating_sub(status.log_end.0),
    };
    let partition = DescribeLogDirsPartition::default()
        .with_partition_index(number(&copy))
        .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
        .with_offset_lag(i64::try_from(lag).unwrap_or(i64::MAX));
    Some((copy.topic.to_string(), partition))
}
