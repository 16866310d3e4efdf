//! Deleting the oldest records of a partition.

use std::time::Duration;

use baton_core::{Error, ErrorCode, Offset, TopicPartition};
use tokio::sync::oneshot;

use crate::shard::{ShardInput, Shards};

/// Gives up what lies below `before`, or below the high watermark. Answers with where the
/// partition begins once every in-sync replica has given it up.
///
/// # Errors
/// The partition's own, or `REQUEST_TIMED_OUT`: the leader goes on then.
pub async fn delete_records(
    shards: &Shards,
    id: TopicPartition,
    before: Option<Offset>,
    within: Duration,
) -> Result<Offset, Error> {
    let (reply, answer) = oneshot::channel();
    shards.tell(id, ShardInput::DeleteRecords { id, before, reply }).await;
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Error::new(ErrorCode::ShuttingDown, "this broker is stopping")),
        Err(_) => {
            let cause = "not every in-sync replica has deleted the records yet; the leader goes on";
            Err(Error::new(ErrorCode::RequestTimedOut, cause))
        }
    }
}
